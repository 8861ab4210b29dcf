"""The fused plan from outside: against the reference, against itself in other cuts and shares, on any processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

import gpubp
import gpubp.backends
from gpubp.backends.cpu.fused import CHUNK_ROWS, SHARED_EPOCH, SHARED_UNITS, SHARED_WORK, FusedPlan
from gpubp.backends.cpu.memory import zeros
from gpubp.backends.cpu.stored import COLUMN_BATCH
from gpubp.backends.plan import PlanState
from gpubp.data.samples import Samples
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.kernels.cpu import layout
from gpubp.network import Network
from gpubp.optimizers import SGD, Adam, AdamW
from gpubp.verification.steps import bounded_update, check_evaluation, check_step
from tests import ROOT, param
from tests.networks import (
    EVERY_OPTIMIZER,
    MOMENTUM,
    bounded_outputs,
    every_dtype,
    problem_of,
    samples_of,
    within,
)

SPARSE, DENSE = "non-zero inputs only, since", "all inputs"
BY_COLUMN, BY_SAMPLE = "non-zero inputs only, by column", "non-zero inputs only, W1 changed by each sample"
N_IN = 300  # of the sparse problems; not a whole number of vectors, and more than a byte can count


def inputs(rng, kind: str, n: int, n_in: int = N_IN, as_bytes: bool = False) -> np.ndarray:
    """(n, n_in) of some kind of density."""
    x = rng.integers(1, 256, (n, n_in)).astype(np.uint8) if as_bytes else rng.standard_normal((n, n_in))
    if kind == "alike":  # as pixels are: runs that are 0 or not, most of them begun and ended amid a tile
        runs = rng.random((n, -(-n_in // 7))) < 0.25
        return x * np.repeat(runs, 7, axis=1)[:, :n_in]
    if kind == "mixed":  # all zero, full and thin rows in long runs, so that batches in this order differ
        density = np.repeat([0.0, 1.0, 0.02, 0.3, 0.0, 0.1], -(-n // 6))[:n, None]
    else:
        density = float({"dense": 1, "zero": 0}.get(kind, kind))
    return x * (rng.random((n, n_in)) < density)


# kind of inputs -> how the plan keeps them
KINDS = {
    "0.02": SPARSE, "0.19": SPARSE, "zero": SPARSE, "alike": BY_COLUMN, "mixed": BY_COLUMN, "dense": DENSE,
}  # fmt: skip


def network(sizes, dtype="float32", hidden="tanh", output="softmax", seed=5) -> Network:
    """With biases that are not 0."""
    net = Network(list(sizes), hidden=hidden, output=output, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    net.parameters = [(w, 0.2 * rng.standard_normal(b.shape).astype(b.dtype)) for w, b in net.parameters]
    return net


def prepared(net: Network, x, rng, loss="cross_entropy", weighted=True) -> Samples:
    """Samples with labels and, if asked for, weights, some of them 0."""
    n = x.shape[0]
    y = rng.integers(0, net.sizes[-1], n)
    weight = rng.random(n) * (rng.random(n) < 0.8) if weighted else None
    return samples_of(net, x, y, weight, loss)


def fused(
    net, samples, *, batch=32, threads=1, optimizer=MOMENTUM, loss="cross_entropy", shared=(0, 0)
) -> FusedPlan:
    """A plan with this many threads, however many cores there are and however little there is to share."""
    limits = dict(zip(("SHARED_WORK", "SHARED_EPOCH"), shared, strict=True))
    with patch.multiple("gpubp.backends.cpu.fused", **limits):
        problem = problem_of(net, samples, batch=batch, optimizer=optimizer, loss=loss)
        return FusedPlan("here", threads, problem)


def flat(state: PlanState) -> np.ndarray:
    return np.concatenate([a.ravel() for a in (*state.parameters, *(s for ss in state.slots for s in ss))])


def assert_right(plan, seed=0):
    """A step on a shuffled batch, and one on the few samples left, are within their bounds."""
    order = np.random.default_rng(seed).permutation(len(plan.samples))
    size = plan.batch_size
    for part in (order[:size], order[-(len(order) % size or size) :]):
        assert_ok(check_step(plan, part, plan.optimizer.lr).checks)


def assert_ok(checks):
    assert checks, "the reference is not finite"
    assert all(check.ok for check in checks), "\n".join(map(str, checks))


# Against the reference


@pytest.mark.parametrize("as_bytes", [False, True], ids=["numbers", "bytes"])
@every_dtype
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, param(2, always=False), 3, param(4, always=False)])
def test_inputs_of_every_density_are_trained_on_rightly(threads, kind, dtype, as_bytes, rng):
    net = network([N_IN, 20, 6], dtype)
    samples = prepared(net, inputs(rng, kind, 200, as_bytes=as_bytes), rng)
    plan = fused(net, samples, batch=33, threads=threads)
    assert plan.threads == threads
    assert KINDS[kind] in plan.describe()
    assert_right(plan)
    assert_ok(check_step(plan, np.arange(33), 0.1).checks)
    assert_ok(check_evaluation(plan, samples))


@pytest.mark.parametrize("threads", [param(1, always=False), 2])
@pytest.mark.parametrize("kind", ["0.1", "alike", "dense"])
@pytest.mark.parametrize("n_in", [1, 2, 3, 4, 31, 32, 33, 64, 65, 255, 256, 257, 511, 513])
def test_inputs_of_any_width(n_in, kind, threads, rng):
    net = network([n_in, 40, 3])
    assert_right(fused(net, prepared(net, inputs(rng, kind, 90, n_in), rng), threads=threads, batch=64))


@pytest.mark.parametrize("sizes", [[1, 1], [1, 1, 1], [3, 2], [N_IN, 1], [N_IN, 17, 1], [20, 130, 33, 18, 5]])
@pytest.mark.parametrize("kind", ["0.1", "alike", "dense"])
@every_dtype
def test_layers_of_any_width_and_number(sizes, kind, dtype, rng):
    loss, output = ("cross_entropy", "softmax") if sizes[-1] > 1 else ("binary_cross_entropy", "sigmoid")
    net = network(sizes, dtype, output=output)
    for count in (1, 70):  # a single sample too
        y = rng.integers(0, max(2, sizes[-1]), count)
        samples = samples_of(net, inputs(rng, kind, count, sizes[0]), y, loss=loss)
        assert_right(fused(net, samples, batch=min(count, 32), loss=loss))


@pytest.mark.parametrize("threads", [param(1, always=False), 2, param(3, always=False)])
@pytest.mark.parametrize("hidden", ["relu", "softmax"])
@pytest.mark.parametrize("kind", ["0.1", "alike", param("dense", always=False)])
@every_dtype
def test_wide_layers_which_threads_share_by_their_units(threads, hidden, kind, dtype, rng):
    """Softmax, which takes whole rows, stays shared by samples between layers that are not."""
    wide = SHARED_UNITS
    net = network([N_IN, wide, wide + 37, wide + 1, 7], dtype, hidden=["relu", hidden, "relu"])
    plan = fused(net, prepared(net, inputs(rng, kind, 50), rng), threads=threads)
    shared = plan.net.layers[:, layout.BY_UNITS]
    assert shared.tolist() == ([0] * 4 if threads == 1 else [1, int(hidden != "softmax"), 1, 0])
    assert_right(plan)


@pytest.mark.usefixtures("no_clipping_warning")
@every_dtype
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss(activation, loss, dtype, rng):
    net = network([20, 15, 7, 5], dtype, hidden=[activation, "sigmoid"], output=activation)
    samples = prepared(net, rng.standard_normal((50, 20)), rng, loss)
    assert_right(fused(net, samples, loss=loss))


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
@pytest.mark.parametrize("kind", ["0.1", "alike", "mixed", "dense"])
@every_dtype
def test_every_optimizer(optimizer, kind, dtype, rng):
    net = network([N_IN, 20, 6], dtype)
    plan = fused(net, prepared(net, inputs(rng, kind, 100), rng), optimizer=optimizer)
    for seed in range(3):  # from the second step on, slots are not 0
        assert_right(plan, seed)


@pytest.mark.parametrize("threads", [param(1, always=False), 2, param(4, always=False)])
@every_dtype
@pytest.mark.parametrize("kind", ["0.1", "alike", "mixed", "dense"])
@pytest.mark.parametrize("n", [CHUNK_ROWS + 1, param(2 * CHUNK_ROWS + 500, always=False)])
def test_batches_larger_than_what_is_in_work_at_a_time(n, kind, dtype, threads, rng):
    """Gradients that are summed over chunks, also those of the short last batch where it has more than one."""
    net = network([N_IN, 24, 6], dtype)
    count = n + min(n - 1, CHUNK_ROWS + 100)
    samples = prepared(net, inputs(rng, kind, count), rng)
    plan = fused(net, samples, batch=n, threads=threads)
    assert_right(plan)
    for order in (np.arange(n), np.arange(n, count)):  # as they come: chunks of one kind of row each
        assert_ok(check_step(plan, order, 0.1).checks)


@pytest.mark.parametrize(("rows", "sparse"), [("full", False), ("thin", True)])
def test_a_batch_is_taken_without_its_zeros_where_these_are_many(rows, sparse, rng):
    """Of a data set with both kinds; only a batch taken with all its inputs is copied as it is."""
    net = network([N_IN, 20, 6])
    x = inputs(rng, "0.02", 200)
    x[:30] = rng.standard_normal((30, N_IN))
    plan = fused(net, prepared(net, x, rng), batch=30)
    assert "non-zero inputs only" in plan.describe()
    order, (entry, *_) = np.arange(30) + (0 if rows == "full" else 30), plan.net.layers
    row = entry[layout.A_PREV_ROW]
    a = plan.net.memory[entry[layout.A_PREV] :][: 30 * row].reshape(30, row)[:, :N_IN]
    a[...] = np.nan
    only, none = layout.phase(layout.GATHER, 0), np.zeros(2, np.float32)
    plan._run(plan.samples, order, 30, 1, none, layout.GRADIENTS, only=only)
    np.testing.assert_array_equal(a, np.nan if sparse else x[order].astype(np.float32))


@pytest.mark.parametrize("batch", [1, 2, 23, 24, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("threads", [1, 2, param(3, always=False), param(5, always=False)])
@pytest.mark.parametrize("as_bytes", [False, True], ids=["numbers", "bytes"])
def test_batches_of_any_size_by_column(as_bytes, threads, batch, rng):
    """Words of 64 samples that are full or not, in shares of threads that may have none."""
    net = network([N_IN, 20, 6])
    plan = fused(
        net, prepared(net, inputs(rng, "alike", 230, as_bytes=as_bytes), rng), batch=batch, threads=threads
    )
    assert ("by column" in plan.describe()) == (batch >= COLUMN_BATCH)
    assert_right(plan)


@pytest.mark.parametrize("kind", ["alike", "0.19", "dense"])
def test_inputs_are_taken_by_column_where_neighbours_are_alike_and_few_are_not_0(kind, rng):
    x = inputs(rng, kind, 400)
    shuffled = x[:, rng.permutation(N_IN)]  # as dense, but no two neighbours alike
    for given, by_column in ((x, kind == "alike"), (shuffled, False)):
        net = network([N_IN, 20, 6])
        assert (BY_COLUMN in fused(net, prepared(net, given, rng)).describe()) == by_column


@every_dtype
@pytest.mark.parametrize("optimizer", [SGD(0.1), MOMENTUM], ids=["straight", "by gradient"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["alike", "0.1"])
def test_sparse_matrices_are_trained_on_as_the_same_rows_are(kind, threads, optimizer, dtype, rng):
    """In the same bits, by column and not."""
    from scipy.sparse import csr_array

    net = network([N_IN, 20, 6], dtype)
    x = inputs(rng, kind, 150).astype(dtype)
    states = []
    for given in (x, csr_array(x)):
        samples = prepared(net, given, np.random.default_rng(3))
        plan = fused(net, samples, batch=40, threads=threads, optimizer=optimizer)
        how = BY_COLUMN if kind == "alike" else SPARSE if optimizer == MOMENTUM else BY_SAMPLE
        assert how in plan.describe()
        assert_right(plan)
        states.append(flat(plan.state()))
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("kind", ["alike", "0.1"])
def test_a_weight_of_inputs_that_are_all_0_spoils_nothing(kind, value, rng):
    """It is left out, where 0 · ∞ would be NaN."""
    net = network([N_IN, 20, 6])
    x = inputs(rng, kind, 64)
    x[:, N_IN // 2 :] = 0
    net.parameters[0][0][0, -1] = value
    plan = fused(net, prepared(net, x, rng))
    assert np.isfinite(plan.evaluate(plan.upload(prepared(net, x, rng))).mean_cost)


# Against itself


CUTS = [*KINDS, "chunked"]


def plan_of(kind, rng, threads=1, dtype="float32", optimizer=MOMENTUM):
    """A plan, and an order of a few batches, the last one short."""
    n, batch = (2500, 1200) if kind == "chunked" else (300, 64)
    net = network([N_IN, 40, 6], dtype)
    samples = prepared(net, inputs(rng, "mixed" if kind == "chunked" else kind, n), rng)
    plan = fused(net, samples, batch=batch, threads=threads, optimizer=optimizer)
    assert plan.threads == threads
    order = np.arange(n) if kind in ("mixed", "chunked") else rng.permutation(n)
    return plan, order, 0.05 * rng.random(-(-n // batch))


@pytest.mark.parametrize("optimizer", [MOMENTUM, Adam(0.01)], ids=lambda o: o.kind)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", CUTS)
def test_bits_are_the_same_in_every_run_and_of_single_steps(kind, threads, optimizer, rng):
    """With as many threads, in one call or many, and whatever else the plan did in between."""
    plan, order, rates = plan_of(kind, rng, threads, optimizer=optimizer)
    start, size = plan.state(), plan.batch_size
    calls = [(order, rates)], [(order[s * size :][:size], rates[s : s + 1]) for s in range(len(rates))]
    runs = []
    for steps_of_run in (*calls, *calls):
        plan.load_state(start)
        assert plan.step == 0
        stats = []
        for part, rate in steps_of_run:
            stats.append(plan.run(part, rate))
            plan.evaluate(plan.samples)
            plan.gradients(order[:size])
            plan.predict(rng.standard_normal((70, N_IN)))
        assert plan.step == len(rates)
        runs.append(np.concatenate([flat(plan.state()), *(s.costs for s in stats), *(s.hits for s in stats)]))
    for other in runs[1:]:
        np.testing.assert_array_equal(other, runs[0])
    assert np.isfinite(runs[0]).all()
    assert (flat(plan.state()) != flat(start)).any()


@pytest.mark.parametrize(
    ("sizes", "n", "batch", "threads"),
    [
        ([5, 4, 3], 40, 32, 1),
        ([200, 100, 10], 300, 300, 1),
        ([200, 100, 10], 2000, 10, 1),
        ([200, 100, 10], 2000, 200, 2),
    ],
)
def test_small_steps_and_short_epochs_are_not_shared(sizes, n, batch, threads, rng):
    net = network(sizes)
    samples = prepared(net, rng.standard_normal((n, sizes[0])), rng)
    plan = fused(net, samples, threads=2, batch=batch, shared=(SHARED_WORK, SHARED_EPOCH))
    assert plan.threads == threads
    assert ("1 of 2 threads, since there is too little to share" in plan.describe()) == (threads == 1)


@pytest.mark.parametrize("kind", CUTS)
def test_gradients_are_what_the_step_goes_along(kind, rng):
    """With η = 1 and W = 0, the step leaves −∂C/∂W, of which no bit is rounded away."""
    plan, order, _ = plan_of(kind, rng, optimizer=SGD(1.0))
    order = order[: plan.batch_size]
    zero = plan.state()
    for p in zero.parameters[:2]:  # of the first layer only, or there would be no gradient
        p[...] = 0
    plan.load_state(zero)
    cost, gradients = plan.gradients(order)
    np.testing.assert_equal(plan.state().parameters, zero.parameters)
    stats = plan.run(order, np.array([1.0]))
    assert stats.mean_cost == cost
    np.testing.assert_equal(plan.state().parameters[:2], [-gradient for gradient in gradients[0]])
    assert np.abs(gradients[0][1]).max() > 0


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, 0.9), AdamW(0.01)], ids=lambda o: o.slots)
@every_dtype
def test_states_go_out_and_in_without_a_change(optimizer, dtype, rng):
    plan, order, rates = plan_of("0.1", rng, dtype=dtype, optimizer=optimizer)
    plan.run(order, rates)
    state = plan.state()
    kept = flat(state).copy()
    plan.run(order, rates)
    later = flat(plan.state())
    assert (later != kept).any()
    np.testing.assert_array_equal(flat(state), kept)  # a copy, which goes its own way
    assert all(p.flags.c_contiguous and p.dtype == dtype for p in state.parameters)
    other, *_ = plan_of("0.1", np.random.default_rng(20), dtype=dtype, optimizer=optimizer)
    other.load_state(state)
    assert other.step == state.step == len(rates)
    np.testing.assert_array_equal(flat(other.state()), kept)
    other.run(order, rates)
    np.testing.assert_array_equal(flat(other.state()), later)
    np.testing.assert_array_equal(flat(state), kept)


# Evaluation


@pytest.mark.parametrize("threads", [param(1, always=False), 2])
@pytest.mark.parametrize("trained", ["0.02", "0.19", "alike", "dense"])
@pytest.mark.parametrize("evaluated", [*KINDS, "0.3"])
@pytest.mark.parametrize("n", [1, param(300, always=False), 2100])
def test_other_samples_than_those_trained_on_are_evaluated(n, evaluated, trained, threads, rng):
    """Fewer and more than are in work at a time, and with more and fewer zeros than the plan was made for."""
    net = network([N_IN, 40, 6])
    plan = fused(net, prepared(net, inputs(rng, trained, 64), rng), batch=64, threads=threads)
    samples = prepared(net, inputs(rng, evaluated, n), rng, weighted=n > 1)
    before = flat(plan.state())
    assert_ok(check_evaluation(plan, samples))
    np.testing.assert_array_equal(flat(plan.state()), before)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["numbers", "bytes"])
@every_dtype
@pytest.mark.parametrize("n", [0, 1, 2100])
def test_predictions_are_the_outputs_of_the_reference(n, dtype, as_bytes, rng):
    net = network([N_IN, 40, 6], dtype)
    plan = fused(net, prepared(net, inputs(rng, "0.1", 64), rng))
    x = inputs(rng, "0.19", n, as_bytes=as_bytes)
    got, expected = plan.predict(x), bounded_outputs(net, x)
    assert got.shape == (n, 6)
    assert got.dtype == dtype
    assert within(got, expected)


def test_a_tie_is_won_by_the_first(rng):
    """Equal outputs, and equal targets: the first of both is the class, as for NumPy's argmax."""
    net = Network([4, 37], seed=0)
    net.parameters = [(np.zeros((37, 4), np.float32), np.zeros(37, np.float32))]
    targets = np.zeros((3, 37))
    targets[0, [0, 36]], targets[1, [1, 20]], targets[2, [0, 1]] = 0.5, 0.5, 0.5
    plan = fused(net, samples_of(net, rng.random((3, 4)), targets))
    assert plan.evaluate(plan.samples).hits.tolist() == [2]


