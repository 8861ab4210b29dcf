"""Dropout: rates as they are given, masks by the rule, training with them on every plan, and none anywhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpubp
from gpubp import reference
from gpubp.backends.cpu.fused import FusedPlan
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.kernels.cpu import layout
from gpubp.optimizers import SGD, Adam
from gpubp.randomness.dropout import RANGE, Dropout, Mask
from gpubp.verification.report import VerificationError
from gpubp.verification.steps import check_cut, check_evaluation, check_step
from tests import inplace_faults, param
from tests.conftest import PLANS, backend_by_name, small_data, small_net
from tests.faults import OF_DROPOUT, overridden, plant, without_mask_on_the_way_back
from tests.networks import every_dtype, problem_of, samples_of

RATES = [0.2, 0.5, 0.3]


# Rates


@pytest.mark.parametrize(
    ("rates", "layers", "expected"),
    [
        (0.5, 3, (0, 0.5, 0.5)),
        ([0.5], 3, (0, 0.5, 0.5)),
        ([0.5, 0.25], 3, (0, 0.5, 0.25)),
        ((0.125, 0.5, 0.25), 3, (0.125, 0.5, 0.25)),
        (np.array([0.125, 0.5]), 2, (0.125, 0.5)),
        (0.5, 2, (0, 0.5)),
        ([0.25], 1, (0.25,)),
        ([0, 0.5], 2, (0, 0.5)),
        (np.array(0.5), 2, (0, 0.5)),
        (iter([0.25, 0.5]), 2, (0.25, 0.5)),
    ],
)
def test_rates_of_hidden_layers_and_of_inputs(rates, layers, expected):
    assert Dropout.of(rates, layers, seed=0).rates == expected


@pytest.mark.parametrize("rates", [0, 0.0, [0, 0], [0.0, 0.0, 0.0]])
def test_no_rate_is_no_dropout(rates):
    assert Dropout.of(rates, 3, seed=2**70) is None  # whatever the seed


@pytest.mark.parametrize(
    ("rates", "layers", "message"),
    [
        (1, 3, "up to below 1"), (-0.1, 3, "from 0"), ([0.5, 1.5], 3, "1.5"), ("0.5", 3, "'0.5'"), (None, 3, "None"),
        (True, 3, "True"), (float("nan"), 3, "nan"), (1e-9, 3, "1/65,536"), (1 - 1e-9, 3, "1/65,536"),
        (0.5, 1, r"there are none: give \[0.5\] to drop inputs"),
        ([0.1] * 4, 3, "4 rates for 2 hidden layers"), ([], 3, "0 rates"), ([0.1, 0.1, 0.1], 2, "3 rates for 1 hidden"),
    ],
)  # fmt: skip
def test_rates_that_are_none_are_refused(rates, layers, message):
    with pytest.raises(gpubp.UsageError, match=message):
        Dropout.of(rates, layers, seed=0)


def test_a_seed_that_is_too_long_for_random_numbers_is_refused():
    with pytest.raises(gpubp.UsageError, match="64 bits"):
        Dropout.of(0.5, 2, seed=2**64)


# Masks


def test_a_mask_is_0_or_the_factor_in_the_rates_parts():
    mask = Mask((1, 2), 1, 3, dropped=RANGE // 4)
    assert mask.factor == 4 / 3
    drawn = mask.of(np.arange(500), 1000, np.float32)
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == {0, np.float32(4 / 3)}
    assert abs((drawn == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / drawn.size)
    assert abs(drawn.mean() - 1) < 5 * np.sqrt(1 / 3 / drawn.size)  # so that evaluation needs to know nothing


def test_every_step_layer_and_sample_has_a_mask_of_its_own():
    dropout, samples = Dropout.of([0.5] * 3, 3, seed=4), np.arange(8)
    masks = [dropout.masks(step, samples, [64] * 3, np.float64) for step in (0, 1)]
    rows = np.concatenate([mask for of_step in masks for mask in of_step])
    assert len({row.tobytes() for row in rows}) == len(rows) == 48


def test_layers_that_keep_all_have_no_mask():
    dropout = Dropout.of([0, 0.5, 0], 3, seed=4)
    assert [mask is None for mask in dropout.masks(0, np.arange(2), [5, 6, 7], np.float64)] == [
        True,
        False,
        True,
    ]
    assert str(dropout) == "dropout 0, 0.5, 0"


# The reference


@pytest.mark.usefixtures("no_clipping_warning")
@pytest.mark.parametrize("hidden", ["tanh", "softmax", "sigmoid", "identity"])
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("identity", "squared_error")])
def test_gradients_are_central_differences_with_a_fixed_mask(hidden, output, loss, rng):
    net = small_net((5, 6, 4, 3), hidden=hidden, output=output)
    x, y = rng.standard_normal((7, 5)), np.eye(3)[rng.integers(0, 3, 7)]
    masks = Dropout.of(RATES, 3, seed=8).masks(2, np.arange(7), net.sizes[:-1], np.float64)
    assert all((mask == 0).any() and (mask > 0).any() for mask in masks)
    how = [ACTIVATIONS[layer.activation] for layer in net.layers], LOSSES[loss], x, y, None, masks
    _, gradients = reference.backpropagate(net.parameters, *how)
    h = 2.0**-17
    for pair, of_pair in zip(net.parameters, gradients, strict=True):
        for parameter, gradient in zip(pair, of_pair, strict=True):
            for place in np.ndindex(parameter.shape):
                costs = []
                for sign in (1, -1):
                    parameter[place] += sign * h
                    costs.append(reference.backpropagate(net.parameters, *how)[0])
                    parameter[place] -= sign * h
                assert abs((costs[0] - costs[1]) / (2 * h) - gradient[place]) < 1e-8


# On every plan


@pytest.mark.usefixtures("no_clipping_warning")
@every_dtype
@pytest.mark.parametrize("rates", [RATES, [0, 0.5, 0], [0.4, 0, 0]], ids=str)
@pytest.mark.parametrize(
    "hidden", ["relu", param("tanh", always=False), "softmax", param("leaky_relu", always=False)]
)
def test_training_with_dropout_is_within_its_bounds(backend, hidden, rates, dtype, rng):
    net = small_net((20, 37, 150, 5), hidden=hidden, dtype=dtype)
    x, y = rng.standard_normal((90, 20)), rng.integers(0, 5, 90)
    report = gpubp.verify(net, x, y, dropout=rates, backend=backend)
    assert report.ok, str(report)
    assert report.steps == 2


FAULTY = [plan for plan in PLANS if "composed" in plan] + ["numba, composed"]


@pytest.mark.parametrize("plan", FAULTY)
@pytest.mark.parametrize(("operation", "name"), OF_DROPOUT)
def test_a_fault_of_dropout_is_caught_in_the_operations(plan, operation, name, rng):
    backend, fault = backend_by_name(plan), OF_DROPOUT[operation, name]
    faulty = without_mask_on_the_way_back(backend) if fault is None else plant(backend, operation, fault)
    net, data = small_net(dtype="float32"), small_data(rng)
    assert gpubp.verify(net, *data, dropout=RATES, backend=backend).ok
    assert not gpubp.verify(net, *data, dropout=RATES, backend=faulty).ok
    with pytest.raises(VerificationError):
        gpubp.fit(net, *data, dropout=RATES, epochs=1, backend=faulty, verify="first")


class Forgetful(inplace_faults.FaultyPlan):
    """An in-place plan that has no mask on one of its ways."""

    def __init__(self, way, problem):
        super().__init__("none", None, problem)
        self.way = way

    def _propagate(self, work, z, a, masks=None):
        super()._propagate(work, z, a, [None] * len(work.a) if self.way == "forward" else masks)

    def _hidden_delta(self, i, work, mask):
        super()._hidden_delta(i, work, None if self.way == "back" else mask)


@pytest.mark.parametrize(("way", "ok"), [("forward", False), ("back", False), ("neither", True)])
def test_a_way_without_its_mask_is_caught_in_place(way, ok, rng):
    faulty = overridden(backend_by_name("numpy"), plan=lambda self, problem: Forgetful(way, problem))
    assert gpubp.verify(small_net(), *small_data(rng), dropout=RATES, backend=faulty).ok == ok


# Of the fused plan's network: what it is changed to, by name.
def _layer(field: int, change):
    def fault(net):
        layers = net.layers.copy()
        layers[1, field] = change(net)
        return net._replace(layers=layers)

    return fault


def _chance(change):
    return lambda net: net._replace(chance=change(net.chance))


def _factor_of_one(net):
    memory = net.memory.copy()
    memory[net.layers[1, layout.FACTOR]] = 1
    return net._replace(memory=memory)


IN_FUSED = {
    "none": lambda net: net,
    "another seed": _chance(lambda chance: chance._replace(key=chance.key + 1)),
    "another seed's upper word": _chance(lambda chance: chance._replace(key=chance.key + (1 << 32))),
    "another rate": _layer(layout.DROPPED, lambda net: net.layers[1, layout.DROPPED] + 600),
    "another layer's bits": _layer(layout.KEPT, lambda net: net.layers[2, layout.KEPT]),
    "what is left is not taken": _layer(layout.A_PREV, lambda net: net.layers[0, layout.A]),
    "what is left is not multiplied": _factor_of_one,
    "bytes are not multiplied": lambda net: net._replace(table=net.one + LINE),
}
LINE = 16  # elements of float32 in a line of the plan's memory, where the bytes' numbers begin


def fused_plan(
    rng, *, kind="bytes", threads=1, dtype="float32", sizes=(200, 37, 150, 5), batch=32, rates=RATES, **how
):
    x = rng.integers(0, 256, (90, sizes[0]), np.uint8)
    if kind != "dense":
        x[:, sizes[0] // 4 : -1] = 0  # by column
    if kind == "listed":
        x[rng.random(x.shape) < 0.8] = 0
        x[:, 1::2] = 0
    net = small_net(sizes, dtype=dtype)
    given = x if kind in ("bytes", "dense") else (x / 255).astype(dtype)
    samples = samples_of(net, given, rng.integers(0, sizes[-1], 90))
    problem = problem_of(net, samples, batch=batch, dropout=rates, **how)
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("SHARED_WORK", "SHARED_EPOCH"):
            patch.setattr(f"gpubp.backends.cpu.fused.{limit}", 0)
        return FusedPlan("here", threads, problem), samples


@pytest.mark.parametrize("fault", IN_FUSED)
def test_a_fault_of_dropout_is_caught_in_the_fused_plan(fault, rng):
    plan, _ = fused_plan(rng)
    plan._use(IN_FUSED[fault](plan.net))
    checks = check_step(plan, np.arange(32), 0.1).checks
    assert all(check.ok for check in checks) == (fault == "none")


KINDS = {
    "dense": "all inputs",
    "bytes": "by column",
    "numbers": "by column",
    "listed": "non-zero inputs only, since",
}


@every_dtype
@pytest.mark.parametrize("threads", [1, 2, param(3, always=False)])
@pytest.mark.parametrize("sizes", [(200, 37, 150, 5), (129, 300, 260, 3), (64, 1, 17, 2)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_plan_drops_inputs_of_every_kind(kind, sizes, threads, dtype, rng):
    plan, samples = fused_plan(rng, kind=kind, threads=threads, dtype=dtype, sizes=sizes)
    assert KINDS[kind] in plan.describe()
    for order in (np.arange(32)[::-1].copy(), np.arange(64, 90)):
        checks = check_step(plan, order, 0.1).checks
        assert all(check.ok for check in checks), "\n".join(map(str, checks))
    assert all(check.ok for check in [*check_cut(plan), *check_evaluation(plan, samples)])


@pytest.mark.parametrize("kind", ["listed", "bytes"])
def test_inputs_are_dropped_where_each_sample_changes_the_weights(kind, rng):
    plan, _ = fused_plan(rng, kind=kind, optimizer=SGD(0.1), batch=10)
    assert "by each sample" in plan.describe()
    assert all(check.ok for check in check_step(plan, np.arange(10), 0.1).checks)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 127, 128, 129, 300])
def test_the_compiled_bits_are_those_of_the_masks(width, threads, rng):
    plan, _ = fused_plan(rng, sizes=(width, width, 3), rates=[0.3, 0.6], threads=threads, seed=2**63 + 11)
    order, plan.step = rng.permutation(90)[:32], 5
    only = layout.phase(layout.GATHER, 0)
    plan._run(plan.samples, order, 32, 1, None, layout.GRADIENTS, only=only)
    for i, mask in enumerate(plan.problem.masks(5, order)):
        place, row = plan.net.layers[i, [layout.KEPT, layout.KEPT_ROW]]
        bits = plan.net.chance.kept[place : place + 32 * row].reshape(32, row)
        got = np.unpackbits(bits, axis=1, bitorder="little")[:, :width]
        np.testing.assert_array_equal(got, mask > 0)


def test_the_fused_plan_in_chunks_is_right(rng):
    """A batch of more samples than are in work at a time."""
    net = small_net((30, 20, 5), dtype="float32")
    samples = samples_of(net, rng.standard_normal((2500, 30)), rng.integers(0, 5, 2500))
    plan = FusedPlan("here", 2, problem_of(net, samples, batch=2400, dropout=[0.2, 0.5]))
    for count in (2400, 100):
        checks = check_step(plan, rng.permutation(2500)[:count], 0.1).checks
        assert all(check.ok for check in checks), "\n".join(map(str, checks))


# fit


def trained(net, data, **options):
    how = {"epochs": 3, "batch_size": 16, "optimizer": Adam(0.01), "dropout": RATES, "seed": 3, **options}
    history = gpubp.fit(net, *data, **how)
    return [p for pair in net.parameters for p in pair], history


def test_fit_repeats_to_the_bit_and_depends_on_rates_and_seed(backend, rng):
    data = small_data(rng)
    first, again, *others = (
        trained(small_net(), data, backend=backend, **change)[0]
        for change in ({}, {}, {"seed": 4}, {"dropout": 0}, {"dropout": [0.2, 0.5, 0.25]})
    )
    np.testing.assert_equal(again, first)
    for other in others:
        assert (other[0] != first[0]).any()


def test_threads_make_no_difference_to_what_is_dropped(rng):
    """To the bit, in layers that threads share by samples and by units."""
    data = rng.standard_normal((400, 300)), rng.integers(0, 3, 400)
    plans = []
    for threads in (1, 2):
        net = small_net((300, 400, 3), dtype="float32")
        samples = samples_of(net, *data)
        with pytest.MonkeyPatch.context() as patch:
            for limit in ("SHARED_WORK", "SHARED_EPOCH"):
                patch.setattr(f"gpubp.backends.cpu.fused.{limit}", 0)
            plans.append(FusedPlan("here", threads, problem_of(net, samples, batch=64, dropout=[0.2, 0.5])))
    states = []
    for plan in plans:
        plan.run(np.arange(400), np.full(7, 0.1))
        states.append(plan.state().parameters)
    for one, two in zip(*states, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_resumed_run_drops_what_it_would_have_dropped(backend, rng, tmp_path):
    data, path = small_data(rng), tmp_path / "c.npz"
    whole, _ = trained(small_net(), data, backend=backend)
    trained(small_net(), data, backend=backend, epochs=1, save_to=path)
    resumed, _ = trained(small_net(), data, backend=backend, resume=path)
    np.testing.assert_equal(resumed, whole)


def test_a_checkpoint_of_other_rates_is_refused(rng, tmp_path):
    data, path = small_data(rng), tmp_path / "c.npz"
    trained(small_net(), data, backend="numpy", epochs=1, save_to=path)
    with pytest.raises(gpubp.UsageError, match="its dropout is"):
        trained(small_net(), data, backend="numpy", dropout=0.5, resume=path)


def test_evaluation_predictions_and_saved_networks_have_none(backend, rng, tmp_path):
    data = small_data(rng)
    net = small_net()
    _, history = trained(net, data, backend=backend, validation=data, epochs=1)
    outputs = net.forward(data[0])
    expected = -np.log(outputs[np.arange(50), data[1]]).mean()
    assert history["validation_loss"][0] == pytest.approx(expected, rel=1e-12)
    assert history["loss"][0] != pytest.approx(expected, rel=1e-3)  # of training, with dropout
    gpubp.save(net, tmp_path / "m.npz")
    np.testing.assert_array_equal(gpubp.load(tmp_path / "m.npz").forward(data[0]), outputs)


def test_gradients_outside_training_have_none(rng):
    net, data = small_net(), small_data(rng)
    own = gpubp.gradients(net, *data, backend="numpy")[1]
    problem = problem_of(net, samples_of(net, *data), batch=50)
    assert problem.dropout is None
    expected = reference.backpropagate(
        net.parameters, problem.activations, problem.loss, problem.samples.inputs, problem.samples.targets
    )[1]
    np.testing.assert_allclose(own[0][0], expected[0][0], rtol=1e-12)


def test_the_plan_says_what_is_dropped(backend, rng):
    _, history = trained(small_net(), small_data(rng), backend=backend, epochs=1)
    assert "dropout 0.2, 0.5, 0.3" in history.plan
    _, history = trained(small_net(), small_data(rng), backend=backend, epochs=1, dropout=0)
    assert "dropout" not in history.plan


def test_a_fault_that_only_dropout_shows_is_not_hidden_by_a_run_without(rng, monkeypatch):
    """What passed without dropout has not passed with it."""
    data = small_data(rng)
    net = small_net()
    trained(net, data, backend="numpy", dropout=0)
    faulty = overridden(backend_by_name("numpy"), plan=lambda self, problem: Forgetful("back", problem))
    with pytest.raises(VerificationError):
        trained(net, data, backend=faulty, epochs=1)


def test_steps_before_count(rng):
    """A plan that goes on from a state draws what the step of that state does."""
    net = small_net()
    problem = problem_of(net, samples_of(net, *small_data(rng)), dropout=RATES)
    first, later = (backend_by_name("numpy").plan(problem) for _ in range(2))
    later.load_state(replace(later.state(), step=9))
    order = np.arange(32)
    assert first.gradients(order)[0] != later.gradients(order)[0]
    assert all(check.ok for check in check_step(later, order, 0.1).checks)
