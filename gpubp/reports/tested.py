"""Results on test data: which classes it confuses and where it is surest, or how far values are off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpubp.experiments.run import Result
from gpubp.model import VALUES, labels_of
from gpubp.reports import pictures
from gpubp.reports.charts import picture
from gpubp.reports.plot import SERIES, Axis, Curve, plot

if TYPE_CHECKING:
    from markupsafe import Markup

MATRIX_CLASSES = 20  # beyond, a confusion matrix is not read: the worst confusions are listed
IMAGES_SHOWN, ROWS_SHOWN, CONFUSIONS_SHOWN, INPUTS_SHOWN, OUTPUTS_SHOWN = 24, 10, 20, 10, 4
POINTS = 400  # of a scatter plot
PIXELS = 60_000  # in all the test images of a page together


class _Part(NamedTuple):
    """The test part of one split and its outputs, (N, n_out); inputs None where they are not to be had."""

    inputs: Any
    targets: np.ndarray
    outputs: np.ndarray


def results(result: Result) -> dict[str, Any] | None:
    """Results on the test data of all splits together; None without test data or finite outputs."""
    parts = [
        _Part(e.inputs, e.targets, e.outputs)
        for e in result.evidence
        if e.targets is not None and e.outputs is not None and np.isfinite(e.outputs).all()
    ]
    if not parts:
        return None
    return _regressed(parts) if result.network.meaning == VALUES else _classified(result, parts)


def _classified(result: Result, parts: list[_Part]) -> dict[str, Any]:
    outputs = np.concatenate([part.outputs for part in parts])
    targets = [part.targets for part in parts]  # labels, or a distribution over classes
    labels = np.concatenate([y.astype(np.int64) if y.ndim == 1 else y.argmax(axis=1) for y in targets])
    classes = max(int(labels.max()) + 1, outputs.shape[1], 2)
    counts = confusion_matrix(labels, labels_of(outputs), classes)
    named = (result.data.class_names if result.data else None) or ()
    names = [*named, *map(str, range(len(named), classes))][:classes]
    mistakes = most_confident(outputs, labels, IMAGES_SHOWN)
    activation = result.network.layers[-1].activation
    return {
        "kind": "classes",
        "samples": len(labels),
        "wrong": int(counts.sum() - np.trace(counts)),
        "names": names,
        "matrix": _tinted(counts) if classes <= MATRIX_CLASSES else None,
        "recall": [f"{row[i] / row.sum():.0%}" if row.any() else "–" for i, row in enumerate(counts)],
        "confusions": _confusions(counts, names),
        "mistakes": _illustrated(result, parts, mistakes, names),
        "images": result.data is not None and result.data.image_shape is not None and not result.lacking,
        "measure": "probability" if activation in ("softmax", "sigmoid") else "output",
    }


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the samples of class i taken for class j, at [i, j], (classes, classes)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


class Mistake(NamedTuple):
    """A test sample by its row, its class, the class predicted, and the outputs of either."""

    row: int
    true: int
    predicted: int
    output: float
    output_of_true: float


def most_confident(outputs: np.ndarray, labels: np.ndarray, count: int) -> list[Mistake]:
    """The ``count`` samples with the largest output at a wrong class that is predicted, the largest first.

    Outputs are (N, n_out); a single one is the probability of class 1. A class without an output has 0.
    """
    by_class = outputs if outputs.shape[1] > 1 else np.hstack([1 - outputs, outputs])
    by_class = np.pad(by_class, ((0, 0), (0, max(0, int(labels.max()) + 1 - by_class.shape[1]))))
    rows, predicted = np.arange(len(labels)), labels_of(outputs)
    said, right = by_class[rows, predicted], by_class[rows, labels]
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-said[wrong], kind="stable")][:count]
    columns = (x[surest].tolist() for x in (rows, labels, predicted, said, right))
    return [Mistake(*found) for found in zip(*columns, strict=True)]


def _tinted(counts: np.ndarray) -> list[list[tuple[int, str]]]:
    """Cells as (count, CSS colour): blue for right ones, orange for wrong ones, by their share of the class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(counts), dtype=bool)
    off = shares[~right].max() or 1.0
    tints = np.where(right, shares, -(0.15 + 0.85 * shares / off))
    return [
        [(int(n), pictures.tint(t) if n else "transparent") for n, t in zip(*row, strict=True)]
        for row in zip(counts, tints, strict=True)
    ]


