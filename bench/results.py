"""What a run of bench.cpu came to: ratios, the check of the same result, and the table, CSV and JSON of them."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.nets import Net
from gpubp.jsontext import as_json

if TYPE_CHECKING:  # bench.gpu runs where rich is not installed
    from rich.console import Console
    from rich.table import Table

FORMAT, FORMAT_VERSION = "gpubp-bench-cpu", 1

# How far the first epoch may end from the baseline's: float32 sums in another order, and what becomes of that over
# an epoch's steps. The loss relatively; the parameters as a part of the distance that the epoch moved them: on
# 784-512-512-10, whose ReLUs switch at other steps where a sum is rounded otherwise, NumPy, PyTorch, JAX and gpubp's
# NumPy backend were measured to end 0.004 to 0.0105 from its Numba backend.
LOSS_TOLERANCE, PARAMETER_TOLERANCE = 1e-3, 3e-2

SAME, DIFFERS, NOT_COMPARABLE, BASELINE = "same", "differs", "not comparable", "baseline"


@dataclass
class Row:
    """One peer on one net.

    status: "ok", or "failed" with the reason in ``notes``. rounds: seconds an epoch, of each round in turn; a peer
    may have made fewer than others. first_epoch: seconds, with compilation. start: seconds of "total" (from the
    start of the process until it was ready) and, within it, "import", "data" and "build". loss: mean over the
    first epoch. same: one of the words above, or None if it was not checked. cores: CPU seconds a second.
    """

    peer: str
    title: str
    status: str = "ok"
    notes: list[str] = field(default_factory=list)
    version: str = ""
    details: str = ""
    start: dict[str, float] = field(default_factory=dict)
    first_epoch: float | None = None
    rounds: list[float] = field(default_factory=list)
    epochs_a_round: list[int] = field(default_factory=list)
    cores: float | None = None
    loss: float | None = None
    same: str | None = None
    loss_difference: float | None = None
    parameter_difference: float | None = None
    memory_mb: dict[str, float | None] = field(default_factory=dict)
    thread_pools: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class NetReport:
    """All peers on one net; ``baseline`` is the peer whose time all are divided by."""

    net: Net
    samples: int
    baseline: str
    rows: list[Row] = field(default_factory=list)

    def row(self, peer: str) -> Row | None:
        return next((row for row in self.rows if row.peer == peer), None)


@dataclass
class Report:
    """A run. settings and machine are for the JSON as they are."""

    date: str
    commit: dict[str, Any] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    nets: list[NetReport] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some numbers."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(median(values), min(values), max(values)) if values else None


def ratios(row: Row, baseline: Row | None) -> list[float]:
    """In each round that both made, the peer's time over the baseline's: above 1, the baseline is faster."""
    if baseline is None:
        return []
    return [ours / theirs for ours, theirs in zip(row.rounds, baseline.rounds, strict=False)]


def fastest_peer(report: NetReport) -> Row | None:
    """The fastest by median of what is not gpubp, among those whose result is not wrong."""
    others = [
        row for row in report.rows if row.rounds and not row.peer.startswith("gpubp") and row.same != DIFFERS
    ]
    return min(others, key=lambda row: median(row.rounds), default=None)


def check_same_result(
    row: Row,
    baseline: Row,
    differs: str,
    initial: list[np.ndarray],
    parameters: list[np.ndarray],
    expected: list[np.ndarray],
    tolerances: tuple[float, float] = (LOSS_TOLERANCE, PARAMETER_TOLERANCE),
) -> None:
    """Compare the first epoch's loss and last parameters with the baseline's; say in the row what came of it.

    differs: why the peer cannot give the same, or "". initial: the parameters before the epoch. tolerances: of the
    loss, and of the parameters.
    """
    if differs:
        row.same = NOT_COMPARABLE
        row.notes.append(differs)
        return
    assert row.loss is not None
    assert baseline.loss is not None
    row.loss_difference = abs(row.loss - baseline.loss) / max(abs(baseline.loss), 1e-30)
    moved = _distance(expected, initial)
    row.parameter_difference = _distance(parameters, expected) / max(moved, 1e-30)
    # Written so that NaN differs.
    agrees = row.loss_difference <= tolerances[0] and row.parameter_difference <= tolerances[1]
    row.same = SAME if agrees else DIFFERS
    if not agrees:
        row.notes.append(
            f"does not compute the same as {baseline.title}: after the first epoch its loss is {row.loss:.6g}, not "
            f"{baseline.loss:.6g}, and its parameters are off by {row.parameter_difference:.2g} of the distance moved"
        )


def _distance(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The Euclidean distance over all parameters; infinite where their shapes are not the same."""
    if [p.shape for p in ours] != [p.shape for p in theirs]:
        return math.inf
    squares = [
        np.sum(np.square(a.astype(np.float64) - b.astype(np.float64)))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return float(np.sqrt(np.sum(squares)))


# The table


def console() -> Console:
    """Where tables are printed; into a file or a pipe, wide enough to wrap nothing."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=190)


def net_table(report: NetReport) -> Table:
    """All peers on one net, fastest first."""
    from rich.table import Table

    net = report.net
    sizes = "-".join(map(str, net.layers))
    baseline = report.row(report.baseline)
    over = baseline.title if baseline else report.baseline
    table = Table(
        "peer",
        title=f"[bold]{net.name}[/]  {sizes} {net.hidden}, {net.output}; {net.loss}, batch {net.batch}, "
        f"lr {net.lr:g}; {report.samples:,} samples of {net.data}",
        title_justify="left",
        title_style="",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for column in (
        "ms an epoch",
        "min … max",
        f"× {over}",
        "min … max",
        "samples/s",
        "first epoch",
        "start",
        "cores",
        "peak MB",
    ):
        table.add_column(column, justify="right")
    table.add_column("same result (off by: loss, parameters)")
    for row in sorted(report.rows, key=lambda row: median(row.rounds) if row.rounds else math.inf):
        table.add_row(*_cells(row, baseline, report.samples))
    return table


def _cells(row: Row, baseline: Row | None, samples: int) -> list[str]:
    time, ratio = Spread.of(row.rounds), Spread.of(ratios(row, baseline))
    peak = row.memory_mb.get("peak")
    same = row.same or ""
    if row.same in (SAME, DIFFERS):
        same += f" ({row.loss_difference:.0e}, {row.parameter_difference:.0e})"
    return [
        row.title,
        _ms(time.median) if time else row.status if row.status != "ok" else "",
        f"{_ms(time.min)} … {_ms(time.max)}" if time else "",
        f"{ratio.median:.2f}" if ratio else "",
        f"{ratio.min:.2f} … {ratio.max:.2f}" if ratio else "",
        f"{samples / time.median:,.0f}" if time else "",
        "" if row.first_epoch is None else f"{row.first_epoch:.2f} s",
        f"{row.start['total']:.1f} s" if "total" in row.start else "",
        "" if row.cores is None else f"{row.cores:.1f}",
        "" if peak is None else f"{peak:,.0f}",
        same,
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:,.0f}"


def notes(report: NetReport) -> list[str]:
    """What is to be said of single peers, a line each."""
    return [f"{row.title}: {note}" for row in report.rows for note in row.notes]


def conclusion(report: NetReport) -> str:
    """The fastest peer and its ratio, in a line."""
    fastest, baseline = fastest_peer(report), report.row(report.baseline)
    if fastest is None or baseline is None or not baseline.rounds:
        return f"{report.net.name}: nothing to compare"
    if fastest is baseline:
        return f"{report.net.name}: {fastest.title} is the fastest peer"
    ratio = Spread.of(ratios(fastest, baseline))
    assert ratio is not None
    return (
        f"{report.net.name}: the fastest peer is {fastest.title}, at {ratio.median:.2f} × the time of "
        f"{baseline.title} ({ratio.min:.2f} … {ratio.max:.2f})"
    )


def print_net(report: NetReport, console: Console) -> None:
    """Table, notes and conclusion."""
    console.print(net_table(report))
    for line in [*notes(report), conclusion(report)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()


# The files


def to_dict(report: Report) -> dict[str, Any]:
    """The JSON, as bench/README.md documents it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "date": report.date,
        "commit": report.commit,
        "interrupted": report.interrupted,
        "machine": report.machine,
        "settings": report.settings,
        "missing": report.missing,
        "nets": [_net_dict(net) for net in report.nets],
    }


