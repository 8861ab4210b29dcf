"""Results of a run of bench.gpu: its parts, and the JSON and the readable text of them."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.table import Table

from gpubp.benchmark import terminal
from gpubp.benchmark.process import OutOfTime, Refused, WorkerFailed, without_folders
from gpubp.benchmark.results import CUT_SHORT, FAILED, OK
from gpubp.support.files import write_text
from gpubp.support.jsontext import as_json

FORMAT, FORMAT_VERSION = "gpubp-bench-gpu", 1
SKIPPED, UNFINISHED = "skipped", "unfinished"
WIDTH = 400  # no table is wider


@dataclass
class Part:
    """One part. failures, skipped and cut hold a line each for what failed, could not be done, had no time left.

    columns: the headings of the table of its results, and what of a result is below each; {} if there is none.
    tables: what else is for people to read.
    """

    name: str
    title: str
    columns: dict[str, str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False

    @contextmanager
    def item(self, what: str = "") -> Iterator[None]:
        """Whatever goes wrong in here is a line of the part and ends no more than this item of it.

        What there was no time for has not failed, nor has what the machine cannot do.
        """
        before = f"{what}: " if what else ""
        try:
            yield
        except OutOfTime:
            self.cut.append(what or "all of it")
        except Refused as why:
            self.skipped.append(f"{before}{why}")
        except WorkerFailed as failure:
            self.failures.append(f"{before}{failure}")
        except Exception as error:
            traceback.print_exc()
            self.failures.append(without_folders(f"{before}{type(error).__name__}: {error}"))

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
        kept = {name: getattr(self, name) for name in ("title", "results", "failures", "skipped", "seconds")}
        return {"part": self.name, "status": self.status, "cut_short": self.cut, **kept}

    def to_text(self) -> str:
        """A heading, and the tables."""
        lines = [f"{self.title}: {self.status}, {self.seconds:.1f} s", *self.tables]
        keys = self.columns.values()  # of which a result need not have all
        rows = [
            {key: row.get(key) for key in keys} for row in self.results if not row.keys().isdisjoint(keys)
        ]
        if rows:
            lines.append(text_of(terminal.table(self.columns, rows)))
        return "\n".join([*lines, ""])


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
        parts = [part.to_dict() for part in self.parts]
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **vars(self), "parts": parts}

    def to_text(self) -> str:
        """All parts and the summary."""
        head = [f"python -m bench.gpu, {self.date}", *self._about(), ""]
        return "\n".join([*head, *(part.to_text() for part in self.parts), self.summary()])

    def _about(self) -> list[str]:
        name = self.machine.get("device", {}).get("name") or "unknown device"
        commit = "unknown" if self.commit is None else self.commit["id"][:12]
        changed = " with changes" if self.commit and self.commit["changed"] else ""
        packages = ", ".join(f"{name} {version}" for name, version in self.machine["packages"].items())
        lines = [
            f"{name}; {self.machine['cpu']}, {self.machine['cores']} cores",
            f"commit {commit}{changed}, sources {self.sources}; {self.machine['python']}; {packages}",
        ]
        warning = "ON THE HOST BUILD, WITHOUT A GPU: no time here says anything about a GPU"
        return [*lines, warning] if self.host else lines

    def summary(self) -> str:
        """Say what failed, what could not be done and why, and what there was no time for."""
        lines = [f"{'part':<12} {'status':<11} seconds"]
        lines += [f"{part.name:<12} {part.status:<11} {part.seconds:7.1f}" for part in self.parts]
        for title, kind in (("failed", "failures"), ("skipped", "skipped"), ("no time left for", "cut")):
            said = [f"  {part.name}: {line}" for part in self.parts for line in getattr(part, kind)]
            lines += ["", f"{title}:", *said] if said else []
        verdict = "something failed" if self.failed else "nothing failed"
        if self.refused:
            verdict = f"nothing was measured: {self.refused}"
        elif self.interrupted:
            verdict += ", and it was interrupted"
        return "\n".join([*lines, "", f"{len(self.parts)} parts in {self.seconds:.0f} s: {verdict}"])


def text_of(made: Table, above: Sequence[str] = (), below: Sequence[str] = ()) -> str:
    """A table as it is printed, two columns to the right, with lines above and below it."""
    text = io.StringIO()
    Console(width=WIDTH, file=text, color_system=None).print(made)
    lines = [*above, *text.getvalue().splitlines(), *below]
    return indent("\n".join(line.rstrip() for line in lines), "  ")


def write(folder: Path, report: Report) -> None:
    """results.json and results.txt, each in one go: a run that is killed leaves what it had.

    Raises:
        GpubpError: they cannot be written.
    """
    for name, text in (("results.json", as_json(report.to_dict())), ("results.txt", report.to_text())):
        write_text(folder / name, text + "\n")
