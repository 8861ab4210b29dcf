"""fit(): repeatable, resumable, interruptible, and the same on every backend."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from inspect import getmembers, isfunction, signature

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpubp
from gpubp import backends, reference
from gpubp.backends.backend import Backend
from gpubp.data.samples import byte_table
from gpubp.errors import DataError, UsageError
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.network import Network
from gpubp.optimizers import SGD, Adam, Schedule
from gpubp.training.stopping import EarlyStopping
from tests import param
from tests.conftest import BACKENDS, PLANS, backend_by_name, small_data, small_net
from tests.networks import EVERY_OPTIMIZER, problem_of, samples_of


def flat(network):
    return np.concatenate([p.ravel() for pair in network.parameters for p in pair])


@pytest.fixture
def data(rng):
    return small_data(rng)


def trained(backend, data, *, net=None, **settings):
    net = net or small_net(dtype="float32")
    history = gpubp.fit(net, *data, **{"batch_size": 16, "epochs": 4, "backend": backend, **settings})
    return net, history


def test_the_same_seed_twice_is_bitwise_equal(backend, data):
    (a, first), (b, second), (c, _) = (trained(backend, data, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(flat(a), flat(b))
    assert first["loss"] == second["loss"]
    assert first["accuracy"] == second["accuracy"]
    assert (flat(a) != flat(c)).any()


every_plan_and_optimizer = pytest.mark.parametrize(
    ("plan", "optimizer"),
    [
        param(plan, optimizer, always="cupy" not in plan or optimizer in EVERY_OPTIMIZER[3:6:2])
        for plan in PLANS
        for optimizer in EVERY_OPTIMIZER
    ],
    ids=str,
)


@every_plan_and_optimizer
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(plan, optimizer, data, tmp_path):
    backend, path = backend_by_name(plan), tmp_path / "checkpoint.npz"
    settings = {"optimizer": optimizer, "schedule": Schedule("step", every=2), "validation": data}
    whole, history = trained(backend, data, epochs=5, **settings)
    trained(backend, data, epochs=2, save_to=path, **settings)
    other = small_net(dtype="float32", seed=99)
    resumed, rest = trained(backend, data, net=other, epochs=5, resume=path, **settings)
    np.testing.assert_array_equal(flat(resumed), flat(whole))
    for column in ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate"):
        assert rest[column] == history[column]


@pytest.mark.parametrize("questions", range(1, 9))
def test_a_run_stopped_inside_an_epoch_resumes_bitwise(questions, data, tmp_path, monkeypatch):
    # 4 steps an epoch, of 16, 16, 16 and 2 samples, and a question before each of them
    settings = {"epochs": 2, "optimizer": Adam(0.01), "verify": "step"}
    whole, history = trained("numpy", data, **settings)
    assert min(history["seconds"]) > 0  # what training took, however long each check
    answers = iter([False] * questions + [True] * 9)
    path = tmp_path / "checkpoint.npz"
    with monkeypatch.context() as patch:
        asked = nullcontext(lambda: next(answers))
        patch.setattr("gpubp.training.fit.until_interrupted", lambda **_: asked)
        _, stopped = trained("numpy", data, save_to=path, **settings)
    assert stopped.stopped == ("interrupted" if questions < 8 else "done")
    resumed, rest = trained("numpy", data, resume=path, **settings)
    np.testing.assert_array_equal(flat(resumed), flat(whole))
    assert rest["loss"] == history["loss"]
    assert rest["accuracy"] == history["accuracy"]


@pytest.mark.parametrize("seconds", [0, 1e-4, 100])
def test_how_a_run_is_cut_into_calls_changes_nothing(backend, seconds, data, monkeypatch):
    expected, history = trained(backend, data, verify="off")
    monkeypatch.setattr("gpubp.training.loop.CHUNK_SECONDS", seconds)
    net, again = trained(backend, data, verify="off")
    np.testing.assert_array_equal(flat(net), flat(expected))
    assert again["loss"] == history["loss"]


def test_steps_are_the_references_steps(rng):
    """The plain loop that anyone would write, batch by batch, ends at the same weights."""
    net, (x, y) = small_net(seed=3), small_data(rng)
    mine = Network([12, 9, 7, 4], hidden="tanh", dtype="float64", seed=3)
    gpubp.fit(net, x, y, optimizer=SGD(0.2), batch_size=16, epochs=2, backend="numpy", seed=6, verify="off")
    generator, targets, parameters = np.random.default_rng(6), np.eye(4)[y], mine.parameters
    how = mine.activations, LOSSES["cross_entropy"]
    for _ in range(2):
        order = generator.permutation(len(x))
        for start in range(0, len(x), 16):
            batch = order[start : start + 16]
            _, grads = reference.backpropagate(parameters, *how, x[batch], targets[batch])
            pairs = zip(parameters, grads, strict=True)
            parameters = [(w - 0.2 * gw, b - 0.2 * gb) for (w, b), (gw, gb) in pairs]
    mine.parameters = parameters
    np.testing.assert_allclose(flat(net), flat(mine), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", [param(name, always=name != "cupy") for name in BACKENDS])
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4)
    | st.lists(st.integers(1, 6), min_size=11, max_size=11),
    hidden=st.sampled_from(sorted(ACTIVATIONS)),
    output=st.sampled_from(["softmax", "sigmoid", "identity"]),
    batch=st.integers(1, 40),
    n=st.integers(1, 70),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_any_shape_trains_within_the_bounds(name, sizes, hidden, output, batch, n, dtype, seed):
    """Batch 1, width 1, widths that are no multiple of a vector, one layer, ten layers."""
    assume(output != "softmax" or sizes[-1] > 1)
    rng = np.random.default_rng(seed)
    net = Network(sizes, hidden=hidden, output=output, dtype=dtype, seed=seed)
    shape = n, sizes[0]
    x = rng.integers(0, 256, shape, np.uint8) if seed % 2 else rng.standard_normal(shape)
    y = rng.random((n, sizes[-1]))
    how = {"loss": "quadratic", "optimizer": SGD(0.01, momentum=0.5), "verify": "step"}
    history = gpubp.fit(net, x, y, batch_size=batch, epochs=1, backend=backend_by_name(name), **how)
    assert history.verification.steps == -(-n // batch)


def test_gradients_agree_on_every_backend(backend, rng):
    net, (x, y) = small_net(), small_data(rng)
    weight = rng.random(len(x))
    cost, gradients = gpubp.gradients(net, x, y, sample_weight=weight, backend=backend)
    how = net.activations, LOSSES["cross_entropy"]
    expected_cost, expected = reference.backpropagate(net.parameters, *how, x, np.eye(4)[y], weight)
    assert cost == pytest.approx(expected_cost, rel=1e-14)
    for got, want in zip(gradients, expected, strict=True):
        assert isinstance(got[0], np.ndarray)
        for ours, theirs in zip(got, want, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_the_plan_predicts_and_evaluates_as_the_network_does(backend, rng):
    net, (x, y) = small_net(), small_data(rng, n=2500)  # more than one chunk
    samples = samples_of(net, x, y)
    plan = backend.plan(problem_of(net, samples, batch=16, optimizer=SGD()))
    np.testing.assert_allclose(plan.predict(x), net.forward(x), rtol=1e-12)
    stats = plan.evaluate(plan.upload(samples))
    assert stats.accuracy == (net.predict(x) == y).mean()
    cost, _ = gpubp.gradients(net, x, y, backend="numpy")
    assert stats.mean_cost == pytest.approx(cost, rel=1e-13)
    with pytest.raises(UsageError, match="17 samples"):
        plan.gradients(np.arange(17))


def test_early_stopping_restores_the_best_epoch():
    seen = []
    net, history = stopped_early(callbacks=[lambda _, network: seen.append(flat(network).copy())])
    assert history.stopped == "early stopping"
    assert history.best_epoch == 1 + int(np.argmin(history["validation_loss"]))
    assert len(history) == history.best_epoch + 3
    np.testing.assert_array_equal(flat(net), seen[history.best_epoch - 1])


def test_a_run_that_early_stopping_ended_does_not_go_on_when_resumed(tmp_path):
    path = tmp_path / "c.npz"
    net, history = stopped_early(save_to=path)
    again, rest = stopped_early(resume=path)
    assert history.stopped == rest.stopped == "early stopping"
    assert len(rest) == len(history) == rest.resumed_epochs
    np.testing.assert_array_equal(flat(again), flat(net))


def stopped_early(*, early_stopping=3, epochs=200, **settings):
    """Train where the validation data is noise, so that it soon gets worse."""
    rng = np.random.default_rng(20)
    data, validation, optimizer = small_data(rng, n=40), small_data(rng, n=40), SGD(0.5, momentum=0.9)
    settings |= {"validation": validation, "epochs": epochs, "early_stopping": early_stopping}
    return trained("numpy", data, optimizer=optimizer, **settings)


def test_early_stopping_resumes_with_its_memory(tmp_path):
    path, stopping = tmp_path / "c.npz", EarlyStopping(4, "validation_accuracy", min_delta=0.01)
    whole, history = stopped_early(early_stopping=stopping)
    stopped_early(early_stopping=stopping, epochs=history.best_epoch + 1, save_to=path)
    resumed, rest = stopped_early(early_stopping=stopping, resume=path)
    assert rest.best_epoch == history.best_epoch
    np.testing.assert_array_equal(flat(resumed), flat(whole))


def test_a_callback_sees_the_network_and_ends_the_run(backend, data):
    losses = []

    def callback(epoch, network):
        losses.append((epoch.loss, flat(network).copy()))
        return epoch.epoch == 2

    net, history = trained(backend, data, epochs=9, callbacks=[callback])
    assert history.stopped == "callback"
    assert [loss for loss, _ in losses] == history["loss"]
    np.testing.assert_array_equal(losses[-1][1], flat(net))


def test_regression_has_no_accuracy_and_predicts_numbers(backend, rng):
    x = rng.standard_normal((200, 3))
    y = x @ np.array([[1.0], [-2.0], [0.5]])
    net = Network([3, 1], output="identity", dtype="float64")
    how = {"loss": "quadratic", "optimizer": SGD(0.1), "batch_size": 20, "epochs": 20}
    history = gpubp.fit(net, x, y, backend=backend, **how)
    assert set(history["accuracy"]) == {None}
    np.testing.assert_allclose(net.predict(x), y, atol=1e-3)
    np.testing.assert_allclose(net.parameters[0][0], [[1, -2, 0.5]], atol=1e-3)


def test_a_diverging_run_says_so(backend, data):
    x, y = data
    net = small_net(output="identity", hidden="relu", dtype="float32")
    how = {"loss": "quadratic", "optimizer": SGD(1e6), "epochs": 20, "batch_size": 16}
    with pytest.raises(gpubp.GpubpError, match="diverged: lower the learning rate"):
        gpubp.fit(net, x, np.eye(4)[y], backend=backend, **how)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"targets": [0] * 49 + [4]}, DataError, "label 4 at index 49"),
        ({"targets": [-1] + [0] * 49}, DataError, "-1"),
        ({"targets": [0] * 49}, DataError, "49"),
        ({"inputs": np.full((50, 12), np.nan)}, DataError, "NaN|nan|finite"),
        ({"inputs": np.zeros((50, 11))}, DataError, "11 columns"),
        ({"inputs": np.zeros((0, 12)), "targets": []}, DataError, "no data"),
        ({"inputs": np.full((50, 12), 1e300)}, DataError, "too large for float32"),
        ({"targets": np.full((50, 4), 0.3)}, DataError, "sum to 1"),
        ({"targets": np.full((50, 4), 2.0)}, DataError, r"\[0, 1\]"),
        ({"targets": np.full((50, 3), 1 / 3)}, DataError, "3 columns"),
        ({"loss": "crossentropy"}, UsageError, "'cross_entropy'"),
        *(({"batch_size": size}, UsageError, "batch_size") for size in (0, 2.5, "8", None)),
        *(({"early_stopping": patience}, UsageError, "early_stopping") for patience in (2.5, True)),
        *(({"validation": given}, UsageError, "validation") for given in (0.2, np.zeros((3, 12)))),
        ({"optimizer": "sgd"}, UsageError, "optimizer"),
        ({"schedule": "cosine"}, UsageError, "schedule"),
        ({"callbacks": print}, UsageError, "callbacks"),
        ({"seed": -1}, UsageError, "seed"),
        ({"epochs": -1}, UsageError, "epochs"),
        ({"backend": "numbra"}, UsageError, "'numba'"),
        ({"early_stopping": 3}, UsageError, "validation"),
        ({"sample_weight": np.full(50, -1.0)}, DataError, "weight"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_first(change, error, says, data):
    net = small_net(dtype="float32")
    before = flat(net).copy()
    with pytest.raises(error, match=says):
        gpubp.fit(net, **{"inputs": data[0], "targets": data[1], "backend": "numpy", **change})
    np.testing.assert_array_equal(flat(net), before)


def test_probabilities_from_an_activation_that_has_none_are_warned_of(data):
    with pytest.warns(UserWarning, match="Use output='softmax'"):
        gpubp.fit(small_net(output="identity"), *data, epochs=1, backend="numpy")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 8}, "batch_size"),
        ({"optimizer": SGD(0.2)}, "optimizer"),
        ({"net": small_net((12, 5, 4), dtype="float32")}, "network"),
        ({"seed": 5}, "seed"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_resumed(change, says, data, tmp_path):
    path = tmp_path / "c.npz"
    trained("numpy", data, save_to=path)
    with pytest.raises(UsageError, match=f"its {says} is"):
        trained("numpy", data, resume=path, **change)
    data[0][7, 3] += 1e-3
    with pytest.raises(UsageError, match="its data is '50 samples"):
        trained("numpy", data, resume=path)


def test_a_callback_that_does_not_read_the_network_is_spared_its_copy(data):
    class Watching:
        reads_network = False

        def __call__(self, epoch, network):
            seen.append(network.parameters)

    seen, net = [], small_net()
    before = net.parameters
    gpubp.fit(net, *data, epochs=3, callbacks=[Watching()], backend="numpy")
    assert all(parameters is before for parameters in seen)
    assert net.parameters is not before
    seen.clear()
    gpubp.fit(net, *data, epochs=3, callbacks=[Watching(), lambda *_: None], backend="numpy")
    assert len({id(parameters) for parameters in seen}) == 3


def test_auto_says_what_it_passed_over():
    name, why = backends.choose("auto")
    reasons = gpubp.available()
    assert reasons[name] is None
    if name != "cupy":
        assert reasons["cupy"]
        assert why == "cupy cannot run here: gpubp doctor says why"


def test_auto_falls_back_where_numba_is_broken(monkeypatch):
    monkeypatch.setattr("gpubp.backends.cpu.backend._import_error", ImportError("LLVM is missing"))
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: "no NVIDIA driver")
    assert backends.choose("auto")[0] == "numpy"
    with pytest.raises(gpubp.BackendUnavailable, match=r"LLVM is missing.*pip install"):
        backends.get("numba")


def test_backends_share_one_surface():
    """Every backend overrides with the contract's own parameters."""
    for name in BACKENDS:
        cls = type(backend_by_name(name))
        for method, function in getmembers(Backend, isfunction):
            if not method.startswith("_"):
                theirs = signature(getattr(cls, method)).parameters
                assert list(theirs) == list(signature(function).parameters), f"{name}.{method}"


