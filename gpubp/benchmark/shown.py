"""Results as they are shown: the cells and sentences of terminal and page, from the JSON's content."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from gpubp.benchmark.results import DIFFERS, NOT_COMPARABLE, SAME, WITHIN, agreement, agrees

BUSY = 0.5  # processes that want a core, for each core: from there on they are in each other's way
ON_GPU = "gpubp-cupy"  # which the processor's roofline does not bound
NUMBER, NAME, WORDS = "number", "name", "words"

Content = dict[str, Any]


class Cell(NamedTuple):
    """One of a table. detail: what stands in brackets after the text. mood: "good", "bad", "quiet" or none."""

    text: str
    kind: str = NUMBER
    detail: str = ""
    mood: str = ""


Cells = dict[str, Cell]  # by the heading of the page's column

PAGE_COLUMNS = (
    "", "ms an epoch (least–most)", "agreement", "times (least–most)", "start, s", "first epoch, s",
    "GFLOP/s (of peak)", "peak MB", "version",
)  # fmt: skip
COMPARED = (
    "net", "", "ms then", "ms now", "time", "times the baseline's", "change", "beside others", "verdict",
)  # fmt: skip


def peers(net: Content, peaks: Content | None = None) -> list[Cells]:
    """A net's peers, the fastest first and last those that were not timed; peaks: what the machine does at most."""
    rows = sorted(net["peers"], key=lambda row: row["epoch_ms"]["median"] if row["epoch_ms"] else math.inf)
    return [_peer(row, net, peaks) for row in rows]


def _peer(row: Content, net: Content, peaks: Content | None) -> Cells:
    time, ratio, speed, clock = (
        row.get(name) for name in ("epoch_ms", "ratio", "gflop_per_s", "clock_rounds_ms")
    )
    start, first, memory = row["start_s"].get("total"), row["first_epoch_s"], row["memory_mb"].get("peak")
    part = speed / peaks["gflop_per_s"] if speed and peaks and row["peer"] != ON_GPU else None
    mood = {None: "", True: "good", False: "bad"}[agrees(row)]
    return {
        "": Cell(row["title"], NAME),
        "ms an epoch (least–most)": spread(time, ms) if time else Cell(row["status"]),
        "by the clock": number(median(clock) if clock else None, ms),
        "times (least–most)": Cell("1") if row["peer"] == net["baseline"] else spread(ratio, times),
        "cold, s": number(None if first is None else start + first, "{:.1f}".format),
        "in short": Cell(_in_short(row), WORDS),
        "agreement": Cell(agreement(row) or row["status"], WORDS, mood=mood),
        "start, s": number(start, "{:.2f}".format),
        "first epoch, s": number(first, "{:.3g}".format),
        "GFLOP/s (of peak)": Cell(f"{speed:,.3g}" if speed else "", detail=_percent(part)),
        "peak MB": number(memory or None, "{:,.0f}".format),
        "version": Cell(row["version"], NAME),
    }


def changes(comparison: Content) -> list[Cells]:
    """Changes of each net and peer that both runs measured."""
    moods = {"SLOWER": "bad", "faster": "good"}

    def change(value: float | None) -> Cell:
        return number(value, lambda value: f"{value - 1:+.0%}")

    return [
        {
            "net": Cell(row["net"], NAME),
            "": Cell(row["title"], NAME),
            "ms then": Cell(ms(row["old_ms"])),
            "ms now": Cell(ms(row["new_ms"])),
            "time": change(row["time_change"]),
            "times the baseline's": Cell(
                f"{row['old_ratio']:.2f} → {row['new_ratio']:.2f}" if row["ratio_change"] else ""
            ),
            "change": change(row["ratio_change"]),
            "beside others": change(row["yardstick_change"]),
            "verdict": Cell(row["verdict"], NAME, mood=moods.get(row["verdict"], "quiet")),
        }
        for row in comparison["rows"]
    ]


def about(net: Content) -> str:
    """A net and how it is trained, in a line."""
    momentum = f", momentum {net['momentum']:g}" if net.get("momentum") else ""
    return (
        f"{'-'.join(map(str, net['layers']))} {net['hidden']}, {net['output']}; {net['loss']}, batch {net['batch']}, "
        f"learning rate {net['lr']:g}{momentum}; {net['samples']:,} samples of {net['data']}, "
        f"{net['parameters']:,} parameters"
    )


def verdict(net: Content) -> str:
    """The baseline's time, and how much longer the fastest of the others takes, in a sentence."""
    timed = {row["peer"]: row for row in net["peers"] if row["epoch_ms"]}
    baseline, fastest = timed.get(net["baseline"]), timed.get(net["fastest_peer"] or "")
    if baseline is None:
        return "Nothing was timed to the end."
    own = f"{baseline['title']} trains an epoch in {ms(baseline['epoch_ms']['median'])} ms"
    if fastest is None or fastest is baseline or not fastest["ratio"]:
        return own + "."
    least, middle, most = (times(fastest["ratio"][name]) for name in ("min", "median", "max"))
    others = f"the fastest of the others, {fastest['title']}, takes {middle} times as long"
    return f"{own}; {others} ({least} to {most})."


def wrong(net: Content) -> list[str]:
    """Tensors beyond their bounds, a line each."""
    found = [(row["title"], row.get("verification") or {"wrong": []}) for row in net["peers"]]
    return [f"{title}: beyond its bound: {line.strip()}" for title, one in found for line in one["wrong"]]


def notes(net: Content) -> list[str]:
    """Notes on the net and on single peers, a line each."""
    return net.get("notes", []) + [f"{row['title']}: {note}" for row in net["peers"] for note in row["notes"]]


def missing(reasons: dict[str, str]) -> dict[str, str]:
    """Names by the reason why they are left out."""
    return {
        ", ".join(name for name, why in reasons.items() if why == reason): reason
        for reason in dict.fromkeys(reasons.values())
    }


def busy(machine: Content) -> str | None:
    """A line, if the machine had much else to do before the run began."""
    load, cores = machine.get("load_average_before"), machine["cores"]
    if load is None or load <= BUSY * cores:
        return None
    return f"the machine was busy in the minute before this began: a load of {load:.1f} on {cores} cores"


def _in_short(row: Content) -> str:
    """Agreement in the few words that fit into a terminal."""
    found, same = row.get("verification"), row["same_result"]
    if same == DIFFERS:
        return "DIFFERS"
    if found and not found["ok"]:
        return "WRONG"
    if found and found["tensors"]:
        return f"{found['part_of_bound']:.2f} of bound"
    return same if same in (SAME, WITHIN, NOT_COMPARABLE) else ""


def spread(found: Content | None, show: Callable[[float], str]) -> Cell:
    """A median, and in brackets the least and the most; nothing for None."""
    if found is None:
        return Cell("")
    return Cell(show(found["median"]), detail=f"{show(found['min'])}–{show(found['max'])}")


def number(value: float | None, show: Callable[[float], str]) -> Cell:
    """A number as it is shown; nothing for None."""
    return Cell("" if value is None else show(value))


def ms(milliseconds: float) -> str:
    """A time: 0.123, 12.3, 1,234."""
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:,.0f}"


def times(ratio: float) -> str:
    """A ratio: 1.23, 12.3, 123."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}" if part >= 0.0995 else f"{part:.1%}"
