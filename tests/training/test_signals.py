"""What reaches each layer: |δ|, saturated and dead units."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import Network
from gpubp.data.samples import Samples
from gpubp.functions import ACTIVATIONS, LOSSES, Activation
from gpubp.training.signals import layer_signals, saturated_units


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("sigmoid", [0.0, 4.3], [4.4, -4.4, 800.0]),  # σ' falls to 0.05 × ¼ at z = ±4.357
        ("tanh", [0.0, 2.17], [2.19, -30.0]),
        ("lecun_tanh", [0.0, 3.25], [3.28, -30.0]),
        ("relu", [1e-3, 5.0], [-1e-3, 0.0]),
        ("leaky_relu", [1e-3, 5.0], [-1e-3, -9.0]),
        ("identity", [-9.0, 0.0, 9.0], []),
    ],
)
def test_a_unit_is_saturated_where_its_slope_is_below_a_twentieth_of_the_steepest(name, inside, outside):
    activation = ACTIVATIONS[name]
    a = activation.apply(np.array([inside + outside]))
    assert saturated_units(a, activation).tolist() == [[False] * len(inside) + [True] * len(outside)]


def test_the_steepest_slope_need_not_be_at_zero():
    shifted = Activation("shifted", "tanh(z − 3)", "1 − a²", lambda z: np.tanh(z - 3), lambda a: 1 - a * a)
    a = shifted.apply(np.array([[3.0, 5.17, 5.19, 0.0]]))
    assert saturated_units(a, shifted).tolist() == [[False, False, True, True]]


def test_softmax_has_no_slope_of_its_own():
    assert saturated_units(np.array([[0.5, 0.5]]), ACTIVATIONS["softmax"]) is None


def test_signals_of_a_net_with_one_dead_and_one_half_dead_unit():
    net = Network([1, 3, 1], hidden="relu", output="identity", dtype="float64")
    net.parameters = [
        (np.array([[1.0], [1.0], [1.0]]), np.array([0.0, -1.5, -9.0])),  # on for 1 and 2, for 2, for none
        (np.array([[1.0, 2.0, 3.0]]), np.array([0.0])),
    ]
    samples = Samples(np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]]), np.ones(2))
    hidden, output = layer_signals(net, samples, LOSSES["quadratic"])
    # a = (1, 0, 0) and (2, ½, 0), so the outputs and their δ are 1 and 3.
    assert output.mean_delta == 2.0
    assert (output.saturated, output.dead) == (0.0, 0.0)
    # δ hidden = 1·(1, 0, 0) and 3·(1, 2, 0).
    assert hidden.mean_delta == pytest.approx((1 + 3 + 6) / 6)
    assert hidden.saturated == 0.5
    assert hidden.dead == pytest.approx(1 / 3)