def test_ctrl_c_stops_cleanly_with_the_model_saved(data, tmp_path):
    press = [lambda epoch, _: signal.raise_signal(signal.SIGINT) if epoch.epoch == 2 else None]
    net, history = trained("numpy", data, callbacks=press, save_to=tmp_path / "c.npz")
    assert (history.stopped, len(history)) == ("interrupted", 2)
    np.testing.assert_array_equal(flat(gpubp.load(tmp_path / "c.npz")), flat(net))
    with pytest.raises(KeyboardInterrupt):  # the usual handler is back
        signal.raise_signal(signal.SIGINT)


def test_fit_runs_in_a_thread_that_gets_no_signals(data):
    results = []
    thread = threading.Thread(target=lambda: results.append(trained("numpy", data)[1].stopped))
    thread.start()
    thread.join()
    assert results == ["done"]


def test_a_validation_loss_of_nan_is_never_the_best():
    assert not EarlyStopping().improved(float("nan"), None)
    assert not EarlyStopping().improved(float("nan"), 1.0)
    assert EarlyStopping().improved(0.5, None)


def test_a_network_can_learn_classes_after_numbers(rng):
    x, y = small_data(rng)
    net = small_net(dtype="float32")
    gpubp.fit(net, x, rng.random((50, 4)), loss="quadratic", epochs=1, backend="numpy")
    assert net.predict(x).shape == (50, 4)
    gpubp.fit(net, x, y, epochs=1, backend="numpy")
    assert net.predict(x).shape == (50,)


