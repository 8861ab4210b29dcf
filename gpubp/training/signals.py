"""Signals: how much of the error reaches each layer, which units no longer answer to it, and a record of both by epoch.

A unit learns slowly where σ'(z) is near 0, since δ has that factor (BP1 and BP2): a sigmoid near 0 or 1, a ReLU that
is off. Nielsen, Neural Networks and Deep Learning, chapter 2, calls such a unit saturated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from gpubp import reference
from gpubp.data.dataset import Split
from gpubp.data.samples import Samples, as_inputs
from gpubp.errors import GpubpError
from gpubp.functions import Activation, Loss
from gpubp.network import Network
from gpubp.training.budget import SIGNALS
from gpubp.training.history import Epoch

SATURATED = 0.05  # of the steepest slope: a sigmoid below 0.013 or above 0.987, |tanh| above 0.975, a ReLU that is off
SAMPLES = 200  # of the training part, the same ones every time
# From one measured epoch to the next, once that is more than one: 84 of 1000 epochs, 152 of 100,000.
GROWTH = 1.07


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
    """Mask of the activations a = σ(z) that are saturated, both (B, n); None for softmax."""
    if activation.slope is None:
        return None
    return activation.slope(a) < SATURATED * _steepest(activation)


@cache
def _steepest(activation: Activation) -> float:
    """The steepest slope of an elementwise σ, on a grid of z that has 0 and each whole number."""
    assert activation.slope is not None
    z = np.linspace(-8, 8, 8 * 512 + 1)[None]
    return float(activation.slope(activation.apply(z)).max())


def layer_signals(network: Network, samples: Samples, loss: Loss) -> list[LayerSignal]:
    """The signals of each layer, first to last, of the network as it stands on prepared host samples."""
    given = as_inputs(samples.inputs, network.dtype), samples.targets, samples.sample_weight
    whole = reference.trace(network.parameters, network.activations, loss, *given)
    return [of_layer(*layer) for layer in zip(whole.delta, whole.a[1:], network.activations, strict=True)]


def of_layer(delta: np.ndarray, a: np.ndarray, activation: Activation) -> LayerSignal:
    """The signal of one layer from its δ and a, both (B, n)."""
    mask = saturated_units(a, activation)
    mean_delta = float(np.abs(delta).mean(dtype=np.float64))
    if mask is None:
        return LayerSignal(mean_delta, None, None)
    return LayerSignal(mean_delta, float(mask.mean()), float(mask.all(axis=0).mean()))


Signals = dict[int, list[LayerSignal]]  # by epoch, 0 being before training; a signal for each layer


class SignalRecorder:
    """A callback for ``fit`` that measures :func:`layer_signals` as the epochs go.

    Every epoch is measured at first, where most happens, then ever fewer, so that a run may be of any length and end
    at any time; and none while measuring has taken more than its share of the time. ``signals`` has what was measured,
    and may start with what an earlier part of the run left.
    """

    def __init__(self, train: Split, loss: Loss, signals: Signals | None = None) -> None:
        rows = np.random.default_rng(0).permutation(len(train))[:SAMPLES]
        self._few, self._loss = train.take(np.sort(rows)), loss
        self.signals: Signals = dict(signals or {})
        self.samples = len(rows)
        self._next = 1
        self._seconds, self._times, self._trained = 0.0, 0, 0.0

    def __call__(self, epoch: Epoch, network: Network) -> None:
        self._trained += epoch.seconds
        if epoch.epoch >= self._next and SIGNALS.allows(self._seconds, self._times, self._trained):
            self.measure(epoch.epoch, network)
            self._next = max(epoch.epoch + 1, int(epoch.epoch * GROWTH))

    def measure(self, epoch: int, network: Network) -> None:
        """Keep the signals of the network as it stands; none of data that ``fit`` would refuse, which says why."""
        started = time.perf_counter()
        try:
            samples = network.prepare(self._few, self._loss).samples
        except GpubpError:
            return
        with np.errstate(all="ignore"):  # of a run that diverges
            self.signals[epoch] = layer_signals(network, samples, self._loss)
        self._seconds += time.perf_counter() - started
        self._times += 1
