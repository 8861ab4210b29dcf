"""Curves and points over two axes as SVG, in a millisecond: Matplotlib would take longer than a short training does.

Colours are CSS variables of ``base.html``, so that one drawing serves light and dark. Text stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 317, 209  # units of the drawing: for a phone's width, so that text is still read there
TEXT, SMALL = 9, 8  # sizes of text: of the axes, of the legend
CHARACTER = 0.62  # the width of a character over its size, in a wide font
RIGHT, BOTTOM = 12, 31  # margins, the latter for ticks and a label
ROW = 12  # the height of a row of the legend
MARGIN = 0.05  # free at either end of an axis, of what is between them
SERIES = tuple(f"--series-{i}" for i in range(1, 7))  # six colours that differ in either theme
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Axis(NamedTuple):
    """``integer`` axes have ticks at whole numbers only. ``limits`` are what is drawn and a margin, if not given.

    ``names`` are those of the places 0, 1, 2, …, which are then all that has ticks.
    """

    label: str
    log: bool = False
    integer: bool = False
    limits: tuple[float, float] | None = None
    names: tuple[str, ...] = ()


class Curve(NamedTuple):
    """A line, or only its points. ``x`` ascends under a line; where ``y`` is not finite, the line has a gap."""

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str
    legend: str = ""
    width: float = 1.6
    points: bool = False


class Mark(NamedTuple):
    """A vertical line, with the lengths of its dashes and of the gaps between them."""

    at: float
    dashes: str
    legend: str


class Tick(NamedTuple):
    at: float  # a value; on a logarithmic axis, its exponent
    label: str


Room = Callable[[Sequence[str]], float]  # how far apart ticks with these labels have to be


class _Scale:
    """An axis from end to end. It is even in what is called steps here: values, or exponents if it is logarithmic."""

    def __init__(self, axis: Axis, values: np.ndarray) -> None:
        self.axis = axis
        steps = self._steps(values if axis.limits is None else np.array(axis.limits))
        steps = steps[np.isfinite(steps)]
        low, high = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 0.0)
        size = max(abs(low), abs(high), 1.0 if axis.log else 1e-280)
        margin = MARGIN * (high - low) if axis.limits is None else 0.0
        if high - low <= 1e-9 * size:  # a constant, but for rounding
            margin = 0.5 if axis.log or axis.integer else MARGIN * size if size > 1e-280 else 1.0
        self.low, self.high = low - margin, high + margin

    def _steps(self, values: np.ndarray) -> np.ndarray:
        values = np.where(np.abs(values) < 1e290, values, np.nan)  # so that no difference of two overflows
        return np.log10(np.where(values > 0, values, np.nan)) if self.axis.log else values

    def places(self, values: Sequence[float] | np.ndarray, start: float, end: float) -> np.ndarray:
        """Where values are if the axis goes from ``start`` to ``end``; NaN for those that it cannot show."""
        return self._places(self._steps(np.asarray(values, float)), start, end)

    def _places(self, steps: Sequence[float] | np.ndarray, start: float, end: float) -> np.ndarray:
        return start + (np.asarray(steps, float) - self.low) / (self.high - self.low) * (end - start)

    def ticks(self, room: Room, start: float, end: float) -> tuple[list[Tick], list[float]]:
        """Ticks by their place, and the places of small ones without a label."""
        length = abs(end - start)
        if self.axis.names:
            found = _named(self.axis.names, length / (self.high - self.low), room)
            between: list[float] = []
        elif self.axis.log:
            found, between = _logarithmic(self.low, self.high, length, room)
        else:
            found, between = _linear(self.low, self.high, length, room, self.axis.integer), []
        places = self._places([tick.at for tick in found], start, end).tolist()
        ticks = [Tick(place, tick.label) for place, tick in zip(places, found, strict=True)]
        return ticks, self._places(between, start, end).tolist()


def _named(names: Sequence[str], apart: float, room: Room) -> list[Tick]:
    """A tick at each place, ``apart`` units from the next, or at every so many, that their labels have room."""
    every = next((n for n in range(1, len(names)) if room(names[::n]) <= n * apart), len(names))
    return [Tick(float(place), names[place]) for place in range(0, len(names), every)]


def _linear(low: float, high: float, length: float, room: Room, integer: bool = False) -> list[Tick]:
    """Multiples of the smallest round step that leaves their labels room."""
    exponent = floor(log10(high - low)) - 1
    while True:
        for mantissa in (1.0, 2.0, 2.5, 5.0):
            step = mantissa * 10.0**exponent
            if integer and step % 1:
                continue
            values = (step * np.arange(ceil(low / step), floor(high / step) + 1)).tolist()
            labels = _labels(values, exponent - (mantissa == 2.5))
            if not labels or room(labels) <= length * step / (high - low):
                return [Tick(*tick) for tick in zip(values, labels, strict=True)]
        exponent += 1


def _labels(values: list[float], last: int) -> list[str]:
    """Values down to their digit of 10^``last``; if they are large or tiny, as multiples of a power of ten."""
    most = max((abs(value) for value in values), default=0.0) or 1.0
    power = 0 if 1e-3 <= most < 1e7 else floor(log10(most))
    texts = [f"{value / 10.0**power:,.{max(0, power - last)}f}" for value in values]
    unit = f"×{_power(power)}" if power else ""
    return [
        "0" if unit and value == 0 else (text + unit).replace("-", "−")
        for value, text in zip(values, texts, strict=True)
    ]


def _logarithmic(low: float, high: float, length: float, room: Room) -> tuple[list[Tick], list[float]]:
    """Powers of ten; where there is one at most, its multiples by 2 and 5 too, or else those of a round step."""
    exponents = range(floor(low), ceil(high) + 1)
    within = [(e, m) for e in exponents for m in range(1, 10) if low <= e + log10(m) <= high]
    plain = all(-4 <= e <= 5 for e, _ in within)
    choices: list[tuple[int, tuple[int, ...], float]] = [(1, (1, 2, 5), log10(2))]
    if sum(m == 1 for _, m in within) > 1:
        choices = [(every, (1,), float(every)) for every in (1, 2, 5, 10, 20, 50, 100, 200)]
    for every, factors, apart in choices:
        shown = [(e, m) for e, m in within if m in factors and e % every == 0]
        labels = [f"{m * 10.0**e:,g}" if plain else f"{m}×" * (m > 1) + _power(e) for e, m in shown]
        if len(shown) >= len(factors) and room(labels) <= length * apart / (high - low):
            between = [e + log10(m) for e, m in within] if every == 1 else []
            return [Tick(e + log10(m), label) for (e, m), label in zip(shown, labels, strict=True)], between
    # Even steps come closer to each other upwards.
    steps = _linear(10.0**low, 10.0**high, length, lambda labels: 2 * room(labels))
    return [Tick(log10(tick.at), tick.label) for tick in steps], []


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(_RAISED)


def plot(curves: Sequence[Curve], x: Axis, y: Axis, alt: str, marks: Sequence[Mark] = ()) -> Markup:
    """Return curves as inline SVG, with vertical marks; ``alt`` says it in words for who cannot see it.

    The legend is above them, so that it hides nothing.
    """
    from markupsafe import Markup, escape

    across = _Scale(x, np.concatenate([*(np.asarray(c.x, float) for c in curves), [m.at for m in marks]]))
    upward = _Scale(y, np.concatenate([np.asarray(c.y, float) for c in curves]))
    legend, top = _legend(curves, marks)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    rows, small_rows = upward.ticks(lambda _: 2 * TEXT, bottom, top)
    left = 22 + max((_wide(row.label, TEXT) for row in rows), default=0)
    columns, small_columns = across.ticks(
        lambda labels: 12 + max(_wide(label, TEXT) for label in labels), left, right
    )
    grid = [f"M{c.at:.1f},{top}V{bottom}" for c in columns] + [
        f"M{left:.1f},{r.at:.1f}H{right}" for r in rows
    ]
    axes = [
        f"M{left:.1f},{top}V{bottom}H{right}",
        *(f"M{c.at:.1f},{bottom}v3.5" for c in columns),
        *(f"M{at:.1f},{bottom}v2" for at in small_columns),
        *(f"M{left:.1f},{r.at:.1f}h-3.5" for r in rows),
        *(f"M{left:.1f},{at:.1f}h-2" for at in small_rows),
    ]
    middle = f"{(top + bottom) / 2:.1f}"
    lines = [
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="font-size:{TEXT}px;fill:var(--ink)">',
        _path(grid, "--faint", 0.6),
        _path(axes, "--ink", 0.8),
        '<g text-anchor="middle">',
        *(f'<text x="{c.at:.1f}" y="{bottom + 13}">{escape(c.label)}</text>' for c in columns),
        f'<text x="{(left + right) / 2:.1f}" y="{HEIGHT - 4}">{escape(x.label)}</text>',
        f'<text x="9" y="{middle}" transform="rotate(-90 9 {middle})">{escape(y.label)}</text>',
        '</g><g text-anchor="end">',
        *(f'<text x="{left - 6:.1f}" y="{r.at + 3:.1f}">{escape(r.label)}</text>' for r in rows),
        "</g>",
    ]
    for curve in curves:
        lines += _drawn(curve, across.places(curve.x, left, right), upward.places(curve.y, bottom, top))
    for mark in marks:
        at = across.places([mark.at], left, right)[0]
        lines.append(_path([f"M{at:.1f},{top}V{bottom}"], "--ink", 1, mark.dashes))
    return Markup("\n".join([*lines, *legend, "</svg>"]))


def _drawn(curve: Curve, x: np.ndarray, y: np.ndarray) -> list[str]:
    """The paths of a curve: its line, and the points that no line reaches."""
    finite = np.isfinite(x) & np.isfinite(y)
    found = np.flatnonzero(finite)
    if not curve.points:
        found = found[_telling(x[found], y[found])]
    texts = [f"{a:g},{b:g}" for a, b in np.stack([x[found], y[found]], axis=1).round(1).tolist()]
    part = np.arange(len(found)) if curve.points else np.cumsum(~finite)[found]
    ends = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(found)]
    runs = [texts[start:end] for start, end in pairwise(ends)]
    line = ["M" + " ".join(run) for run in runs if len(run) > 1]
    dots = [f"M{run[0]}h0" for run in runs if len(run) == 1]
    size = 3.2 if curve.points else 5.0
    return [_path(paths, curve.colour, w) for paths, w in ((line, curve.width), (dots, size)) if paths]


def _telling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point is the first, last, lowest or highest in its half unit of ascending ``x``.

    A line through these looks as one through all does, however many there are.
    """
    column = np.floor(2 * x)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    last = np.append(first[1:], len(x))[: len(first)] - 1
    by_height = np.lexsort((y, column))
    told = np.zeros(len(x), bool)
    told[np.concatenate([first, last, by_height[first], by_height[last]])] = True
    return told


