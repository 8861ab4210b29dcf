"""The page that ``gpubp explain --html`` writes: a walk through backpropagation, for class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpubp.data import Dataset
from gpubp.explain import words
from gpubp.explain.lesson import lesson
from gpubp.explain.microscope import Walk, descent
from gpubp.reports import page
from gpubp.reports.charts import FAINT, INK, SERIES, chart, picture

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

FULL = 16  # numbers of a vector that are written out
TINTED = 64  # rows and columns of a matrix that are shown as tints
STRONGEST = 45  # percent of the tint of the largest number, at which text on it is still read


class Cell(NamedTuple):
    """A number as text, and its tint: "up" or "down" by its sign, and a share in percent."""

    text: str
    sign: str
    tint: int


class Grid(NamedTuple):
    """Rows of cells, none where there are too many; with ``numbers`` they are written out, else only tinted."""

    rows: list[list[Cell]]
    numbers: bool
    told: str


def write_page(
    path: str | os.PathLike, step: Walk, sample: int, title: str, told: str, dataset: Dataset | None = None
) -> Path:
    """Write the page of a walk, its vectors those of ``sample``; see :func:`gpubp.reports.page.write`."""
    inputs, targets = step.samples.inputs[sample], step.samples.targets[sample]
    image = None
    if dataset is not None and dataset.image_shape is not None:
        grey = np.clip(255 - 255 * inputs.reshape(dataset.image_shape), 0, 255).astype(np.uint8)
        image = picture(grey)
    context: dict[str, Any] = {
        "introduction": words.introduction(step, sample),
        "image": image,
        "given": {"y": targets} if image else {"a0": inputs, "y": targets},
        "sections": lesson(step, sample),
        "signal_chart": _signal_chart(step),
        "descent_chart": _descent_chart(),
        "number": _number,
        "grid": grid,
    }
    return page.write(path, "explain.html", step=step, sample=sample, title=title, told=told, **context)


def _number(x: float) -> str:
    return words.number(x).replace("-", "−")


def _cells(values: np.ndarray, most: float) -> list[Cell]:
    tints = np.rint(STRONGEST * np.abs(values) / (most or 1.0)).astype(int)
    return [Cell(_number(float(v)), "up" if v > 0 else "down", t) for v, t in zip(values, tints, strict=True)]


def grid(values: np.ndarray) -> Grid:
    """A vector, or a (n_out, n_in) matrix with a row for each unit, tinted on a common scale."""
    most, longest = np.abs(values).max(), max(values.shape)
    shown = np.atleast_2d(values)[: 0 if values.ndim == 2 and longest > TINTED else None]
    rows = [_cells(row, most) for row in shown]
    return Grid(rows, longest <= FULL, words.told(values).replace("-", "−"))


def _signal_chart(step: Walk) -> Markup:
    names = [f"{layer.number}\n{layer.activation.name}" for layer in step.layers]
    sizes = [layer.signal.mean_delta for layer in step.layers]

    def draw(axes: Axes) -> None:
        axes.bar(names, sizes, color=SERIES[0], width=0.6)
        if min(sizes) > 0 and max(sizes) / min(sizes) > 20:
            axes.set_yscale("log")
        axes.set_axisbelow(True)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="layer", ylabel="mean |δ|")

    told = ", ".join(f"layer {i}: {size:.2e}" for i, size in enumerate(sizes, start=1))
    return chart(draw, f"mean |δ| of each layer: {told}")


def _descent_chart() -> Markup:
    """Contours of a² + b² and the paths of some learning rates, from points that tell them apart."""
    starts = {0.1: (10.0, 3.0), 0.3: (10.0, 10.0), 1.0: (-9.0, 6.0), 1.1: (2.5, -4.5)}

    def draw(axes: Axes) -> None:
        grid = np.linspace(-12, 12, 61)
        heights = grid[:, None] ** 2 + grid[None, :] ** 2
        axes.contour(grid, grid, heights, levels=[5, 20, 50, 100, 150, 200], colors=[FAINT], linewidths=0.8)
        for colour, (lr, start) in zip(SERIES, starts.items(), strict=False):
            steps = descent(lr, 5 if lr > 1 else 7, start)
            path = np.array([start, *(s.to for s in steps)])
            axes.plot(path[:, 0], path[:, 1], "o-", color=colour, markersize=3, label=f"η = {lr:g}")
        axes.plot(0, 0, "+", color=INK, markersize=10)
        axes.set(xlabel="a", ylabel="b", aspect="equal", xlim=(-12, 12), ylim=(-12, 12))
        axes.grid(visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    told = "η = 0.1 and 0.3 go straight to the centre, η = 1 jumps across it for ever, η = 1.1 jumps farther each time"
    return chart(draw, f"paths of gradient descent on a² + b²: {told}")
