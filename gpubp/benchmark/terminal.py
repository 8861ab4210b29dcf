"""The terminal's view of a benchmark: a table of each net, and what came of a comparison. 80 columns are enough."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp.benchmark import shown
from gpubp.benchmark.shown import NAME, NUMBER, Cell
from gpubp.errors import INTERRUPTED, GpubpError


def exit_code(command: Callable[[], int]) -> int:
    """Return a command's exit code; if it raises, the message is on stderr, and the code says of what kind that was."""
    try:
        return command()
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    """The console that tables are printed on; into a file or a pipe, wide enough to wrap nothing."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(width=None if terminal else 120, stderr=stderr, emoji=False)


def table(columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> Table:
    """Words to the left, numbers to the right. columns: headings, and what of a row is below each."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[cell(row[key]) for key in columns.values()] for row in rows]
    for k, heading in enumerate(columns):
        words = any(line[k].text and line[k].kind != NUMBER for line in cells)
        made.add_column(
            Text(heading), justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    for line in cells:
        made.add_row(*(Text(one.text + (f" ({one.detail})" if one.detail else "")) for one in line))
    return made


def cell(value: object) -> Cell:
    """A value as it is shown: a number in three or four digits, nothing for None."""
    match value:
        case Cell():
            return value
        case str():
            return Cell(value, NAME)
        case dict():
            return Cell(", ".join(f"{name}: {cell(one).text or 'never'}" for name, one in value.items()))
        case bool():
            return Cell("yes" if value else "NO")
        case float():
            return Cell(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")
    return Cell("" if value is None else str(value))


def net_table(net: dict[str, Any]) -> Table:
    """A net's peers; where some are timed by events, their times by the clock are beside them."""
    over = next((row["title"] for row in net["peers"] if row["peer"] == net["baseline"]), net["baseline"])
    by_events = any(row["by"] == "events" for row in net["peers"])
    columns = {
        "": "",
        "ms an epoch": "ms an epoch (least–most)",
        **({"by the clock": "by the clock"} if by_events else {}),
        f"× {over}": "times (least–most)",
        "cold, s": "cold, s",
        "agreement": "in short",
    }
    return table(columns, shown.peers(net))


def print_net(net: dict[str, Any], console: Console) -> None:
    """Table, notes and verdict."""
    console.print(f"{net['name']}: {shown.about(net)}", highlight=False, markup=False)
    console.print(net_table(net))
    print_lines([*shown.wrong(net), *shown.notes(net), shown.verdict(net), ""], console)


def print_comparison(comparison: dict[str, Any], console: Console) -> None:
    """Changes since the older run, warnings first."""
    print_lines(["", f"compared with the run of {comparison['old_date']}"], console)
    print_lines([f"warning: {line}" for line in comparison["warnings"]], console)
    if comparison["rows"]:
        columns = {name: name for name in ("net", "", "ms then")}
        columns |= {"now": "ms now", "change": "time", "beside others": "beside others", " ": "verdict"}
        console.print(table(columns, shown.changes(comparison)))
    print_lines(comparison["conclusions"], console)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Lines as they are: nothing in them is markup, and none is wrapped."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
