"""Results of a run: ratios, the check of the same result, agreement in words, and the CSV and JSON of them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gpubp.benchmark import work
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import FLOAT32, OURS, PRODUCTS
from gpubp.errors import DataError
from gpubp.support import machine
from gpubp.support.files import write_text
from gpubp.support.jsontext import as_json

FORMAT, FORMAT_VERSION = "gpubp-bench-cpu", 1

# How far the first epoch may end from the baseline's: float32 sums in another order, and what becomes of that over
# an epoch's steps. The loss relatively; the parameters as a part of the distance that the epoch moved them: on
# 784-512-512-10, whose ReLUs switch at other steps where a sum is rounded otherwise, NumPy, PyTorch, JAX and gpubp's
# NumPy backend were measured to end 0.004 to 0.0105 from its Numba backend.
# Rounding factors to TF32 in float32 training, on a CPU, moved the loss by 1e-3 at most and the parameters by 0.16.
LOSS_TOLERANCE, PARAMETER_TOLERANCE = 1e-3, 3e-2
TOLERANCES = {
    FLOAT32: (LOSS_TOLERANCE, PARAMETER_TOLERANCE),
    "3xtf32": (LOSS_TOLERANCE, PARAMETER_TOLERANCE),
    "tf32": (5e-3, 0.5),
}

OK, FAILED, LEFT_OUT, CUT_SHORT = "ok", "failed", "left out", "cut short"
SAME, DIFFERS, NOT_COMPARABLE, BASELINE = "same", "differs", "not comparable", "baseline"
WITHIN = "within its bound"  # of a precision whose results cannot be the same as float32's

Parameters = list[np.ndarray]


@dataclass
class Row:
    """One peer on one net.

    status: OK, or another of its words with the reason in ``notes``. rounds: seconds an epoch by the clock, of each
    round in turn; a peer may have made fewer than others. events: the same by events of the device, if it is timed by
    these. first_epoch_s: with compilation. start_s: of "total" (from the start of the process until it was ready) and,
    within it, "import", "device", "data" and "build". loss: mean over the first epoch. same_result: one of the words
    above, or None if it was not checked. cores: CPU seconds a second. input_density: the part of the inputs that it
    computes with, None if unknown. verification: what the worker answers of it.
    """

    peer: str
    title: str
    precision: str = FLOAT32
    status: str = OK
    notes: list[str] = field(default_factory=list)
    version: str = ""
    details: str = ""
    start_s: dict[str, float] = field(default_factory=dict)
    first_epoch_s: float | None = None
    rounds: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    epochs_a_round: list[int] = field(default_factory=list)
    cores: float | None = None
    loss: float | None = None
    same_result: str | None = None
    loss_difference: float | None = None
    parameter_difference: float | None = None
    memory_mb: dict[str, float | None] = field(default_factory=dict)
    thread_pools: list[dict[str, Any]] = field(default_factory=list)
    input_density: float | None = 1.0
    verification: dict[str, Any] | None = None

    @property
    def times(self) -> list[float]:
        """Seconds an epoch: by events if there are some, else by the clock."""
        return self.events or self.rounds

    def end(self, status: str, why: str) -> None:
        """It did not come to its end, and why."""
        self.status = status
        self.notes.append(f"{status}: {why}")


@dataclass
class NetReport:
    """All peers on one net; ``baseline`` is the peer whose time all are divided by.

    recipe: the one that the net is of, and in ``notes`` where it departs from it.
    """

    net: Net
    samples: int
    baseline: str
    rows: list[Row] = field(default_factory=list)
    recipe: str | None = None
    notes: list[str] = field(default_factory=list)

    def row(self, peer: str) -> Row | None:
        return next((row for row in self.rows if row.peer == peer), None)


@dataclass
class Report:
    """A run. settings, machine, peaks and comparison are for the JSON as they are."""

    date: str
    commit: dict[str, Any] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    nets: list[NetReport] = field(default_factory=list)
    interrupted: bool = False
    peaks: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None


def origin() -> dict[str, Any]:
    """When and where a run begins, and of which code."""
    facts = {**machine.facts(), "load_average_before": machine.load_average()}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "commit": machine.commit(), "machine": facts}


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some numbers."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(median(values), min(values), max(values)) if values else None

    def told(self, form: str) -> str:
        """Median and range, each in this format."""
        return f"{self.median:{form}} ({self.min:{form}} – {self.max:{form}})"


def ratios(row: Row, baseline: Row | None) -> list[float]:
    """In each round that both made, the peer's time over the baseline's: above 1, the baseline is faster.

    By events if both have them, else by the clock.
    """
    if baseline is None:
        return []
    both = row.events and baseline.events
    times = (row.events, baseline.events) if both else (row.rounds, baseline.rounds)
    return [ours / theirs for ours, theirs in zip(*times, strict=False)]


def fastest(rows: Iterable[Row], precision: str = FLOAT32) -> Row | None:
    """The fastest of these by median, in that precision, among those whose result is not wrong."""
    right = [row for row in rows if row.rounds and row.precision == precision and row.same_result != DIFFERS]
    return min(right, key=lambda row: median(row.times), default=None)


def fastest_peer(report: NetReport) -> Row | None:
    """The fastest of what is not gpubp, and trains."""
    return fastest(row for row in report.rows if row.peer != PRODUCTS and not row.peer.startswith(OURS))


def check_same_result(
    row: Row, baseline: Row, differs: str, initial: Parameters, parameters: Parameters, expected: Parameters
) -> None:
    """Compare the first epoch's loss and last parameters with the baseline's; say in the row what came of it.

    differs: why the peer cannot give the same, or "". initial: the parameters before the epoch.
    """
    if differs:
        row.same_result = NOT_COMPARABLE
        row.notes.append(differs)
        return
    assert row.loss is not None
    assert baseline.loss is not None
    row.loss_difference = abs(row.loss - baseline.loss) / max(abs(baseline.loss), 1e-30)
    moved = _distance(expected, initial)
    row.parameter_difference = _distance(parameters, expected) / max(moved, 1e-30)
    of_loss, of_parameters = TOLERANCES[row.precision]
    if row.loss_difference <= of_loss and row.parameter_difference <= of_parameters:  # NaN is not
        row.same_result = SAME if TOLERANCES[row.precision] == TOLERANCES[FLOAT32] else WITHIN
    else:
        row.same_result = DIFFERS
        row.notes.append(
            f"does not compute the same as {baseline.title}: after the first epoch its loss is {row.loss:.6g}, not "
            f"{baseline.loss:.6g}, and its parameters are off by {row.parameter_difference:.2g} of the distance moved"
        )


def _distance(ours: Parameters, theirs: Parameters) -> float:
    """The Euclidean distance over all parameters; infinite where their shapes are not the same."""
    if [p.shape for p in ours] != [p.shape for p in theirs]:
        return math.inf
    return math.hypot(*(np.linalg.norm(a.astype(np.float64) - b) for a, b in zip(ours, theirs, strict=True)))


def to_dict(report: Report) -> dict[str, Any]:
    """The JSON, as bench/README.md documents it."""
    nets = [net_dict(net) for net in report.nets]
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **vars(report), "nets": nets}


def net_dict(report: NetReport) -> dict[str, Any]:
    """A net and its peers for JSON."""
    baseline, fastest = report.row(report.baseline), fastest_peer(report)
    return {
        **asdict(report.net),
        "layers": list(report.net.layers),  # as they are read again
        "samples": report.samples,
        "parameters": report.net.parameters,
        "baseline": report.baseline,
        "fastest_peer": fastest.peer if fastest else None,
        "recipe": report.recipe,
        "notes": report.notes,
        "peers": [_row_dict(row, baseline, report) for row in report.rows],
    }


def _row_dict(row: Row, baseline: Row | None, report: NetReport) -> dict[str, Any]:
    by_round, density = ratios(row, baseline), row.input_density
    time, ratio = Spread.of(row.times), Spread.of(by_round)
    todo = None if density is None else work.of_epoch(report.net, report.samples, density)
    return {
        **{name: value for name, value in vars(row).items() if name not in ("rounds", "events")},
        "epoch_ms": {name: seconds * 1000 for name, seconds in asdict(time).items()} if time else None,
        "rounds_ms": [seconds * 1000 for seconds in row.times],
        "by": "events" if row.events else "clock",
        "clock_rounds_ms": [seconds * 1000 for seconds in row.rounds],
        "ratio": asdict(ratio) if ratio else None,
        "round_ratios": by_round,
        "samples_per_second": report.samples / time.median if time else None,
        "gflop": todo.flops / 1e9 if todo else None,
        "flop_per_byte": todo.intensity if todo else None,
        "gflop_per_s": todo.flops / time.median / 1e9 if todo and time else None,
    }


def agreement(row: dict[str, Any]) -> str:
    """In words, how a peer's results agree with the reference and with the baseline's."""
    off = row.get("parameter_difference")
    same = {
        SAME: f"same result to {off:.0e}" if off else "same result, bit for bit",
        WITHIN: f"within the bound of {row.get('precision')}, {off or 0:.0e} off",
        DIFFERS: "computes something else: see the notes",
        NOT_COMPARABLE: "not comparable: see the notes",
    }.get(row["same_result"])
    said = [line for line in (_verified(row.get("verification")), same) if line]
    return "; ".join(said) or ("not checked" if row["rounds_ms"] else "")


def _verified(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    if not found["tensors"]:
        return "not checked against the reference, which overflows here"
    part = found["part_of_bound"]
    how = "beyond any bound" if part is None else f"at {part:.2g} of its bound"
    return f"worst error {how}" if found["ok"] else f"WRONG: {found['worst']} {how}"


def agrees(row: dict[str, Any]) -> bool | None:
    """False where a check failed, None where there was none to pass."""
    found, same = row.get("verification"), row["same_result"]
    if same == DIFFERS or (found and not found["ok"]):
        return False
    return True if same in (SAME, WITHIN) or (found and found["tensors"]) else None


CSV_COLUMNS = (
    "net", "data", "samples", "batch", "peer", "version", "status", "rounds", "median_ms", "min_ms", "max_ms", "ratio",
    "ratio_min", "ratio_max", "samples_per_second", "first_epoch_s", "start_s", "gflop_per_s", "cores", "peak_mb",
    "loss", "same_result", "loss_difference", "parameter_difference", "agreement", "notes",
)  # fmt: skip


def to_csv(content: dict[str, Any]) -> str:
    """One line a net and peer of the JSON; empty where there is no number."""
    rows = []
    for net in content["nets"]:
        for row in net["peers"]:
            time, ratio = row["epoch_ms"] or {}, row["ratio"] or {}
            spreads = {f"{name}_ms": value for name, value in time.items()}
            spreads |= {f"ratio_{name}": value for name, value in ratio.items()}
            peak, start = row["memory_mb"].get("peak"), row["start_s"].get("total")
            counts = {"net": net["name"], "rounds": len(row["rounds_ms"]), "ratio": ratio.get("median")}
            words = {"agreement": agreement(row), "notes": "; ".join(row["notes"])}
            rows.append({**net, **row, **spreads, **counts, **words, "peak_mb": peak, "start_s": start})
    return csv_text(CSV_COLUMNS, rows)


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """CSV with these columns; what else the rows hold is left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(folder: Path, report: Report) -> None:
    """Both files of a run, as :func:`write_files` does."""
    content = to_dict(report)
    write_files(folder, content, to_csv(content))


