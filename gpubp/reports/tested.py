"""What a network makes of test data: which classes it confuses and where it is surest, or how far values are off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpubp.data.dataset import Split
from gpubp.experiments.run import Result
from gpubp.network import VALUES
from gpubp.reports import pictures as weights
from gpubp.reports.charts import FAINT, SERIES, chart, picture
from gpubp.reports.mistakes import Mistake, confusion_matrix, fits, most_confident

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

MATRIX_CLASSES = 20  # beyond, a confusion matrix is not read: the worst confusions are listed
IMAGES_SHOWN, ROWS_SHOWN, CONFUSIONS_SHOWN, INPUTS_SHOWN, OUTPUTS_SHOWN = 24, 10, 20, 10, 4
POINTS = 400  # of a scatter plot
PIXELS = 60_000  # in all the test images of a page together


class _Part(NamedTuple):
    """The test part of one split and its outputs, (N, n_out)."""

    test: Split
    outputs: np.ndarray


def results(result: Result) -> dict[str, Any] | None:
    """Results on the test data of all splits together; None without test data or finite outputs."""
    parts = [
        _Part(e.test, e.outputs)
        for e in result.evidence
        if e.test is not None and e.outputs is not None and np.isfinite(e.outputs).all()
    ]
    if not parts:
        return None
    return _regressed(parts) if result.network.meaning == VALUES else _classified(result, parts)


def _classified(result: Result, parts: list[_Part]) -> dict[str, Any]:
    outputs = np.concatenate([part.outputs for part in parts])
    labels = np.concatenate([_labels(part.test.targets) for part in parts])
    classes = max(int(labels.max()) + 1, outputs.shape[1], 2)
    counts = confusion_matrix(outputs, labels, classes)
    names = _class_names(result, classes)
    mistakes = most_confident(outputs, labels, IMAGES_SHOWN)
    activation = result.network.layers[-1].activation
    return {
        "kind": "classes",
        "samples": len(labels),
        "wrong": int(counts.sum() - np.trace(counts)),
        "names": names,
        "matrix": _tinted(counts) if classes <= MATRIX_CLASSES else None,
        "recall": [
            f"{counts[i, i] / total:.0%}" if (total := counts[i].sum()) else "–" for i in range(classes)
        ],
        "confusions": _confusions(counts, names),
        "mistakes": _illustrated(result, parts, mistakes, names),
        "measure": "probability" if activation in ("softmax", "sigmoid") else "output",
    }


def _labels(targets: np.ndarray) -> np.ndarray:
    """Classes (N,), of targets that are labels or a distribution over classes."""
    return targets.astype(np.int64) if targets.ndim == 1 else targets.argmax(axis=1)


def _class_names(result: Result, classes: int) -> list[str]:
    names = (result.dataset.class_names if result.dataset else None) or ()
    return [*names, *map(str, range(len(names), classes))][:classes]


def _tinted(counts: np.ndarray) -> list[list[tuple[int, str]]]:
    """Cells as (count, CSS colour): blue for right ones, orange for wrong ones, by their share of the class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    off = shares[~np.eye(len(counts), dtype=bool)].max() or 1.0

    def colour(i: int, j: int) -> str:
        if counts[i, j] == 0:
            return "transparent"
        return weights.tint(shares[i, i]) if i == j else weights.tint(-(0.15 + 0.85 * shares[i, j] / off))

    return [[(int(n), colour(i, j)) for j, n in enumerate(row)] for i, row in enumerate(counts)]


def _confusions(counts: np.ndarray, names: list[str]) -> list[tuple[str, str, int, int]]:
    """(true, predicted, count, samples of the class), the most frequent first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    pairs = [np.unravel_index(k, wrong.shape) for k in order]
    return [(names[i], names[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in pairs if wrong[i, j]]


def _illustrated(
    result: Result, parts: list[_Part], mistakes: list[Mistake], names: list[str]
) -> list[dict[str, Any]]:
    """Mistakes with their inputs: as an image where they are one, else as numbers."""
    shape = result.dataset.image_shape if result.dataset else None
    mistakes = mistakes[: ROWS_SHOWN if shape is None else max(1, PIXELS // (shape[0] * shape[1]))]
    rows = _raw_rows(parts, [m.row for m in mistakes])
    return [
        {
            "true": names[m.true],
            "predicted": names[m.predicted],
            "output": f"{m.output:.3f}",
            "output_of_true": f"{m.output_of_true:.3f}",
            "image": None if shape is None else picture(_grey(row.reshape(shape))),
            "inputs": _numbers(row),
        }
        for m, row in zip(mistakes, rows, strict=True)
    ]


def _raw_rows(parts: list[_Part], rows: list[int]) -> list[np.ndarray]:
    """Inputs by their row among the tests of all splits."""
    starts = np.cumsum([0, *(len(part.test) for part in parts)])
    found = []
    for row in rows:
        split = int(np.searchsorted(starts, row, side="right")) - 1
        found.append(parts[split].test.inputs[row - starts[split]])
    return found


def _grey(image: np.ndarray) -> np.ndarray:
    """An image as bytes: as it is, or stretched from its smallest to its largest value."""
    if image.dtype == np.uint8:
        return image
    low, high = min(float(image.min()), 0.0), max(float(image.max()), 1.0)
    return np.rint((image - low) / (high - low) * 255).astype(np.uint8)


def _numbers(row: np.ndarray) -> str:
    more = ", …" if len(row) > INPUTS_SHOWN else ""
    return ", ".join(f"{v:.4g}" for v in row[:INPUTS_SHOWN]) + more


def _regressed(parts: list[_Part]) -> dict[str, Any] | None:
    outputs = np.concatenate([part.outputs for part in parts])
    targets = np.concatenate([part.test.targets.reshape(len(part.test), -1) for part in parts])
    if targets.shape != outputs.shape:
        return None
    shown = min(outputs.shape[1], OUTPUTS_SHOWN)
    error = np.abs(outputs - targets).max(axis=1)
    worst = [int(i) for i in np.argsort(-error, kind="stable")[:ROWS_SHOWN]]
    inputs = _raw_rows(parts, worst)
    return {
        "kind": "values",
        "samples": len(targets),
        "outputs": outputs.shape[1],
        "shown": shown,
        "fits": [
            (i + 1, f"{fit.rmse:.4g}", "–" if fit.r2 is None else f"{fit.r2:.4f}")
            for i, fit in enumerate(fits(outputs, targets)[:OUTPUTS_SHOWN])
        ],
        "figure": _scatter(outputs[:, :shown], targets[:, :shown]),
        "points": min(len(targets), POINTS),
        "worst": [
            (_numbers(targets[i]), _numbers(outputs[i]), f"{error[i]:.4g}", _numbers(x))
            for i, x in zip(worst, inputs, strict=True)
        ],
    }


def _scatter(outputs: np.ndarray, targets: np.ndarray) -> Markup:
    rows = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), POINTS)).astype(int))

    def draw(axes: Axes) -> None:
        ends = [targets.min(), targets.max()]
        axes.plot(ends, ends, color=FAINT, linewidth=1.2)
        for i in range(targets.shape[1]):
            axes.plot(
                targets[rows, i],
                outputs[rows, i],
                ".",
                color=SERIES[i],
                markersize=4,
                label=f"output {i + 1}",
            )
        axes.set(xlabel="target", ylabel="output")
        if targets.shape[1] > 1:
            axes.legend()

    return chart(draw, "Outputs over their targets, for test samples")
