"""What a run shows in the terminal: a table of each net, and what came of a comparison. 80 columns are enough."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from gpubp.benchmark import results
from gpubp.benchmark.results import NetReport, Row, Spread


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    """Where tables are printed; into a file or a pipe, wide enough to wrap nothing."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr) if terminal else Console(width=120, stderr=stderr)


def print_missing(missing: dict[str, str], console: Console) -> None:
    """Which peers are left out and why; those of one reason in a line."""
    for reason in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, why in missing.items() if why == reason)
        print_lines([f"{names} left out: {reason}"], console)


def about(report: NetReport) -> str:
    """The net and how it is trained, in a line."""
    net = report.net
    momentum = f", momentum {net.momentum:g}" if net.momentum else ""
    return (
        f"{net.name}: {'-'.join(map(str, net.layers))} {net.hidden}, {net.output}; {net.loss}, batch {net.batch}, "
        f"lr {net.lr:g}{momentum}; {report.samples:,} samples of {net.data}"
    )


def net_table(report: NetReport) -> Table:
    """All peers on one net, fastest first; where some are timed by events, their times by the clock are beside them."""
    baseline = report.row(report.baseline)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    over = baseline.title if baseline else report.baseline
    by_events = ["by the clock"] if any(row.events for row in report.rows) else []
    for column in ("ms an epoch", *by_events, f"× {over}", "cold, s", "agreement"):
        left = column == "agreement"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in sorted(report.rows, key=lambda row: median(row.times) if row.rounds else math.inf):
        table.add_row(*_cells(row, baseline, bool(by_events)))
    return table


def _cells(row: Row, baseline: Row | None, by_events: bool) -> list[str]:
    time, ratio = Spread.of(row.times), Spread.of(results.ratios(row, baseline))
    cold = None if row.first_epoch_s is None else row.start_s["total"] + row.first_epoch_s
    return [
        row.title,
        f"{_ms(time.median)} ({_ms(time.min)}–{_ms(time.max)})" if time else row.status,
        *([_ms(median(row.rounds)) if row.rounds else ""] if by_events else []),
        "1"
        if row is baseline
        else f"{results.times(ratio.median)} ({results.times(ratio.min)}–{results.times(ratio.max)})"
        if ratio
        else "",
        "" if cold is None else f"{cold:.1f}",
        _short_agreement(row),
    ]


def _short_agreement(row: Row) -> str:
    """As few words as fit into a table; the page has more."""
    found = row.verification
    if row.same_result == results.DIFFERS:
        return "DIFFERS"
    if found is not None and not found["ok"]:
        return "WRONG"
    if found is not None and found["tensors"]:
        return f"{found['part_of_bound']:.2f} of bound"
    return (
        row.same_result if row.same_result in (results.SAME, results.WITHIN, results.NOT_COMPARABLE) else ""
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:,.0f}"


def notes(report: NetReport) -> list[str]:
    """What is to be said of the net and of single peers, a line each."""
    wrong = [
        f"{row.title}: beyond its bound: {line.strip()}"
        for row in report.rows
        if row.verification
        for line in row.verification["wrong"]
    ]
    return report.notes + wrong + [f"{row.title}: {note}" for row in report.rows for note in row.notes]


def conclusion(report: NetReport) -> str:
    """The fastest peer and its ratio, in a line."""
    fastest, baseline = results.fastest_peer(report), report.row(report.baseline)
    if fastest is None or baseline is None or not baseline.rounds:
        return f"{report.net.name}: nothing to compare"
    if fastest is baseline:
        return f"{report.net.name}: {fastest.title} is the fastest peer"
    ratio = Spread.of(results.ratios(fastest, baseline))
    assert ratio is not None
    return (
        f"{report.net.name}: the fastest peer is {fastest.title}, at {results.times(ratio.median)} × the time of "
        f"{baseline.title} ({results.times(ratio.min)} … {results.times(ratio.max)})"
    )


def print_net(report: NetReport, console: Console) -> None:
    """Table, notes and conclusion."""
    console.print(about(report), highlight=False, markup=False)
    console.print(net_table(report))
    print_lines([*notes(report), conclusion(report), ""], console)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Lines as they are: nothing in them is markup, and none is wrapped."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_comparison(comparison: dict[str, Any], console: Console) -> None:
    """What changed since the older run, warnings first."""
    print_lines(["", f"compared with the run of {comparison['old_date']}"], console)
    print_lines([f"warning: {line}" for line in comparison["warnings"]], console)
    table = Table("", box=None, header_style="bold", pad_edge=False)
    for column in ("ms then", "now", "change", "beside others"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in comparison["rows"]:
        table.add_row(
            f"{row['net']}, {row['title']}",
            f"{row['old_ms']:.3g}",
            f"{row['new_ms']:.3g}",
            f"{row['time_change'] - 1:+.0%}",
            "" if row["yardstick_change"] is None else f"{row['yardstick_change'] - 1:+.0%}",
            row["verdict"],
        )
    if comparison["rows"]:
        console.print(table)
    print_lines(comparison["conclusions"], console)
