"""The engine of the benchmark: every peer in a process of its own, first epochs, then rounds in turn, then checks."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.benchmark import compare, data, machine, results, terminal
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers import Peer
from gpubp.benchmark.process import Worker, WorkerFailed, environment, module_command, without_folders
from gpubp.benchmark.results import BASELINE, NetReport, Report, Row
from gpubp.errors import UsageError

if TYPE_CHECKING:  # bench.gpu runs where rich is not installed
    from rich.console import Console

FEWEST_ROUNDS = 3
SECONDS_A_ROUND = 0.2  # a round is as many epochs as fill this
PAUSE_SECONDS = (
    0.1  # between two peers: OpenMP's and OpenBLAS's threads spin for some milliseconds after work
)
PEAKS_SECONDS = 120.0  # what takes longer is not measured

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A net and its samples. Those of the same ``key`` are loaded once. notes: what is to be said of the net."""

    net: Net
    load: Callable[[], Data]
    key: Hashable
    recipe: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to measure. budget: seconds that the rounds of one peer on one net should take at most.

    Raises:
        UsageError: a number that cannot be, or more threads than cores.
    """

    threads: int
    rounds: int
    budget: float
    seconds_a_round: float = SECONDS_A_ROUND
    samples: int | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in ("rounds", "threads", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be 1 or more, not {value}")
        if not self.budget > 0:
            raise UsageError(f"--budget must be positive, not {self.budget:g}")
        if self.threads > machine.cores():
            raise UsageError(f"--threads {self.threads}: there are {machine.cores()} cores")


class Entrant:
    """A peer's worker on one net, and the row of what it did."""

    def __init__(self, peer: Peer, row: Row) -> None:
        self.peer, self.row = peer, row
        self.worker: Worker | None = None
        self.differs = ""
        self.rounds = 0  # how many it is to make

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The worker's answer; None, and the reason in the row, if it has failed."""
        if self.worker is None:
            return None
        try:
            answer = self.worker.ask(request)
        except WorkerFailed as failure:
            self.row.status = "failed"
            self.row.notes.append(f"failed: {failure}")
            self.close()
            return None
        self.row.memory_mb |= answer.get("memory_mb", {})
        return answer

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None


def measure(
    report: NetReport,
    peers: Sequence[Peer],
    folder: Path,
    samples: Path,
    settings: Settings,
    say: Say = lambda _: None,
) -> None:
    """Measure the peers on one net; what is known goes into ``report`` as soon as it is.

    folder: for parameters and stderr. samples: where ``gpubp.benchmark.data.save`` has put them.
    """
    net = report.net
    initial = [p for pair in net.network().parameters for p in pair]
    data.save_parameters(folder / "initial.npz", initial)
    entrants = []
    for peer in peers:
        report.rows.append(Row(peer.name, peer.title))
        if reason := peer.refuses(net):
            report.rows[-1].status = "left out"
            report.rows[-1].notes.append(f"left out: {reason}")
        else:
            entrants.append(Entrant(peer, report.rows[-1]))
    job = {
        "net": asdict(net),
        "data": str(samples),
        "parameters": str(folder / "initial.npz"),
        "threads": settings.threads,
        "seed": SEED,
    }
    caches = folder / "caches" if settings.fresh else None
    try:
        for entrant in entrants:
            say(f"{net.name}: starting {entrant.peer.title}")
            env = environment(settings.threads, caches, gpu=entrant.peer.on_gpu)
            _start(entrant, job, folder, env)
            _first_epoch(entrant, folder)
        _check(report, entrants, folder)
        _rounds(net, entrants, settings, say)
        _verify(entrants, samples, say)
    finally:
        for entrant in entrants:
            entrant.close()


def _start(entrant: Entrant, job: dict[str, Any], folder: Path, env: dict[str, str]) -> None:
    row, started = entrant.row, time.perf_counter()
    entrant.worker = Worker(entrant.peer.module, stderr=folder / f"{row.peer}.stderr", env=env)
    answer = entrant.ask(job)
    if answer is None:
        return
    row.start = {"total": time.perf_counter() - started, **answer["seconds"]}
    row.version, row.details, row.thread_pools = answer["version"], answer["details"], answer["thread_pools"]
    row.input_density = answer["input_density"]
    entrant.differs = answer["differs"]


def _first_epoch(entrant: Entrant, folder: Path) -> None:
    answer = entrant.ask({"do": "first", "save": str(folder / f"{entrant.peer.name}.npz")})
    if answer is not None:
        entrant.row.first_epoch, entrant.row.loss = answer["seconds"], answer["loss"]


def _check(report: NetReport, entrants: list[Entrant], folder: Path) -> None:
    """Compare every first epoch with the baseline's."""
    baseline = report.row(report.baseline)
    if baseline is None or baseline.loss is None:
        return
    baseline.same = BASELINE
    initial = data.load_parameters(folder / "initial.npz")
    expected = data.load_parameters(folder / f"{baseline.peer}.npz")
    for entrant in entrants:
        row = entrant.row
        if row is not baseline and row.loss is not None:
            parameters = data.load_parameters(folder / f"{row.peer}.npz")
            results.check_same_result(row, baseline, entrant.differs, initial, parameters, expected)


