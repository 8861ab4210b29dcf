"""Progress of a run as it goes: a bar with rate and time left, plain lines where there is no terminal, or nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.training.history import Epoch, History


class Progress:
    """Shows nothing; the base of what shows something. A context manager around one run."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start(self, epochs: int, samples: int, history: History) -> None:
        """Before the first step: the run's epochs in all, samples an epoch, and its history so far."""

    def advance(self, samples: int) -> None:
        """After a few steps on ``samples`` samples."""

    def epoch(self, epoch: Epoch) -> None:
        """After an epoch."""

    def warning(self, message: str) -> None:
        """As soon as something is known to be wrong."""


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch in one line."""
    parts = [f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}", f"loss {epoch.loss:.4f}"]
    for column in ("accuracy", "validation_loss", "validation_accuracy"):
        if (value := getattr(epoch, column)) is not None:
            parts.append(f"{column.replace('_', ' ')} {value:.4f}")
    return "  ".join([*parts, f"{epoch.seconds * 1000:.0f} ms"])


class PlainProgress(Progress):
    """A line an epoch on stderr, but no more than a few a second: some runs have a thousand epochs."""

    INTERVAL = 1.0

    def start(self, epochs: int, samples: int, history: History) -> None:
        self._epochs = epochs
        self._printed_at = -self.INTERVAL

    def epoch(self, epoch: Epoch) -> None:
        now = time.perf_counter()
        if now - self._printed_at >= self.INTERVAL or epoch.epoch == self._epochs:
            self._printed_at = now
            print(epoch_line(epoch, self._epochs), file=sys.stderr, flush=True)

    def warning(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr, flush=True)


class BarProgress(Progress):
    """A rich progress bar on stderr, with the rate and the time left, and the last epoch's figures."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> Progress:
        note = "preparing; the first run compiles"
        self._task = self._bar.add_task("train", total=None, rate="", note=note)
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, epochs: int, samples: int, history: History) -> None:
        self._epochs, self._samples = epochs, samples
        self._started, self._seen = time.perf_counter(), 0
        self._lines = epochs <= 100
        self._bar.reset(self._task, total=epochs, completed=len(history), rate="", note="")

    def advance(self, samples: int) -> None:
        self._seen += samples
        rate = self._seen / max(time.perf_counter() - self._started, 1e-9)
        self._bar.update(self._task, advance=samples / self._samples, rate=f"{rate:,.0f} samples/s")

    def epoch(self, epoch: Epoch) -> None:
        self._bar.update(self._task, completed=epoch.epoch, note=f"loss {epoch.loss:.4f}")
        if self._lines:
            self._bar.console.print(epoch_line(epoch, self._epochs), highlight=False)

    def warning(self, message: str) -> None:
        self._bar.console.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)


def progress_for(*, quiet: bool) -> Progress:
    """The progress that suits where stderr goes."""
    if quiet:
        return Progress()
    return BarProgress() if sys.stderr.isatty() else PlainProgress()
