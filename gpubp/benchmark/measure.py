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
from pathlib import Path
from typing import Any

from rich.console import Console

from gpubp.benchmark import compare, data, process, results, shown, terminal
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers import Peer
from gpubp.benchmark.results import BASELINE, CUT_SHORT, FAILED, LEFT_OUT, NetReport, Report, Row
from gpubp.errors import UsageError
from gpubp.support import machine

FEWEST_ROUNDS = 3
SECONDS_A_ROUND = 0.2  # a round is as many epochs as fill this
# Between two peers: OpenMP's and OpenBLAS's threads spin for some milliseconds after work.
PAUSE_SECONDS = 0.1
PEAKS_SECONDS = 120.0  # what takes longer is not measured

Say = Callable[[str], None]
WritePage = Callable[[Path, dict[str, Any]], Path]


@dataclass(frozen=True)
class Case:
    """A net and its samples. Those of the same ``key`` are loaded once. notes: what is to be said of the net."""

    net: Net
    load: Callable[[], Data]
    key: Hashable
    recipe: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rounds:
    """The plan of epochs after the first.

    seconds: what a round fills, in whole epochs. budget: seconds that all rounds of a peer on a net should take at
    most. pause: seconds before each. events: whether times are those of a device's events, where it has some.
    """

    count: int
    seconds: float
    budget: float
    pause: float = PAUSE_SECONDS
    events: bool = False

    def within_budget(self, seconds: float) -> int:
        """Return how many are made when one takes ``seconds``; FEWEST_ROUNDS always are."""
        return min(self.count, max(FEWEST_ROUNDS, int(self.budget / seconds)))


@dataclass(frozen=True)
class Settings:
    """Settings of a run on the processor, as its JSON has them. budget: as of Rounds.

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
    """A peer, its worker, and the row of what it did on the present net.

    options: what its module is given besides its own. seconds: how long it may take for an answer.
    """

    def __init__(
        self,
        peer: Peer,
        worker: process.Worker,
        options: dict[str, Any],
        seconds: float = process.ANSWER_SECONDS,
    ) -> None:
        self.peer, self.worker, self.seconds = peer, worker, seconds
        self.options = {**peer.options, "precision": peer.precision, "device": peer.device, **options}
        self.started: dict[str, float] = {}  # seconds that the process took to be ready for any net
        self.silent = False  # has once not answered
        self.present = False  # takes part in the present net
        self.differs = ""
        self.row = Row(peer.name, peer.title)

    def enter(self, report: NetReport) -> None:
        """Begin a row in the report, if the peer is for its net."""
        net = report.net
        self.row = Row(self.peer.name, self.peer.title, self.peer.precision)
        self.present = not self.peer.nets or net.name in self.peer.nets
        if not self.present:
            return
        report.rows.append(self.row)
        if reason := "it did not answer before" if self.silent else self.peer.refuses(net):
            self.row.end(LEFT_OUT, reason)
            self.present = False

    def ask(self, task: str, **fields: Any) -> dict[str, Any] | None:
        """The worker's answer; None if it is not present, or fails: the reason is then in the row."""
        if not self.present:
            return None
        try:
            answer = self.worker.ask(task, self.seconds, **fields)
        except process.WorkerFailed as failure:
            kinds = {process.OutOfTime: CUT_SHORT, process.Refused: LEFT_OUT}
            self.row.end(kinds.get(type(failure), FAILED), str(failure))
            self.present, self.silent = False, isinstance(failure, process.NoAnswer)
            if not isinstance(failure, process.Refused):
                self.started = {}
            return None
        self.row.memory_mb |= answer.get("memory_mb", {})
        return answer

    def build(self, net: Net, samples: Path, initial: Path) -> None:
        """Have the peer ready to train the net."""
        module, options = self.peer.module, self.options
        if not self.started:
            started = time.perf_counter()
            if answer := self.ask("hello", module=module, options=options):
                self.started = {"total": time.perf_counter() - started, **answer["seconds"]}
        started = time.perf_counter()
        fields = {"net": net, "samples": samples, "parameters": initial, "options": options, "seed": SEED}
        if answer := self.ask("build", module=module, **fields):
            total = self.started["total"] + time.perf_counter() - started
            self.row.start_s = {**self.started, "total": total, **answer["seconds"]}
            self.differs = answer["differs"]
            for name in ("version", "details", "thread_pools", "input_density"):
                setattr(self.row, name, answer[name])

    def first_epoch(self, folder: Path) -> None:
        """Train it, and save the parameters after it."""
        if answer := self.ask("first", save=folder / f"{self.peer.name}.npz"):
            self.row.first_epoch_s, self.row.loss = answer["seconds"], answer["loss"]

    def round(self, rounds: Rounds) -> None:
        """Train one round more, if the budget allows it."""
        row, made = self.row, len(self.row.rounds)
        if made and made >= rounds.within_budget(row.rounds[0] * row.epochs_a_round[0]):
            return
        time.sleep(rounds.pause)
        answer = self.ask("round", at_least=rounds.seconds)
        if answer is None:
            return
        seconds, epochs = answer["seconds"], answer["epochs"]
        before = sum(s * n for s, n in zip(row.rounds, row.epochs_a_round, strict=True))
        row.cores = (before * (row.cores or 0.0) + answer["cpu_seconds"]) / (before + seconds)
        row.rounds.append(seconds / epochs)
        row.epochs_a_round.append(epochs)
        if rounds.events and answer["events"] is not None:
            row.events.append(answer["events"] / epochs)
        if not made and (fewer := rounds.within_budget(seconds)) < rounds.count:
            row.notes.append(f"{fewer} rounds of {rounds.count}, since one takes {seconds:.0f} s")

    def verify(self, samples: Path) -> None:
        """Hold the next steps to the reference; after the rounds, which it would disturb."""
        if answer := self.ask("verify", samples=samples):
            self.row.verification = answer["verification"]


