"""How a sweep goes: a bar over its trials with rate and time left, a line for each where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from gpubp.sweeps.space import shown
from gpubp.sweeps.trial import DONE, FAILED, Outcome, Trial


def line(outcome: Outcome) -> str:
    """What came of a trial, in a line."""
    if outcome.state == FAILED:
        return f"{outcome} FAILED: {outcome.error}"
    how = "" if outcome.state == DONE else f", {outcome.state} after {outcome.epochs} epochs"
    score = (
        f"validation loss {shown(outcome.validation_loss)}"
        if outcome.validation_accuracy is None
        else f"validation accuracy {outcome.validation_accuracy:.4f}"
    )
    return f"{outcome}: {score}, {outcome.seconds:.1f} s{how}"


class Bar:
    """Shows nothing but trials that failed; the base of what shows more. A context manager around a sweep."""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def epoch(self, trial: Trial) -> None:
        """A trial has ended an epoch; called from any thread."""

    def trial(self, trial: Trial, outcome: Outcome) -> None:
        """A trial is over."""
        if outcome.state == FAILED:
            print(f"warning: {line(outcome)}", file=sys.stderr, flush=True)

    @classmethod
    def of(cls, total: int, done: int, *, quiet: bool) -> Bar:
        """The one that suits where stderr goes; so many of all trials were done before."""
        if quiet:
            return cls()
        return Terminal(total, done) if sys.stderr.isatty() else Lines()


class Lines(Bar):
    """A line for each trial, on stderr."""

    def trial(self, trial: Trial, outcome: Outcome) -> None:
        print(line(outcome), file=sys.stderr, flush=True)


class Terminal(Bar):
    """A rich progress bar on stderr, which moves with every epoch."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._total, self._done = total, done
        self._under_way: dict[int, float] = {}
        self._lock, self._epochs, self._started = threading.Lock(), 0, 0.0
        self._bar = Progress(
            TextColumn("trials {task.fields[done]}/{task.fields[trials]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> Bar:
        shown_at_first: dict[str, Any] = {"done": self._done, "trials": self._total, "rate": "preparing"}
        self._task = self._bar.add_task("sweep", total=self._total, completed=self._done, **shown_at_first)
        self._bar.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def epoch(self, trial: Trial) -> None:
        with self._lock:
            self._under_way[trial.number] = self._under_way.get(trial.number, 0.0) + 1 / trial.recipe.epochs
            self._epochs += 1
            self._show()

    def trial(self, trial: Trial, outcome: Outcome) -> None:
        with self._lock:
            seen = self._under_way.pop(trial.number, 0.0) * trial.recipe.epochs
            self._epochs += outcome.epochs - round(seen)  # those of another process are not seen
            self._done += 1
            self._show()
        self._bar.console.print(line(outcome), highlight=False, markup=False, soft_wrap=True)

    def _show(self) -> None:
        rate = self._epochs / max(time.perf_counter() - self._started, 1e-9)
        completed = self._done + sum(self._under_way.values())
        self._bar.update(
            self._task, completed=completed, done=self._done, rate=f"{rate:.3g} network-epochs/s"
        )