def test_one_output_is_a_hit_on_the_side_of_its_target(rng):
    net = Network([1, 1], output="identity", seed=0)
    net.parameters = [(np.ones((1, 1), np.float32), np.zeros(1, np.float32))]
    x = np.array([[0.4], [0.4], [0.6], [0.6], [0.5]])
    samples = samples_of(net, x, np.array([0.0, 1, 0, 1, 0]), loss="quadratic")
    plan = fused(net, samples, loss="quadratic")
    assert plan.evaluate(plan.samples).hits.tolist() == [3]


# What it says of itself, and what it refuses


@pytest.mark.parametrize(
    ("density", "kept", "threads"),
    [(0.02, BY_COLUMN, "1 thread"), (0.19, BY_COLUMN, "2 threads"), (1, DENSE, "1 thread")],
)
def test_the_description_names_plan_inputs_density_and_threads(density, kept, threads, rng):
    x = inputs(rng, "dense", 100)
    x[:, round(density * N_IN) :] = 0  # as many in every row, so that the density is no matter of chance
    net = network([N_IN, 40, 6])
    text = fused(net, prepared(net, x, rng), threads=int(threads[0])).describe()
    for part in ("fused plan", f", {kept},", f" {density:.0%} ", f"on {threads};", "here"):
        assert part in text


