"""How much of the error reaches each layer, and which units no longer answer to it.

A unit learns slowly where σ'(z) is near 0, since δ has that factor (BP1 and BP2): a sigmoid near 0 or 1, a ReLU that
is off. Nielsen, Neural Networks and Deep Learning, chapter 2, calls such a unit saturated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from gpubp import reference
from gpubp.backends.base import Samples
from gpubp.functions import LOSSES, Activation
from gpubp.network import Network, as_inputs

SATURATED = 0.05  # of the steepest slope: a sigmoid below 0.013 or above 0.987, |tanh| above 0.975, a ReLU that is off


@dataclass(frozen=True)
class LayerSignal:
    """One layer on one mini-batch.

    ``mean_delta`` is the mean of |δ| over samples and units; ``saturated`` the share of (sample, unit) pairs whose
    slope σ'(z) is below ``SATURATED`` of the steepest; ``dead`` the share of units so for every sample. The last
    two are None for softmax, which has no slope of its own.
    """

    mean_delta: float
    saturated: float | None
    dead: float | None


def saturated_units(a: np.ndarray, activation: Activation) -> np.ndarray | None:
    """Which of the activations a = σ(z), (B, n), are saturated, as a mask of that shape; None for softmax."""
    if activation.slope is None:
        return None
    return activation.slope(a) < SATURATED * _steepest(activation)


@cache
def _steepest(activation: Activation) -> float:
    """The steepest slope of an elementwise σ, on a grid of z that has 0 and each whole number."""
    assert activation.slope is not None
    z = np.linspace(-8, 8, 8 * 512 + 1)[None]
    return float(activation.slope(activation.apply(z)).max())


def layer_signals(network: Network, samples: Samples, loss: str) -> list[LayerSignal]:
    """The signals of each layer, first to last, of the network as it stands on prepared host samples."""
    whole = reference.trace(
        network.parameters,
        network.activations,
        LOSSES[loss],
        as_inputs(samples.inputs, network.dtype),
        samples.targets,
        samples.sample_weight,
    )
    return [
        of_layer(delta, a, activation)
        for delta, a, activation in zip(whole.delta, whole.a[1:], network.activations, strict=True)
    ]


def of_layer(delta: np.ndarray, a: np.ndarray, activation: Activation) -> LayerSignal:
    """The signal of one layer from its δ and a, both (B, n)."""
    mask = saturated_units(a, activation)
    mean_delta = float(np.abs(delta).mean(dtype=np.float64))
    if mask is None:
        return LayerSignal(mean_delta, None, None)
    return LayerSignal(mean_delta, float(mask.mean()), float(mask.all(axis=0).mean()))