def _confusions(counts: np.ndarray, names: list[str]) -> list[tuple[str, str, int, int]]:
    """(true, predicted, count, samples of the class), the most frequent first."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    pairs = np.transpose(np.unravel_index(order, wrong.shape))
    return [(names[i], names[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in pairs if wrong[i, j]]


def _illustrated(
    result: Result, parts: list[_Part], mistakes: list[Mistake], names: list[str]
) -> list[tuple[str, ...]]:
    """(true, predicted, its output, that of the true class, inputs), these as an image where they are one."""
    shape = result.data.image_shape if result.data and not result.lacking else None
    mistakes = mistakes[: ROWS_SHOWN if shape is None else max(1, PIXELS // (shape[0] * shape[1]))]
    rows = _raw_rows(parts, [m.row for m in mistakes])
    shown = [_numbers(row) if shape is None else picture(_grey(row.reshape(shape))) for row in rows]
    return [
        (names[m.true], names[m.predicted], f"{m.output:.3f}", f"{m.output_of_true:.3f}", inputs)
        for m, inputs in zip(mistakes, shown, strict=True)
    ]


def _raw_rows(parts: list[_Part], rows: list[int]) -> list[np.ndarray]:
    """Inputs by their row among the tests of all splits; rows of nothing where they are not to be had."""
    starts = np.cumsum([0, *(len(part.outputs) for part in parts)])
    splits = np.searchsorted(starts, rows, side="right") - 1
    none = np.empty(0)
    return [
        none if (inputs := parts[s].inputs) is None else inputs[row - starts[s]]
        for s, row in zip(splits, rows, strict=True)
    ]


def _grey(image: np.ndarray) -> np.ndarray:
    """An image as bytes: as it is, or stretched from its smallest to its largest value."""
    if image.dtype == np.uint8:
        return image
    low, high = min(float(image.min()), 0.0), max(float(image.max()), 1.0)
    return np.rint((image - low) / (high - low) * 255).astype(np.uint8)


def _numbers(row: np.ndarray) -> str:
    more = ", …" if len(row) > INPUTS_SHOWN else ""
    return ", ".join(f"{v:.4g}" for v in row[:INPUTS_SHOWN]) + more or "–"


def _regressed(parts: list[_Part]) -> dict[str, Any] | None:
    outputs = np.concatenate([part.outputs for part in parts])
    targets = np.concatenate([part.targets.reshape(len(part.targets), -1) for part in parts])
    if targets.shape != outputs.shape:
        return None
    shown = min(outputs.shape[1], OUTPUTS_SHOWN)
    error = np.abs(outputs - targets).max(axis=1)
    worst = np.argsort(-error, kind="stable")[:ROWS_SHOWN].tolist()
    return {
        "kind": "values",
        "samples": len(targets),
        "outputs": outputs.shape[1],
        "shown": shown,
        "fits": [
            (i, f"{rmse:.4g}", f"{r2:.4f}" if np.isfinite(r2) else "–")
            for i, (rmse, r2) in enumerate(fits(outputs, targets)[:OUTPUTS_SHOWN], start=1)
        ],
        "figure": _scatter(outputs[:, :shown], targets[:, :shown]),
        "points": min(len(targets), POINTS),
        "worst": [
            (_numbers(targets[i]), _numbers(outputs[i]), f"{error[i]:.4g}", _numbers(x))
            for i, x in zip(worst, _raw_rows(parts, worst), strict=True)
        ],
    }


def fits(outputs: np.ndarray, targets: np.ndarray) -> list[tuple[float, float]]:
    """Return each output's root mean squared error and R², the share of the targets' variance that is explained.

    R² is no finite number for targets that are all the same.
    """
    targets = targets.astype(np.float64)
    squares = ((outputs - targets) ** 2).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - squares / targets.var(axis=0)
    return list(zip(np.sqrt(squares).tolist(), r2.tolist(), strict=True))


def _scatter(outputs: np.ndarray, targets: np.ndarray) -> Markup:
    rows = sorted({int(i) for i in np.linspace(0, len(targets) - 1, min(len(targets), POINTS))})
    ends = [targets.min(), targets.max()]
    curves = [Curve(ends, ends, "--faint", width=1.2)]
    for i, (x, y) in enumerate(zip(targets[rows].T, outputs[rows].T, strict=True)):
        legend = f"output {i + 1}" if targets.shape[1] > 1 else ""
        curves.append(Curve(x, y, SERIES[i], legend, points=True))
    return plot(curves, Axis("target"), Axis("output"), "Outputs over their targets, for test samples")
