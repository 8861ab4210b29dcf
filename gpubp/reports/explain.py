"""The page that ``gpubp explain --html`` writes: a walk through backpropagation, for class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.data import Dataset
from gpubp.explain import words as explanation
from gpubp.explain.microscope import LayerWalk, Walk, descent
from gpubp.reports import page as pages
from gpubp.reports.charts import FAINT, INK, SERIES, chart, picture

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

FULL = 16  # numbers of a vector that are written out
TINTED = 64  # rows and columns of a matrix that are shown as tints
FOLLOWED = 8  # samples of a weight that is followed
STRONGEST = 45  # percent of the tint of the largest number, at which text on it is still read


@dataclass(frozen=True)
class Cell:
    """A number as text, and how it is tinted: "up" or "down" by its sign, and by how many percent."""

    text: str
    sign: str
    tint: int


@dataclass(frozen=True)
class Grid:
    """Rows of cells with a name each; ``numbers``: whether they are written out or only tinted."""

    name: str
    shape: str
    rows: list[tuple[str, list[Cell]]]
    numbers: bool
    told: str


def write(
    path: str | os.PathLike, step: Walk, sample: int, title: str, told: str, dataset: Dataset | None = None
) -> Path:
    """Write the page of a walk, its vectors those of ``sample``; see :func:`gpubp.reports.page.write`."""
    return pages.write(path, "explain.html", **context(step, sample, title, told, dataset))


def context(step: Walk, sample: int, title: str, told: str, dataset: Dataset | None) -> dict[str, Any]:
    """What the template shows."""
    inputs, targets = step.samples.inputs[sample], step.samples.targets[sample]
    image = _image(inputs, dataset)
    return {
        "title": title,
        "told": told,
        "step": step,
        "sample": sample,
        "batch": len(step.samples),
        "words": explanation,
        "image": image,
        "inputs": vectors(*([] if image else [("a0", inputs)])),
        "targets": vectors(("y", targets)),
        "layers": [_layer(step, layer, sample) for layer in step.layers],
        "output": _output(step, sample),
        "signal_chart": _signal_chart(step),
        "descent": descent(),
        "descent_chart": _descent_chart(),
        "number": _number,
    }


def _number(x: float) -> str:
    return explanation.number(x).replace("-", "−")


def _cells(values: np.ndarray, most: float) -> list[Cell]:
    return [
        Cell(
            _number(float(v)),
            "up" if v > 0 else "down",
            round(STRONGEST * abs(float(v)) / most) if most else 0,
        )
        for v in values
    ]


def vectors(*named: tuple[str, np.ndarray]) -> list[Grid]:
    """Vectors of one layer under each other; each has tints of its own, for their units differ."""
    return [
        Grid(
            name,
            "",
            [("", _cells(values, float(np.abs(values).max())))],
            len(values) <= FULL,
            "" if len(values) <= FULL else _told(values),
        )
        for name, values in named
    ]


def matrix(name: str, values: np.ndarray) -> Grid:
    """A (n_out, n_in) matrix, a row for each unit."""
    n_out, n_in = values.shape
    shape = f"{n_out} × {n_in}"
    if max(n_out, n_in) > TINTED:
        return Grid(name, shape, [], False, _told(values))
    most = float(np.abs(values).max())
    written = n_in <= FULL and n_out <= FULL
    rows = [(str(j), _cells(row, most)) for j, row in enumerate(values)]
    return Grid(name, shape, rows, written, "" if written else _told(values))


def _told(values: np.ndarray) -> str:
    if not values.any():
        return f"{values.size:,} numbers, all 0"
    found = explanation.statistics(values)
    return (
        f"{values.size:,} numbers from {_number(found['min'])} to {_number(found['max'])}, "
        f"mean {_number(found['mean'])}, {found['zeros']:,} are 0"
    )


def _layer(step: Walk, layer: LayerWalk, sample: int) -> dict[str, Any]:
    n, hidden = layer.number, layer.number < len(step.layers)
    named = []
    if hidden and layer.arriving is not None:
        named.append((f"δ{n + 1} W{n + 1}", layer.arriving[sample]))
        if layer.slope is not None:
            named.append((f"σ'(z{n})", layer.slope[sample]))
    named.append((f"δ{n}", layer.delta[sample]))
    followed = layer.followed
    return {
        "walk": layer,
        "weights": matrix(f"W{n}", layer.parameters[0]),
        "forward": vectors(
            (f"b{n}", layer.parameters[1]), (f"z{n}", layer.z[sample]), (f"a{n}", layer.a[sample])
        ),
        "deltas": vectors(*named),
        "gradient": matrix(f"∂C/∂W{n}", layer.gradients[0]),
        "bias_gradient": vectors((f"∂C/∂b{n}", layer.gradients[1])),
        "followed": list(zip(followed.a_prev, followed.delta, followed.products, strict=True))[:FOLLOWED],
    }


def _output(step: Walk, sample: int) -> list[Grid]:
    output = step.layers[-1]
    named = [(f"a{output.number}", output.a[sample]), ("y", step.samples.targets[sample])]
    if output.arriving is not None:
        named.append(("∇ₐC", output.arriving[sample]))
        if output.slope is not None:
            named.append((f"σ'(z{output.number})", output.slope[sample]))
    return vectors(*named, (f"δ{output.number}", output.delta[sample]))


def _image(inputs: np.ndarray, dataset: Dataset | None) -> str | None:
    if dataset is None or dataset.image_shape is None:
        return None
    return picture(np.clip(255 - 255 * inputs.reshape(dataset.image_shape), 0, 255).astype(np.uint8))


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

    return chart(
        draw,
        "paths of gradient descent on a² + b²: η = 0.1 and 0.3 go straight to the centre, "
        "η = 1 jumps across it for ever, η = 1.1 jumps farther each time",
    )
