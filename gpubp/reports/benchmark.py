"""The page of a run: what results.json holds, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.benchmark import results
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.work import ITEM_BYTES
from gpubp.reports import charts
from gpubp.reports import page as pages

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

LOG_FROM = 15.0  # times that differ by more are drawn over a logarithmic axis
BAR_INCHES, MARGIN_INCHES = 0.27, 0.75
WIDTH_INCHES = 4.6
ON_GPU = "gpubp-cupy"  # which the processor's roofline does not bound


def write(path: Path, content: dict[str, Any]) -> Path:
    """Fill the page with the content of a results.json, also one of an older gpubp.

    Raises:
        GpubpError: it cannot be written, or a library for pages is missing.
    """
    return pages.write(
        path,
        "bench.html",
        title="gpubp beside other libraries",
        run=content,
        peaks=_peaks(content),
        facts=_facts(content),
        nets=[_net(net, _peaks(content)) for net in content["nets"]],
        comparison=_comparison(content.get("comparison")),
        packages=content["machine"]["packages"],
        busy=results.busy(content["machine"]),
        missing=_missing(content["missing"]),
        item_bytes=ITEM_BYTES,
    )


def _peaks(content: dict[str, Any]) -> dict[str, float] | None:
    found = content.get("peaks")
    return found if found and "gflop_per_s" in found else None


def _missing(reasons: dict[str, str]) -> dict[str, str]:
    """Names by the reason why they are left out."""
    return {
        ", ".join(name for name, why in reasons.items() if why == reason): reason
        for reason in dict.fromkeys(reasons.values())
    }


def _facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    machine, settings, peaks = content["machine"], content["settings"], _peaks(content)
    facts = [
        ("processor", str(machine["cpu"])),
        ("threads, of cores", f"{settings['threads']} of {machine['cores']}"),
        ("rounds", str(settings["rounds"])),
        ("date, UTC", content["date"][:16].replace("T", " ")),
    ]
    if peaks:
        facts.insert(2, ("computes at most", f"{peaks['gflop_per_s']:,.0f} GFLOP/s"))
        facts.insert(3, ("reads from memory", f"{peaks['gb_per_s']:,.0f} GB/s"))
    return facts


def _net(net: dict[str, Any], peaks: dict[str, float] | None) -> dict[str, Any]:
    """What the template shows of one net."""
    timed = sorted(
        (row for row in net["peers"] if row["epoch_ms"]), key=lambda row: row["epoch_ms"]["median"]
    )
    cold = [row for row in net["peers"] if row["first_epoch_s"] is not None]
    rest = [row for row in net["peers"] if not row["epoch_ms"]]
    bounded = [row for row in timed if row.get("gflop_per_s") and row["peer"] != ON_GPU]
    return {
        "name": net["name"],
        "about": f"{'-'.join(map(str, net['layers']))} {net['hidden']}, {net['output']}; {net['loss']}, "
        f"batch {net['batch']}, learning rate {net['lr']:g}; {net['samples']:,} samples of {net['data']}, "
        f"{net['parameters']:,} parameters",
        "verdict": _verdict(net, timed),
        "notes": [
            *net.get("notes", []),
            *(f"{row['title']}: {n}" for row in net["peers"] for n in row["notes"]),
        ],
        "wrong": [
            f"{row['title']}: {line.strip()}"
            for row in net["peers"]
            if row.get("verification")
            for line in row["verification"]["wrong"]
        ],
        "rows": [_row(row, net, peaks) for row in [*timed, *rest]],
        "warm": _warm(net["name"], timed) if timed else None,
        "cold": _cold(net["name"], cold) if cold else None,
        "roofline": _roofline(net["name"], bounded, peaks) if peaks and bounded else None,
    }


def _verdict(net: dict[str, Any], timed: list[dict[str, Any]]) -> str:
    rows = {row["peer"]: row for row in timed}
    baseline, fastest = rows.get(net["baseline"]), rows.get(net["fastest_peer"] or "")
    if baseline is None:
        return "Nothing was timed to the end."
    own = f"{baseline['title']} trains an epoch in {_ms(baseline['epoch_ms']['median'])} ms"
    if fastest is None or fastest is baseline or not fastest["ratio"]:
        return own + "."
    ratio = fastest["ratio"]
    return (
        f"{own}; the fastest of the others, {fastest['title']}, takes {results.times(ratio['median'])} times as long "
        f"({results.times(ratio['min'])} to {results.times(ratio['max'])})."
    )


def _row(row: dict[str, Any], net: dict[str, Any], peaks: dict[str, float] | None) -> dict[str, Any]:
    time, ratio, speed = row["epoch_ms"], row["ratio"], row.get("gflop_per_s")
    part = speed / peaks["gflop_per_s"] if speed and peaks and row["peer"] != ON_GPU else None
    return {
        "title": row["title"],
        "version": row["version"],
        "details": row["details"],
        "time": _ms(time["median"]) if time else row["status"],
        "spread": f"{_ms(time['min'])}–{_ms(time['max'])}" if time else "",
        "ratio": "1" if row["peer"] == net["baseline"] else results.times(ratio["median"]) if ratio else "",
        "ratios": f"{results.times(ratio['min'])}–{results.times(ratio['max'])}"
        if ratio and row["peer"] != net["baseline"]
        else "",
        "start": f"{row['start_s']['total']:.2f}" if "total" in row["start_s"] else "",
        "first": "" if row["first_epoch_s"] is None else f"{row['first_epoch_s']:.3g}",
        "speed": f"{speed:,.3g}" if speed else "",
        "part": _percent(part) if part is not None else "",
        "memory": f"{row['memory_mb']['peak']:,.0f}" if row["memory_mb"].get("peak") else "",
        "agreement": results.agreement(row) or row["status"],
        "agrees": results.agrees(row),
    }


def _comparison(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None

    def change(value: float | None) -> str:
        return "" if value is None else f"{value - 1:+.0%}"

    rows = [
        {
            "net": row["net"],
            "title": row["title"],
            "old": _ms(row["old_ms"]),
            "new": _ms(row["new_ms"]),
            "time": change(row["time_change"]),
            "ratios": f"{row['old_ratio']:.2f} → {row['new_ratio']:.2f}" if row["ratio_change"] else "",
            "ratio": change(row["ratio_change"]),
            "beside": change(row["yardstick_change"]),
            "verdict": row["verdict"],
        }
        for row in found["rows"]
    ]
    return {**found, "rows": rows}


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:,.0f}"


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.0995 else f"{part:.1%}"


def _colour(row: dict[str, Any]) -> str:
    return charts.SERIES[0] if row["peer"].startswith(OURS) else charts.SERIES[1]


def _bars(count: int) -> tuple[float, float]:
    return WIDTH_INCHES, MARGIN_INCHES + BAR_INCHES * count


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
        axes.bar_label(bars, [_ms(m) for m in medians], padding=4, fontsize=8)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(start, most * (2.2 if logarithmic else 1.15))
        _name_rows(axes, rows)
        axes.set_xlabel(f"ms an epoch{', logarithmic' if logarithmic else ''}")

    said = ", ".join(f"{r['title']} {_ms(t['median'])}" for r, t in zip(rows, times, strict=True))
    return charts.chart(draw, f"{name}: milliseconds an epoch: {said}", size=_bars(len(rows)))


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
    ridge = roof / slope
    across = [row["flop_per_byte"] for row in rows]
    low, high = min([*across, ridge]) / 3, max([*across, ridge]) * 3
    bottom = min(row["gflop_per_s"] for row in rows) / 2
    top = max([roof, *(row["gflop_per_s"] for row in rows)]) * 2

    def draw(axes: Axes) -> None:
        axes.set(xscale="log", yscale="log", xlim=(low, high * 12), ylim=(min(bottom, low * slope), top))
        axes.plot([low, ridge, high * 12], [low * slope, roof, roof], color=charts.INK, linewidth=1.2)
        axes.annotate(
            f"{roof:,.0f} GFLOP/s, {slope:,.0f} GB/s", (high * 12, roof), (-2, 3), textcoords="offset points",
            ha="right", fontsize=8,
        )  # fmt: skip
        heights = _apart([row["gflop_per_s"] for row in rows], axes.get_ylim())
        for row, height in zip(rows, heights, strict=True):
            x, y = row["flop_per_byte"], row["gflop_per_s"]
            axes.plot([x, high * 1.15], [y, height], color=charts.FAINT, linewidth=0.8, zorder=1)
            axes.plot(x, y, "o", color=_colour(row), markersize=5)
            axes.text(high * 1.2, height, f"{row['title']} {y:,.3g}", va="center", fontsize=7.5)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="operations a byte", ylabel="GFLOP/s")

    said = ", ".join(f"{row['title']} {row['gflop_per_s']:.3g}" for row in rows)
    return charts.chart(
        draw,
        f"{name}: roofline at {roof:.0f} GFLOP/s and {slope:.0f} GB/s; {said} GFLOP/s",
        size=(WIDTH_INCHES, 3.3),
    )


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
