"""What a network gets wrong on test data: which classes it confuses, where it is surest, how far values are off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.network import labels_of


@dataclass(frozen=True)
class Mistake:
    """A test sample by its row, its class, the class predicted, and the outputs of either."""

    row: int
    true: int
    predicted: int
    output: float
    output_of_true: float


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of class i are taken for class j, at [i, j], (classes, classes); outputs (N, n_out)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels.astype(np.int64), labels_of(outputs)), 1)
    return counts


def most_confident(outputs: np.ndarray, labels: np.ndarray, count: int) -> list[Mistake]:
    """The ``count`` samples with the largest output at a wrong class that is predicted, the largest first.

    Outputs are (N, n_out); a single one is the probability of class 1. A class without an output has 0.
    """
    by_class = outputs if outputs.shape[1] > 1 else np.hstack([1 - outputs, outputs])
    by_class = np.pad(by_class, ((0, 0), (0, max(0, int(labels.max()) + 1 - by_class.shape[1]))))
    labels, predicted = labels.astype(np.int64), labels_of(outputs)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-by_class[wrong, predicted[wrong]], kind="stable")][:count]
    return [
        Mistake(
            int(row),
            int(labels[row]),
            int(predicted[row]),
            float(by_class[row, predicted[row]]),
            float(by_class[row, labels[row]]),
        )
        for row in surest
    ]


@dataclass(frozen=True)
class Fit:
    """How one output fits its targets: root mean squared error, and R², the share of their variance explained.

    ``r2`` is None for targets that are all the same.
    """

    rmse: float
    r2: float | None


def fits(outputs: np.ndarray, targets: np.ndarray) -> list[Fit]:
    """The fit of each output, both (N, n_out)."""
    targets = targets.astype(np.float64)
    squares = ((outputs - targets) ** 2).mean(axis=0)
    variances = targets.var(axis=0)
    return [
        Fit(float(np.sqrt(s)), float(1 - s / v) if v > 0 else None)
        for s, v in zip(squares, variances, strict=True)
    ]
