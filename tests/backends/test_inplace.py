"""The numpy backend's in-place plan: what it does otherwise than the reference, and what that may not change."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from gpubp.backends import get, inplace
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.optimizers import SGD, Adam
from gpubp.verification.bounds import ACTIVATION_ROUNDINGS
from gpubp.verification.steps import check_step
from tests.networks import DTYPES, EVERY_OPTIMIZER, random_problem

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def make_plan(problem, kind="auto"):
    return get("numpy", plan=kind).plan(problem)


def tensors(state):
    return [*state.parameters, *(slot for slots in state.slots for slot in slots)]


def bits(state):
    return [tensor.tobytes() for tensor in tensors(state)]


def test_it_is_what_numpy_trains_with_and_the_composed_plan_is_the_reference():
    problem = random_problem()
    assert make_plan(problem).describe().startswith("in-place plan")
    assert make_plan(problem, "inplace").describe() == make_plan(problem).describe()
    assert make_plan(problem, "composed").describe().startswith("composed plan")


@every_dtype
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_an_update_leaves_the_bits_of_the_rule(optimizer, dtype, monkeypatch):
    """In blocks that weights and biases share, and that end anywhere."""
    monkeypatch.setattr(inplace, "BLOCK", 97)
    problem = random_problem(optimizer=optimizer, dtype=np.dtype(dtype))
    plan, order = make_plan(problem), np.arange(32)
    for step in range(1, 4):
        before, (_, pairs) = plan.state(), plan.gradients(order)
        plan.run(order, np.array([0.05]))
        after = plan.state()
        for k, gradient in enumerate(g for pair in pairs for g in pair):
            c = optimizer.coefficients(0.05, step, decay=k % 2 == 0)
            parameter, slots = optimizer.rule(before.parameters[k], gradient, before.slots[k], c)
            np.testing.assert_array_equal(after.parameters[k], parameter)
            np.testing.assert_equal(after.slots[k], tuple(slots))


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_the_size_of_a_block_changes_no_bit(optimizer, monkeypatch):
    states = []
    for block in (inplace.BLOCK, 1, 740):  # 740 are the weights of the first layer
        monkeypatch.setattr(inplace, "BLOCK", block)
        plan = make_plan(random_problem(optimizer=optimizer))
        plan.run(np.arange(130), np.full(5, 0.05))
        states.append(bits(plan.state()))
    assert states[0] == states[1] == states[2]


class Signed(SGD):
    """A rule of its own under a name that is taken, and of a parameter as a whole: a step of length η."""

    def rule(self, parameter, gradient, slots, c):
        return parameter - c.lr * gradient / np.linalg.norm(gradient), ()


def test_a_rule_without_a_form_in_place_is_called_as_it_is():
    plan = make_plan(random_problem(optimizer=Signed(0.1)))
    before = plan.state().parameters
    plan.run(np.arange(32), np.array([0.1]))
    for old, new in zip(before, plan.state().parameters, strict=True):
        assert np.linalg.norm(new - old) == pytest.approx(0.1)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("activation", [name for name in inplace.IN_PLACE if name != "softmax"])
def test_activations_in_place_are_within_the_roundings_of_the_bounds(activation, shared):
    """float32 over its whole range of z, and the range in which e^-z moves, against float64."""
    patterns = np.linspace(0, 2.0**32 - 1, 300_000).astype(np.uint32).view(np.float32)
    z = np.concatenate([patterns[np.isfinite(patterns)], np.linspace(-90, 90, 300_000, dtype=np.float32)])
    expected = ACTIVATIONS[activation].apply(z.astype(np.float64))
    a = z if shared else np.full_like(z, np.nan)
    with np.errstate(over="ignore"):
        inplace.IN_PLACE[activation](z, a)
    normal = (np.abs(expected) >= np.finfo(np.float32).tiny) & (np.abs(expected) <= np.finfo(np.float32).max)
    roundings = np.abs(a - expected)[normal] / np.abs(expected[normal]) / 2.0**-24
    assert roundings.max() <= ACTIVATION_ROUNDINGS[activation]
    assert np.abs(a[np.abs(expected) < np.finfo(np.float32).tiny]).max() <= np.finfo(np.float32).tiny


@every_dtype
@pytest.mark.parametrize("activation", inplace.IN_PLACE)
def test_what_is_no_number_stays_none(activation, dtype):
    z = np.random.default_rng(0).standard_normal((3, 40)).astype(dtype)
    z[1, 7] = np.nan
    inplace.IN_PLACE[activation](z, z)
    assert np.isnan(z[1, 7])
    assert np.isfinite(z[::2]).all()


@every_dtype
@pytest.mark.parametrize("n", [2, inplace.SHORT_ROW, inplace.SHORT_ROW + 1, 200])
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_softmax_of_rows_short_and_long(rows, n, dtype):
    z = (30 * np.random.default_rng(0).standard_normal((rows, n))).astype(dtype)
    a, expected = np.full_like(z, np.nan), ACTIVATIONS["softmax"].apply(z.astype(np.float64))
    inplace.IN_PLACE["softmax"](z, a)
    np.testing.assert_allclose(a, expected, rtol=200 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    inplace.IN_PLACE["softmax"](z, z)
    np.testing.assert_array_equal(z, a)


@every_dtype
@pytest.mark.parametrize("output", [2, 30, 40])
@pytest.mark.parametrize("batch", [1, 32, 43, 129])
@pytest.mark.parametrize("loss", LOSSES)
def test_costs_and_hits_of_a_run_are_those_of_its_steps_to_the_bit(loss, batch, output, dtype):
    """Of steps of one sample too, and of a last one of a single sample: 130 are 43 · 3 + 1."""
    problem = random_problem(
        (20, 12, output), batch, dtype=np.dtype(dtype), output="sigmoid", loss=loss, optimizer=Adam(0.01)
    )
    order, rates = np.random.default_rng(1).permutation(130), np.full(-(-130 // batch), 0.01)
    whole, single = make_plan(problem), make_plan(problem)
    together = whole.run(order, rates)
    apart = [single.run(order[s * batch : (s + 1) * batch], rates[s : s + 1]) for s in range(len(rates))]
    assert together.costs.tolist() == [float(stats.costs[0]) for stats in apart]
    assert together.hits.tolist() == [int(stats.hits[0]) for stats in apart]
    assert together.costs.dtype == np.float64
    assert together.hits.dtype == np.int64
    assert bits(whole.state()) == bits(single.state())


@every_dtype
def test_bytes_train_to_the_bits_of_their_numbers(dtype):
    states = []
    for as_bytes in (True, False):
        problem = random_problem(dtype=np.dtype(dtype))
        if not as_bytes:
            table = np.arange(256, dtype=dtype) / np.asarray(255, dtype)
            problem = replace(problem, samples=replace(problem.samples, inputs=table[problem.samples.inputs]))
        plan = make_plan(problem)
        plan.run(np.arange(130), np.full(5, 0.05))
        outputs = plan.predict(problem.samples.inputs)
        states.append([*bits(plan.state()), outputs.tobytes(), plan.evaluate(plan.samples).costs.tobytes()])
    assert states[0] == states[1]


@pytest.mark.parametrize("weight", [np.ones(130), np.r_[np.ones(129), 3.0], np.zeros(130)], ids=str)
def test_weights_that_are_all_one_and_weights_that_are_not(weight):
    problem = random_problem()
    problem = replace(problem, samples=replace(problem.samples, sample_weight=weight))
    plan = make_plan(problem)
    for order in (np.arange(32), np.arange(129, 119, -1)):
        checks = check_step(plan, order, 0.1).checks
        assert checks
        assert all(check.ok for check in checks), [str(check) for check in checks if not check.ok]


@pytest.mark.parametrize("wrong", [-1, 130])
def test_a_sample_that_there_is_not_is_no_other_one(wrong):
    plan, order = make_plan(random_problem()), np.arange(32)
    order[5] = wrong
    with pytest.raises(IndexError):
        plan.run(order, np.array([0.1]))
    with pytest.raises(IndexError):
        plan.gradients(order)


def test_its_samples_and_parameters_are_its_own():
    problem = random_problem(as_bytes=False)
    plan, other = make_plan(problem), make_plan(random_problem(as_bytes=False))
    state = plan.state()
    for array in (*vars(problem.samples).values(), *(p for pair in problem.parameters for p in pair)):
        array[...] = 0
    for each in (plan, other):
        each.run(np.arange(130), np.full(5, 0.05))
    assert bits(plan.state()) == bits(other.state()) != bits(state)
    assert all(tensor.flags.c_contiguous for tensor in tensors(plan.state()))
    plan.load_state(state)
    state.parameters[0][...] = 7
    assert not (plan.state().parameters[0] == 7).any()


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_nothing_as_large_as_the_weights_is_allocated_in_a_step(optimizer):
    problem = random_problem((300, 400, 10), optimizer=optimizer, dtype=np.float32)
    plan, order, rates = make_plan(problem), np.arange(32), np.array([0.01])
    plan.run(order, rates)
    tracemalloc.start()
    plan.run(order, rates)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * 400 * 4 / 2
