"""The verifier: right results pass on every backend, and every planted fault is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpubp
from gpubp.backends import get
from gpubp.backends.cpu.fused import FusedPlan
from gpubp.distributed.ranks import Alone
from gpubp.functions import ACTIVATIONS, LOSSES, Activation
from gpubp.kernels.cpu import layout
from gpubp.network import Network
from gpubp.optimizers import OPTIMIZERS, SGD, Adam
from gpubp.randomness.deform import Deformation
from gpubp.training import passed
from gpubp.training.checks import CheckSchedule
from gpubp.verification.bounds import ACTIVATION_ROUNDINGS, KINKS, SLOPE_ERRORS, worst_only
from gpubp.verification.compare import compare
from gpubp.verification.report import Report, VerificationError
from tests import fused_faults, inplace_faults, param
from tests.conftest import BACKENDS, PLANS, backend_by_name
from tests.faults import DEFORMED, FAULTS, OUTPUTS, overridden, plant
from tests.networks import EVERY_OPTIMIZER, random_problem

SHAPES = {"2 layers": [20, 15, 5], "4 layers": [64, 40, 30, 20, 10], "10 layers": [20, *[16] * 9, 5]}


def flat(net):
    return [p for pair in net.parameters for p in pair]


def dense_problem(rng, n=90, dtype="float32", sizes=(20, 15, 5)):
    """A net and data in which every number matters: no zeros, and biases that are not 0."""
    net = Network(sizes, hidden="tanh", init="lecun", seed=4, dtype=dtype)
    net.parameters = [(w, 0.3 * rng.standard_normal(b.shape).astype(b.dtype)) for w, b in net.parameters]
    return net, rng.standard_normal((n, sizes[0])), rng.integers(0, sizes[-1], n)


@pytest.mark.parametrize(
    ("plan", "dtype"),
    [
        param(plan, dtype, always="cupy" not in plan and (plan == "numpy" or dtype == "float32"))
        for plan in PLANS
        for dtype in ("float32", "float64")
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss_is_within_its_bounds(plan, activation, loss, dtype, rng):
    net = Network([20, 15, 7, 5], hidden=[activation, "sigmoid"], output=activation, dtype=dtype, seed=3)
    x, y, w = rng.standard_normal((64, 20)), rng.integers(0, 5, 64), rng.random(64)
    report = gpubp.verify(net, x, y, loss=loss, sample_weight=w, backend=backend_by_name(plan))
    assert report.ok, str(report)
    assert report.steps == 2


@pytest.mark.parametrize("plan", [param(plan, always="cupy" not in plan) for plan in PLANS])
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_every_optimizers_step_is_within_its_bounds(plan, optimizer, rng):
    options = {"batch_size": 32, "epochs": 3, "backend": backend_by_name(plan), "verify": "step"}
    report = gpubp.fit(*dense_problem(rng), optimizer=optimizer, **options).verification
    assert report.ok
    assert report.steps == 9


# Where a fault can be: each backend's operations, which its composed plan is made of, the fused plan's phases, and the
# in-place plan's methods.
FAULTY = {
    f"{name}, composed": lambda *fault, name=name: plant(backend_by_name(f"{name}, composed"), *fault)
    for name in BACKENDS
} | {
    "numba, fused": lambda *fault: fused_faults.plant_in_plan(backend_by_name("numba"), *fault),
    "numpy, inplace": lambda *fault: inplace_faults.plant_in_plan(backend_by_name("numpy"), *fault),
}
DEFAULT = ("numpy, composed", "numpy, inplace", "numba, fused")
by_name = pytest.mark.parametrize("name", [param(name, always=name in DEFAULT) for name in FAULTY])


@pytest.mark.parametrize("name", FAULTY)
def test_a_bias_left_out_shows_on_a_fresh_network_too(name, rng):
    faulty = FAULTY[name]("forward", FAULTS["forward", "missing bias"])
    net = Network([20, 15, 5])
    start = [p.copy() for p in flat(net)]
    report = gpubp.verify(net, rng.random((90, 20)), rng.integers(0, 5, 90), backend=faulty)
    failed = {check.name for check in report.checks if not check.ok}
    assert {"cost", "∂C/∂W1"} <= failed
    assert ("z1 forward" in failed) == ("composed" in name)
    np.testing.assert_equal(flat(net), start)


def no_fault(inputs, before, after):
    """What the planted faults are measured against."""


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        param(name, shape, always=shape == "2 layers" and name in DEFAULT)
        for name in FAULTY
        for shape in SHAPES
    ],
)
@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_a_planted_fault_is_caught_by_verify_and_by_fit(name, operation, fault, shape, rng):
    assert_caught(FAULTY[name](operation, FAULTS[operation, fault]), *dense_problem(rng, sizes=SHAPES[shape]))


def assert_caught(faulty, net, x, y):
    assert not gpubp.verify(net, x, y, backend=faulty).ok
    with pytest.raises(VerificationError) as caught:
        gpubp.fit(net, x, y, batch_size=64, epochs=1, backend=faulty, verify="first")
    assert caught.value.exit_code == 3


def deformed_problem(rng):
    """Images that are deformed in every way, and the net of another size for them."""
    net = Network([72, 15, 5], hidden="tanh", init="lecun", seed=4)
    deform = gpubp.Deform(alpha=15, sigma=3, rotation=15, scaling=0.1, rotation_by_class={1: 5})
    return net, rng.integers(0, 256, (90, 9, 8), np.uint8), rng.integers(0, 5, 90), deform


DEFORMING = [name for name in FAULTY if name != "numba, fused"]


@pytest.mark.parametrize("name", DEFORMING)
@pytest.mark.parametrize("fault", DEFORMED)
def test_a_fault_in_deformed_images_is_caught(name, fault, rng):
    """By the operation's own check where a plan has it, and by the gradients of each step."""
    net, x, y, deform = deformed_problem(rng)
    options = {"batch_size": 64, "epochs": 1, "verify": "step"}
    assert gpubp.verify(net, x, y, deform=deform, backend=FAULTY[name]("deform", no_fault)).ok
    faulty = FAULTY[name]("deform", DEFORMED[fault])
    report = gpubp.verify(net, x, y, deform=deform, backend=faulty)
    failed = {check.name for check in report.checks if not check.ok}
    assert ("deform" in failed) == ("composed" in name)
    assert "∂C/∂W1" in failed
    with pytest.raises(VerificationError):
        gpubp.fit(net, x, y, deform=deform, backend=faulty, **options)


