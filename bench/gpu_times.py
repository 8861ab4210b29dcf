"""The part of bench.gpu that times epochs: gpubp's plans and every other library, in turn, round after round."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu_peers import NUMBA, OURS, PRODUCTS, GpuPeer, peers
from bench.gpu_report import FAILED, Part, table
from bench.gpu_run import Desk, Loaded, Run
from gpubp.benchmark import data, results
from gpubp.benchmark.gpu_nets import BIG, FLOAT32
from gpubp.benchmark.measure import FEWEST_ROUNDS, rounds_within
from gpubp.benchmark.nets import SEED
from gpubp.benchmark.process import without_folders
from gpubp.benchmark.results import (
    BASELINE,
    DIFFERS,
    LOSS_TOLERANCE,
    NOT_COMPARABLE,
    PARAMETER_TOLERANCE,
    SAME,
    Row,
    Spread,
)

HELLO_SECONDS = 90.0  # for all peers beside each other: importing a library from a cold disk takes its time
SECONDS_A_PEER = 6.0  # for the rounds of one peer on one net; FEWEST_ROUNDS are made in any case
CLOCKS = "  by events of the device, or by the clock; × is by events where both have them, else by the clock"
FIRST = ("784-128-10", "mnist", "mnist-mlp32", "mnist-nielsen", BIG)  # of the nets, by worth
WITHIN = "within its bound"  # of a precision whose results cannot be the same as float32's
# How far the first epoch may end from float32's, as gpubp.benchmark.results has it: loss, parameters.
# Rounding factors to TF32 in float32 training, on a CPU, moved the loss by 1e-3 at most and the parameters by 0.16.
TOLERANCES = {
    FLOAT32: (LOSS_TOLERANCE, PARAMETER_TOLERANCE),
    "3xtf32": (LOSS_TOLERANCE, PARAMETER_TOLERANCE),
    "tf32": (5e-3, 0.5),
}


@dataclass
class GpuRow(Row):
    """Seconds an epoch: ``rounds`` by events if ``by_events``, else by the clock; ``clocks`` by the clock."""

    precision: str = FLOAT32
    by_events: bool = False
    clocks: list[float] = field(default_factory=list)


@dataclass
class NetTimes:
    """All peers on one net. auto: the plan that gpubp makes if left the choice."""

    loaded: Loaded
    rows: list[GpuRow] = field(default_factory=list)
    auto: str | None = None

    @property
    def baseline(self) -> GpuRow | None:
        """The fastest of gpubp's plans on the GPU in float32, whose time all are divided by."""
        return self.best(True, FLOAT32)

    @property
    def fastest(self) -> GpuRow | None:
        """The fastest of the other libraries in float32."""
        return self.best(False, FLOAT32)

    def best(self, ours: bool, precision: str) -> GpuRow | None:
        """The fastest on the GPU, gpubp's or another's, among those whose result is not wrong."""
        rows = [
            row
            for row in self.rows
            if row.rounds
            and row.precision == precision
            and row.peer != NUMBA
            and row.peer.startswith(OURS) == ours
            and row.same not in (DIFFERS, NOT_COMPARABLE)
        ]
        return min(rows, key=lambda row: median(row.rounds), default=None)


def ratios(row: GpuRow, baseline: GpuRow | None) -> list[float]:
    """In each round that both made, the time over the baseline's: by events if both have them, else by the clock."""
    if baseline is None:
        return []
    both = row.by_events and baseline.by_events
    times = (row.rounds, baseline.rounds) if both else (row.clocks, baseline.clocks)
    return [ours / theirs for ours, theirs in zip(*times, strict=False)]


