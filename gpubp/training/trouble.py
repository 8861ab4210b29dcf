"""Training that goes nowhere: how it is noticed, without crying wolf.

A run is measured by the best constant answer, the one that a network could give without a look at its inputs. A run
whose loss is hardly better has learned nothing so far; only then does :mod:`gpubp.training.diagnosis` ask why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

import numpy as np

from gpubp import reference
from gpubp.backends.plan import Problem
from gpubp.data.samples import Samples, as_inputs
from gpubp.functions import Loss
from gpubp.model import labels_of
from gpubp.reference import Parameters, Trace
from gpubp.training.budget import SIGNALS
from gpubp.training.diagnosis import LAST, Case, Cause, causes_of, diagnosis, stands
from gpubp.training.history import Epoch
from gpubp.training.signals import GROWTH, SAMPLES

# Shares of the constant answer's cost: a loss is hardly better from the first on; from the second on it has learned
# little, which is trouble if a layer stands still; from the third on, if it has not moved at all, as it may by the
# luck of the first weights; one that ends above its best by the last has risen.
NO_BETTER, LITTLE, LUCK, ROSE = 0.98, 0.75, 0.5, 0.25
LEARNS = (
    0.5  # of the way from the constant answer's accuracy to 1: who gets so far does learn, whatever the loss
)
LOOKS = 3  # in a row, each at other samples, that must find a network stuck before that is certain
_ROWS = 1 << 13  # of targets looked at together, which bounds the memory


def constant_cost(samples: Samples, loss: Loss) -> float:
    """The least cost that one answer a for all samples can have, in float64, as a run's loss counts: Σ w C(a, y) / N.

    Infinite where one answer is right, so that there is nothing to learn. For each loss the best a is the weighted
    mean of the targets, ȳ = Σ w y / Σ w, where the derivative by a is 0:

    * quadratic, squared_error: Σ w (a − y) = 0; the cost is the targets' variance, halved or whole;
    * cross_entropy: with λ for Σ a = 1, −Σ w y / a + λ = 0, so that a goes with Σ w y; the cost is the entropy of the
      classes' shares, −Σ ȳ ln ȳ;
    * binary_cross_entropy: Σ w (a − y) / (a (1 − a)) = 0; the cost is the entropy of each output's share, summed.

    Each is convex in a, so that there is no other minimum; and for each output at most quadratic in y, so that its mean
    over the targets is that over ȳ + s and ȳ − s, with s their standard deviation.
    """
    weight = samples.sample_weight
    first = samples.targets[np.flatnonzero(weight)[0]].astype(
        np.float64
    )  # what is subtracted, so that nothing cancels
    total, mean, square = 0.0, np.zeros_like(first), np.zeros_like(first)
    for start in range(0, len(samples), _ROWS):
        rows = slice(start, start + _ROWS)
        w, d = weight[rows].astype(np.float64), samples.targets[rows] - first
        total += float(w.sum())
        mean += w @ d
        square += w @ np.square(d, out=d)
    mean /= total
    s = np.sqrt(np.maximum(square / total - mean**2, 0))
    mean += first
    ends = loss.cost(mean[None], mean + np.stack([s, -s]))
    return total / len(samples) * float(ends.mean()) if s.any() else np.inf


class Lookout:
    """Look after each epoch whether training goes anywhere, and say in one line what is wrong where it does not.

    The network itself is looked at only where the loss is hardly better than the constant answer's, on a few samples,
    and ever more seldom.
    """

    def __init__(self, problem: Problem, *, classification: bool) -> None:
        self._problem, self._classification = problem, classification
        self._rng = np.random.default_rng(0)
        self._next, self._seconds, self._times, self._trained = 1, 0.0, 0, 0.0
        self._found_stuck = 0  # times in a row

    def while_training(self, epochs: list[Epoch], parameters: Callable[[], Parameters]) -> str | None:
        """What is certain by now: that the network is stuck, so that more epochs will not help."""
        epoch = epochs[-1]
        self._trained += epoch.seconds
        if epoch.epoch < self._next or epoch.loss < NO_BETTER * self._constant:
            return None
        if not SIGNALS.allows(self._seconds, self._times, self._trained):
            return None
        started = time.perf_counter()
        case = self._case(epochs, parameters())
        self._found_stuck = self._found_stuck + 1 if _stuck(case.now) else 0
        self._next = max(epoch.epoch + 1, int(epoch.epoch * GROWTH))
        self._seconds += time.perf_counter() - started
        self._times += 1
        return diagnosis(case, causes_of(case)) if self._found_stuck >= LOOKS else None

    def at_end(self, epochs: list[Epoch], parameters: Callable[[], Parameters], *, cut: bool) -> str | None:
        """What is wrong with a run that is over; of one that was ``cut`` short, or is short, only what is certain."""
        if not epochs:
            return None
        loss, held, constant = epochs[-1].loss, epochs[-1].validation_loss, self._constant
        # A training loss is that of before each step, which in epochs of few steps is far behind.
        ended = min(loss, np.inf if held is None else held)
        enough = LUCK if stands(epochs, constant) else LITTLE
        if ended < enough * constant and not self._rose(epochs):
            return None
        case = self._case(epochs, parameters())
        causes = causes_of(case)
        certain = loss >= NO_BETTER * constant and _stuck(case.now)
        long = len(epochs) >= LAST and not cut
        if certain or (long and self._goes_nowhere(case, causes)):
            return diagnosis(case, causes)
        return self._commonest(case) if long else None

    def _commonest(self, case: Case) -> str | None:
        """Say so where every sample gets the commonest class: a high accuracy of rare classes that hides it."""
        count = self._counts.max()
        hits = round((case.epochs[-1].accuracy or 0.0) * len(self._problem.samples))
        if not self._classification or hits != count or np.ptp(labels_of(case.now.a[-1])):
            return None
        return (
            f"every sample gets the same class, that of {count / len(self._problem.samples):.0%} of them. What helps: "
            f"train for more epochs, or raise the learning rate ({case.epochs[-1].learning_rate:g}), or give samples "
            "of rare classes more weight, unless the inputs tell nothing of the classes"
        )

    def _goes_nowhere(self, case: Case, causes: list[Cause]) -> bool:
        if case.rose or self._learns(case.epochs):
            return case.rose
        if case.stands:
            return True
        losses, last = case.losses, case.losses[-1]
        falls = last == min(losses)
        if case.ended < NO_BETTER * case.constant:
            return case.ended >= LITTLE * case.constant and not falls and case.stands_still
        # Data can tell so little that a loss hardly below the constant answer's is all there is to reach; and a loss
        # that falls as in the second half of the run may be far below it after as many epochs again.
        on_its_way = falls and last - 2 * (losses[(len(losses) - 1) // 2] - last) < NO_BETTER * case.constant
        return bool(causes) or (case.ended >= case.constant and not on_its_way)

    def _learns(self, epochs: list[Epoch]) -> bool:
        """Whether the accuracy, where there is one, is far above that of always the commonest class."""
        accuracy = max(epoch.accuracy or 0.0 for epoch in epochs[-LAST:])
        commonest = float(self._counts.max()) / len(self._problem.samples)
        return accuracy > commonest + LEARNS * (1 - commonest)

    @cached_property
    def _constant(self) -> float:
        return constant_cost(self._problem.samples, self._problem.loss)

    @cached_property
    def _counts(self) -> np.ndarray:
        """The samples of each class."""
        return np.bincount(labels_of(self._problem.samples.targets))

    def _rose(self, epochs: list[Epoch]) -> bool:
        losses = [epoch.loss for epoch in epochs]
        return min(losses[-LAST:]) > min(losses) + ROSE * self._constant

    def _case(self, epochs: list[Epoch], parameters: Parameters) -> Case:
        """The network as it stands, on at most ``SAMPLES`` of those samples that have a weight."""
        problem, whole = self._problem, self._problem.samples
        rows = np.flatnonzero(whole.sample_weight)
        if len(rows) > SAMPLES:
            rows = np.sort(self._rng.choice(rows, SAMPLES, replace=False, shuffle=False))
        few = whole.take(rows)
        few = Samples(as_inputs(few.inputs, problem.dtype), few.targets, few.sample_weight)
        data = few.inputs, few.targets, few.sample_weight
        now = reference.trace(parameters, problem.activations, problem.loss, *data)
        of_run = epochs, self._constant, self._rose(epochs)
        return Case(problem, few, parameters, now, *of_run, classification=self._classification)


def _stuck(now: Trace) -> bool:
    """Whether no gradient will ever bring the network to another answer.

    So it is where no δ is left at the outputs, or at a layer that gives the same for every sample: that layer stays
    as it is, and lets nothing of the inputs through.
    """
    same = [*(not np.ptp(a, axis=0).any() for a in now.a[1:-1]), True]
    return any(alike and not delta.any() for alike, delta in zip(same, now.delta, strict=True))