@pytest.mark.parametrize("name", PLANS)
def test_only_training_is_deformed(name, rng):
    net, x, _, deform = deformed_problem(rng)
    outputs, problem = net.forward(x), random_problem((72, 15, 5))
    deformation = Deformation.of(deform, x.reshape(90, 72), (9, 8), 0)
    plan, deformed = (
        backend_by_name(name).plan(replace(problem, deformation=some)) for some in (None, deformation)
    )
    given = problem.samples
    np.testing.assert_allclose(plan.predict(given.inputs), deformed.predict(given.inputs), rtol=1e-12)
    costs = [p.evaluate(p.upload(given)).costs for p in (plan, deformed)]
    np.testing.assert_allclose(*costs, rtol=1e-12)
    gradients = [p.gradients(np.arange(30))[1][0][0] for p in (plan, deformed)]
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-3
    np.testing.assert_array_equal(net.forward(x), outputs)


def one_percent_off(name):
    """A fault of the update that makes one of its results change by 1% more."""

    def fault(inputs, before, after):
        if name in after:
            after[name][...] = before[name] + 1.01 * (after[name] - before[name])

    return fault


@by_name
@pytest.mark.parametrize(
    ("optimizer", "result"),
    [
        (o, result)
        for o in EVERY_OPTIMIZER
        for result in ("parameter", "slots0", "slots1")[: 1 + len(o.slots)]
    ],
    ids=str,
)
def test_one_percent_off_in_any_optimizers_step_is_caught(name, optimizer, result, rng):
    """By the check of that optimizer's step alone: a bound that is too wide would let it pass."""
    options = {"optimizer": optimizer, "batch_size": 64, "epochs": 1, "verify": "step"}
    assert gpubp.fit(*dense_problem(rng), backend=FAULTY[name]("update", no_fault), **options).verification.ok
    with pytest.raises(VerificationError):
        gpubp.fit(*dense_problem(rng), backend=FAULTY[name]("update", one_percent_off(result)), **options)


