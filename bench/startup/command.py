"""The command: what its options mean, and the run from row to row."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from bench import RESULTS
from bench.startup import measure, report
from bench.startup.measure import Measured, Setting
from bench.startup.report import Report
from bench.startup.trials import BEFORE, TITLES, TRIALS, Trial, select
from gpubp.benchmark import results, shown, terminal
from gpubp.benchmark.peers import OURS, PEERS
from gpubp.benchmark.process import WorkerFailed
from gpubp.benchmark.results import LEFT_OUT, numbered
from gpubp.errors import UsageError
from gpubp.support import machine
from gpubp.support.files import folder_to_fill

MNIST_FILES = [
    f"{name}-ubyte.gz"
    for part in ("train", "t10k")
    for name in (f"{part}-images-idx3", f"{part}-labels-idx1")
]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.startup",
        description="Whole processes, from the command to the result, in turn with other libraries' scripts.",
        epilog=f"Rows: {', '.join(trial.name for trial in TRIALS)}. What is not installed is left out.",
    )
    option = parser.add_argument
    option("--rows", help="names, or beginnings of names, with commas between; default: all")
    option("--rounds", type=int, help="of each row (5; with --quick 1)")
    option("--first-rounds", type=int, help="of rows where nothing is compiled (3; with --quick 1)")
    option("--threads", type=int, help="of each process; default: as each library chooses")
    option("--data-dir", type=Path, help="the folder of MNIST's four IDX files, .gz ($GPUBP_DATA_DIR)")
    option("--python", metavar="PATH", help="the interpreter that gpubp is installed for (this one)")
    option("--before", metavar="PATH", help="one that an older gpubp is installed for, to be run in turn")
    quick = ", ".join(trial.name for trial in TRIALS if trial.quick)
    option("--quick", action="store_true", help=f"one round of {quick}, unless --rows says more")
    option(
        "--out", type=Path, help="folder for results.json, .csv and README.md (bench/results/DATE-startup)"
    )
    return parser.parse_args(argv)


def interpreter(given: str | None) -> str:
    """The path of an interpreter, links in it as they are: a virtual environment's is one.

    Raises:
        UsageError: it is not there.
    """
    if given is None:
        return sys.executable
    found = shutil.which(os.path.expanduser(given))
    if found is None:
        raise UsageError(f"there is no interpreter {given}")
    return os.path.abspath(found)


def setting_of(args: argparse.Namespace) -> Setting:
    """What the options mean for processes.

    Raises:
        UsageError: a number that cannot be, an interpreter or files that are not there.
    """
    interpreters = {OURS: interpreter(args.python)}
    if args.before is not None:
        interpreters[BEFORE] = interpreter(args.before)
    places = {"{sample}": str(files("gpubp.data").joinpath("mnist-sample.npz"))}
    given = args.data_dir or os.environ.get("GPUBP_DATA_DIR")
    if given:
        folder = Path(given).expanduser().absolute()
        absent = [name for name in MNIST_FILES if not (folder / name).is_file()]
        if absent:
            raise UsageError(f"{folder} has no {', '.join(absent)}: --data-dir names MNIST's folder")
        places["{mnist}"] = str(folder)
    rounds = {
        "rounds": args.rounds if args.rounds is not None else 1 if args.quick else 5,
        "first_rounds": args.first_rounds if args.first_rounds is not None else 1 if args.quick else 3,
    }
    for name, value in {**rounds, "threads": args.threads}.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
    return Setting(interpreters, places, args.threads, **rounds)


def choose(args: argparse.Namespace) -> list[Trial]:
    """The trials that the options mean."""
    if args.rows is not None:
        return select(args.rows.split(","))
    return [trial for trial in TRIALS if trial.quick or not args.quick]


def missing(trials: Sequence[Trial]) -> dict[str, str]:
    """The peers of the trials that are not installed, and what is not."""
    wanted = {process.peer for trial in trials for process in trial.processes}
    return {peer.name: why for peer in PEERS if peer.name in wanted and (why := peer.missing())}


def begin(setting: Setting, trials: Sequence[Trial]) -> Report:
    """A report with what is known before anything is measured.

    Raises:
        UsageError: an interpreter has no gpubp.
    """
    known = {}
    for name, path in setting.interpreters.items():
        try:
            known[name] = measure.facts(setting, name)
        except WorkerFailed as failure:
            raise UsageError(f"{TITLES[name]} cannot be run by {path}: {failure}") from None
    settings = {
        "threads": setting.threads, "rounds": setting.rounds, "first_rounds": setting.first_rounds,
    }  # fmt: skip
    return Report(**results.origin(), settings=settings, interpreters=known, missing=missing(trials))


def run(args: argparse.Namespace) -> int:
    """Measure what the options mean; the exit code."""
    setting, trials, console = setting_of(args), choose(args), terminal.console()
    new = numbered(RESULTS / f"{datetime.now(UTC).date().isoformat()}-startup")
    with folder_to_fill(args.out, new) as out:
        made = begin(setting, trials)
        busy = shown.busy(made.machine)
        lines = [f"{names} left out: {why}" for names, why in shown.missing(made.missing).items()]
        terminal.print_lines([*([f"warning: {busy}"] if busy else []), *lines], console)
        try:
            for trial in trials:
                made.measured.append(one := Measured.of(trial))
                try:
                    if trial.needs_mnist and "{mnist}" not in setting.places:
                        one.end(
                            LEFT_OUT, "no folder of MNIST's files: give --data-dir, or set GPUBP_DATA_DIR"
                        )
                    else:
                        processes = measure.present(trial, made.missing, BEFORE in setting.interpreters)
                        measure.measure(one, processes, setting, terminal.say)
                finally:  # also after Ctrl-C
                    for line in one.lines:
                        report.show(report.line_dict(one, line), console)
                    report.write(out, made)
        except KeyboardInterrupt:
            made.interrupted = True
            terminal.say("interrupted; what was measured has been written")
        made.machine["load_average_after"] = machine.load_average()
        report.write(out, made)
        where = f"results.json, results.csv and README.md are in {os.path.relpath(out)}"
        terminal.print_lines([where], console)
    return terminal.INTERRUPTED if made.interrupted else int(made.failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))