@pytest.mark.parametrize("order", [[0, 64], [-1, 3]])
def test_samples_that_are_not_there_are_refused(order, rng):
    net = network([N_IN, 20, 6])
    plan = fused(net, prepared(net, inputs(rng, "0.1", 64), rng))
    with pytest.raises(IndexError):
        plan.run(np.array(order), np.array([0.1]))
    with pytest.raises(IndexError):
        plan.gradients(np.array(order))


@pytest.mark.usefixtures("no_clipping_warning")
@every_dtype
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_nan_goes_through_every_activation_and_loss(activation, loss, dtype, rng):
    """From any layer's parameters into the cost and, through the cost, into all gradients that depend on it."""
    start = network([20, 15, 7, 5], dtype, hidden=activation, output=activation)
    samples = prepared(start, rng.standard_normal((50, 20)), rng, loss)
    for i in range(3):
        for which in range(2):
            net = network([20, 15, 7, 5], dtype, hidden=activation, output=activation)
            net.parameters[i][which].reshape(-1)[-1] = np.nan
            plan = fused(net, samples, loss=loss)
            cost, gradients = plan.gradients(np.arange(32))
            assert np.isnan(cost)
            assert np.isnan(gradients[i][1][-1])
            assert np.isnan(plan.run(np.arange(50), np.array([0.1, 0.1])).costs).all()
            assert np.isnan(plan.evaluate(plan.upload(samples)).costs).all()


