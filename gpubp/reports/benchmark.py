"""The page of a run: what results.json holds, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.benchmark import shown
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.shown import ON_GPU, ms
from gpubp.benchmark.work import ITEM_BYTES
from gpubp.reports import charts
from gpubp.reports import page as pages

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

LOG_FROM = 15.0  # times that differ by more are drawn over a logarithmic axis
BAR_INCHES, MARGIN_INCHES = 0.27, 0.75
WIDTH_INCHES = 4.6


def write(path: Path, content: dict[str, Any]) -> Path:
    """Fill the page with the content of a results.json, also one of an older gpubp.

    Raises:
        GpubpError: it cannot be written, or a library for pages is missing.
    """
    peaks = _peaks(content)
    comparison = content.get("comparison")
    return pages.write(
        path, "bench.html", title="gpubp beside other libraries", run=content, peaks=peaks, facts=_facts(content),
        nets=[_net(net, peaks) for net in content["nets"]], comparison=comparison,
        changes=shown.changes(comparison) if comparison else [], shown=shown, item_bytes=ITEM_BYTES,
    )  # fmt: skip


def _peaks(content: dict[str, Any]) -> dict[str, float] | None:
    found = content.get("peaks")
    return found if found and "gflop_per_s" in found else None


def _facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    machine, settings, peaks = content["machine"], content["settings"], _peaks(content)
    roof = [
        ("computes at most", f"{peaks['gflop_per_s']:,.0f} GFLOP/s"),
        ("reads from memory", f"{peaks['gb_per_s']:,.0f} GB/s"),
    ] if peaks else []  # fmt: skip
    return [
        ("processor", str(machine["cpu"])),
        ("threads, of cores", f"{settings['threads']} of {machine['cores']}"),
        *roof,
        ("rounds", str(settings["rounds"])),
        ("date, UTC", content["date"][:16].replace("T", " ")),
    ]


def _net(net: dict[str, Any], peaks: dict[str, float] | None) -> dict[str, Any]:
    """Context of the template for a net, besides its JSON."""
    timed = [row for row in net["peers"] if row["epoch_ms"]]
    timed.sort(key=lambda row: row["epoch_ms"]["median"])
    cold = [row for row in net["peers"] if row["first_epoch_s"] is not None]
    bounded = [row for row in timed if row.get("gflop_per_s") and row["peer"] != ON_GPU]
    return {
        **net,
        "rows": shown.peers(net, peaks),
        "warm": _warm(net["name"], timed) if timed else None,
        "cold": _cold(net["name"], cold) if cold else None,
        "roofline": _roofline(net["name"], bounded, peaks) if peaks and bounded else None,
    }


def _colour(row: dict[str, Any]) -> str:
    return charts.SERIES[0] if row["peer"].startswith(OURS) else charts.SERIES[1]


def _warm(name: str, rows: Sequence[dict[str, Any]]) -> Markup:
    """A bar a peer, fastest on top: the median of the rounds, and a whisker from the least to the most."""
    times = [row["epoch_ms"] for row in rows]
    least, most = min(t["min"] for t in times), max(t["max"] for t in times)
    logarithmic = most > LOG_FROM * least

    def draw(axes: Axes) -> None:
        medians = [t["median"] for t in times]
        whiskers = [[t["median"] - t["min"] for t in times], [t["max"] - t["median"] for t in times]]
        start = least / 2 if logarithmic else 0
        bars = axes.barh(
            range(len(rows)), [m - start for m in medians], left=start, color=[_colour(r) for r in rows], height=0.6,
            xerr=whiskers, error_kw={"ecolor": charts.INK, "elinewidth": 1, "capsize": 2.5},
        )  # fmt: skip
        axes.bar_label(bars, [ms(m) for m in medians], padding=4, fontsize=8)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(start, most * (2.2 if logarithmic else 1.15))
        _name_rows(axes, rows)
        axes.set_xlabel(f"ms an epoch{', logarithmic' if logarithmic else ''}")

    said = ", ".join(f"{r['title']} {ms(t['median'])}" for r, t in zip(rows, times, strict=True))
    size = WIDTH_INCHES, MARGIN_INCHES + BAR_INCHES * len(rows)
    return charts.chart(draw, f"{name}: milliseconds an epoch: {said}", size=size)


def _cold(name: str, rows: Sequence[dict[str, Any]]) -> Markup:
    """Two bars in a row a peer: from the start of the process until it was ready, and the first epoch."""
    rows = sorted(rows, key=lambda row: row["start_s"]["total"] + row["first_epoch_s"])
    starts, firsts = [row["start_s"]["total"] for row in rows], [row["first_epoch_s"] for row in rows]

    def draw(axes: Axes) -> None:
        places = range(len(rows))
        ends = [a + b for a, b in zip(starts, firsts, strict=True)]
        axes.barh(places, starts, color=charts.SERIES[2], height=0.6, label="start")
        bars = axes.barh(places, firsts, left=starts, color=charts.SERIES[3], height=0.6, label="first epoch")
        axes.bar_label(bars, [f"{end:.1f}" for end in ends], padding=4, fontsize=8)
        axes.set_xlim(0, max(ends) * 1.12)
        _name_rows(axes, rows)
        axes.set_xlabel("s")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)

    said = ", ".join(f"{r['title']} {a + b:.1f}" for r, a, b in zip(rows, starts, firsts, strict=True))
    size = WIDTH_INCHES, MARGIN_INCHES + 0.2 + BAR_INCHES * len(rows)
    return charts.chart(draw, f"{name}: seconds until the first epoch was done: {said}", size=size)


def _name_rows(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _roofline(name: str, rows: Sequence[dict[str, Any]], peaks: dict[str, float]) -> Markup:
    """GFLOP/s over operations a byte, below what the machine can compute and, to its left, read from memory."""
    roof, slope = peaks["gflop_per_s"], peaks["gb_per_s"]
    ridge, speeds = roof / slope, [row["gflop_per_s"] for row in rows]
    across = [ridge, *(row["flop_per_byte"] for row in rows)]
    low, high = min(across) / 3, max(across) * 3
    limits = min(min(speeds) / 2, low * slope), max(roof, *speeds) * 2

    def draw(axes: Axes) -> None:
        axes.set(xscale="log", yscale="log", xlim=(low, high * 12), ylim=limits)
        axes.plot([low, ridge, high * 12], [low * slope, roof, roof], color=charts.INK, linewidth=1.2)
        axes.annotate(
            f"{roof:,.0f} GFLOP/s, {slope:,.0f} GB/s", (high * 12, roof), (-2, 3), textcoords="offset points",
            ha="right", fontsize=8,
        )  # fmt: skip
        for row, y, height in zip(rows, speeds, _apart(speeds, limits), strict=True):
            x = row["flop_per_byte"]
            axes.plot([x, high * 1.15], [y, height], color=charts.FAINT, linewidth=0.8, zorder=1)
            axes.plot(x, y, "o", color=_colour(row), markersize=5)
            axes.text(high * 1.2, height, f"{row['title']} {y:,.3g}", va="center", fontsize=7.5)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="operations a byte", ylabel="GFLOP/s")

    said = ", ".join(f"{row['title']} {row['gflop_per_s']:.3g}" for row in rows)
    said = f"{name}: roofline at {roof:.0f} GFLOP/s and {slope:.0f} GB/s; {said} GFLOP/s"
    return charts.chart(draw, said, size=(WIDTH_INCHES, 3.3))


def _apart(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Heights for labels of these values on a logarithmic axis, in their order and far enough apart to be read."""
    low, high = (log(limit) for limit in limits)
    gap = (high - low) / 17
    order = sorted(range(len(values)), key=lambda i: -values[i])
    places: dict[int, float] = {}
    below = high - 1.6 * gap  # under what the roof is labelled with
    for i in order:
        places[i] = min(log(values[i]), below)
        below = places[i] - gap
    lift = max(0.0, low + gap / 2 - (below + gap))  # what has been pushed out at the bottom
    return [exp(min(places[i] + lift, high)) for i in range(len(values))]
