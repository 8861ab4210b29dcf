"""The reference against the definition of a gradient: central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import reference
from gpubp.functions import ACTIVATIONS, LOSSES
from tests.conftest import small_net

STEP = 1e-6


def cost_at(net, flat, loss, x, y, w):
    parameters, start = [], 0
    for pair in net.parameters:
        shaped = []
        for p in pair:
            shaped.append(flat[start : start + p.size].reshape(p.shape))
            start += p.size
        parameters.append(tuple(shaped))
    return reference.backpropagate(parameters, net.activations, LOSSES[loss], x, y, w)[0]


def flatten(pairs):
    return np.concatenate([p.ravel() for pair in pairs for p in pair])


def problem(output, loss, rng, hidden=("tanh", "sigmoid"), n_out=3):
    net = small_net((5, 6, 4, n_out), hidden=hidden, output=output)
    x, w = rng.standard_normal((7, 5)), rng.random(7) + 0.5
    if LOSSES[loss].probabilities:
        # Keep every output well inside (0, 1), or well outside, so that no difference crosses the clip.
        net.parameters[-1] = (net.parameters[-1][0] * 0.1, np.full(n_out, 0.4))
        y = np.eye(n_out)[rng.integers(0, n_out, 7)]
    else:
        y = rng.standard_normal((7, n_out))
    return net, x, y, w


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_gradients_are_central_differences_for_every_output_activation_and_loss(output, loss, rng):
    net, x, y, w = problem(output, loss, rng)
    gradient = flatten(reference.backpropagate(net.parameters, net.activations, LOSSES[loss], x, y, w)[1])
    flat = flatten(net.parameters)
    for i in range(len(flat)):
        e = np.zeros_like(flat)
        e[i] = STEP
        slope = (cost_at(net, flat + e, loss, x, y, w) - cost_at(net, flat - e, loss, x, y, w)) / (2 * STEP)
        # Truncation is O(STEP²) of the third derivative, rounding is 2⁻⁵² of the cost over STEP: both below 1e-8.
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_gradients_along_random_directions_for_every_hidden_activation(hidden, rng):
    net, x, y, w = problem("softmax", "quadratic", rng, hidden=(hidden, hidden))
    gradient = flatten(
        reference.backpropagate(net.parameters, net.activations, LOSSES["quadratic"], x, y, w)[1]
    )
    flat = flatten(net.parameters)
    for _ in range(20):
        d = rng.standard_normal(flat.size)
        d /= np.linalg.norm(d)
        ends = [cost_at(net, flat + s * STEP * d, "quadratic", x, y, w) for s in (1, -1)]
        assert gradient @ d == pytest.approx((ends[0] - ends[1]) / (2 * STEP), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("output", "loss", "weights", "target", "cost", "by_bias"),
    [
        ("softmax", "cross_entropy", [[1000.0], [-1000.0]], [[0.0, 1.0]], 2000.0, [1.0, -1.0]),
        ("sigmoid", "binary_cross_entropy", [[800.0]], [[0.0]], 800.0, [1.0]),
    ],
)
def test_a_matched_loss_is_stable_where_the_probability_saturates(
    output, loss, weights, target, cost, by_bias
):
    parameters = [(np.array(weights), np.zeros(len(weights)))]
    found, gradients = reference.backpropagate(
        parameters, [ACTIVATIONS[output]], LOSSES[loss], np.ones((1, 1)), np.array(target)
    )
    assert found == cost
    np.testing.assert_array_equal(gradients[0][1], by_bias)


def test_lecun_tanh_is_1_at_1():
    """The constants are chosen so that f(±1) = ±1 (Efficient BackProp, section 4.4)."""
    ends = ACTIVATIONS["lecun_tanh"].apply(np.array([-1.0, 1.0]))
    np.testing.assert_allclose(ends, [-1, 1], atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_overflow_and_let_nan_through(name):
    z = np.array([[-1e4, -1.0, 0.0, 1.0, 1e4]], np.float32)
    assert np.isfinite(ACTIVATIONS[name].apply(z)).all()
    assert np.isnan(ACTIVATIONS[name].apply(np.array([[np.nan]]))).all()