def test_the_product_takes_arrays_in_any_order(rng):
    delta_next, weights, a, delta = (rng.random((n, 16)) for n in (8, 16, 8, 8))
    fortran = np.asfortranarray(weights)
    backends.get("numba").hidden_delta(delta_next, fortran, a, ACTIVATIONS["identity"], delta)
    np.testing.assert_allclose(delta, delta_next @ weights, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_scaled_to_the_very_bits_of_the_table(backend, dtype):
    every = np.arange(256, dtype=np.uint8)[::-1].reshape(2, 128).copy()
    out = backend.to_device(np.empty((2, 128), dtype))
    backend.gather(backend.to_device(every), backend.to_device(np.array([1, 0])), out)
    np.testing.assert_array_equal(backend.to_host(out), byte_table(dtype)[every[::-1]])


@every_plan_and_optimizer
def test_a_run_that_goes_on_from_the_state_of_another_is_bitwise_one_run(plan, optimizer, data):
    backend, settings = backend_by_name(plan), {"optimizer": optimizer, "shuffle": False}
    whole, _ = trained(backend, data, epochs=4, **settings)
    part, first = trained(backend, data, epochs=1, **settings)
    trained(backend, data, net=part, epochs=3, state=first.state, **settings)
    np.testing.assert_array_equal(flat(whole), flat(part))


def test_the_state_of_another_optimizer_or_network_is_refused(data):
    _, history = trained("numpy", data, optimizer=SGD(0.1))
    with pytest.raises(UsageError, match="a different network or optimizer"):
        trained("numpy", data, optimizer=Adam(0.1), state=history.state)
