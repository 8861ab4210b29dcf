"""``python -m bench.cpu``: gpubp and every other library that is installed, epoch by epoch in turn, on the CPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import new_folder
from gpubp.benchmark import data, measure, terminal
from gpubp.benchmark.measure import FEWEST_ROUNDS, Case, Settings
from gpubp.benchmark.nets import NETS, QUICK, Net, parse, select
from gpubp.benchmark.peers import PEERS, Peer
from gpubp.errors import GpubpError, UsageError
from gpubp.functions import lookup
from gpubp.reports import benchmark as page
from gpubp.support import machine

INTERRUPTED = 130


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
    parser.add_argument(
        "--out", type=Path, help="folder for report.html, results.csv and .json (bench/results/DATE-cpu)"
    )
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
    return Settings(args.threads, rounds, args.budget, samples=args.samples, fresh=args.fresh)


def cases(nets: Sequence[Net]) -> list[Case]:
    """The nets with their samples; nets of the same data and sizes share them."""
    return [Case(net, partial(data.make, net), (net.data, net.layers[0], net.layers[-1])) for net in nets]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    args = arguments(argv)
    try:
        nets, settings = choose_nets(args), choose_settings(args)
        peers, missing = choose_peers(args.peers)
        out = args.out or new_folder("cpu", datetime.now(UTC).date().isoformat())
        console = terminal.console()
        report = measure.run(cases(nets), peers, missing, settings, out, console, terminal.say, page.write)
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return INTERRUPTED if report.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