@pytest.mark.parametrize("name", [name for name in FAULTY if name.endswith("composed")])
def test_verify_holds_every_optimizers_update_to_its_bound(name, rng):
    report = gpubp.verify(*dense_problem(rng), backend=FAULTY[name]("update", one_percent_off("parameter")))
    wrong = {check.name.split()[3] for check in report.checks if "update by" in check.name and not check.ok}
    assert wrong == set(OPTIMIZERS)


def sparse_problem(rng):
    """Most inputs are 0, but not the last one, which some faults change."""
    net, x, y = dense_problem(rng, sizes=(150, 15, 5))
    return net, x * (rng.random(x.shape) < 0.2) + 1e-3 * np.eye(x.shape[1])[-1], y


def alike_problem(rng):
    """As pixels are: runs of inputs that are 0 or not, but for the last one."""
    net, x, y = dense_problem(rng, sizes=(150, 15, 5))
    runs = np.repeat(rng.random((len(x), 30)) < 0.2, 5, axis=1)
    return net, x * runs + 1e-3 * np.eye(x.shape[1])[-1], y


# how the fused plan takes their inputs
PROBLEMS = {
    dense_problem: "all inputs",
    sparse_problem: "non-zero inputs only, since",
    alike_problem: "non-zero inputs only, by column",
}


@pytest.mark.parametrize("problem", [sparse_problem, alike_problem])
@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_a_fault_on_sparse_inputs_is_caught(operation, fault, problem, rng):
    assert_caught(FAULTY["numba, fused"](operation, FAULTS[operation, fault]), *problem(rng))


@pytest.mark.parametrize("problem", [sparse_problem, alike_problem])
def test_one_percent_off_in_a_step_straight_to_the_weights_is_caught(problem, rng):
    options = {"optimizer": SGD(0.1), "batch_size": 64, "epochs": 1, "verify": "step"}
    faulty = FAULTY["numba, fused"]("update", one_percent_off("parameter"))
    with pytest.raises(VerificationError, match="W1 after update"):
        gpubp.fit(*problem(rng), backend=faulty, **options)


@pytest.mark.parametrize("operation", OUTPUTS)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        param(name, problem, always=name == "numba, fused" or (problem is dense_problem and name in DEFAULT))
        for name in FAULTY
        for problem in PROBLEMS
    ],
)
def test_the_same_problem_without_a_fault_passes(name, operation, problem, rng):
    """What the planted faults are measured against: the wrapper alone changes nothing."""
    wrapped = FAULTY[name](operation, no_fault)
    net, x, y = problem(rng)
    assert gpubp.verify(net, x, y, backend=wrapped).ok
    assert gpubp.fit(net, x, y, batch_size=64, epochs=1, backend=wrapped, verify="step").verification.ok


@pytest.mark.parametrize("operation", [name for name in OUTPUTS if name != "weight_grad"])
@pytest.mark.parametrize("optimizer", [SGD(0.5, 0.9), Adam(0.01)], ids=lambda o: o.kind)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_plan_run_in_its_phases_leaves_the_bits_of_one_call(operation, optimizer, problem, rng):
    """So that what a fault does to the phases is what it would do to the plan.

    Not where gradients get the fault, along which NumPy then makes the step.
    """
    start, x, y = problem(rng)
    kind = PROBLEMS[problem]
    results = []
    for backend in (backend_by_name("numba"), FAULTY["numba, fused"](operation, no_fault)):
        net = Network(start.sizes, hidden="tanh", dtype="float32", seed=4)
        options = {"batch_size": 32, "epochs": 2, "optimizer": optimizer, "verify": "off"}
        history = gpubp.fit(net, x, y, backend=backend, **options)
        assert kind in history.plan
        results.append([*flat(net), history["loss"]])
    np.testing.assert_equal(*results)


def test_the_report_names_tensor_element_got_expected_and_fraction(rng, tmp_path):
    net, x, y = dense_problem(rng)
    faulty = plant(
        backend_by_name("numpy, composed"), "weight_grad", FAULTS["weight_grad", "wrong tail element"]
    )
    path, start = tmp_path / "c.npz", [p.copy() for p in flat(net)]
    with pytest.raises(VerificationError) as caught:
        gpubp.fit(net, x, y, batch_size=64, epochs=1, backend=faulty, save_to=path)
    text = str(caught.value)
    for word in ("∂C/∂W2", "[4, 14]", "numpy backend, epoch 1, step 1", "got", "expected", "of its bound"):
        assert word in text
    assert str(path) in text
    np.testing.assert_equal(flat(gpubp.load(path)), start)  # the state before the check that failed