class Entrant:
    """A peer's process, which stays from net to net, and the row of the present net."""

    def __init__(self, peer: GpuPeer, run: Run) -> None:
        self.peer, self.run = peer, run
        self.desk = Desk(peer.name, run.folder, run.env)
        self.new_row()
        self.differs = ""
        self.rounds = 0
        self.started: dict[str, float] = {}  # seconds that the process took to be ready for any net
        self.present = False  # on the present net
        self.silent = False  # has once not answered, and is asked no more

    def new_row(self) -> None:
        self.row = GpuRow(self.peer.name, self.peer.title, precision=self.peer.precision)

    def ask(self, part: Part, task: str, **fields: Any) -> dict[str, Any] | None:
        """The answer; None, with the reason in the part and in the row, where there is none."""
        if not self.present:
            return None
        what = f"{self.row.title}, {task}"
        lines = part.failures, part.skipped, part.cut
        before = [len(kind) for kind in lines]
        answer = self.run.attempt(part, what, task, desk=self.desk, **fields)
        if answer is None:
            self.present, self.silent = False, self.run.silent
            self.row.status = FAILED if len(part.failures) > before[0] else "left out"
            self.row.notes += [line for kind, n in zip(lines, before, strict=True) for line in kind[n:]]
        return answer


def times(run: Run, part: Part) -> None:
    """Milliseconds an epoch of each net, from the same parameters over the same batches."""
    entrants = []
    for peer in peers():
        if reason := peer.missing():
            part.skipped.append(f"{peer.title}: {reason}")
        elif run.host and peer.gpu_only:
            part.skipped.append(f"{peer.title}: needs a GPU")
        else:
            entrants.append(Entrant(peer, run))
    if run.host:
        part.skipped.append("times by events: there are none on the host, where the clock's are taken")
    nets = sorted(
        [*run.extras, *run.recipes],
        key=lambda n: FIRST.index(n.net.name) if n.net.name in FIRST else len(FIRST),
    )
    reports: list[NetTimes] = []
    try:
        entrants = _start(run, part, entrants)
        for number, loaded in enumerate(nets):
            whole, left = run.part_end, run.left()
            run.part_end -= max(0.0, left - 2 * left / (len(nets) - number))  # twice its share at most
            reports.append(NetTimes(loaded))
            _one_net(run, part, reports[-1], entrants, run.folder / f"times-{number}")
            run.part_end = whole
            part.results.append(to_dict(reports[-1]))
            tables = [net_table(report) for report in reports]
            part.tables[:] = [CLOCKS, *tables, *([] if run.host else conclusions(reports))]
            run.save()
    finally:
        for entrant in entrants:
            entrant.desk.close()