def _net_dict(report: NetReport) -> dict[str, Any]:
    baseline, fastest = report.row(report.baseline), fastest_peer(report)
    return {
        **asdict(report.net),
        "samples": report.samples,
        "parameters": report.net.parameters,
        "baseline": report.baseline,
        "fastest_peer": fastest.peer if fastest else None,
        "peers": [_row_dict(row, baseline, report.samples) for row in report.rows],
    }


def _row_dict(row: Row, baseline: Row | None, samples: int) -> dict[str, Any]:
    time, ratio = Spread.of(row.rounds), Spread.of(ratios(row, baseline))
    return {
        "peer": row.peer,
        "title": row.title,
        "status": row.status,
        "notes": row.notes,
        "version": row.version,
        "details": row.details,
        "epoch_ms": {k: v * 1000 for k, v in asdict(time).items()} if time else None,
        "rounds_ms": [seconds * 1000 for seconds in row.rounds],
        "epochs_a_round": row.epochs_a_round,
        "ratio": asdict(ratio) if ratio else None,
        "round_ratios": ratios(row, baseline),
        "samples_per_second": samples / time.median if time else None,
        "cores": row.cores,
        "first_epoch_s": row.first_epoch,
        "start_s": row.start,
        "loss": row.loss,
        "same_result": row.same,
        "loss_difference": row.loss_difference,
        "parameter_difference": row.parameter_difference,
        "memory_mb": row.memory_mb,
        "thread_pools": row.thread_pools,
    }