def measure(
    report: NetReport, entrants: Sequence[Entrant], folder: Path, samples: Path, rounds: Rounds, say: Say
) -> None:
    """Measure the entrants on one net; what is known goes into ``report`` as soon as it is.

    folder: for parameters. samples: where ``gpubp.benchmark.data.save`` has put them.
    """
    net, initial = report.net, folder / "initial.npz"
    data.save_parameters(initial, [p for pair in net.network().parameters for p in pair])
    for entrant in entrants:
        entrant.enter(report)
        if entrant.present:
            say(f"{net.name}: starting {entrant.peer.title}")
            entrant.build(net, samples, initial)
            entrant.first_epoch(folder)
    _check([entrant for entrant in entrants if entrant.row.loss is not None], folder)
    for number in range(rounds.count):
        say(f"{net.name}: round {number + 1} of {rounds.count}")
        turns = [entrant for entrant in entrants if entrant.present]
        random.Random(number).shuffle(turns)
        for entrant in turns:  # the others are idle meanwhile
            entrant.round(rounds)


def _check(trained: list[Entrant], folder: Path) -> None:
    """Compare every first epoch with that of the first which all must agree with."""
    first = next((entrant for entrant in trained if not entrant.differs), None)
    if first is None:
        return
    first.row.same_result = BASELINE
    names = ("initial", first.peer.name)
    initial, expected = (data.load_parameters(folder / f"{name}.npz") for name in names)
    for entrant in trained:
        if entrant is not first:
            parameters = data.load_parameters(folder / f"{entrant.peer.name}.npz")
            results.check_same_result(entrant.row, first.row, entrant.differs, initial, parameters, expected)