def _start(run: Run, part: Part, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Have all processes import and find their device, at the same time; those that are ready."""
    ready = []
    begun = [
        entrant
        for entrant in entrants
        if run.begin(
            part, f"{entrant.peer.title}, hello", entrant.desk, "hello",
            module=entrant.peer.module, options=entrant.peer.all_options(run.host),
        )
    ]  # fmt: skip
    end = time.perf_counter() + HELLO_SECONDS
    for entrant in begun:
        answer = run.outcome(part, entrant.peer.title, entrant.desk, end - time.perf_counter())
        if answer is None:
            entrant.desk.close()
        else:
            entrant.started = answer["seconds"]
            ready.append(entrant)
    return ready


def _one_net(run: Run, part: Part, report: NetTimes, entrants: Sequence[Entrant], folder: Path) -> None:
    """Measure a net; what goes wrong in it stays in it."""
    name = report.loaded.net.name
    of_net = Part(part.name, name)
    try:
        folder.mkdir()
        _measure(run, of_net, report, entrants, folder)
    except Exception as error:
        traceback.print_exc()
        of_net.failures.append(without_folders(f"{type(error).__name__}: {error}"))
    for kind in ("failures", "skipped", "cut"):
        getattr(part, kind).extend(f"{name}: {line}" for line in getattr(of_net, kind))


def _measure(run: Run, part: Part, report: NetTimes, entrants: Sequence[Entrant], folder: Path) -> None:
    loaded = report.loaded
    answer = run.attempt(part, "auto", "plan_of_auto", host=run.host, net=asdict(loaded.net))
    report.auto = answer["plan"] if answer else None
    initial = [p for pair in loaded.net.network().parameters for p in pair]
    data.save_parameters(folder / "initial.npz", initial)
    for entrant in entrants:
        meant = not entrant.peer.nets or loaded.net.name in entrant.peer.nets
        entrant.present = meant and not entrant.silent
        if meant and entrant.silent:
            part.skipped.append(f"{entrant.peer.title}: it did not answer before")
        elif meant:
            entrant.new_row()
            report.rows.append(entrant.row)
            _begin(run, part, entrant, loaded, folder)
    _check(part, entrants, folder)
    for number in range(run.sizes.rounds):
        turns = [
            entrant for entrant in entrants if entrant.present and (not number or number < entrant.rounds)
        ]
        random.Random(number).shuffle(turns)
        for entrant in turns:
            _round(run, part, entrant)


def _begin(run: Run, part: Part, entrant: Entrant, loaded: Loaded, folder: Path) -> None:
    """Build the peer and train its first epoch."""
    answer = entrant.ask(
        part, "build", module=entrant.peer.module, net=asdict(loaded.net), samples=str(loaded.train),
        parameters=str(folder / "initial.npz"), options=entrant.peer.all_options(run.host), seed=SEED,
    )  # fmt: skip
    if answer is None:
        return
    row = entrant.row
    seconds = {**entrant.started, **answer["seconds"]}
    row.start = {"total": sum(seconds.values()), **seconds}
    row.version, row.details, entrant.differs = answer["version"], answer["details"], answer["differs"]
    row.memory_mb = answer["memory_mb"]
    answer = entrant.ask(part, "first", save=str(folder / f"{row.peer}.npz"))
    if answer is not None:
        row.first_epoch, row.loss = answer["seconds"], answer["loss"]


def _check(part: Part, entrants: Sequence[Entrant], folder: Path) -> None:
    """Compare every first epoch with Numba's, or else with that of the first that trained; gpubp's own must agree."""
    began = [entrant for entrant in entrants if entrant.present]
    trained = [entrant for entrant in began if not entrant.differs]
    expected = next((e for e in trained if e.peer.name == NUMBA), trained[0] if trained else None)
    if expected is None:
        return
    expected.row.same = BASELINE
    initial = data.load_parameters(folder / "initial.npz")
    right = data.load_parameters(folder / f"{expected.peer.name}.npz")
    for entrant in began:
        if entrant is not expected:
            got = data.load_parameters(folder / f"{entrant.peer.name}.npz")
            row, tolerances = entrant.row, TOLERANCES[entrant.row.precision]
            results.check_same_result(row, expected.row, entrant.differs, initial, got, right, tolerances)
            if row.same == SAME and tolerances != TOLERANCES[FLOAT32]:
                row.same = WITHIN
            if row.same == DIFFERS and row.peer.startswith(OURS):
                part.failures.append(f"{row.title} {row.notes[-1]}")


def _round(run: Run, part: Part, entrant: Entrant) -> None:
    row = entrant.row
    answer = entrant.ask(part, "rounds", at_least=run.sizes.seconds_a_round)
    if answer is None:
        return
    epochs, events, clock = answer["epochs"], answer["events"], answer["seconds"]
    row.by_events = events is not None
    row.rounds.append((events if row.by_events else clock) / epochs)
    row.clocks.append(clock / epochs)
    row.epochs_a_round.append(epochs)
    if len(row.rounds) == 1:
        entrant.rounds = rounds_within(SECONDS_A_PEER, clock, run.sizes.rounds)
        if FEWEST_ROUNDS <= entrant.rounds < run.sizes.rounds:
            row.notes.append(f"{entrant.rounds} rounds, for one takes {clock:.1f} s")


def to_dict(report: NetTimes) -> dict[str, Any]:
    """A net for JSON."""
    baseline, fastest, loaded = report.baseline, report.fastest, report.loaded
    return {
        **asdict(loaded.net),
        "samples": loaded.count,
        "parameters": loaded.net.parameters,
        "baseline": baseline.peer if baseline else None,
        "plan_of_auto": report.auto,
        "fastest_peer": fastest.peer if fastest else None,
        "peers": [_row_dict(row, baseline) for row in report.rows],
    }


def _row_dict(row: GpuRow, baseline: GpuRow | None) -> dict[str, Any]:
    def in_ms(seconds: Sequence[float]) -> dict[str, float] | None:
        spread = Spread.of([s * 1000 for s in seconds])
        return asdict(spread) if spread else None

    ratio = Spread.of(ratios(row, baseline))
    return {
        "peer": row.peer,
        "title": row.title,
        "precision": row.precision,
        "status": row.status,
        "notes": row.notes,
        "version": row.version,
        "details": row.details,
        "epoch_ms": in_ms(row.rounds),
        "by": "events" if row.by_events else "clock",
        "clock_ms": in_ms(row.clocks),
        "rounds_ms": [s * 1000 for s in row.rounds],
        "clock_rounds_ms": [s * 1000 for s in row.clocks],
        "epochs_a_round": row.epochs_a_round,
        "ratio": asdict(ratio) if ratio else None,
        "round_ratios": ratios(row, baseline),
        "first_epoch_s": row.first_epoch,
        "start_s": row.start,
        "loss": row.loss,
        "same_result": row.same,
        "loss_difference": row.loss_difference,
        "parameter_difference": row.parameter_difference,
        "memory_mb": row.memory_mb,
    }


def net_table(report: NetTimes) -> str:
    """All peers on one net, fastest first, and what is to be said of them."""
    net, baseline = report.loaded.net, report.baseline
    about = (
        f"  {net.name}: {'-'.join(map(str, net.layers))} {net.hidden}, {net.output}; {net.loss}, batch {net.batch}, "
        f"lr {net.lr:g}, momentum {net.momentum:g}; {report.loaded.count:,} samples of {net.data}; "
        f"left the choice, gpubp takes: {report.auto or 'unknown'}"
    )
    rows = []
    for row in sorted(report.rows, key=lambda row: median(row.rounds) if row.rounds else float("inf")):
        time, clock, ratio = Spread.of(row.rounds), Spread.of(row.clocks), Spread.of(ratios(row, baseline))
        off = f"{row.precision}: {row.same}" if row.same == WITHIN else row.same or ""
        if row.same in (SAME, WITHIN, DIFFERS):
            off += f" ({row.loss_difference:.0e}, {row.parameter_difference:.0e})"
        rows.append(
            (
                row.title,
                time and time.median * 1e3,
                time and time.min * 1e3,
                time and time.max * 1e3,
                "events" if row.by_events else "clock",
                clock and clock.median * 1e3,
                ratio and ratio.median,
                f"{ratio.min:.2f} … {ratio.max:.2f}" if ratio else row.status,
                row.first_epoch,
                off,
            )
        )
    over = baseline.title if baseline else "gpubp"
    header = ("", "ms an epoch", "min", "max", "by", "clock", f"× {over}", "min … max", "first, s", "result")
    notes = [f"    {row.title}: {note}" for row in report.rows for note in row.notes]
    return "\n".join([about, table(header, rows), *notes])


def conclusions(reports: Sequence[NetTimes]) -> list[str]:
    """The fastest other library of each net and precision, and how far gpubp is from the products alone."""
    lines = []
    for report in reports:
        pairs = [(report.best(False, precision), report.best(True, precision)) for precision in TOLERANCES]
        products = next((row for row in report.rows if row.peer == PRODUCTS), None)
        for row, over in [*pairs, (report.baseline, products)]:
            ratio = Spread.of(ratios(row, over)) if row else None
            if row and over and ratio:
                lines.append(
                    f"  {report.loaded.net.name}: {row.title} takes {ratio.median:.2f} × the time "
                    f"({ratio.min:.2f} … {ratio.max:.2f}) of {over.title}"
                )
    return lines
