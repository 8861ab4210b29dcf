"""``python -m bench.readme``: the tables of the README's section on speed, from the committed results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from bench import RESULTS, ROOT
from gpubp.benchmark import results
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.results import DIFFERS
from gpubp.benchmark.shown import times
from gpubp.benchmark.terminal import exit_code
from gpubp.errors import DataError
from gpubp.support.files import write_text

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
README = ROOT / "README.md"
RUNS = tuple(f"2026-11-28-cpu-now-{number}" for number in (1, 2, 3))  # a column each
OTHERS = ("2026-11-28-cpu-all-peers",)  # with these, the range of every library
_ORDINALS = ("first", "second", "third")
_NAMES = {"relu": "ReLU", "mnist": "MNIST"}

Content = dict[str, Any]


def updated(text: str) -> str:
    """The README's text with what is between the markers made anew.

    Raises:
        DataError: results that are missing or damaged, or a README without the markers.
    """
    runs = [results.read(RESULTS / name) for name in RUNS]
    others = [results.read(RESULTS / name) for name in OTHERS]
    return between(text, BEGIN, f"{table(runs)}\n\n{ranges([*runs, *others], 'mnist')}", END)


def between(text: str, begin: str, made: str, end: str) -> str:
    """A README's text with what is between two markers made anew.

    Raises:
        DataError: it has no such markers.
    """
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise DataError(f"{README.name} has no {begin} … {end}")
    return f"{before}{begin}\n{made}\n{end}{after}"


def table(runs: Sequence[Content]) -> str:
    """A row a net: gpubp's ms an epoch in each run, the fastest other library, and how many times as long it takes."""
    columns = [f"times, {name} run" for name in _ORDINALS[: len(runs)]]
    head = ["net, batch; data", "gpubp, ms", "fastest other", *columns]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for nets in zip(*(run["nets"] for run in runs), strict=True):
        rows = [({row["peer"]: row for row in net["peers"]}, net) for net in nets]
        own = [_ms(row[net["baseline"]]["epoch_ms"]["median"]) for row, net in rows]
        fastest = [row[net["fastest_peer"]] for row, net in rows]
        titles = ", ".join(dict.fromkeys(row["title"] for row in fastest))
        cells = [_net(nets[0]), ", ".join(own), titles, *(_spread(row["ratio"]) for row in fastest)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ranges(runs: Sequence[Content], data: str) -> str:
    """In a sentence, the least and the most times as long that each library takes on nets of ``data``."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for net in run["nets"]:
            for row in net["peers"]:
                counts = row["ratio"] and row["same_result"] != DIFFERS and net["data"] == data
                if counts and not row["peer"].startswith(OURS):
                    found.setdefault(row["title"], []).append(row["ratio"]["median"])
    said = [f"{min(x):.1f} to {max(x):.1f} ({title})" for title, x in found.items()]
    where = _NAMES.get(data, data)
    return fill(f"In all runs on {where}, the others take {', '.join(said)} times as long.", 116)


def _net(net: Content) -> str:
    sizes, hidden = "-".join(map(str, net["layers"])), _NAMES.get(net["hidden"], net["hidden"])
    return f"{sizes} {hidden}, {net['batch']}; {_NAMES.get(net['data'], net['data'])}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2f}"


def _spread(ratio: Content) -> str:
    return f"{times(ratio['median'])} ({times(ratio['min'])}–{times(ratio['max'])})"


def main() -> int:
    """Write the README anew; the exit code."""
    write_text(README, updated(README.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