def write_files(folder: Path, content: dict[str, Any], table: str) -> None:
    """results.json and results.csv into ``folder``, each whole or not at all; null for what is no finite number.

    Raises:
        GpubpError: the folder cannot be written or is full.
    """
    write_text(folder / "results.json", as_json(content) + "\n")
    write_text(folder / "results.csv", table)


def read(path: Path) -> dict[str, Any]:
    """The content of a results.json, or of that in a folder.

    Raises:
        DataError: it cannot be read, is of another kind, or of a newer format.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # also what is no text
        raise DataError(f"{path} is not JSON, or is incomplete: {error}") from error
    fields = content if isinstance(content, dict) else {}
    kind, version = fields.get("format"), fields.get("format_version")
    if kind != FORMAT:
        found = f"it is {kind!r}" if isinstance(kind, str) else "it does not say what it is"
        raise DataError(f"{path} holds no results of gpubp bench: {found}, not {FORMAT!r}")
    if version != FORMAT_VERSION:
        advice = "; upgrade gpubp" if isinstance(version, int) and version > FORMAT_VERSION else ""
        raise DataError(f"{path} has format version {version}, and this gpubp reads {FORMAT_VERSION}{advice}")
    try:
        _require(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return content


def _require(content: dict[str, Any]) -> None:
    """Look at all that is read of a file: KeyError, TypeError or AttributeError where it is not there."""
    content["date"], content["machine"]["cpu"], content["machine"]["packages"].items()
    content["settings"]["threads"]
    for net in content["nets"]:
        net["name"], net["baseline"], net["samples"], len(net["layers"])
        for row in net["peers"]:
            row["title"], row["version"], [float(x) + 0 for x in row["rounds_ms"] + row["round_ratios"]]


def numbered(path: Path) -> Iterator[Path]:
    """The path, then with -2, -3, …: where the results of runs of the same day may go."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}-{number}")