def test_nan_on_one_side_only_fails_and_on_both_passes():
    def check(got, expected, bound):
        return compare("x", np.array([got]), worst_only(np.array([expected]), np.array([bound])))

    nan, inf = np.nan, np.inf
    cases = ((nan, 1, inf), (inf, 1, 1), (inf, 1, inf), (1, nan, nan), (1, inf, inf), (1, 2, nan))
    for got, expected, bound in cases:
        assert not check(got, expected, bound).ok
        report = Report("a report keeps the worst, which is not NaN")
        report.add([check(1, 1, 0)])
        report.add([check(got, expected, bound)])
        assert not report.ok
    assert check(nan, nan, nan).ok
    assert check(inf, inf, nan).ok


def test_a_nan_from_the_backend_is_a_failure(backend, rng):
    def poison(inputs, before, after):
        after["delta"][0, 0] = np.nan

    assert not gpubp.verify(*dense_problem(rng), backend=plant(backend, "hidden_delta", poison)).ok


def test_an_error_in_norm_is_caught_where_no_element_leaves_its_bound(rng):
    """Outputs rounded to 12 bits: every element is within the worst case, all of them are far from typical."""
    net = Network([300, 60, 8], hidden="tanh", seed=1)
    x, y = rng.random((200, 300)), rng.integers(0, 8, 200)

    def coarse(inputs, before, after):
        for name in after:
            after[name][...] = np.round(after[name] * 2**12) / 2**12

    wrong = plant(backend_by_name("numpy, composed"), "forward", coarse)
    checks = {c.name: c for c in gpubp.verify(net, x, y, backend=wrong).checks}
    assert checks["∂C/∂W1"].fraction < 1 < checks["∂C/∂W1"].norm_fraction


def test_policies_verify_the_steps_they_name(rng, monkeypatch):
    net, x, y = dense_problem(rng, n=100)  # 7 steps an epoch, the last one short

    def steps(policy, epochs):
        monkeypatch.setattr(passed, "_passed", {})
        options = {"batch_size": 16, "epochs": epochs, "backend": "numpy", "verify": policy}
        report = gpubp.fit(net, x, y, **options).verification
        assert (report.seconds > 0) == (policy != "off")
        return report.steps

    assert steps("off", 2) == 0
    assert steps("first", 3) == 4  # the first three, and the short last one of the first epoch
    assert steps("epoch", 3) == 4 + 2
    assert steps("step", 2) == 14
    with pytest.raises(gpubp.UsageError, match="always"):
        steps("always", 1)


def test_verification_changes_no_bit_of_the_result(backend, rng):
    results = []
    for policy in ("off", "step"):
        net, x, y = dense_problem(np.random.default_rng(5))
        gpubp.fit(net, x, y, batch_size=32, epochs=2, optimizer=Adam(0.01), backend=backend, verify=policy)
        results.append(flat(net))
    np.testing.assert_equal(*results)


def test_verifying_an_epoch_keeps_to_its_budget():
    """Two steps cost 0.12 s: a third keeps to 0.2 s, a fourth only to 3% of a run that is long enough."""
    report = Report("of a run", steps=2, seconds=0.12)
    schedule = CheckSchedule("epoch", 7, report, "a plan", Alone())

    def chosen(epoch, elapsed):
        return [step for step in range(7) if schedule.includes(epoch, step, 9, elapsed=elapsed)]

    assert chosen(1, elapsed=1.0) == [6]
    report.steps, report.seconds = 3, 0.18
    assert not schedule.includes(1, 6, 9, elapsed=7.9)
    assert schedule.includes(1, 6, 9, elapsed=8.1)
    assert [chosen(epoch, elapsed=99.0) for epoch in (2, 3, 4)] == [[2], [6], [4]]


def runs_of(changes: list[dict], **settings):
    """The reports of runs of one process, on a net and data of their own each."""
    for change in changes:
        net, x, y = dense_problem(np.random.default_rng(5))
        how = {
            "batch_size": 32,
            "epochs": 3,
            "backend": "numba",
            "optimizer": Adam(0.01),
            **settings,
            **change,
        }
        yield gpubp.fit(net, x, y, **how).verification


