"""Curves and points over two axes: what a reader of the drawing gets back, by its ticks, is what was given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.reports.plot import HEIGHT, SERIES, TEXT, WIDTH, Axis, Curve, Mark, plot

EPOCHS = Axis("epoch", integer=True)
N = np.arange(1, 21)


def number(label: str) -> float:
    """What a tick says."""
    raised = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-", ",")
    mantissa, _, power = re.fullmatch(r"(?:(−?[\d.,]+)(×|$))?(?:10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", label).groups()
    return float(f"{(mantissa or '1').translate(raised)}e{(power or '0').translate(raised)}")


@dataclass
class Drawing:
    """A drawing as read: ticks by axis as (place, label), and the points of each piece of line or dot by colour."""

    svg: str

    def __post_init__(self) -> None:
        self.root = ElementTree.fromstring(self.svg)
        below, beside, *legend = [list(g) for g in self.root.iter("g")]
        self.x = [(float(e.get("x")), e.text) for e in below[:-2]]
        self.y = [(float(e.get("y")) - 3, e.text) for e in beside]
        self.names = [e.text for e in below[-2:]]
        entries = [e for part in legend for e in part]
        self.legend = [
            (swatch.get("style"), text.text) for swatch, text in zip(entries[::2], entries[1::2], strict=True)
        ]

    def pieces(self, colour: str) -> list[list[tuple[float, float]]]:
        """Lines and dots of a colour outside the legend, as places."""
        paths = [e.get("d") for e in self.root.findall("path") if f"stroke:var({colour})" in e.get("style")]
        found = [p.removesuffix("h0").split() for path in paths for p in path.split("M")[1:]]
        return [[tuple(map(float, point.split(","))) for point in piece] for piece in found]

    def values(self, colour: str, x_log: bool = False, y_log: bool = False) -> list[np.ndarray]:
        """Pieces in values, (points, 2), as read off the ticks."""
        read = []
        for piece in self.pieces(colour):
            places = np.array(piece).T
            read.append(np.stack([by_ticks(self.x, places[0], x_log), by_ticks(self.y, places[1], y_log)], 1))
        return read


def by_ticks(ticks: list[tuple[float, str]], places: np.ndarray, log: bool) -> np.ndarray:
    at, said = np.array([t[0] for t in ticks]), np.array([number(t[1]) for t in ticks])
    steps = np.log10(said) if log else said
    slope = (steps[-1] - steps[0]) / (at[-1] - at[0])
    np.testing.assert_allclose(steps, steps[0] + (at - at[0]) * slope, atol=0.11 * abs(slope))
    read = steps[0] + (places - at[0]) * slope
    return 10**read if log else read


def draw(y, y_axis: Axis = Axis("y"), x=N, x_axis: Axis = EPOCHS, **curve) -> Drawing:  # noqa: B008
    return Drawing(plot([Curve(x, np.asarray(y, float), SERIES[0], **curve)], x_axis, y_axis, "alt"))


def line(*given, **settings) -> np.ndarray:
    (points,) = draw(*given, **settings).values(SERIES[0], y_log=len(given) > 1 and given[1].log)
    return points


@pytest.mark.parametrize("factor", [1e-270, 1e-9, 1.0, 1234.5, 1e7, 1e280, -3e6])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_line_goes_through_its_points(factor, offset):
    y = factor * (offset + np.exp(-N / 5))
    points = line(y)
    np.testing.assert_allclose(points[:, 0], N, atol=0.02)
    np.testing.assert_allclose(points[:, 1], y, atol=0.002 * np.ptp(y) + 1e-9 * np.abs(y).max())


@pytest.mark.parametrize(
    "y",
    [10.0**-N, 10.0 ** (-15 * N), np.exp(-N / 5), 1 + N / 1000, 1.5 + N / 5, N * 1e-5, 5e-324 * N, N * 4e9],
)
def test_a_line_over_a_logarithmic_axis(y):
    points = line(y, Axis("y", log=True))
    exponents = np.log10(y)
    np.testing.assert_allclose(np.log10(points[:, 1]), exponents, atol=0.002 * np.ptp(exponents) + 1e-9)


def test_a_logarithmic_axis_across():
    x = 10.0**N
    (points,) = draw(N, x=x, x_axis=Axis("x", log=True)).values(SERIES[0], x_log=True)
    np.testing.assert_allclose(np.log10(points[:, 0]), N, atol=0.02)
    np.testing.assert_allclose(points[:, 1], N, atol=0.03)


def test_a_line_breaks_where_a_value_is_not_finite_and_a_point_alone_is_a_dot():
    y = N.astype(float)
    y[[3, 5, 11, 12]] = np.nan, np.inf, -np.inf, 1e300
    drawn = draw(y).values(SERIES[0])
    pieces = sorted(piece[:, 0].round(1).tolist() for piece in drawn)
    assert pieces == [[1, 2, 3], [5], [7, 8, 9, 10, 11], [14, 15, 16, 17, 18, 19, 20]]


def test_a_logarithmic_axis_shows_no_value_that_is_not_positive():
    y = np.where(N % 5, N, -N * (N % 2)).astype(float)  # −5, 0, −15, 0
    drawn = draw(y, Axis("y", log=True)).values(SERIES[0], y_log=True)
    assert [piece[:, 0].round(1).tolist() for piece in drawn] == [
        [n + k for k in (1, 2, 3, 4)] for n in (0, 5, 10, 15)
    ]
    np.testing.assert_allclose(np.concatenate(drawn)[:, 1], N[N % 5 > 0], rtol=0.01)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0, 1e-5, 3e8, 5e-324, -1e280])
def test_a_constant_is_a_level_line_between_ticks(value):
    points = draw(np.full(20, value)).pieces(SERIES[0])[0]
    assert len({y for _, y in points}) == 1
    assert 0.3 * HEIGHT < points[0][1] < 0.6 * HEIGHT
    read = line(np.full(20, value))[:, 1]
    np.testing.assert_allclose(read, value, atol=max(0.001 * abs(value), 0.01 * (abs(value) < 1e-280)))


def test_what_is_constant_but_for_rounding_is_not_magnified():
    assert len({y for _, y in draw(0.7 + 1e-16 * N).pieces(SERIES[0])[0]}) == 1


def test_one_epoch_is_a_dot_over_one_tick():
    drawn = draw([0.25], x=[7])
    assert [label for _, label in drawn.x] == ["7"]
    ((point,),) = drawn.pieces(SERIES[0])
    assert point[0] == pytest.approx(drawn.x[0][0], abs=0.1)


@pytest.mark.parametrize("y", [np.full(20, np.nan), [], np.zeros(20)])
def test_nothing_to_draw_leaves_axes_without_a_line(y):
    drawn = draw(y, Axis("y", log=True), x=N[: len(y)])
    assert drawn.pieces(SERIES[0]) == []
    assert drawn.y


@pytest.mark.parametrize(
    ("last", "labels"),
    [
        (2, "1 2"),
        (10, "1 2 3 4 5 6 7 8 9 10"),
        (60, "0 10 20 30 40 50 60"),
        (90_000, "0 20,000 40,000 60,000 80,000"),
    ],
)
def test_epochs_are_whole_numbers_at_round_steps(last, labels):
    drawn = draw([1.0, 2.0], x=[1, last])
    assert [label for _, label in drawn.x] == labels.split()


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (-0.5, 0.5, "−0.4 −0.2 0.0 0.2 0.4"),
        (0.0, 4.7e9, "0 1×10⁹ 2×10⁹ 3×10⁹ 4×10⁹"),
        (1e-9, 4e-9, "1.0×10⁻⁹ 1.5×10⁻⁹ 2.0×10⁻⁹ 2.5×10⁻⁹ 3.0×10⁻⁹ 3.5×10⁻⁹ 4.0×10⁻⁹"),
    ],
)
def test_ticks_are_round_numbers(low, high, labels):
    assert [label for _, label in draw([low, high], x=[1, 2]).y] == labels.split()


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.002, 0.7, "0.01 0.1"),
        (3e-7, 0.3, "10⁻⁶ 10⁻⁵ 10⁻⁴ 10⁻³ 10⁻² 10⁻¹"),
        (0.021, 0.4, "0.02 0.05 0.1 0.2"),
        (2.1e-9, 4e-8, "2×10⁻⁹ 5×10⁻⁹ 10⁻⁸ 2×10⁻⁸"),
        (1e-60, 1.0, "10⁻⁶⁰ 10⁻⁵⁰ 10⁻⁴⁰ 10⁻³⁰ 10⁻²⁰ 10⁻¹⁰ 10⁰"),
        (3.0, 3.4, "3.0 3.1 3.2 3.3 3.4"),
        (1.5, 5.5, "2 3 4 5"),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, labels):
    assert [label for _, label in draw([low, high], Axis("y", log=True), x=[1, 2]).y] == labels.split()


def test_small_ticks_show_a_logarithmic_axis_where_every_power_of_ten_has_its_own():
    small = [draw([low, 1.0], Axis("y", log=True), x=[1, 2]).svg.count("h-2M") for low in (1e-3, 1e-60)]
    assert small[0] > 20
    assert small[1] == 0


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(FLOATS, max_size=30),
    st.booleans(),
    st.lists(st.integers(0, 10**9), min_size=30, max_size=30),
    st.booleans(),
)
def test_whatever_is_drawn_is_readable(y, log, x, x_log):
    x_axis = Axis("x", log=x_log, integer=not x_log)
    drawn = draw(y, Axis("y", log=log), x=sorted(x)[: len(y)], x_axis=x_axis)
    places = np.array([point for piece in drawn.pieces(SERIES[0]) for point in piece]).reshape(-1, 2)
    assert ((places >= 0) & (places <= [WIDTH, HEIGHT])).all()
    assert drawn.y
    values = [number(label) for _, label in drawn.y]
    assert (np.diff(values) > 0).all()
    assert (-np.diff([at for at, _ in drawn.y]) >= TEXT).all()
    ends = [(at - 0.3 * TEXT * len(label), at + 0.3 * TEXT * len(label)) for at, label in drawn.x]
    assert all(right < left for (_, right), (left, _) in pairwise(ends))
    assert not re.search("nan|inf", drawn.svg)


def test_many_points_look_the_same_and_take_little_room():
    n = np.arange(1, 100_001)
    y = np.random.default_rng(0).random(len(n))
    y[[31_000, 77_777]] = 7.0, -3.0
    svg = plot([Curve(n, y, SERIES[0])], EPOCHS, Axis("y"), "alt")
    assert len(svg) < 40_000
    (points,) = Drawing(svg).values(SERIES[0])
    for at, value in ((31_001, 7.0), (77_778, -3.0)):
        assert np.hypot((points[:, 0] - at) / 400, (points[:, 1] - value) / 0.1).min() < 1
    assert (np.diff(points[:, 0]) >= 0).all()
    np.testing.assert_allclose(points[[0, -1]] / [1e5, 1], [[1e-5, y[0]], [1, y[-1]]], atol=0.01)
    assert len(plot([Curve(n, np.where(n % 2, y, np.nan), SERIES[0])], EPOCHS, Axis("y"), "alt")) < 60_000


def test_marks_stand_at_their_epoch_and_are_in_the_legend():
    marks = [Mark(5, "1 2", "best, epoch 5"), Mark(12.5, "4 2", "resumed")]
    drawn = Drawing(plot([Curve(N, 1 / N, SERIES[0], "training")], EPOCHS, Axis("y"), "alt", marks))
    dashed = [e for e in drawn.root.findall("path") if "dasharray" in e.get("style")]
    places = [float(re.match(r"M([\d.]+),", e.get("d"))[1]) for e in dashed]
    np.testing.assert_allclose(by_ticks(drawn.x, np.array(places), False), [5, 12.5], atol=0.02)
    assert [text for _, text in drawn.legend] == ["training", "best, epoch 5", "resumed"]
    assert [style for style, _ in drawn.legend] == [e.get("style") for e in drawn.root.findall("path")[-3:]]


def test_a_mark_beside_the_curves_is_on_the_axis_too():
    drawn = Drawing(plot([Curve(N, N, SERIES[0])], EPOCHS, Axis("y"), "alt", [Mark(30, "1 2", "later")]))
    assert [label for _, label in drawn.x][-1] == "30"


def test_the_legend_is_above_all_that_is_drawn():
    curves = [Curve(N, N * i, c, f"layer {i}, softmax") for i, c in enumerate(SERIES, start=1)]
    drawn = Drawing(plot(curves, EPOCHS, Axis("y"), "alt"))
    top = min(y for colour in SERIES for piece in drawn.pieces(colour) for _, y in piece)
    legend = [e for g in list(drawn.root.iter("g"))[2:] for e in g.iter("text")]
    assert [e.text for e in legend] == [c.legend for c in curves]
    assert all(float(e.get("y")) < top for e in legend)
    assert all(0 < float(e.get("x")) < WIDTH - 8 * 0.6 * len(e.text) for e in legend)


def test_points_are_dots_each_and_none_is_left_out():
    x, y = np.array([3.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.5, 2.0, 1.2, 1.4, 1.3])
    drawn = draw(y, x=x, x_axis=Axis("target"), points=True).values(SERIES[0])
    np.testing.assert_allclose(np.concatenate(drawn), np.stack([x, y], 1), atol=0.01)
    assert [len(piece) for piece in drawn] == [1] * 7


def test_limits_are_the_ends_of_an_axis():
    drawn = draw([0.5, 0.6], Axis("share", limits=(-0.03, 1.03)), x=[0, 1])
    assert [label for _, label in drawn.y] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    ends = re.match(r"M[\d.]+,([\d.]+)V([\d.]+)H", drawn.root.findall("path")[1].get("d"))
    np.testing.assert_allclose(
        by_ticks(drawn.y, np.array([*map(float, ends.groups())]), False), [1.03, -0.03], atol=0.002
    )


def test_words_are_text_whatever_is_in_them():
    svg = plot([Curve(N, N, SERIES[0], '<a> & "b"')], Axis("<x>"), Axis("y & 'z'"), 'a "b" <c> & d')
    drawn = Drawing(svg)
    assert drawn.names == ["<x>", "y & 'z'"]
    assert drawn.legend[0][1] == '<a> & "b"'
    assert drawn.root.get("aria-label") == 'a "b" <c> & d'
    assert drawn.root.get("role") == "img"


def test_colours_are_the_page_s_and_a_drawing_repeats_without_ids():
    svg = plot([Curve(N, N, SERIES[1], "a")], EPOCHS, Axis("y"), "alt")
    assert set(re.findall(r"(?:fill|stroke):([^;\"]*)", svg)) == {
        "none",
        "var(--ink)",
        "var(--faint)",
        "var(--series-2)",
    }
    assert "id=" not in svg
    assert svg == plot([Curve(N, N, SERIES[1], "a")], EPOCHS, Axis("y"), "alt")
