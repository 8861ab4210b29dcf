"""The command: what its options mean, the rounds, and the report."""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import RESULTS, python_path
from bench.many.peers import PEERS
from bench.many.task import INSTALL, SETS
from gpubp.benchmark import process, results, shown, terminal
from gpubp.benchmark.results import Spread, numbered
from gpubp.errors import UsageError
from gpubp.support import machine
from gpubp.support.files import folder_to_fill, write_text
from gpubp.support.records import as_text

FORMAT, FORMAT_VERSION = "gpubp-bench-many", 1
OURS, ALONE = "gpubp", "gpubp-one-by-one"
COLUMNS = ("set", "peer", "round", "seconds", "network_epochs_per_second", "megabytes")

Row = dict[str, Any]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.many",
        description="Network-epochs a second of sixteen networks on MNIST, alike and unlike.",
        epilog=f"Peers: {', '.join(PEERS)}. MNIST is looked for in $GPUBP_DATA_DIR, else downloaded once.",
    )
    option = parser.add_argument
    option("--peers", help=f"names with commas between, beside {OURS}; default: all that are installed")
    option("--sets", default=",".join(SETS), help="(%(default)s)")
    option("--data", choices=("mnist", "mnist-sample"), default="mnist", help="(%(default)s)")
    option("--rounds", type=int, default=3, help="after a first that warms up and compiles (%(default)s)")
    option("--epochs", type=int, default=10, help="of each network in a round (%(default)s)")
    option("--threads", type=int, default=machine.cores(), help="(%(default)s, all cores)")
    option("--out", type=Path, help="folder for results.json, .csv and README.md (bench/results/DATE-many)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Measure what the options mean; the exit code."""
    asked = [OURS, *(args.peers.split(",") if args.peers else [name for name in PEERS if name != OURS])]
    unknown = [name for name in (*asked, *args.sets.split(",")) if name not in (*PEERS, *SETS)]
    if unknown:
        raise UsageError(
            f"unknown {', '.join(unknown)}: peers are {', '.join(PEERS)}, sets {', '.join(SETS)}"
        )
    missing = [name for name in asked if find_spec(PEERS[name][1]) is None]
    peers = [name for name in dict.fromkeys(asked) if name not in missing]
    origin = results.origin()
    new = numbered(RESULTS / f"{origin['date'][:10]}-many")
    with (
        folder_to_fill(args.out, new) as out,
        tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary,
    ):
        console = terminal.console()
        said = [f"warning: {busy}"] if (busy := shown.busy(origin["machine"])) else []
        said += [f"{', '.join(missing)} left out, not installed: {INSTALL}"] if missing else []
        terminal.print_lines(said, console)
        rows = _measure(args, peers, Path(temporary))
        origin["machine"]["load_average_after"] = machine.load_average()
        settings = {name: getattr(args, name) for name in ("data", "rounds", "epochs", "threads")}
        told = {"format": FORMAT, "version": FORMAT_VERSION, **origin, "settings": settings, "rows": rows}
        write_text(out / "results.json", as_text(told))
        with open(out / "results.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        text = report(told)
        write_text(out / "README.md", text)
        Console().print(text, markup=False, highlight=False)
        terminal.print_lines(
            [f"results.json, results.csv and README.md are in {os.path.relpath(out)}"], console
        )
    return 0


def _measure(args: argparse.Namespace, peers: Sequence[str], folder: Path) -> list[Row]:
    """The rounds of each set, its peers in turn, each in a process of its own that is idle meanwhile."""
    rows: list[Row] = []
    for of_set in args.sets.split(","):
        workers = {}
        here = [name for name in peers if of_set == "alike" or not name.endswith("-same")]
        for name in here:
            # Trials of GridSearchCV have a thread each; all others have theirs in one process.
            threads = 1 if name == "sklearn" else args.threads
            env = {**process.environment(threads), "PYTHONPATH": python_path()}
            workers[name] = process.Worker(folder / f"{name}.stderr", env, "bench.many.worker")
        try:
            for name, worker in workers.items():
                terminal.say(f"{of_set}: {PEERS[name][0]}, ready and once to warm up")
                worker.ask("prepare", set=of_set, peer=name, data=args.data, threads=args.threads)
                worker.ask("pass", set=of_set, epochs=1)
            for number in range(1, args.rounds + 1):
                for name, worker in workers.items():
                    answer = worker.ask("pass", set=of_set, epochs=args.epochs)
                    rate = len(SETS[of_set]) * args.epochs / answer["seconds"]
                    terminal.say(
                        f"{of_set}, round {number}: {PEERS[name][0]} {rate:.2f} network-epochs a second"
                    )
                    counts = number, answer["seconds"], rate, answer["bytes"] / 1e6
                    rows.append(dict(zip(COLUMNS, (of_set, name, *counts), strict=True)))
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def report(told: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts, settings = told["machine"], told["settings"]
    lines = [
        "# Sixteen networks at once",
        "",
        f"`python -m bench.many`, {told['date'][:10]}, {facts['cpu']}, {facts['cores']} cores, "
        f"{settings['threads']} threads: network-epochs a second on {settings['data']}, median (least – most) of "
        f"{settings['rounds']} rounds of "
        f"{settings['epochs']} epochs, peers in turn; and how many times the time of gpubp's sweep, round by round.",
        "",
        "gpubp's sweep is all of `gpubp.sweep`: data parted, a tenth held out and watched each epoch, verified, models "
        "written. JAX and PyTorch only train. With the same mini-batches for all networks, which seeds do not have, "
        "the first layers of networks that are alike are one product.",
        "",
    ]
    for of_set, nets in SETS.items():
        rows = [row for row in told["rows"] if row["set"] == of_set]
        if not rows:
            continue
        alike = f"16 × {nets[0].name}, batch {nets[0].batch}"
        what = alike if of_set == "alike" else "16 unlike networks, 32 to 256 units"
        lines += [
            f"| {what} | network-epochs a second | times gpubp's time | memory, MB |",
            "|---|---|---|---|",
        ]
        ours = {row["round"]: row["seconds"] for row in rows if row["peer"] == OURS}
        for name in dict.fromkeys(row["peer"] for row in rows):
            own = [row for row in rows if row["peer"] == name]
            rate = Spread.of([row["network_epochs_per_second"] for row in own])
            ratio = Spread.of([row["seconds"] / ours[row["round"]] for row in own if row["round"] in ours])
            assert rate is not None
            times = "" if name == OURS or ratio is None else ratio.told(".2f")
            memory = max(row["megabytes"] for row in own)
            told_of = rate.told(".1f")
            lines.append(f"| {PEERS[name][0]} | {told_of} | {times} | {memory:,.0f} |")
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))
