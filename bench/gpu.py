"""``python -m bench.gpu``: all that is to be known of gpubp on a GPU, in one command of less than nine minutes."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import gpubp
from gpubp.backends.cuda import CupyBackend
from gpubp.data.mnist import load_idx_collection
from gpubp.errors import BackendUnavailable, DataError, GpubpError, UsageError
from gpubp.functions import lookup

from . import gpu_parts, gpu_times, machine, results
from .gpu_nets import ON_GPU, ON_HOST
from .gpu_report import Part, Report, part_text
from .gpu_run import LEAST_SECONDS, Run
from .process import WorkerFailed, without_folders

BUDGET = 530.0
INTERRUPTED = 130

# In order of worth: the share of the budget that a part may take; what it leaves is for the others.
PARTS: dict[str, tuple[str, float, Callable[[Run, Part], None]]] = {
    "device": ("The device", 0.01, gpu_parts.device),
    "verify": ("Every recipe held to the reference", 0.12, gpu_parts.verify),
    "repeat": ("Three runs from one seed, bit by bit", 0.06, gpu_parts.repeat),
    "micro": ("Microbenchmarks", 0.06, gpu_parts.micro),
    "times": ("Milliseconds an epoch", 0.38, gpu_times.times),
    "race": ("Time to accuracy", 0.06, gpu_parts.race),
    "tests": ("The tests", 0.19, gpu_parts.tests),
    "sanitizer": ("compute-sanitizer", 0.12, gpu_parts.sanitizer),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Check and time gpubp on a GPU; needs NumPy, Numba, CuPy and pytest, and no network.",
        epilog=f"Parts: {', '.join(PARTS)}.",
    )
    parser.add_argument(
        "--host", action="store_true", help="without a GPU: all that runs on the host build, tiny"
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="S", help="seconds in all (%(default)g)"
    )
    parser.add_argument("--parts", help="names with commas between; default: all")
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's four files ($GPUBP_DATA_DIR)")
    parser.add_argument("--tests", action="append", default=[], metavar="PATH", help="run these tests only")
    parser.add_argument("--out", type=Path, help="folder for results.json and .txt (bench/results/DATE-gpu)")
    return parser.parse_args(argv)


def choose_parts(names: str | None) -> list[str]:
    """The parts meant, in their order."""
    if names is None:
        return list(PARTS)
    for name in names.split(","):
        lookup(PARTS, name, "part")
    return [name for name in PARTS if name in names.split(",")]


def find_mnist(named: Path | None) -> Path | None:
    """The folder of MNIST; None if there is none. Raises DataError if the folder named has no sound MNIST."""
    if named is None and not os.environ.get("GPUBP_DATA_DIR"):
        return None
    folder = (named or Path(os.environ["GPUBP_DATA_DIR"])).expanduser().resolve()
    try:
        load_idx_collection("mnist", folder)
    except DataError:
        if named is not None:
            raise
        return None
    return folder


def prepare(args: argparse.Namespace, folder: Path, started: float, say: Callable[[str], None]) -> Run:
    """What the parts need, and the facts of the machine.

    Raises:
        UsageError, DataError: options that mean nothing.
        BackendUnavailable: no GPU, or without one no compiler for the host build.
    """
    if not 0 < args.budget < float("inf"):
        raise UsageError(f"--budget must be positive, not {args.budget:g}")
    names, data_dir = choose_parts(args.parts), find_mnist(args.data_dir)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(date, args.host, machine.commit(), machine.facts(), {})
    report.machine["packages"]["gpubp"] = gpubp.__version__
    sizes = ON_HOST if args.host else ON_GPU
    run = Run(
        report=report,
        out=args.out or results.new_folder("gpu", date),
        folder=folder,
        sizes=sizes,
        host=args.host,
        plans=CupyBackend.plans,
        data_dir=data_dir,
        tests=args.tests,
        say=say,
        end=started + args.budget,
        part_end=started + args.budget,
    )
    say("the device")
    try:
        answer = run.desk.ask("facts", run.left(), host=args.host)
    except WorkerFailed as failure:
        answer = {"refused": str(failure)}
    if "refused" in answer:
        run.desk.close()
        advice = "" if args.host else "; without a GPU, --host runs what can run on the processor"
        raise BackendUnavailable(answer["refused"] + advice)
    report.machine["device"] = answer
    report.machine["load_average_before"] = machine.load_average()
    report.settings = {
        "budget": args.budget,
        "mnist": data_dir is not None,
        "tf32": False,
        "plans": list(CupyBackend.plans),
        "sizes": asdict(sizes),
    }
    report.parts = [Part(name, PARTS[name][0]) for name in names]
    say("the samples")
    run.load()
    return run


def measure(run: Run, started: float, tell: Callable[[str], None]) -> None:
    """All parts, one after the other; the files are written after each, and what goes wrong in one stays in it."""
    shares, begun = 0.0, time.perf_counter()
    all_shares = sum(PARTS[part.name][1] for part in run.report.parts)
    for part in run.report.parts:
        _, share, do = PARTS[part.name]
        shares += share / all_shares
        run.part_end = begun + shares * (run.end - begun)
        part_started = time.perf_counter()
        try:
            if run.left() < LEAST_SECONDS:
                part.cut.append("all of it")
            else:
                do(run, part)
        except Exception as error:
            traceback.print_exc()
            part.failures.append(without_folders(f"{type(error).__name__}: {error}"))
        finally:
            part.seconds = time.perf_counter() - part_started
            run.report.seconds = time.perf_counter() - started
            run.save()
        part.ended = True
        run.save()
        tell("\n".join([*part_text(part), ""]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    args, started = arguments(argv), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary:
        try:
            run = prepare(
                args, Path(temporary), started, lambda line: print(line, file=sys.stderr, flush=True)
            )
        except GpubpError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        try:
            measure(run, started, lambda text: print(text, flush=True))
        except KeyboardInterrupt:
            run.report.interrupted = True
        finally:
            run.desk.close()
            run.report.machine["load_average_after"] = machine.load_average()
            run.save()
    print("\n".join(run.report.summary()))
    print(f"results.json and results.txt are in {os.path.relpath(run.out)}")
    if run.report.interrupted:
        return INTERRUPTED
    return 1 if run.report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