def assert_right_within_margins(
    sizes, kind, threads, rng, dtype="float32", *, n=300, batch=70, optimizer=None
) -> None:
    """With NaN before and behind the plan's memory, where nothing may be read or written."""
    net = network(sizes, dtype, hidden=["sigmoid"] * (len(sizes) - 3) + ["softmax"])
    samples = prepared(net, inputs(rng, kind, n, sizes[0]), rng)
    plan = fused(net, samples, batch=batch, threads=threads, optimizer=optimizer or Adam(0.01))
    margin = 1 << 15  # elements
    wider = np.pad(plan.net.memory, margin, constant_values=np.nan)
    others = [np.pad(array, margin, constant_values=77) for array in (plan.net.unfolded, plan.net.maps)]
    unfolded, maps = (array[margin:-margin] for array in others)
    plan._use(plan.net._replace(memory=wider[margin:-margin], unfolded=unfolded, maps=maps))
    for evaluated in ("0.02", "0.3", "alike", "dense"):
        assert_ok(check_evaluation(plan, prepared(net, inputs(rng, evaluated, 300, sizes[0]), rng)))
    assert np.isfinite(plan.predict(rng.standard_normal((300, sizes[0])))).all()
    assert_right(plan)
    plan.run(np.arange(n), np.full(-(-n // batch), 0.01))
    assert np.isfinite(flat(plan.state())).all()
    assert np.isnan([wider[:margin], wider[-margin:]]).all()
    assert all((array[:margin] == 77).all() and (array[-margin:] == 77).all() for array in others)
    for i, entry in enumerate(plan.net.layers):
        # What fills rows up to whole vectors is in every sum of vectors.
        row = entry[layout.ROW]
        for count, place in zip((sizes[i] + 1, batch), (entry[layout.W], entry[layout.DELTA]), strict=True):
            filling = plan.net.memory[place : place + count * row].reshape(count, row)[:, sizes[i + 1] :]
            np.testing.assert_array_equal(filling, 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["0.1", "alike", "dense"])
@pytest.mark.parametrize("batch", [10, CHUNK_ROWS])
def test_nothing_outside_a_plans_memory_is_touched_by_steps_straight_to_the_weights(
    batch, kind, threads, rng
):
    """Also where all samples that are in work at a time, at most, have room beside each other."""
    sizes, n = [N_IN, 150, 20, 6], CHUNK_ROWS + 40
    assert_right_within_margins(sizes, kind, threads, rng, n=n, batch=batch, optimizer=SGD(0.01))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("count", [1000, 1 << 20])
def test_a_forked_process_has_memory_of_its_own(count):
    ours = zeros(count, np.float32)
    assert ours.ctypes.data % 64 == 0
    child = os.fork()
    if child == 0:
        ours[:] = 1
        os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(ours, 0)


@pytest.mark.parametrize("threads", [param(1, always=False), 2])
@pytest.mark.parametrize("sizes", [[N_IN, 40, 6], param([700, 260, 90, 6], always=False)], ids=str)
@pytest.mark.parametrize("kind", [param("0.02", always=False), "0.1", "mixed", "dense"])
@every_dtype
def test_nothing_outside_the_memory_is_touched(kind, sizes, threads, dtype, rng):
    assert_right_within_margins(sizes, kind, threads, rng, dtype)


# Other processors


def train_elsewhere() -> None:
    """What runs under another processor's name: training of every kind, to the same bounds."""
    rng = np.random.default_rng(20)
    for kind, name in (("0.1", BY_SAMPLE), ("alike", BY_COLUMN), ("mixed", BY_COLUMN), ("dense", DENSE)):
        for threads in (1, 2):
            for sizes in ([N_IN, 40, 6], [700, 260, 90, 6]):
                assert_right_within_margins(sizes, kind, threads, rng)
        x, y = inputs(rng, kind, 100), rng.integers(0, 6, 100)
        net = network([N_IN, 40, 19, 6], hidden=["sigmoid", "tanh"])
        how = {"optimizer": SGD(0.1), "batch_size": 48, "epochs": 2, "verify": "step"}
        history = gpubp.fit(net, x, y, backend="numba", **how)
        assert history.verification.ok
        assert name in history.plan


def update_elsewhere() -> None:
    """Less of it: one operation."""
    optimizer, (w, g, *slots) = Adam(0.1), np.random.default_rng(20).random((4, 37)).astype(np.float32)
    c = optimizer.coefficients(0.1, 3, decay=True)
    expected = bounded_update(w, g, [slot.copy() for slot in slots], optimizer, c)
    gpubp.backends.get("numba").update(w, g, slots, optimizer, c)
    assert all(within(got, bounded) for got, bounded in zip((w, *slots), expected, strict=True))


@pytest.mark.parametrize(
    ("features", "register", "what"),
    [
        ("+sse2", 16, "update_elsewhere"),
        param("+sse2", 16, "train_elsewhere", always=False),
        param("+avx,+avx2,+fma,+bmi,+bmi2,+popcnt,+lzcnt,+f16c", 32, "train_elsewhere", always=False),
    ],
)
def test_a_processor_with_narrower_vectors(features, register, what, tmp_path):
    """Numba compiles for a processor that can do less than this one; what comes out must be as right."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("these vectors are x86's")
    has = {f"+{name}" for name, present in get_host_cpu_features().items() if present}
    if missing := set(features.split(",")) - has:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    check = f"from gpubp.kernels.cpu.machine import BYTES; assert BYTES == {register}"
    command = [sys.executable, "-c", f"{check}; from {__name__} import {what} as f; f()"]
    where = {"cwd": ROOT, "env": os.environ | settings}
    result = subprocess.run(command, **where, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("units", [256, 300, 400, 1000])
@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize(("kind", "as_bytes"), [("0.19", True), ("0.19", False), ("alike", True)])
def test_bits_do_not_depend_on_the_threads_that_share_units(units, batch, kind, as_bytes, rng):
    """Also where a thread's part of them is no whole number of the widest tiles that lists are summed in."""
    net = Network([N_IN, units, 5], hidden="relu", output="softmax", seed=2)
    x = inputs(rng, kind, 130, as_bytes=as_bytes)
    samples = prepared(net, x, rng)
    states = []
    for threads in (1, 2, 3):
        plan = fused(net, samples, batch=batch, threads=threads, optimizer=SGD(0.1, momentum=0.9))
        plan.run(np.arange(130), np.full(-(-130 // batch), 0.1))
        states.append(flat(plan.state()).tobytes())
    assert states[1:] == states[:1] * 2