def test_what_has_passed_in_this_process_is_not_verified_in_full_again(backend):
    first, again, third = runs_of([{}, {}, {"optimizer": Adam(0.003)}], backend=backend)
    assert (first.steps_before, again.steps_before, third.steps_before) == (0, first.steps, first.steps)
    assert first.steps >= 3
    assert again.steps == third.steps == 1
    earlier = f"1 step (and {first.steps} by an earlier run of the same code on the same shapes), "
    assert earlier in again.summary()
    assert "earlier" not in first.summary()
    assert again.to_dict()["steps_before"] == first.steps


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 16}, {"optimizer": Adam(0.01, weight_decay=0.1)}, {"optimizer": SGD(0.1)},
        {"loss": "squared_error"}, {"backend": "numpy"}, {"verify": "step"},
        {"sample_weight": np.linspace(0.5, 2, 90)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_other_shapes_rules_and_backends_are_verified_in_full(change):
    _, other = runs_of([{}, change])
    assert other.steps_before == 0
    assert other.steps >= 3


def test_a_fault_is_caught_by_the_first_run_that_meets_it(monkeypatch):
    """However often the same plan has passed before."""
    assert all(report.ok for report in runs_of([{}, {}]))
    usual = FusedPlan.run

    def run(self, order, learning_rates):
        stats = usual(self, order, learning_rates)
        self.net.memory[self.net.layers[1, layout.W]] += 1e-3
        return stats

    monkeypatch.setattr(FusedPlan, "run", run)
    for _ in range(2):  # what failed has not passed
        with pytest.raises(VerificationError):
            list(runs_of([{}]))


def clip_at(low, high):
    """An activation with two kinks, away from z = 0, whose roundings can carry a across the upper one."""
    return Activation(
        "clip", "…", "…", lambda z: np.clip(z, low, high), lambda a: ((a > low) & (a < high)).astype(a.dtype)
    )


def on_a_kink(activation, place):
    """A net whose z₁ are ``place`` but for roundings, which leave them on either side, and data for it."""
    net = Network([3, 400, 2], hidden=activation, seed=0)
    scale = np.random.default_rng(0).uniform(-1, 1, (400, 1))
    weights = (scale * np.array([[3.0, 0.0, -2.0]])).astype(np.float32)
    bias = (place + 0.3 * scale[:, 0]).astype(np.float32)
    net.parameters[0] = (weights, bias)
    x = np.tile(np.array([[0.1, 0.2, 0.3]]), (64, 1)).astype(np.float32)
    z = x.astype(np.float64) @ weights.T.astype(np.float64) + bias
    assert (z - place).min() < 0 < (z - place).max()
    assert np.abs(z - place).max() < 1e-6
    return net, x, np.arange(64) % 2


@pytest.mark.parametrize(("activation", "place"), [(name, z) for name in KINKS for z, _ in KINKS[name]])
def test_a_unit_on_its_kink_is_right_on_either_side(activation, place, monkeypatch):
    net, x, y = on_a_kink(activation, place)
    for name in ("numpy", "numba"):
        report = gpubp.verify(net, x, y, backend=name)
        assert report.ok, str(report)
    monkeypatch.setitem(KINKS, activation, ())
    assert not gpubp.verify(net, x, y, backend="numpy").ok  # without its entry in the table it would not be


@pytest.mark.parametrize("place", [-3.0, -0.7, 1.0, 3.1])
def test_a_kink_may_be_anywhere(place, monkeypatch):
    low, high = sorted((place, -9.0 if place < 0 else 0.1))
    monkeypatch.setitem(ACTIVATIONS, "clip", clip_at(np.float32(low).item(), np.float32(high).item()))
    monkeypatch.setitem(ACTIVATION_ROUNDINGS, "clip", 0)
    monkeypatch.setitem(SLOPE_ERRORS, "clip", SLOPE_ERRORS["relu"])
    for kinks, right in ((((low, 1.0), (high, 1.0)), True), ((), False)):
        monkeypatch.setitem(KINKS, "clip", kinks)
        net, x, y = on_a_kink("clip", place)
        assert gpubp.verify(net, x, y, backend="numpy").ok == right


def test_an_activation_of_which_no_errors_are_known_is_refused(monkeypatch, rng):
    monkeypatch.delitem(SLOPE_ERRORS, "tanh")
    with pytest.raises(KeyError, match="tanh"):
        gpubp.verify(*dense_problem(rng), backend="numpy")


def wrapped_plan(backend, **overrides):
    """A backend whose plans have some methods replaced: (plan, real method, *arguments) -> result."""

    def plan(self, problem):
        made = type(backend).plan(self, problem)
        for name, replacement in overrides.items():
            real = getattr(made, name)
            setattr(made, name, lambda *a, real=real, replacement=replacement: replacement(made, real, *a))
        return made

    return overridden(backend, plan=plan)


def first_rate_for_all(plan, run, order, rates):
    return run(order, np.full(len(rates), rates[0]))


def first_batch_for_all(plan, run, order, rates):
    return run(np.resize(order[: plan.batch_size], len(order)), rates)


def half_the_cost(plan, evaluate, samples):
    stats = evaluate(samples)
    return replace(stats, costs=stats.costs / 2)


def every_hit(plan, evaluate, samples):
    stats = evaluate(samples)
    return replace(stats, hits=np.full_like(stats.hits, stats.samples))


PLAN_FAULTS = {"run": (first_rate_for_all, first_batch_for_all), "evaluate": (half_the_cost, every_hit)}


@pytest.mark.parametrize(("method", "fault"), [(m, fault) for m in PLAN_FAULTS for fault in PLAN_FAULTS[m]])
def test_a_plan_that_is_right_only_step_by_step_is_caught(backend, method, fault, rng):
    """What a plan of many steps in one call can get wrong, and its evaluation, which early stopping trusts."""
    faulty = wrapped_plan(backend, **{method: fault})
    net, x, y = dense_problem(rng)
    assert not gpubp.verify(net, x, y, backend=faulty).ok
    with pytest.raises(VerificationError):
        gpubp.fit(net, x, y, batch_size=32, epochs=1, validation=(x, y), backend=faulty, verify="first")


def test_a_wrong_layer_of_a_deep_net_is_seen_from_its_gradient_alone(rng):
    """A thousandth off in the first layer of five, which every worst-case bound of such depth allows."""

    def off(plan, gradients, order):
        cost, pairs = gradients(order)
        return cost, [(pairs[0][0] * 0.999, pairs[0][1]), *pairs[1:]]

    net = Network([784, 256, 128, 64, 10], hidden="tanh")  # which has no kink to be in doubt of
    faulty = wrapped_plan(get("numpy", threads=1), gradients=off)
    x, y = rng.random((100, 784)), rng.integers(0, 10, 100)
    checks = {check.name: check for check in gpubp.verify(net, x, y, backend=faulty).checks}
    assert checks["∂C/∂W1"].fraction < 1 < checks["∂C/∂W1"].norm_fraction


def test_a_run_that_diverges_is_not_called_a_wrong_backend(backend, rng):
    net = Network([50, 30, 5])
    x, y = rng.standard_normal((256, 50)) * 1e7, rng.integers(0, 5, 256)
    history = gpubp.fit(net, x, y, optimizer=SGD(1e-9), epochs=1, backend=backend, verify="step")
    assert history.verification.ok


def test_a_resumed_run_is_verified_from_its_own_first_step(rng, tmp_path):
    net, x, y = dense_problem(rng)
    path = tmp_path / "c.npz"
    gpubp.fit(net, x, y, batch_size=32, epochs=1, backend="numpy", save_to=path)
    faulty = plant(backend_by_name("numpy, composed"), "update", FAULTS["update", "learning rate 1% off"])
    with pytest.raises(VerificationError):
        gpubp.fit(net, x, y, batch_size=32, epochs=2, backend=faulty, resume=path, verify="first")


def test_gradients_that_underflow_are_not_taken_for_wrong(backend):
    """Where δ is subnormal, one backend may have 0 and another not; both are right."""
    rng = np.random.default_rng(0)
    x = rng.uniform(100, 4000, (60, 5))
    net = Network([5, 8, 1], hidden="relu", output="sigmoid", dtype="float32")
    net.parameters[1] = (net.parameters[1][0], np.array([-86.0], np.float32))  # σ(z) of some 1e-38
    net.parameters[1] = (net.parameters[1][0] * np.float32(1e-5), net.parameters[1][1])
    report = gpubp.verify(net, x, np.zeros(60, int), loss="binary_cross_entropy", backend=backend)
    assert report.ok, report
