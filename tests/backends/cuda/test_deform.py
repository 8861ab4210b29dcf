"""Deformed images on the CUDA backend: the reference's to the bit, in the composed plan, with nothing allocated."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import Deform
from gpubp.backends.cuda import deform
from gpubp.data.samples import as_inputs
from gpubp.errors import UsageError
from gpubp.randomness.deform import Deformation
from gpubp.verification.steps import check_cut, check_evaluation, check_step
from tests import param
from tests.cuda_host import ON_GPU, cuda_backend, fake_cupy, host_backend, why_no_cuda
from tests.networks import every_dtype, random_problem

pytestmark = pytest.mark.skipif(why_no_cuda is not None, reason=str(why_no_cuda))

TURNED = {"rotation": 15, "scaling": 0.15, "shear": 0.1, "rotation_by_class": {1: 7.5, 7: 0, 255: 40}}
SETTINGS = {
    "every second pixel": Deform(alpha=30, sigma=4, **TURNED),
    "every pixel": Deform(alpha=20, sigma=1.5, **TURNED),
    "no field": Deform(**TURNED),
    "a field alone": Deform(alpha=30, sigma=3),
}
CLASSES = np.array([1, 7, 0, 255, 256, 2**40, 1, 3, 7, 254, 1, 2])


def images_of(shape, count=12):
    return np.random.default_rng(0).integers(0, 256, (count, shape[0] * shape[1]), np.uint8)


def assert_same_bits(backend, made, source, dtype, classes, step=6):
    """Of nine images out of twelve, some of them twice."""
    order = np.array([5, 11, 0, 3, 3, 8, 1, 2, 4])
    out = backend.to_device(np.full((len(order), source.shape[1]), np.nan, dtype))
    given = None if classes is None else backend.to_device(classes)
    backend.deform(backend.to_device(source), backend.to_device(order), made, step, given, out)
    expected = made.images(source[order], order, step, None if classes is None else classes[order])
    assert (expected != source[order]).any()
    np.testing.assert_array_equal(backend.to_host(out), as_inputs(expected, np.dtype(dtype)))


@every_dtype
@pytest.mark.parametrize("classes", [None, CLASSES], ids=["all alike", "by class"])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", [(28, 28), (29, 29), (8, 8), (17, 5), (5, 40)], ids=str)
def test_images_are_the_references_to_the_bit(shape, settings, classes, dtype):
    source, backend = images_of(shape), cuda_backend("composed")
    for seed in (0, (5 << 32) | 9, 2**64 - 1):
        made = Deformation.of(SETTINGS[settings], source, shape, seed)
        assert_same_bits(backend, made, source, dtype, classes)
    assert_same_bits(backend, made, source, dtype, classes, step=2**32 - 1)


@pytest.mark.parametrize("sigma", [4, 1.5])
def test_halves_of_a_256th_are_rounded_to_even(sigma):
    source = images_of((70, 70))
    made = Deformation.of(Deform(alpha=30, sigma=sigma), source, (70, 70), 3)
    made.__dict__["scale"] = np.float32(2**-9)  # so that of 512 sums one is such a half
    assert_same_bits(cuda_backend("composed"), made, source, np.float32, None)


@pytest.mark.parametrize("most", [0, 9_000])
def test_a_few_images_at_a_time_are_the_same(most, monkeypatch):
    monkeypatch.setattr(deform, "MOST", most)
    source, backend = images_of((28, 28)), cuda_backend("composed")
    made = Deformation.of(SETTINGS["every second pixel"], source, (28, 28), 3)
    assert_same_bits(backend, made, source, np.float32, CLASSES)
    assert 1 <= backend._deforming.some < 9


@pytest.mark.exhaustive
@pytest.mark.parametrize("sigma", [2.9, 16])
def test_the_largest_images_are_the_references_to_the_bit(sigma):
    source, backend = np.repeat(images_of((1024, 1024), 1), 12, axis=0), cuda_backend("composed")
    made = Deformation.of(Deform(alpha=40, sigma=sigma, rotation=180, shear=1), source, (1024, 1024), 3)
    order, out = np.array([7]), backend.to_device(np.full((1, 1 << 20), np.nan, np.float32))
    backend.deform(backend.to_device(source), backend.to_device(order), made, 6, None, out)
    expected = as_inputs(made.images(source[order], order, 6), np.dtype(np.float32))
    np.testing.assert_array_equal(backend.to_host(out), expected)


def plan_of(backend, settings="every second pixel", dtype="float32", **options):
    """A plan for images of 9 × 8 pixels."""
    how = {"sizes": (72, 20, 10), "dtype": np.dtype(dtype), "deform": SETTINGS[settings], "shape": (9, 8)}
    return backend.plan(random_problem(**how | options))


@every_dtype
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dropout", [0.0, param([0.2, 0.5], always=False)], ids=str)
def test_steps_are_within_their_bounds(dropout, settings, dtype, rng):
    plan = plan_of(cuda_backend(), settings, dtype, dropout=dropout)
    checks = [
        check
        for order in (rng.permutation(130)[:32], np.arange(128, 130))
        for check in check_step(plan, order, 0.1).checks
    ]
    checks += [*check_cut(plan), *check_evaluation(plan, plan.problem.samples)]
    assert all(check.ok for check in checks), "\n".join(map(str, checks))


def test_auto_takes_the_composed_plan_and_says_why():
    assert (
        plan_of(cuda_backend())
        .describe()
        .startswith("composed plan, one call an operation; chosen for the deformed images, which only it has")
    )
    assert "as asked for" in plan_of(cuda_backend("composed")).describe()
    assert "composed" not in plan_of(cuda_backend(), sizes=(72, 20, 10), deform=None).describe()


@pytest.mark.parametrize(
    ("plan", "precision"),
    [("fused", "float32"), ("units", "float32"), ("cluster", "float32"), ("auto", "tf32")],
)
def test_other_plans_and_precisions_name_the_composed_plan(plan, precision):
    with pytest.raises(
        UsageError, match=rf"the {plan} plan in precision {precision}: choose .*--plan composed"
    ):
        plan_of(cuda_backend(plan, precision))


@pytest.mark.skipif(ON_GPU, reason="what is counted are the stand-in's allocations")
def test_nothing_is_allocated_or_made_ready_in_a_step():
    plan = plan_of(host_backend())
    before = fake_cupy.counts.copy()
    plan.run(np.arange(130), np.full(5, 0.1))
    changed = fake_cupy.counts - before
    assert set(changed) == {"launches", "uploads", "downloads"}
    assert changed["uploads"] == 1  # the order


def test_the_tables_are_kept_while_the_deformation_is_the_same():
    backend, source = cuda_backend(), images_of((9, 8))
    plan_of(backend)
    kept = backend._deforming
    plan_of(backend)
    assert backend._deforming is kept
    other = Deformation.of(SETTINGS["every second pixel"], source, (9, 8), 77)
    assert_same_bits(backend, other, source, np.float32, None)
    assert backend._deforming.deformation == other
