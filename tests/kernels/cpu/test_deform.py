"""The kernel that deforms images, held to the reference bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gpubp import Deform
from gpubp.backends.cpu.deform import Deformer, tables_of
from gpubp.backends.cpu.team import Team
from gpubp.kernels.cpu import deforming, entries
from gpubp.randomness.deform import Deformation

SHAPES = [(28, 28), (29, 29), (8, 8), (17, 5), (5, 40), (1, 1), (70, 33), (3, 200)]
SETTINGS = [
    Deform(alpha=34, sigma=4),
    Deform(alpha=60, sigma=6, rotation=15, scaling=0.15, shear=0.1, rotation_by_class={1: 7.5, 2: 0}),
    Deform(alpha=400, sigma=5, rotation=90),  # far beyond the image
    Deform(alpha=34, sigma=16),
    Deform(alpha=8, sigma=1),
    Deform(alpha=30, sigma=2.5, scaling=0.5),
    Deform(rotation=180, scaling=0.3, shear=1),
]


def images_of(shape, count, seed=0):
    """Images of which some are black, or but for a part."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    for image in images[::2]:
        for axis, side in enumerate(shape):
            first, last = sorted(rng.integers(0, side + 1, 2))
            image[np.setdiff1d(np.arange(side), np.arange(first, last)) if axis == 0 else slice(None)] *= axis
            image[:, np.setdiff1d(np.arange(side), np.arange(first, last)) if axis else []] = 0
    images[-1] = 0
    return images.reshape(count, -1)


def both(settings, shape, *, count=24, step=77, threads=1, seed=(5 << 40) | 123456789):
    """Of the reference and of the kernel."""
    images, rng = images_of(shape, count), np.random.default_rng(1)
    order, classes = rng.permutation(count), rng.integers(0, 4, count)
    made = Deformation.of(settings, images, shape, seed)
    expected = made.images(images[order], order, step, classes[order])
    return expected, Deformer(made, Team(threads)).images(images, order, step, classes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_kernel_leaves_the_bits_of_the_reference(settings, shape):
    expected, got = both(settings, shape)
    np.testing.assert_array_equal(got, expected)


def test_an_image_that_is_all_there_is_deformed_to_the_same_bits():
    for settings in SETTINGS:
        images = np.random.default_rng(2).integers(1, 256, (8, 784), np.uint8)
        made = Deformation.of(settings, images, (28, 28), 9)
        order = np.arange(8)
        got = Deformer(made, Team(1)).images(images, order, 0)
        np.testing.assert_array_equal(got, made.images(images, order, 0))
        assert (got != images).any()


def test_the_largest_image():
    images = np.random.default_rng(3).integers(0, 256, (2, 1024 * 1024), np.uint8)
    made = Deformation.of(
        Deform(alpha=60, sigma=8, rotation=180, scaling=0.5, shear=1), images, (1024, 1024), 0
    )
    got = Deformer(made, Team(1)).images(images, np.arange(2), 1)
    np.testing.assert_array_equal(got, made.images(images, np.arange(2), 1))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_leaves_the_same_bits(threads):
    expected, got = both(SETTINGS[1], (28, 28), count=101, threads=threads)
    np.testing.assert_array_equal(got, expected)


def test_rows_are_written_where_they_are_asked_for_and_nowhere_else():
    images, order = images_of((9, 11), 20), np.arange(20)[::-1].copy()
    made = Deformation.of(SETTINGS[1], images, (9, 11), 3)
    tables, none = tables_of(made), np.zeros(0, np.int64)
    out, memory = np.full((20, 99), 7, np.uint8), deforming.lined(3 * tables.size)
    source = images.reshape(-1)
    before = source.copy()
    entries.deform_rows(tables, source, order, none, 5, out.reshape(-1), memory, tables.size, 4, 9)
    np.testing.assert_array_equal(out[4:9], made.images(images[order[4:9]], order[4:9], 5))
    assert (out[:4] == 7).all()
    assert (out[9:] == 7).all()
    assert not memory[: tables.size].any()  # of another thread
    assert not memory[2 * tables.size :].any()
    np.testing.assert_array_equal(source, before)


def test_working_memory_that_was_used_before_changes_nothing():
    images = images_of((28, 28), 12)
    for settings in SETTINGS:
        made = Deformation.of(settings, images, (28, 28), 3)
        deformer = Deformer(made, Team(1))
        first = deformer.images(images, np.arange(12), 0)
        zeros = deformer.tables.zero, deformer.tables.quads  # which stay so
        deformer.memory[: zeros[0]] = deformer.memory[zeros[1] :] = 0xFF  # NaN of float32
        np.testing.assert_array_equal(deformer.images(images, np.arange(12), 0), first)


OTHER = {  # of vectors of 32 bytes, and of 16 without x86's products of bytes
    "avx2": ("haswell", "+avx2,+fma,+avx,+sse4.2,+sse4.1,+ssse3,+bmi,+bmi2,+lzcnt,+popcnt"),
    "16 bytes": ("x86-64-v2", "+fma,+avx,+sse4.2,+sse4.1,+ssse3,+popcnt"),
}


@pytest.mark.parametrize("name", OTHER)
def test_vectors_of_other_sizes_leave_the_same_bits(name, tmp_path):
    from gpubp.kernels.cpu import machine

    wanted = set(OTHER[name][1].split(","))
    if not wanted <= set(machine.FEATURES.split(",")):
        pytest.skip("this processor has not what is compiled for")
    program = (
        "from tests.kernels.cpu.test_deform import *\n"
        "for settings in SETTINGS:\n"
        "    for shape in SHAPES[:4]:\n"
        "        np.testing.assert_array_equal(*both(settings, shape))\n"
        "print(deforming.BYTES)"
    )
    cpu, features = OTHER[name]
    given = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "GPUBP_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == (32 if name == "avx2" else 16)
