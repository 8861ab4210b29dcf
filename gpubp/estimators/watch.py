"""The job of a fit, and the watch kept on it as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import entr

from gpubp.network import Network
from gpubp.training.history import Epoch


@dataclass(frozen=True)
class Job:
    """All that a call of ``fit`` or ``partial_fit`` is to learn: targets (N,) class numbers or (N, n_out) values.

    ``labels`` are the fitted attributes that say what outputs stand for, ``names`` the network's own.
    """

    inputs: Any
    targets: np.ndarray
    weight: np.ndarray | None
    n_out: int
    output: str
    loss: str
    labels: dict[str, Any]
    names: tuple

    @property
    def usable_weight(self) -> np.ndarray | None:
        """The weights; None where they are all 0."""
        return self.weight if self.weight is not None and self.weight.any() else None

    @property
    def unlearned_loss(self) -> float:
        """The mean loss of the constant outputs that are best: of who has learned nothing about the inputs."""
        if self.loss == "cross_entropy":
            share = np.bincount(self.targets, self.usable_weight)
            return float(entr(share / share.sum()).sum())
        mean = np.average(self.targets, axis=0, weights=self.usable_weight)
        if self.loss == "binary_cross_entropy":
            return float((entr(mean) + entr(1 - mean)).sum())
        off = np.average((self.targets - mean) ** 2, axis=0, weights=self.usable_weight)
        return float(off.sum() / 2)

    def take(self, rows: np.ndarray) -> Job:
        weight = None if self.weight is None else self.weight[rows]
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows], weight=weight)


@dataclass
class Watch:
    """Watch the curves from epoch to epoch, and notice when they have stopped getting better.

    That is, scikit-learn's rule, when the validation score, or without one the training loss, has not improved by
    ``tol`` for more than ``patience`` epochs in a row. But a loss that is then above its best by more than ``margin``
    has overshot, and mostly comes down again: training goes on, and this is the loss to improve on from there.
    """

    tol: float
    patience: float
    score: Callable[[Epoch, Network], float] | None = None
    margin: float = np.inf
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    bar: float = np.inf  # the loss to improve on
    best_score: float = -np.inf
    best_parameters: list | None = None
    without_gain: int = 0

    def __call__(self, epoch: Epoch, network: Network) -> bool:
        self.losses.append(epoch.loss)
        if self.score is None:
            gained = epoch.loss <= self.bar - self.tol
            self.bar = min(self.bar, epoch.loss)
        else:
            score = self.score(epoch, network)
            self.scores.append(score)
            gained = score >= self.best_score + self.tol
            if score > self.best_score:
                self.best_score, self.best_parameters = score, network.parameters
        self.best_loss = min(self.best_loss, epoch.loss)
        self.without_gain = 0 if gained else self.without_gain + 1
        if self.stopped and epoch.loss > self.bar + self.margin:
            self.bar, self.without_gain = epoch.loss, 0
        return self.stopped

    @property
    def reads_network(self) -> bool:
        """Whether a call looks at the network: only a score does."""
        return self.score is not None

    @property
    def stopped(self) -> bool:
        return self.without_gain > self.patience

    @property
    def overshot(self) -> bool:
        """Whether the last loss is above the best by more than ``margin``."""
        return bool(self.losses) and self.losses[-1] > self.best_loss + self.margin

    def copy(self) -> Watch:
        """Another one that stands where this does, so that a run that fails leaves nothing behind."""
        return replace(self, losses=[*self.losses], scores=[*self.scores])


@dataclass
class Stream:
    """State that calls of ``partial_fit`` hand on: the watch, the next seed, and what verifying so many calls cost."""

    watch: Watch
    seed: int
    verified: float = 0.0
    calls: int = 0
    seconds: float = 0.0
    warned: bool = False  # that training goes nowhere, which each call would say anew
