"""What one training run leaves to look at: its history, also if it fails, and the signals of its layers by epoch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpubp.data.dataset import Split
from gpubp.data.prepare import prepare
from gpubp.errors import GpubpError
from gpubp.network import Network
from gpubp.training.fit import Epoch, History
from gpubp.training.progress import Progress
from gpubp.training.signals import LayerSignal, layer_signals

SAMPLES = 200  # of the training part, the same ones every time
GROWTH = (
    1.07  # from one measured epoch to the next, once that is more than one: 84 of 1000 epochs, 152 of 100,000
)
SECONDS, SHARE = 0.1, 0.01  # what measuring may cost in a run: the larger of the two

Signals = dict[int, list[LayerSignal]]  # by epoch, 0 being before training; a signal for each layer


class SignalRecorder:
    """A callback for ``fit`` that measures :func:`gpubp.training.signals.layer_signals` as the epochs go.

    Every epoch is measured at first, where most happens, then ever fewer, so that a run may be of any length and end
    at any time; and none while measuring has taken more than its share of the time. ``signals`` has what was measured,
    and may start with what an earlier part of the run left.
    """

    def __init__(self, train: Split, loss: str, signals: Signals | None = None) -> None:
        rows = np.random.default_rng(0).permutation(len(train))[:SAMPLES]
        self._few, self._loss = train.take(np.sort(rows)), loss
        self.signals: Signals = dict(signals or {})
        self.samples = len(rows)
        self._next = 1
        self._seconds, self._times, self._trained = 0.0, 0, 0.0

    def __call__(self, epoch: Epoch, network: Network) -> None:
        self._trained += epoch.seconds
        if epoch.epoch >= self._next and self._within_budget():
            self.measure(epoch.epoch, network)
            self._next = max(epoch.epoch + 1, int(epoch.epoch * GROWTH))

    def measure(self, epoch: int, network: Network) -> None:
        """Keep the signals of the network as it stands; none of data that ``fit`` would refuse, which says why."""
        started = time.perf_counter()
        try:
            samples = prepare(network, self._few, self._loss).samples
        except GpubpError:
            return
        with np.errstate(all="ignore"):  # of a run that diverges
            self.signals[epoch] = layer_signals(network, samples, self._loss)
        self._seconds += time.perf_counter() - started
        self._times += 1

    def _within_budget(self) -> bool:
        mean = self._seconds / max(self._times, 1)
        return self._seconds + mean <= max(SECONDS, SHARE * self._trained)


class HistoryKeeper(Progress):
    """Shows what ``shown`` shows, and has the history of the run, which ``fit`` returns only if it succeeds."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self.history: History | None = None

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._shown.__exit__(*exception)

    def start(self, epochs: int, samples: int, history: History) -> None:
        self.history = history
        self._shown.start(epochs, samples, history)

    def advance(self, samples: int) -> None:
        self._shown.advance(samples)

    def epoch(self, epoch: Epoch) -> None:
        self._shown.epoch(epoch)