def _legend(curves: Sequence[Curve], marks: Sequence[Mark]) -> tuple[list[str], int]:
    """The legend in columns at the upper right, and where what is below it begins."""
    from markupsafe import escape

    named = [(c.legend, c.colour, c.width, "", c.points) for c in curves if c.legend]
    named += [(m.legend, "--ink", 1, m.dashes, False) for m in marks]
    if not named:
        return [], 6
    column = 28 + max(_wide(entry[0], SMALL) for entry in named)
    columns = min(len(named), max(1, int((WIDTH - 10) // column)))
    lines = [f'<g style="font-size:{SMALL}px">']
    for i, (text, colour, width, dashes, points) in enumerate(named):
        left, y = WIDTH - (columns - i % columns) * column, 6 + ROW * (i // columns)
        swatch = f"M{left + 8:.1f},{y}h0" if points else f"M{left:.1f},{y}h15"
        lines += [
            _path([swatch], colour, 4 if points else width, dashes),
            f'<text x="{left + 19:.1f}" y="{y + 3}">{escape(text)}</text>',
        ]
    return [*lines, "</g>"], 12 + ROW * ceil(len(named) / columns)


def _wide(text: str, size: float) -> float:
    return CHARACTER * size * len(text)


def _path(parts: Sequence[str], colour: str, width: float, dashes: str = "") -> str:
    dashed = f";stroke-dasharray:{dashes}" if dashes else ""
    style = f"fill:none;stroke:var({colour});stroke-width:{width:g};stroke-linejoin:round"
    return f'<path d="{"".join(parts)}" style="{style}{dashed}{"" if dashes else ";stroke-linecap:round"}"/>'
