"""The command: what its options mean, and the run."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import RESULTS, python_path
from bench.cpu import choose_peers
from bench.deformed import report
from bench.deformed.peers import DATA, INSTALL, NET, PEERS
from bench.deformed.report import Report
from gpubp.benchmark import data, measure, process, results, shown, terminal
from gpubp.benchmark.measure import Case, Entrant, Rounds, Settings
from gpubp.benchmark.peers import OURS, Peer
from gpubp.benchmark.results import NetReport, numbered
from gpubp.support import machine
from gpubp.support.files import folder_to_fill

WORKER = "bench.deformed.tasks"
BUDGET = 3600.0  # seconds for the rounds of a peer: all are made


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.deformed",
        description="Epochs of training on images that are deformed anew in each step, beside PyTorch and torchvision.",
        epilog=f"Peers: {', '.join(peer.name for peer in PEERS)}. MNIST is looked for in $GPUBP_DATA_DIR, else "
        "downloaded once.",
    )
    option = parser.add_argument
    option("--peers", help=f"names with commas between, beside {OURS}; default: all that are installed")
    option("--rounds", type=int, default=5, help="after the first epoch (%(default)s)")
    option("--threads", type=int, default=machine.cores(), help="of each peer (%(default)s, all cores)")
    option("--data", choices=DATA, default=DATA[0], help="(%(default)s)")
    option("--samples", type=int, help="only the first so many images, to try things")
    option(
        "--out", type=Path, help="folder for results.json, .csv and README.md (bench/results/DATE-deformed)"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Measure what the options mean; the exit code."""
    settings = Settings(args.threads, args.rounds, BUDGET, seconds_a_round=0.0, samples=args.samples)
    peers, missing = choose_peers(args.peers and f"{OURS},{args.peers}", PEERS)
    net, console = replace(NET, data=args.data), terminal.console()
    new = numbered(RESULTS / f"{datetime.now(UTC).date().isoformat()}-deformed")
    with (
        folder_to_fill(args.out, new) as out,
        tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary,
    ):
        origin = results.origin()
        busy = shown.busy(origin["machine"])
        lines = [f"{names} left out: {why}; {INSTALL}" for names, why in shown.missing(missing).items()]
        terminal.print_lines([*([f"warning: {busy}"] if busy else []), *lines], console)
        case = Case(net, partial(data.make, net), net.data)
        where, count = measure.save_samples([case], Path(temporary), settings, terminal.say)[net.data]
        made = Report(
            **origin, settings=asdict(settings), missing=missing, net=NetReport(net, count, peers[0].name)
        )
        try:
            _measure(made, peers, Path(temporary), where, settings)
        except KeyboardInterrupt:
            made.interrupted = True
            terminal.say("interrupted; what was measured has been written")
        made.machine["load_average_after"] = machine.load_average()
        report.show(report.write(out, made), console)
        where_to = f"results.json, results.csv and README.md are in {os.path.relpath(out)}"
        terminal.print_lines([where_to], console)
    return terminal.INTERRUPTED if made.interrupted else int(made.failed)


def _measure(made: Report, peers: Sequence[Peer], folder: Path, samples: Path, settings: Settings) -> None:
    """Time the peers, each in a process of its own, and then look at what they make of images."""
    env = {**process.environment(settings.threads), "PYTHONPATH": python_path()}
    entrants = [
        Entrant(
            peer, process.Worker(folder / f"{peer.name}.stderr", env, WORKER), {"threads": settings.threads}
        )
        for peer in peers
    ]
    rounds = Rounds(settings.rounds, settings.seconds_a_round, settings.budget)
    try:
        measure.measure(made.net, entrants, folder, samples, rounds, terminal.say)
        for entrant in (
            entrant for entrant in entrants if entrant.present
        ):  # not before, which would disturb them
            terminal.say(f"looking at the images of {entrant.peer.title}")
            if (answer := entrant.ask("images", samples=samples)) and answer["images"]:
                made.images[entrant.peer.name] = answer["images"]
            if entrant.peer.backend is not None:
                entrant.verify(samples)
    finally:
        for entrant in entrants:
            entrant.worker.close()
            if entrant.options.get("part"):
                entrant.row.cores = None  # its processes' are not counted, nor is its time that of the clock
        report.compare_images(made)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))