def measure_peaks(threads: int) -> dict[str, Any]:
    """Peaks of the machine, by ``gpubp.benchmark.peaks`` in a process of its own.

    Returns ``{"threads", "gflop_per_s", "gb_per_s"}``, or ``{"threads", "failed": why}``.
    """
    command, env = process.module_command("gpubp.benchmark.peaks", str(threads)), process.environment(threads)
    try:
        ran = subprocess.run(
            command, env=env, capture_output=True, encoding="utf-8", timeout=PEAKS_SECONDS, check=True
        )
        return {"threads": threads, **json.loads(ran.stdout)}
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        return {
            "threads": threads,
            "failed": process.without_folders(said[-1]) if said else type(error).__name__,
        }


def run(
    cases: Sequence[Case],
    peers: Sequence[Peer],
    missing: dict[str, str],
    settings: Settings,
    out: Path,
    console: Console,
    say: Say,
    write_page: WritePage,
    old: dict[str, Any] | None = None,
) -> Report:
    """Measure the peers on the cases; after each, print its table and write the files anew. Ctrl-C ends it early.

    write_page: what makes a page of the content of results.json. old: that of an earlier one, to compare with.

    Raises:
        GpubpError: ``out`` cannot be written, or a case's samples are not to be had.
    """
    report = Report(**results.origin(), settings=asdict(settings), missing=missing)
    busy = shown.busy(report.machine)
    lines = [f"{names} left out: {why}" for names, why in shown.missing(missing).items()]
    terminal.print_lines([*([f"warning: {busy}"] if busy else []), *lines], console)
    with tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary:
        samples = save_samples(cases, Path(temporary), settings, say)
        results.write(out, report)  # a folder that cannot be written is told now, not after the work
        try:
            say("measuring the most this machine can do")
            report.peaks = measure_peaks(settings.threads)
            for i, case in enumerate(cases):
                folder = Path(temporary) / f"net-{i}"
                folder.mkdir()
                where, count = samples[case.key]
                report.nets.append(NetReport(case.net, count, peers[0].name, [], case.recipe, [*case.notes]))
                try:
                    _measure_cold(report.nets[-1], peers, folder, where, settings, say)
                finally:  # also after Ctrl-C
                    terminal.print_net(results.net_dict(report.nets[-1]), console)
                    results.write(out, report)
        except KeyboardInterrupt:
            report.interrupted = True
            say("interrupted; what was measured has been written")
    report.machine["load_average_after"] = machine.load_average()
    if old is not None:
        report.comparison = compare.compare(old, results.to_dict(report))
    _finish(report, out, console, write_page)
    return report


def _measure_cold(
    report: NetReport, peers: Sequence[Peer], folder: Path, samples: Path, settings: Settings, say: Say
) -> None:
    """Measure the peers on one net, each in a new process, and hold gpubp's own to the reference."""
    caches = folder / "caches" if settings.fresh else None
    entrants = []
    for peer in peers:
        env = process.environment(settings.threads, caches, gpu=peer.device == "gpu")
        worker = process.Worker(folder / f"{peer.name}.stderr", env)
        entrants.append(Entrant(peer, worker, {"threads": settings.threads}))
    try:
        rounds = Rounds(settings.rounds, settings.seconds_a_round, settings.budget)
        measure(report, entrants, folder, samples, rounds, say)
        for entrant in entrants:
            if entrant.peer.backend is not None and entrant.present:
                say(f"holding {entrant.peer.title} to the reference")
                entrant.verify(samples)
    finally:
        for entrant in entrants:
            entrant.worker.close()


def _finish(report: Report, out: Path, console: Console, write_page: WritePage) -> None:
    """Write all files and say what came of the run."""
    results.write(out, report)
    content = results.to_dict(report)
    if len(report.nets) > 1:
        verdicts = [f"{net['name']}: {shown.verdict(net)}" for net in content["nets"]]
        terminal.print_lines(verdicts, console)
    if report.comparison is not None:
        terminal.print_comparison(report.comparison, console)
    path = write_page(out / "report.html", content)
    lines = [f"results.csv and results.json are in {os.path.relpath(out)}"]
    terminal.print_lines([*lines, f"open {os.path.relpath(path)} in a browser"], console)


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