CSV_COLUMNS = (
    "net",
    "data",
    "samples",
    "batch",
    "peer",
    "version",
    "status",
    "rounds",
    "median_ms",
    "min_ms",
    "max_ms",
    "ratio",
    "ratio_min",
    "ratio_max",
    "samples_per_second",
    "first_epoch_s",
    "start_s",
    "cores",
    "peak_mb",
    "loss",
    "same_result",
    "loss_difference",
    "parameter_difference",
    "notes",
)


def to_csv(report: Report) -> str:
    """One line a net and peer; empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for net in to_dict(report)["nets"]:
        for row in net["peers"]:
            time, ratio = row["epoch_ms"] or {}, row["ratio"] or {}
            writer.writerow(
                {column: net[column] for column in ("data", "samples", "batch")}
                | {column: row[column] for column in CSV_COLUMNS if column in row}
                | {
                    "net": net["name"],
                    "rounds": len(row["rounds_ms"]),
                    "median_ms": time.get("median"),
                    "min_ms": time.get("min"),
                    "max_ms": time.get("max"),
                    "ratio": ratio.get("median"),
                    "ratio_min": ratio.get("min"),
                    "ratio_max": ratio.get("max"),
                    "start_s": row["start_s"].get("total"),
                    "peak_mb": row["memory_mb"].get("peak"),
                    "notes": "; ".join(row["notes"]),
                }
            )
    return text.getvalue()


def write(folder: Path, content: dict[str, Any], table: str) -> None:
    """results.json and results.csv into ``folder``; null for what is no finite number."""
    folder.mkdir(parents=True, exist_ok=True)
    text = as_json(content)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.csv").write_text(table, encoding="utf-8")


def new_folder(kind: str, date: str) -> Path:
    """bench/results/DATE-KIND, with -2, -3, … where that is taken."""
    root = Path(__file__).parent / "results"
    folder, number = root / f"{date[:10]}-{kind}", 1
    while folder.exists():
        number += 1
        folder = root / f"{date[:10]}-{kind}-{number}"
    return folder
