"""What a run of bench.gpu came to: its parts, and the JSON and the readable table of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp.benchmark.results import CUT_SHORT, FAILED, OK
from gpubp.support.files import write_text
from gpubp.support.jsontext import as_json

FORMAT, FORMAT_VERSION = "gpubp-bench-gpu", 1
SKIPPED, UNFINISHED = "skipped", "unfinished"
WIDTH = 400  # no table is wider


@dataclass
class Part:
    """One part. failures, skipped and cut hold a line each for what failed, could not be done, had no time left.

    results is for the JSON, tables for people.
    """

    name: str
    title: str
    results: list[dict[str, Any]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False

    @property
    def status(self) -> str:
        if self.failures:
            return FAILED
        if not self.ended:
            return UNFINISHED
        if self.cut:
            return CUT_SHORT
        return SKIPPED if self.skipped and not self.results else OK

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {
            name: value
            for name, value in vars(self).items()
            if name not in ("name", "cut", "tables", "ended")
        }
        return {"part": self.name, "status": self.status, "cut_short": self.cut, **fields}


@dataclass
class Report:
    """A run. host: on the stand-in for a GPU, whose times say nothing about one.

    sources: a digest of the code that is measured. refused: why nothing can be, if nothing can.
    """

    date: str
    host: bool
    commit: dict[str, Any] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    sources: str | None = None
    refused: str | None = None

    @property
    def failed(self) -> bool:
        return any(part.failures for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: value for name, value in vars(self).items() if name != "parts"},
            "parts": [part.to_dict() for part in self.parts],
        }

    def to_text(self) -> str:
        """All parts and the summary."""
        head = [f"python -m bench.gpu, {self.date}", *self._about()]
        return "\n".join([*head, "", *("\n".join([*part_text(p), ""]) for p in self.parts), *self.summary()])

    def _about(self) -> list[str]:
        device = self.machine.get("device", {})
        name = device.get("name") or "unknown device"
        commit = "unknown" if self.commit is None else self.commit["id"][:12]
        changed = " with changes" if self.commit and self.commit["changed"] else ""
        packages = ", ".join(f"{name} {version}" for name, version in self.machine["packages"].items())
        lines = [
            f"{name}; {self.machine['cpu']}, {self.machine['cores']} cores",
            f"commit {commit}{changed}, sources {self.sources}; {self.machine['python']}; {packages}",
        ]
        if self.host:
            lines.append("ON THE HOST BUILD, WITHOUT A GPU: no time here says anything about a GPU")
        return lines

    def summary(self) -> list[str]:
        """What failed, what could not be done and why, and what there was no time for."""
        lines = [f"{'part':<12} {'status':<11} seconds"]
        lines += [f"{part.name:<12} {part.status:<11} {part.seconds:7.1f}" for part in self.parts]
        for title, kind in (("failed", "failures"), ("skipped", "skipped"), ("no time left for", "cut")):
            said = [f"  {part.name}: {line}" for part in self.parts for line in getattr(part, kind)]
            if said:
                lines += ["", f"{title}:", *said]
        verdict = "something failed" if self.failed else "nothing failed"
        if self.refused:
            verdict = f"nothing was measured: {self.refused}"
        elif self.interrupted:
            verdict += ", and it was interrupted"
        return [*lines, "", f"{len(self.parts)} parts in {self.seconds:.0f} s: {verdict}"]


def part_text(part: Part) -> list[str]:
    """A part's heading and tables."""
    return [f"{part.title}: {part.status}, {part.seconds:.1f} s", *part.tables]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under their headings: words to the left, numbers to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 1))
    for k, name in enumerate(header):
        words = any(isinstance(row[k], str) and row[k] for row in rows)
        made.add_column(Text(name), justify="left" if words else "right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(cell if isinstance(cell, str) else number(cell)) for cell in row))
    return text_of(made)


def text_of(made: Table, above: str | None = None, below: Sequence[str] = ()) -> str:
    """A table as it is printed, two columns to the right, with a line above it and others below."""
    text = io.StringIO()
    Console(width=WIDTH, file=text, color_system=None).print(made)
    lines = [*([above] if above else []), *text.getvalue().splitlines(), *below]
    return indent("\n".join(line.rstrip() for line in lines), "  ")


def number(value: object) -> str:
    """A number in three or four digits; nothing for None."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {number(one) or 'never'}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def write(folder: Path, report: Report) -> None:
    """results.json and results.txt, each in one go: a run that is killed leaves what it had.

    Raises:
        GpubpError: they cannot be written.
    """
    for name, text in (("results.json", as_json(report.to_dict())), ("results.txt", report.to_text())):
        write_text(folder / name, text + "\n")
