"""``python -m bench.cpu``: gpubp and every other library that is installed, epoch by epoch in turn, on the CPU."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data, machine, results
from bench.nets import NETS, QUICK, SEED, Net, parse, select
from bench.peers import PEERS, Peer
from bench.process import Worker, WorkerFailed, environment
from bench.results import BASELINE, NetReport, Report, Row
from gpubp.errors import GpubpError, UsageError
from gpubp.functions import lookup

if TYPE_CHECKING:  # bench.gpu runs where rich is not installed
    from rich.console import Console

FEWEST_ROUNDS = 3
SECONDS_A_ROUND = 0.2  # a round is as many epochs as fill this
PAUSE_SECONDS = (
    0.1  # between two peers: OpenMP's and OpenBLAS's threads spin for some milliseconds after work
)
INTERRUPTED = 130


@dataclass(frozen=True)
class Settings:
    """How to measure. budget: seconds that the rounds of one peer on one net should take at most."""

    threads: int
    rounds: int
    budget: float
    seconds_a_round: float = SECONDS_A_ROUND
    samples: int | None = None
    fresh: bool = False


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
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure the peers on one net; what is known goes into ``report`` as soon as it is.

    folder: for parameters and stderr. samples: where ``bench.data.save`` has put them.
    """
    net = report.net
    initial = [p for pair in net.network().parameters for p in pair]
    data.save_parameters(folder / "initial.npz", initial)
    entrants = [Entrant(peer, Row(peer.name, peer.title)) for peer in peers]
    report.rows.extend(entrant.row for entrant in entrants)
    job = {
        "net": asdict(net),
        "data": str(samples),
        "parameters": str(folder / "initial.npz"),
        "threads": settings.threads,
        "seed": SEED,
    }
    env = environment(settings.threads, folder / "caches" if settings.fresh else None)
    try:
        for entrant in entrants:
            say(f"{net.name}: starting {entrant.peer.title}")
            _start(entrant, job, folder, env)
            _first_epoch(entrant, folder)
        _check(report, entrants, folder)
        _rounds(net, entrants, settings, say)
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


def _rounds(net: Net, entrants: list[Entrant], settings: Settings, say: Callable[[str], None]) -> None:
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


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu",
        description="Compare gpubp with every other library that is installed, on the CPU.",
        epilog=f"Nets: {', '.join(net.name for net in NETS)}. Peers: {', '.join(peer.name for peer in PEERS)}. "
        "MNIST is looked for in $GPUBP_DATA_DIR, else downloaded once.",
    )
    parser.add_argument("--nets", help="names, or beginnings of names, with commas between; default: all")
    parser.add_argument(
        "--net", metavar="LAYERS", help="a ReLU classifier of any sizes, such as 784-300-100-10"
    )
    parser.add_argument("--batch", type=int, default=128, help="of --net (%(default)s)")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate of --net (%(default)s)")
    parser.add_argument("--data", default="mnist", help=f"of --net: {', '.join(data.SOURCES)} (%(default)s)")
    parser.add_argument("--peers", help="names with commas between; default: all that are installed")
    parser.add_argument("--rounds", type=int, help="after the first epoch (5; with --quick 3)")
    parser.add_argument(
        "--threads", type=int, default=min(2, machine.cores()), help="of each peer (%(default)s)"
    )
    parser.add_argument(
        "--budget", type=float, default=150.0, metavar="S",
        help=f"seconds for the rounds of a peer on a net; {FEWEST_ROUNDS} rounds are made in any case (%(default)g)",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, help="only the first so many of each data set, to try things")
    parser.add_argument("--fresh", action="store_true", help="compile all anew: nothing from caches on disk")
    parser.add_argument("--quick", action="store_true", help=f"about a minute: {', '.join(QUICK)}, 3 rounds")
    parser.add_argument("--out", type=Path, help="folder for results.csv and .json (bench/results/DATE-cpu)")
    return parser.parse_args(argv)


