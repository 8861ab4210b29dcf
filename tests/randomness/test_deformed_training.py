"""Deformed images in Numba's fused plan: the reference's to the bit, on any number of threads, however taken."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.backends.cpu.fused import FusedPlan
from gpubp.backends.cpu.memory import zeros
from gpubp.backends.plan import Problem
from gpubp.functions import LOSSES
from gpubp.kernels.cpu import layout
from gpubp.network import Network
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.randomness.settings import Deform
from gpubp.verification.steps import check_cut, check_evaluation, check_step
from tests import param
from tests.networks import MOMENTUM, every_dtype, samples_of

SETTINGS = Deform(alpha=20, sigma=4, rotation=12, scaling=0.15, shear=0.1)
BY_CLASS = Deform(rotation=30, rotation_by_class={1: 5, 2: 0})


def images(rng, kind: str, count: int, shape: tuple[int, int]) -> np.ndarray:
    """(N, h · w) bytes: drawings in the middle of black, or pictures without any."""
    x = rng.integers(1, 256, (count, *shape)).astype(np.uint8)
    if kind == "drawings":
        rows, columns = (np.abs(np.arange(side) - side / 2 + 0.5) < side / 5 for side in shape)
        x *= (rows[:, None] & columns).astype(np.uint8)
    return x.reshape(count, -1)


def plan_of(
    rng, kind="drawings", *, shape=(28, 28), count=90, batch=32, threads=1, dtype="float32", settings=SETTINGS,
    dropout=0.0, hidden=(37,), seed=2**63 + 5,
) -> tuple[FusedPlan, np.ndarray]:  # fmt: skip
    """A plan, and its images."""
    x = images(rng, kind, count, shape)
    net = Network([x.shape[1], *hidden, 5], hidden="tanh", dtype=dtype, seed=3)
    samples = samples_of(net, x, rng.integers(0, 5, count))
    chances = Dropout.of(dropout, len(net.layers), seed), Deformation.of(settings, x, shape, seed)
    problem = Problem(net.layers, net.parameters, LOSSES["cross_entropy"], MOMENTUM, batch, samples, *chances)
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("SHARED_WORK", "SHARED_EPOCH"):
            patch.setattr(f"gpubp.backends.cpu.fused.{limit}", 0)
        return FusedPlan("here", threads, problem), x


def assert_ok(checks) -> None:
    assert checks
    assert all(check.ok for check in checks), "\n".join(map(str, checks))


@every_dtype
@pytest.mark.parametrize("threads", [1, 2, param(3, always=False)])
@pytest.mark.parametrize("dropout", [0.0, [0.2, 0.5]], ids=str)
@pytest.mark.parametrize(
    ("kind", "shape", "hidden"),
    [
        ("drawings", (28, 28), (37,)), ("drawings", (29, 29), (300,)), ("pictures", (28, 28), (300,)),
        ("pictures", (5, 17), (20,)), ("drawings", (8, 40), (20,)),
    ],
)  # fmt: skip
def test_steps_are_within_their_bounds(kind, shape, hidden, dropout, threads, dtype, rng):
    plan, _ = plan_of(rng, kind, shape=shape, hidden=hidden, dropout=dropout, threads=threads, dtype=dtype)
    assert ("by column" in plan.describe()) == (kind == "drawings")
    for order in (rng.permutation(90)[:32], np.arange(64, 90)):
        assert_ok(check_step(plan, order, 0.1).checks)
    assert_ok(check_cut(plan))
    assert_ok(check_evaluation(plan, plan.problem.samples))


@pytest.mark.parametrize("settings", [SETTINGS, BY_CLASS], ids=["all alike", "by class"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["drawings", "pictures"])
def test_the_plan_takes_the_very_images_of_the_reference(kind, threads, settings, rng):
    plan, x = plan_of(rng, kind, threads=threads, settings=settings)
    order, plan.step = rng.permutation(90)[:32], 11
    plan._run(plan.samples, order, 32, 1, None, layout.GRADIENTS, only=layout.phase(layout.GATHER, 0))
    pitch = plan.samples.data.pitch or x.shape[1]
    got = plan.net.unfolded[plan.net.deformed :][: 32 * pitch].reshape(32, pitch)
    expected = plan.problem.batch(11, order).inputs
    assert (expected != x[order]).any()
    np.testing.assert_array_equal(got[:, : x.shape[1]], expected)
    np.testing.assert_array_equal(got[:, x.shape[1] :], 0)


@pytest.mark.parametrize("dropout", [0.0, [0.2, 0.5]], ids=str)
@pytest.mark.parametrize("kind", ["drawings", "pictures"])
def test_bits_are_the_same_on_any_number_of_threads_and_in_any_cut(kind, dropout, rng):
    states = []
    for threads, calls in ((1, 1), (2, 1), (2, 3), (3, 1)):
        plan, _ = plan_of(np.random.default_rng(4), kind, threads=threads, dropout=dropout, hidden=(300,))
        assert plan.threads == threads
        for part in range(calls):
            size = 96 // calls
            order = np.arange(90)[part * size : (part + 1) * size]
            plan.run(order, np.full(-(-len(order) // 32), 0.1))
        states.append(np.concatenate([p.ravel() for p in plan.state().parameters]))
    for other in states[1:]:
        np.testing.assert_array_equal(other, states[0])


def test_batches_of_more_than_are_in_work_at_a_time(rng):
    plan, _ = plan_of(rng, count=1600, batch=1500, shape=(9, 9), threads=2)
    assert_ok(check_step(plan, rng.permutation(1600)[:1500], 0.1).checks)


def test_images_too_wide_to_take_by_column(rng):
    plan, _ = plan_of(rng, count=40, shape=(96, 96))
    assert "all inputs" in plan.describe()
    assert_ok(check_step(plan, np.arange(32), 0.1).checks)


def test_samples_after_evaluation_of_others_are_right(rng):
    """What an evaluation unfolds does not get among the deformed images."""
    plan, x = plan_of(rng)
    net = Network([784, 37, 5])
    numbers = samples_of(net, rng.random((50, 784)) * (rng.random((50, 784)) < 0.1), rng.integers(0, 5, 50))
    for samples in (numbers, samples_of(net, np.full_like(x[:50], 7), rng.integers(0, 5, 50))):
        assert_ok(check_evaluation(plan, samples))
        assert_ok(check_step(plan, np.arange(32), 0.1).checks)


def _tables(**changes):
    """A fault that changes tables: each to a number, or to what a function makes of the one that it is."""

    def fault(net):
        tables = net.chance.deforming
        new = {name: change(tables) for name, change in changes.items()}
        return net._replace(chance=net.chance._replace(deforming=tables._replace(**new)))

    return fault


FAULTS = {
    "none": lambda net: net,
    "not deformed": lambda net: net._replace(deformed=-1),
    "another scaling": _tables(scaling=lambda tables: tables.scaling + 200),
    "other numbers": _tables(purpose=lambda tables: tables.purpose + 1),
    "no field": _tables(elastic=lambda _: 0, field=lambda tables: tables.zero, field_row=lambda _: 0),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["pictures"])
def test_a_fault_in_the_deformation_is_caught(fault, kind, rng):
    plan, _ = plan_of(rng, kind)
    plan._use(FAULTS[fault](plan.net))
    checks = check_step(plan, np.arange(32), 0.1).checks
    assert all(check.ok for check in checks) == (fault == "none")


@pytest.mark.parametrize("kind", ["drawings", "pictures"])
def test_nothing_outside_the_plans_memory_is_touched(kind, rng):
    plan, _ = plan_of(rng, kind, threads=2, dropout=[0.2, 0.5])
    net, margin, wider = plan.net, 1 << 14, []

    def within_margins(array):
        wider.append(zeros(len(array) + 2 * margin, np.uint8))  # which begin on a cache line
        wider[-1][:margin] = wider[-1][-margin:] = 77
        return wider[-1][margin:-margin]

    chance = {name: within_margins(getattr(net.chance, name)) for name in ("working", "kept")}
    unfolded = within_margins(net.unfolded)
    plan._use(net._replace(unfolded=unfolded, chance=net.chance._replace(**chance)))
    assert_ok(check_step(plan, np.arange(32), 0.1).checks)
    plan.run(np.arange(90), np.full(3, 0.1))
    for array in wider:
        assert (array[:margin] == 77).all()
        assert (array[-margin:] == 77).all()
