"""Trials ended early where others did better at the same epoch, by rules of Optuna's."""

from __future__ import annotations

import threading
from typing import Any

from gpubp.errors import UsageError
from gpubp.sweeps.search import quiet_optuna
from gpubp.sweeps.trial import STOPPED, Outcome, Trial

RULES = {"halving": "SuccessiveHalvingPruner", "median": "MedianPruner"}


class EarlyStop:
    """The rule of ``--stop-early``: asynchronous successive halving (Li and others 2018), or the median of the others.

    Raises:
        UsageError: another rule.
        GpubpError: Optuna is not installed.
    """

    def __init__(self, rule: str) -> None:
        if rule not in RULES:
            raise UsageError(f"--stop-early is {' or '.join(RULES)}, not {rule!r}")
        self._optuna = quiet_optuna()
        pruner = getattr(self._optuna.pruners, RULES[rule])()
        self._study = self._optuna.create_study(direction="maximize", pruner=pruner)
        self._trials: dict[int, Any] = {}
        self._lock = threading.Lock()

    def begins(self, trial: Trial) -> None:
        """A trial begins."""
        with self._lock:
            self._trials[trial.number] = self._study.ask()

    def goes_on(self, trial: Trial, epoch: int, score: float) -> bool:
        """Whether the trial is worth going on with, where it has this score after so many epochs."""
        with self._lock:
            own = self._trials[trial.number]
            own.report(score, epoch)
            return not own.should_prune()

    def ended(self, outcome: Outcome) -> None:
        """A trial is over, now or in an earlier part of the sweep."""
        states = self._optuna.trial.TrialState
        state = {STOPPED: states.PRUNED}.get(outcome.state, states.COMPLETE)
        if outcome.score is None:
            state = states.FAIL
        with self._lock:
            if outcome.number not in self._trials:  # what the rule would have seen is shown to it
                self._trials[outcome.number] = own = self._study.ask()
                for epoch, score in enumerate(outcome.scores() if outcome.curves else [], start=1):
                    if score is not None:
                        own.report(score, epoch)
                        own.should_prune()
            value = outcome.score if state == states.COMPLETE else None
            self._study.tell(self._trials.pop(outcome.number), values=value, state=state)