def choose_nets(args: argparse.Namespace) -> list[Net]:
    """The nets that the options mean."""
    if args.net is not None:
        lookup(data.SOURCES, args.data, "data")
        extra = [parse(args.net, args.batch, args.lr, args.data)]
        return (select(args.nets.split(",")) if args.nets else []) + extra
    if args.nets is not None:
        return select(args.nets.split(","))
    return select(list(QUICK)) if args.quick else list(NETS)


def choose_peers(names: str | None) -> tuple[list[Peer], dict[str, str]]:
    """The peers to measure, and for those that are not installed why not.

    Raises:
        UsageError: no such peer, or none installed.
    """
    table = {peer.name: peer for peer in PEERS}
    wanted = list(PEERS)
    if names is not None:
        chosen = [lookup(table, name, "peer") for name in names.split(",")]
        wanted = [peer for peer in PEERS if peer in chosen]
    missing = {peer.name: reason for peer in wanted if (reason := peer.missing())}
    present = [peer for peer in wanted if peer.name not in missing]
    if not present:
        raise UsageError(
            "none of the peers is installed: " + "; ".join(f"{k}: {v}" for k, v in missing.items())
        )
    return present, missing


def choose_settings(args: argparse.Namespace) -> Settings:
    rounds = args.rounds if args.rounds is not None else 3 if args.quick else 5
    for name, value in (("rounds", rounds), ("threads", args.threads), ("samples", args.samples)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be 1 or more, not {value}")
    if args.threads > machine.cores():
        raise UsageError(f"--threads {args.threads}: there are {machine.cores()} cores")
    return Settings(args.threads, rounds, args.budget, samples=args.samples, fresh=args.fresh)


def run(args: argparse.Namespace, console: Console, say: Callable[[str], None]) -> Report:
    """Measure what the options mean; after each net, print its table and write the files anew."""
    nets, settings = choose_nets(args), choose_settings(args)
    peers, missing = choose_peers(args.peers)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(date, machine.commit(), machine.facts(), asdict(settings), missing)
    report.machine["load_average_before"] = machine.load_average()
    out = args.out or results.new_folder("cpu", date)
    for name, reason in missing.items():
        console.print(f"{name} left out: {reason}", highlight=False)
    with tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary:
        try:
            samples = save_samples(nets, Path(temporary), settings, say)
            for i, net in enumerate(nets):
                folder = Path(temporary) / f"net-{i}"
                folder.mkdir()
                report.nets.append(NetReport(net, samples[net.name][1], peers[0].name))
                try:
                    measure(report.nets[-1], peers, folder, samples[net.name][0], settings, say)
                finally:  # also after Ctrl-C
                    results.print_net(report.nets[-1], console)
                    results.write(out, results.to_dict(report), results.to_csv(report))
        except KeyboardInterrupt:
            report.interrupted = True
            say("interrupted; what was measured is written")
    report.machine["load_average_after"] = machine.load_average()
    results.write(out, results.to_dict(report), results.to_csv(report))
    if len(report.nets) > 1:
        for net_report in report.nets:
            console.print(results.conclusion(net_report), highlight=False)
    console.print(
        f"results.csv and results.json are in {os.path.relpath(out)}", highlight=False, soft_wrap=True
    )
    return report


def save_samples(
    nets: list[Net], folder: Path, settings: Settings, say: Callable[[str], None]
) -> dict[str, tuple[Path, int]]:
    """For each net the folder with its samples, and how many they are; nets of the same data share one."""
    saved: dict[tuple, tuple[Path, int]] = {}
    for net in nets:
        key = net.data, net.layers[0], net.layers[-1]
        if key not in saved:
            say(f"loading {net.data}")
            made = data.make(net, settings.samples)
            saved[key] = folder / f"data-{len(saved)}", len(made)
            data.save(saved[key][0], made)
    return {net.name: saved[net.data, net.layers[0], net.layers[-1]] for net in nets}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    args = arguments(argv)
    console = results.console()
    try:
        report = run(args, console, lambda line: print(line, file=sys.stderr, flush=True))
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return INTERRUPTED if report.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
