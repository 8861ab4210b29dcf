"""The reference against the definition of a gradient: central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import reference
from gpubp.functions import ACTIVATIONS, LOSSES
from tests.conftest import small_net

STEP = 1e-6


def problem(output, loss, rng, hidden):
    net = small_net((5, 6, 4, 3), hidden=hidden, output=output)
    x, w = rng.standard_normal((7, 5)), rng.random(7) + 0.5
    if LOSSES[loss].probabilities:
        # Keep every output well inside (0, 1), or well outside, so that no difference crosses the clip.
        net.parameters[-1] = (net.parameters[-1][0] * 0.1, np.full(3, 0.4))
        y = np.eye(3)[rng.integers(0, 3, 7)]
    else:
        y = rng.standard_normal((7, 3))
    return net, x, y, w


MODELS = [(("tanh", "sigmoid"), output, loss) for output in ACTIVATIONS for loss in LOSSES]
MODELS += [((hidden, hidden), "softmax", "quadratic") for hidden in ACTIVATIONS]


@pytest.mark.parametrize(("hidden", "output", "loss"), MODELS)
def test_gradients_are_central_differences_for_every_activation_and_loss(hidden, output, loss, rng):
    net, *samples = problem(output, loss, rng, hidden)

    def backpropagated():
        return reference.backpropagate(net.parameters, net.activations, LOSSES[loss], *samples)

    for pair, gradients in zip(net.parameters, backpropagated()[1], strict=True):
        for parameter, gradient in zip(pair, gradients, strict=True):
            for i in np.ndindex(parameter.shape):
                kept, costs = parameter[i], []
                for parameter[i] in (kept + STEP, kept - STEP):
                    costs.append(backpropagated()[0])
                parameter[i] = kept
                # Truncation is O(STEP²) of the third derivative, rounding 2⁻⁵² of the cost over STEP: below 1e-8.
                assert gradient[i] == pytest.approx((costs[0] - costs[1]) / (2 * STEP), rel=1e-6, abs=1e-8)


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
    layer, samples = (np.array(weights), np.zeros(len(weights))), (np.ones((1, 1)), np.array(target))
    found, gradients = reference.backpropagate([layer], [ACTIVATIONS[output]], LOSSES[loss], *samples)
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
