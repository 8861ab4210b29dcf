"""The part of bench.gpu that times epochs: gpubp's plans and every other library, in turn, round after round."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from gpubp.backends.cuda import CupyBackend

from . import data, results
from .gpu_nets import BIG
from .gpu_report import FAILED, Part, table
from .gpu_run import Desk, Loaded, Run
from .measure import FEWEST_ROUNDS, rounds_within
from .nets import SEED
from .peers import Peer, module_name
from .results import BASELINE, DIFFERS, NOT_COMPARABLE, SAME, Row, Spread

SECONDS_A_PEER = 6.0  # for the rounds of one peer on one net; FEWEST_ROUNDS are made in any case
PRODUCTS, NUMBA, OURS = "products", "gpubp-numba", "gpubp-"
CLOCKS = "  by events of the device, or by the clock; × is by events where both have them, else by the clock"
FIRST = ("784-128-10", "mnist", "mnist-mlp32", "mnist-nielsen", BIG)  # of the nets, by worth


@dataclass(frozen=True)
class GpuPeer(Peer):
    """A peer with its options; ``gpu_only`` has no way to run on the processor, ``net`` is the only one it is for."""

    options: dict[str, Any] = field(default_factory=dict)
    gpu_only: bool = False
    net: str | None = None


def peers() -> list[GpuPeer]:
    """gpubp's plans on the GPU, Numba for comparison, the other libraries, and what cuBLAS takes."""
    module = module_name("gpubp_gpu")
    return [
        *(
            GpuPeer(f"gpubp-{plan}", f"gpubp cupy, {plan}", module, (), options={"plan": plan})
            for plan in CupyBackend.plans
        ),
        GpuPeer(NUMBA, "gpubp numba", module, ("numba",), options={"plan": None}),
        GpuPeer("torch", "PyTorch eager", module_name("torch_gpu"), ("torch",), options={"graph": False}),
        GpuPeer(
            "torch-graph",
            "PyTorch, CUDA graph",
            module_name("torch_gpu"),
            ("torch",),
            options={"graph": True},
            gpu_only=True,
        ),
        GpuPeer("jax", "JAX scan", module_name("jax_gpu"), ("jax",)),
        GpuPeer(PRODUCTS, "cuBLAS, its products alone", module_name("products"), (), net=BIG),
    ]


@dataclass
class GpuRow(Row):
    """Seconds an epoch: ``rounds`` by events if ``by_events``, else by the clock; ``clocks`` by the clock."""

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
        """The faster of gpubp's plans on the GPU, whose time all are divided by."""
        ours = [row for row in self.rows if row.rounds and row.peer.startswith(OURS) and row.peer != NUMBA]
        return min(ours, key=lambda row: median(row.rounds), default=None)

    @property
    def fastest(self) -> GpuRow | None:
        """The fastest of the other libraries, among those whose result is not wrong."""
        others = [
            row
            for row in self.rows
            if row.rounds and not row.peer.startswith(OURS) and row.same not in (DIFFERS, NOT_COMPARABLE)
        ]
        return min(others, key=lambda row: median(row.rounds), default=None)


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
        self.row = GpuRow(peer.name, peer.title)
        self.differs = ""
        self.rounds = 0
        self.present = False  # on the present net
        self.silent = False  # has once not answered, and is asked no more

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
    tables: list[str] = []
    try:
        for number, loaded in enumerate(nets):
            whole, left = run.part_end, run.left()
            run.part_end -= max(0.0, left - 2 * left / (len(nets) - number))  # twice its share at most
            report = NetTimes(loaded)
            folder = run.folder / f"times-{number}"
            folder.mkdir()
            of_net = Part(part.name, loaded.net.name)
            _measure(run, of_net, report, entrants, folder)
            for kind in ("failures", "skipped", "cut"):
                getattr(part, kind).extend(f"{loaded.net.name}: {line}" for line in getattr(of_net, kind))
            part.results.append(to_dict(report))
            tables.append(net_table(report))
            part.tables[:] = [CLOCKS, *tables, *([] if run.host else conclusions(part.results))]
            run.part_end = whole
            run.save()
    finally:
        for entrant in entrants:
            entrant.desk.close()


def _measure(run: Run, part: Part, report: NetTimes, entrants: Sequence[Entrant], folder: Path) -> None:
    loaded = report.loaded
    answer = run.attempt(part, "auto", "plan_of_auto", host=run.host, net=asdict(loaded.net))
    report.auto = answer["plan"] if answer else None
    initial = [p for pair in loaded.net.network().parameters for p in pair]
    data.save_parameters(folder / "initial.npz", initial)
    for entrant in entrants:
        entrant.present = entrant.peer.net in (None, loaded.net.name) and not entrant.silent
        if entrant.silent:
            part.skipped.append(f"{entrant.peer.title}: it did not answer before")
        elif entrant.present:
            entrant.row = GpuRow(entrant.peer.name, entrant.peer.title)
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
    started = time.perf_counter()
    answer = entrant.ask(
        part, "build", module=entrant.peer.module, net=asdict(loaded.net), samples=str(loaded.train),
        parameters=str(folder / "initial.npz"), options={**entrant.peer.options, "host": run.host}, seed=SEED,
    )  # fmt: skip
    if answer is None:
        return
    row = entrant.row
    row.start = {"total": time.perf_counter() - started, **answer["seconds"]}
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
            results.check_same_result(entrant.row, expected.row, entrant.differs, initial, got, right)
            if entrant.row.same == DIFFERS and entrant.peer.name.startswith(OURS):
                part.failures.append(f"{entrant.row.title} {entrant.row.notes[-1]}")


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
        off = row.same or ""
        if row.same in (SAME, DIFFERS):
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


def conclusions(nets: Sequence[dict[str, Any]]) -> list[str]:
    """The fastest other library of each net, and how far gpubp is from the products alone."""
    lines = []
    for net in nets:
        rows = {row["peer"]: row for row in net["peers"]}
        fastest = rows.get(net["fastest_peer"])
        if fastest and fastest["ratio"]:
            lines.append(
                f"  {net['name']}: {fastest['title']} takes {_times(Spread(**fastest['ratio']))} of {net['baseline']}"
            )
        if PRODUCTS in rows and rows[PRODUCTS]["ratio"]:
            bound = Spread.of([1 / ratio for ratio in rows[PRODUCTS]["round_ratios"]])
            assert bound is not None
            lines.append(
                f"  {net['name']}: {net['baseline']} takes {_times(bound)} of cuBLAS's products alone"
            )
    return lines


def _times(ratio: Spread) -> str:
    return f"{ratio.median:.2f} × the time ({ratio.min:.2f} … {ratio.max:.2f})"
