"""``python -m bench.cpu``: gpubp and every other library that is installed, epoch by epoch in turn, on the CPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import RESULTS
from gpubp.benchmark import data, measure, terminal
from gpubp.benchmark.measure import FEWEST_ROUNDS, Case, Settings
from gpubp.benchmark.nets import NETS, QUICK, Net, parse, select
from gpubp.benchmark.peers import PEERS, Peer
from gpubp.benchmark.results import numbered
from gpubp.errors import UsageError
from gpubp.functions import lookup
from gpubp.reports import benchmark as page
from gpubp.support import machine
from gpubp.support.files import folder_to_fill


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu",
        description="Compare gpubp with every other library that is installed, on the CPU.",
        epilog=f"Nets: {', '.join(net.name for net in NETS)}. Peers: {', '.join(peer.name for peer in PEERS)}. "
        "MNIST is looked for in $GPUBP_DATA_DIR, else downloaded once.",
    )
    option = parser.add_argument
    option("--nets", help="names, or beginnings of names, with commas between; default: all")
    option("--net", metavar="LAYERS", help="a ReLU classifier of any sizes, such as 784-300-100-10")
    option("--batch", type=int, default=128, help="of --net (%(default)s)")
    option("--lr", type=float, default=0.1, help="learning rate of --net (%(default)s)")
    option("--data", default="mnist", help=f"of --net: {', '.join(data.SOURCES)} (%(default)s)")
    option("--peers", help="names with commas between; default: all that are installed")
    option("--rounds", type=int, help="after the first epoch (5; with --quick 3)")
    option("--threads", type=int, default=min(2, machine.cores()), help="of each peer (%(default)s)")
    rounds = f"seconds for the rounds of a peer on a net; {FEWEST_ROUNDS} rounds are made in any case (%(default)g)"
    option("--budget", type=float, default=150.0, metavar="S", help=rounds)
    option("--samples", type=int, help="only the first so many of each data set, to try things")
    option("--fresh", action="store_true", help="compile all anew: nothing from caches on disk")
    option("--quick", action="store_true", help=f"about a minute: {', '.join(QUICK)}, 3 rounds")
    option("--out", type=Path, help="folder for report.html, results.csv and .json (bench/results/DATE-cpu)")
    return parser.parse_args(argv)


def choose_nets(args: argparse.Namespace) -> list[Net]:
    """The nets that the options mean."""
    named = select(args.nets.split(",")) if args.nets is not None else []
    if args.net is not None:
        lookup(data.SOURCES, args.data, "data")
        return [*named, parse(args.net, args.batch, args.lr, args.data)]
    return named or (select(list(QUICK)) if args.quick else list(NETS))


def choose_peers(names: str | None, peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Those of ``peers`` to measure, and for those that are not installed why not.

    Raises:
        UsageError: no such peer, or none installed.
    """
    table = {peer.name: peer for peer in peers}
    chosen = None if names is None else [lookup(table, name, "peer") for name in names.split(",")]
    wanted = [peer for peer in peers if chosen is None or peer in chosen]
    missing = {peer.name: reason for peer in wanted if (reason := peer.missing())}
    if len(missing) == len(wanted):
        absent = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise UsageError(f"none of the peers is installed: {absent}")
    return [peer for peer in wanted if peer.name not in missing], missing


def run(args: argparse.Namespace) -> int:
    """Measure what the options mean; the exit code."""
    rounds = args.rounds if args.rounds is not None else 3 if args.quick else 5
    settings = Settings(args.threads, rounds, args.budget, samples=args.samples, fresh=args.fresh)
    peers, missing = choose_peers(args.peers, PEERS)
    cases = [  # nets of the same data and sizes share their samples
        Case(net, partial(data.make, net), (net.data, net.layers[0], net.layers[-1]))
        for net in choose_nets(args)
    ]
    new = numbered(RESULTS / f"{datetime.now(UTC).date().isoformat()}-cpu")
    with folder_to_fill(args.out, new) as out:
        report = measure.run(
            cases, peers, missing, settings, out, terminal.console(), terminal.say, page.write
        )
    return terminal.INTERRUPTED if report.interrupted else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
