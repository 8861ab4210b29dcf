"""The verifier: right results pass on every backend, and every planted fault is caught."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp import verification
from gpubp.bounds import Bounded
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.network import Network
from gpubp.optimizers import SGD, Adam, AdamW
from gpubp.verification import VerificationError, compare
from tests.conftest import BACKENDS, backend_by_name
from tests.faults import FAULTS, plant


def dense_problem(rng, n=90, dtype="float32"):
    """A net and data in which every number matters: no zeros, and biases that are not 0."""
    net = Network([20, 15, 5], hidden="tanh", init="lecun", seed=4, dtype=dtype)
    net.parameters = [(w, rng.standard_normal(b.shape).astype(b.dtype)) for w, b in net.parameters]
    return net, rng.standard_normal((n, 20)), rng.integers(0, 5, n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss_is_within_its_bounds(backend, activation, loss, dtype, rng):
    net = Network([20, 15, 7, 5], hidden=[activation, "sigmoid"], output=activation, dtype=dtype, seed=3)
    x, y, w = rng.standard_normal((64, 20)), rng.integers(0, 5, 64), rng.random(64)
    report = gpubp.verify(net, x, y, loss=loss, sample_weight=w, backend=backend)
    assert report.ok, str(report)
    assert report.steps == 2


@pytest.mark.parametrize(
    "optimizer", [SGD(0.5), SGD(0.5, 0.9, nesterov=True, weight_decay=0.1), Adam(0.1), AdamW(0.1)]
)
def test_every_optimizers_step_is_within_its_bounds(backend, optimizer, rng):
    net, x, y = dense_problem(rng)
    history = gpubp.fit(
        net, x, y, optimizer=optimizer, batch_size=32, epochs=3, backend=backend, verify="step"
    )
    assert history.verification.ok
    assert history.verification.steps == 9


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_a_planted_fault_is_caught_by_verify_and_by_fit(name, operation, fault, rng):
    faulty = plant(backend_by_name(name), operation, FAULTS[operation, fault])
    net, x, y = dense_problem(rng)
    report = gpubp.verify(net, x, y, backend=faulty)
    assert not report.ok
    with pytest.raises(VerificationError) as caught:
        gpubp.fit(net, x, y, batch_size=64, epochs=1, backend=faulty, verify="first")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", BACKENDS)
def test_the_same_problem_without_a_fault_passes(name, rng):
    """What the planted faults are measured against: the wrapper alone changes nothing."""
    wrapped = plant(backend_by_name(name), "forward", lambda inputs, before, after: None)
    net, x, y = dense_problem(rng)
    assert gpubp.verify(net, x, y, backend=wrapped).ok
    assert gpubp.fit(net, x, y, batch_size=64, epochs=1, backend=wrapped, verify="step").verification.ok


def test_the_report_names_tensor_element_got_expected_and_fraction(rng, tmp_path):
    net, x, y = dense_problem(rng)
    faulty = plant(backend_by_name("numpy"), "weight_grad", FAULTS["weight_grad", "wrong tail element"])
    with pytest.raises(VerificationError) as caught:
        gpubp.fit(
            net, x, y, batch_size=64, epochs=1, backend=faulty, verify="first", save_to=tmp_path / "c.npz"
        )
    text = str(caught.value)
    assert "∂C/∂W2" in text
    assert "[4, 14]" in text
    for word in (
        "numpy backend, epoch 1, step 1",
        "got",
        "expected",
        "of its bound",
        str(tmp_path / "c.npz"),
    ):
        assert word in text
    assert gpubp.load(tmp_path / "c.npz").sizes == net.sizes


def test_nan_on_one_side_only_fails_and_on_both_passes():
    one = Bounded(np.array([1.0]), np.array([np.inf]))
    assert not compare("x", np.array([np.nan]), one).ok
    assert not compare("x", np.array([np.inf]), Bounded(np.array([1.0]), np.array([1.0]))).ok
    assert not compare("x", np.array([1.0]), Bounded(np.array([np.nan]), np.array([np.nan]))).ok
    both = Bounded(np.array([np.nan, np.inf]), np.array([np.nan, np.nan]))
    assert compare("x", np.array([np.nan, np.inf]), both).ok


def test_a_nan_from_the_backend_is_a_failure(backend, rng):
    def poison(inputs, before, after):
        after["delta"][0, 0] = np.nan

    net, x, y = dense_problem(rng)
    assert not gpubp.verify(net, x, y, backend=plant(backend, "hidden_delta", poison)).ok


def test_an_error_in_norm_is_caught_where_no_element_leaves_its_bound(rng):
    """Outputs rounded to 12 bits: every element is within the worst case, all of them are far from typical."""
    net = Network([300, 60, 8], hidden="tanh", seed=1)
    x, y = rng.random((200, 300)), rng.integers(0, 8, 200)

    def coarse(inputs, before, after):
        for name in after:
            after[name][...] = np.round(after[name] * 2**12) / 2**12

    wrong = plant(backend_by_name("numpy"), "forward", coarse)
    checks = {c.name: c for c in gpubp.verify(net, x, y, backend=wrong).checks}
    assert checks["∂C/∂W1"].fraction < 1 < checks["∂C/∂W1"].norm_fraction


def test_policies_verify_the_steps_they_name(rng):
    net, x, y = dense_problem(rng, n=100)  # 7 steps an epoch, the last one short

    def steps(policy, epochs):
        return gpubp.fit(
            net, x, y, batch_size=16, epochs=epochs, backend="numpy", verify=policy
        ).verification.steps

    assert steps("off", 2) == 0
    assert steps("first", 3) == 4
    assert steps("epoch", 3) == 4 + 2
    assert steps("step", 2) == 14
    with pytest.raises(gpubp.UsageError, match="always"):
        steps("always", 1)


def test_verification_changes_no_bit_of_the_result(backend, rng):
    results = []
    for policy in ("off", "step"):
        net, x, y = dense_problem(np.random.default_rng(5))
        gpubp.fit(net, x, y, batch_size=32, epochs=2, optimizer=Adam(0.01), backend=backend, verify=policy)
        results.append(net.parameters)
    for (wa, ba), (wb, bb) in zip(*results, strict=True):
        np.testing.assert_array_equal(wa, wb)
        np.testing.assert_array_equal(ba, bb)


def test_verifying_an_epoch_keeps_to_its_budget(rng, monkeypatch):
    net, x, y = dense_problem(rng)
    real = verification.check_step

    def slow(*args):
        import time

        time.sleep(0.06)
        return real(*args)

    monkeypatch.setattr("gpubp.trainer.check_step", slow)
    history = gpubp.fit(net, x, y, batch_size=32, epochs=50, backend="numpy")
    # Four first steps of 0.06 s are more than 0.2 s already, and 3% of a run this short is nothing.
    assert history.verification.steps == 3
    assert history.verification.seconds >= 0.18


def test_a_relu_on_its_kink_is_right_on_either_side():
    """z = 0 exactly in exact arithmetic; in float32 it may come out on either side."""
    net = Network([3, 400, 2], hidden="relu", seed=0)
    x = np.tile(np.array([[0.1, 0.2, 0.3]]), (64, 1)).astype(np.float32)
    w = np.tile(np.array([[3.0, 0.0, -1.0]]), (400, 1)).astype(np.float32)
    net.parameters[0] = (w, np.zeros(400, np.float32))
    y = np.arange(64) % 2
    z = x.astype(np.float64) @ w.T.astype(np.float64)
    assert 0 < np.abs(z).max() < 1e-7
    for name in ("numpy", "numba"):
        report = gpubp.verify(net, x, y, backend=name)
        assert report.ok, str(report)