def _rounds(net: Net, entrants: list[Entrant], settings: Settings, say: Say) -> None:
    """Ask each peer in turn, in another order every round; the others are idle meanwhile."""
    cpu = {entrant.peer.name: 0.0 for entrant in entrants}
    for entrant in entrants:
        entrant.rounds = settings.rounds
    for number in range(settings.rounds):
        say(f"{net.name}: round {number + 1} of {settings.rounds}")
        turns = list(entrants)
        random.Random(number).shuffle(turns)
        for entrant in turns:
            if number >= entrant.rounds:
                continue
            time.sleep(PAUSE_SECONDS)
            answer = entrant.ask({"do": "round", "seconds": settings.seconds_a_round})
            if answer is None:
                continue
            row = entrant.row
            row.rounds.append(answer["seconds"] / answer["epochs"])
            row.epochs_a_round.append(answer["epochs"])
            cpu[row.peer] += answer["cpu_seconds"]
            measured = sum(s * n for s, n in zip(row.rounds, row.epochs_a_round, strict=True))
            row.cores = cpu[row.peer] / measured
            if number == 0:
                entrant.rounds = rounds_within(settings.budget, answer["seconds"], settings.rounds)
                if entrant.rounds < settings.rounds:
                    row.notes.append(
                        f"{entrant.rounds} rounds of {settings.rounds}, for one takes {answer['seconds']:.0f} s"
                    )


def rounds_within(budget: float, seconds: float, rounds: int) -> int:
    """How many of ``rounds`` fit into the budget when one takes ``seconds``; FEWEST_ROUNDS always do."""
    return min(rounds, max(FEWEST_ROUNDS, int(budget / seconds)))


def _verify(entrants: list[Entrant], samples: Path, say: Say) -> None:
    """Hold the next step of each of gpubp's own plans to the reference; after the rounds, which it would disturb."""
    for entrant in entrants:
        if entrant.peer.backend is not None and entrant.worker is not None:
            say(f"holding {entrant.peer.title} to the reference")
            answer = entrant.ask({"do": "verify", "data": str(samples)})
            if answer is not None:
                entrant.row.verification = answer["verification"]


def measure_peaks(threads: int) -> dict[str, Any]:
    """What the machine can do at most, by ``gpubp.benchmark.peaks`` in a process of its own.

    Returns ``{"threads", "gflop_per_s", "gb_per_s"}``, or ``{"threads", "failed": why}``.
    """
    command, folder = module_command("peaks", str(threads))
    try:
        ran = subprocess.run(
            command, cwd=folder, env=environment(threads, None), capture_output=True, text=True,
            timeout=PEAKS_SECONDS, check=True,
        )  # fmt: skip
        return {"threads": threads, **json.loads(ran.stdout)}
    except subprocess.TimeoutExpired:
        return {"threads": threads, "failed": f"took more than {PEAKS_SECONDS:.0f} s"}
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"threads": threads, "failed": without_folders(said[-1]) if said else type(error).__name__}


def run(
    cases: Sequence[Case],
    peers: Sequence[Peer],
    missing: dict[str, str],
    settings: Settings,
    out: Path,
    console: Console,
    say: Say,
    old: dict[str, Any] | None = None,
) -> Report:
    """Measure the peers on the cases; after each, print its table and write the files anew. Ctrl-C ends it early.

    old: the content of an earlier results.json, to compare with.

    Raises:
        GpubpError: ``out`` cannot be written, or a case's samples are not to be had.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(date, machine.commit(), machine.facts(), asdict(settings), missing)
    report.machine["load_average_before"] = machine.load_average()
    if line := results.busy(report.machine):
        console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True)
    terminal.print_missing(missing, console)
    with tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary:
        samples = save_samples(cases, Path(temporary), settings, say)
        results.write_report(out, report)  # a folder that cannot be written is told now, not after the work
        try:
            say("measuring what this machine can do at most")
            report.peaks = measure_peaks(settings.threads)
            for i, case in enumerate(cases):
                folder = Path(temporary) / f"net-{i}"
                folder.mkdir()
                where, count = samples[case.key]
                report.nets.append(NetReport(case.net, count, peers[0].name, [], case.recipe, [*case.notes]))
                try:
                    measure(report.nets[-1], peers, folder, where, settings, say)
                finally:  # also after Ctrl-C
                    terminal.print_net(report.nets[-1], console)
                    results.write_report(out, report)
        except KeyboardInterrupt:
            report.interrupted = True
            say("interrupted; what was measured is written")
    report.machine["load_average_after"] = machine.load_average()
    if old is not None:
        report.comparison = compare.compare(old, results.to_dict(report))
    finish(report, out, console)
    return report


def finish(report: Report, out: Path, console: Console) -> None:
    """Write all files and say what came of the run."""
    from gpubp.reports import benchmark as page

    results.write_report(out, report)
    if len(report.nets) > 1:
        for net in report.nets:
            console.print(terminal.conclusion(net), highlight=False, markup=False, soft_wrap=True)
    if report.comparison is not None:
        terminal.print_comparison(report.comparison, console)
    text = f"results.csv and results.json are in {os.path.relpath(out)}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    path = page.write(out / "report.html", results.to_dict(report))
    console.print(f"open {os.path.relpath(path)} in a browser", highlight=False, markup=False, soft_wrap=True)


def save_samples(
    cases: Sequence[Case], folder: Path, settings: Settings, say: Say
) -> dict[Hashable, tuple[Path, int]]:
    """For each case's key the folder with its samples, and how many they are."""
    saved: dict[Hashable, tuple[Path, int]] = {}
    for case in cases:
        if case.key not in saved:
            say(f"loading {case.net.data}")
            loaded = case.load().first(settings.samples)
            saved[case.key] = folder / f"data-{len(saved)}", len(loaded)
            data.save(saved[case.key][0], loaded)
    return saved
