"""What came of a sweep: its trials, the settings by their scores, and the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.ensemble import Ensemble
from gpubp.errors import DataError
from gpubp.experiments.recipe import Recipe, RunSettings
from gpubp.formats import npz
from gpubp.network import Network
from gpubp.sweeps import folder as kept
from gpubp.sweeps.plan import Plan
from gpubp.sweeps.space import Settings
from gpubp.sweeps.trial import DONE, FAILED, Outcome, Trial


@dataclass(frozen=True)
class Point:
    """All trials with the same settings, by their scores: the larger, the better."""

    number: int
    settings: Settings
    trials: list[Outcome]
    whole: bool  # whether each of its seeds and folds was trained to its end

    @property
    def scores(self) -> list[float]:
        return [outcome.score for outcome in self.trials if outcome.score is not None]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores)) if self.scores else -np.inf

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds and folds; None of a single one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    @property
    def loss(self) -> float:
        """The mean validation loss."""
        losses = [o.validation_loss for o in self.trials if o.validation_loss is not None]
        return float(np.mean(losses)) if losses else np.inf


@dataclass
class Sweep:
    """What came of a sweep.

    Attributes:
        trials: an outcome of each, in the order of their numbers.
        points: the settings, best first.
        best: the best of all trials with the best settings; None if none was trained to its end.
        network: the network of ``best``, and ``test_accuracy`` what it gets right of the test set, which no other
            trial has met; None without one, and of values.
        ensemble: the best trials as one model, if asked for; ``members`` are their numbers, and
            ``ensemble_accuracies`` those of the ensemble and of each member, a pair (held-out, test), None for none.
        lacking: why there is no ensemble, though one was asked for.
        stopped: "done" or "interrupted".
        network_epochs: trained by the last call, in ``seconds``, ``jobs`` trials at a time.
        machine: what it ran on, and versions; ``data`` says what was read.
    """

    plan: Plan
    run: RunSettings
    folder: Path
    trials: list[Outcome]
    points: list[Point]
    best: Outcome | None
    stopped: str
    network_epochs: int = 0
    seconds: float = 0.0
    jobs: int = 1
    data: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    network: Network | None = None
    test_accuracy: float | None = None
    ensemble: Ensemble | None = None
    lacking: str = ""
    members: list[int] = field(default_factory=list)
    ensemble_accuracies: list[tuple[float | None, float | None]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        plan: Plan,
        run: RunSettings,
        folder: Path,
        outcomes: Iterable[Outcome],
        stopped: str,
        **others: Any,
    ) -> Sweep:
        """The sweep that these trials make."""
        trials = sorted(outcomes, key=lambda outcome: outcome.number)
        points, by_point = [], defaultdict(list)
        for outcome in trials:
            by_point[outcome.point].append(outcome)
        for number, own in by_point.items():
            whole = len(own) == plan.each and all(outcome.state == DONE for outcome in own)
            points.append(Point(number, own[0].settings, own, whole))
        # Where accuracies are the same the loss tells, unless it is another one in each.
        alike = not any(axis.field == "loss" for axis in plan.axes)
        points.sort(key=lambda p: (not p.whole, -p.mean, p.loss if alike else 0.0, p.number))
        best = min(points[0].trials, key=better_first) if points and points[0].whole else None
        return cls(plan, run, folder, trials, points, best, stopped, **others)

    @property
    def rate(self) -> float:
        """Network-epochs a second."""
        return self.network_epochs / self.seconds if self.seconds else 0.0

    @property
    def measure(self) -> str:
        """What trials are compared by."""
        known = any(outcome.validation_accuracy is not None for outcome in self.trials)
        return "validation accuracy" if known else "validation loss"

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.trials if outcome.state == FAILED]

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        outcome = next(outcome for outcome in self.trials if outcome.number == number)
        return next(
            trial
            for trial in self.plan.trials_of(outcome.point, outcome.settings)
            if trial.number == outcome.number
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.plan.definition(),
            "stopped": self.stopped,
            "trials": [vars(outcome) for outcome in self.trials],
            "points": [
                {
                    "settings": point.settings,
                    "mean": point.mean if point.scores else None,
                    "deviation": point.deviation,
                    "trials": [outcome.number for outcome in point.trials],
                    "whole": point.whole,
                }
                for point in self.points
            ],
            "best": None if self.best is None else vars(self.best),
            "test_accuracy": self.test_accuracy,
            "ensemble": {"members": self.members, "accuracies": self.ensemble_accuracies}
            if self.members
            else None,
            "network_epochs": self.network_epochs,
            "seconds": self.seconds,
            "network_epochs_per_second": self.rate,
            "jobs": self.jobs,
            "backend": self.run.backend,
            "folder": str(self.folder),
        }


def better_first(outcome: Outcome) -> tuple[float, float, int]:
    """The order of trials by their scores, the best first."""
    score = -np.inf if outcome.score is None else outcome.score
    return -score, np.inf if outcome.validation_loss is None else outcome.validation_loss, outcome.number


def read(folder: Path) -> Sweep:
    """The sweep that has left ``folder``, as far as it has got; its models are not read.

    Raises:
        DataError: there is none, or a file of it is damaged.
    """
    table = kept.read_sweep(folder)
    if table is None:
        raise DataError(f"there is no {kept.SWEEP} in {folder}")
    with npz.reading(folder / kept.SWEEP, kept.KIND):
        definition = dict(table["definition"])
        recipe = Recipe.from_dict(definition.pop("recipe"), str(folder / kept.SWEEP))
        plan = Plan(recipe, tuple(definition.pop("vary")), **definition)
        found, counts = table.get("found", {}), table.get("counts", {})
        result = Sweep.of(
            *(plan, RunSettings(**table["run"]), folder, kept.read_outcomes(folder)),
            table.get("stopped", "interrupted"),
            **counts,
            data=table.get("data_read", ""),
            machine=table["machine"],
        )
    result.test_accuracy = found.get("test_accuracy")
    result.members = found.get("members", [])
    result.ensemble_accuracies = [tuple(pair) for pair in found.get("ensemble_accuracies", [])]
    return result
