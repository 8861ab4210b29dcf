"""Deformed images by the compiled kernel, whole and stage by stage, checked against the reference before it is timed.

Each stage runs on what the one before has left; "µs a sample" are those of one core.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import Deform, load_data
from gpubp.backends.cpu.deform import Deformer
from gpubp.backends.cpu.team import Team
from gpubp.kernels.cpu import deforming, entries
from gpubp.randomness.deform import Deformation

SAMPLES = 1000
SETTINGS = {
    "elastic": Deform(alpha=34, sigma=4, rotation=15, scaling=0.15),
    "elastic, every pixel": Deform(alpha=34, sigma=2.5, rotation=15, scaling=0.15),
    "affine": Deform(rotation=15, scaling=0.15),
}


@pytest.fixture(scope="module", params=SETTINGS)
def deformer(request):
    images = load_data("mnist-sample").train.inputs
    deformation = Deformation.of(SETTINGS[request.param], images, (28, 28), 0)
    assert deformation is not None
    made = Deformer(deformation, Team(1))
    order = np.arange(8)
    expected = made.deformation.images(images[order], order, 3)
    np.testing.assert_array_equal(made.images(images, order, 3), expected)
    return request.param, made, images


def test_images(benchmark, deformer):
    name, made, images = deformer
    order = np.random.default_rng(0).permutation(len(images))[:SAMPLES]
    benchmark.group = "images"
    benchmark(made.images, images, order, 3)
    if benchmark.stats:
        benchmark.extra_info |= {"settings": name, "µs a sample": benchmark.stats["min"] / SAMPLES * 1e6}


@pytest.mark.parametrize("stage", range(len(deforming.STAGES)), ids=deforming.STAGES)
def test_stage(benchmark, deformer, stage):
    """On one image again and again."""
    name, made, images = deformer
    tables, memory = made.tables, deforming.lined(made.tables.size)
    memory[tables.image : tables.image + 784] = images[0]
    entries.deform_stage(tables, memory, deforming.ALL, 1)
    benchmark.group = f"stages, {name}"
    benchmark(entries.deform_stage, tables, memory, stage, SAMPLES)
    if benchmark.stats:
        benchmark.extra_info["µs a sample"] = benchmark.stats["min"] / SAMPLES * 1e6
