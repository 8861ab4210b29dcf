"""``python -m bench.gpu``: what is to be known of gpubp on a GPU, in four minutes; ``--second`` does the rest."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TextIO

import gpubp
from bench import new_folder
from bench.gpu import parts, suite, times
from bench.gpu.nets import ON_GPU, ON_HOST, VARIANTS
from bench.gpu.report import Part, Report, write
from bench.gpu.run import Run, sources
from gpubp.backends.cuda import costs
from gpubp.benchmark.process import Refused, WorkerFailed
from gpubp.benchmark.results import origin
from gpubp.benchmark.terminal import INTERRUPTED
from gpubp.data.mnist import load_idx_collection
from gpubp.errors import BackendUnavailable, DataError, GpubpError, UsageError
from gpubp.functions import lookup
from gpubp.support import machine
from gpubp.support.jsontext import as_json

BUDGET = 240.0
FACTS_SECONDS = 60.0


class Job(NamedTuple):
    """A part's work.

    first, second: its share of the first run's budget, and of the second's, in parts; None: it has none there. What it
    leaves is for the others. columns: of its table. before: what is begun before all parts.
    """

    title: str
    first: float | None
    second: float | None
    do: Callable[[Run, Part], None]
    columns: dict[str, str] = {}  # noqa: RUF012
    before: Callable[[Run, Part], None] | None = None


PARTS = {  # in order of worth
    "device": Job("The device", 2, 2, parts.device),
    "kernels": Job("The kernels, and how many blocks are resident", 40, 40, parts.kernels, parts.HELD),
    "verify": Job("Recipes held to the reference", 20, 80, parts.verify, parts.VERIFIED),
    "repeat": Job("Three runs from one seed, bit by bit", 10, 40, parts.repeat, parts.REPEATED),
    "sanitizer": Job("compute-sanitizer", 20, 20, parts.sanitizer, parts.SANITIZED),
    "micro": Job("Microbenchmarks", 15, None, parts.micro, parts.MEASURED),
    "phases": Job("Cycles of the phases of a step", 15, None, parts.phases, parts.COUNTED),
    "times": Job("Milliseconds an epoch", 90, 180, times.times, before=times.call),
    "race": Job("Time to accuracy", 20, None, parts.race, parts.RACED),
    "tests": Job("The tests of what runs on a GPU", None, 120, suite.tests, suite.COLUMNS),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Check and time gpubp on a GPU; needs CuPy, what gpubp and its tests need, and no network.",
        epilog=f"Parts: {', '.join(PARTS)}.",
    )
    option = parser.add_argument
    option("--host", action="store_true", help="without a GPU: all that runs on the host build, tiny")
    option("--budget", type=float, default=BUDGET, metavar="S", help="seconds in all (%(default)g)")
    option("--second", action="store_true", help="what a first run leaves out")
    option("--parts", help="names with commas between; default: all of the run")
    option("--data-dir", type=Path, help="folder of MNIST's four files ($GPUBP_DATA_DIR)")
    option("--tests", action="append", default=[], metavar="PATH", help="run these tests only")
    option("--out", type=Path, help="folder for results.json and .txt (bench/results/DATE-gpu)")
    return parser.parse_args(argv)


def choose_parts(names: str | None, second: bool) -> list[str]:
    """The parts meant, in their order."""
    if names is None:
        return [name for name, job in PARTS.items() if (job.second if second else job.first) is not None]
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


def prepare(
    args: argparse.Namespace, folder: Path, started: float, say: Callable[[str], None]
) -> tuple[Run, list[str]]:
    """The run and the names of its parts, once it is sure that results can be written.

    Raises:
        UsageError, DataError: options that mean nothing.
        GpubpError: nothing can be written into the folder of the results.
    """
    if not 0 < args.budget < float("inf"):
        raise UsageError(f"--budget must be positive, not {args.budget:g}")
    names, data_dir = choose_parts(args.parts, args.second), find_mnist(args.data_dir)
    sizes = ON_HOST if args.host else ON_GPU
    settings = {
        "budget": args.budget,
        "second": args.second,
        "mnist": data_dir is not None,
        "plans": [str(variant) for variant in VARIANTS],
        "sizes": asdict(sizes),
        "costs": costs.VALUES,
    }
    report = Report(**origin(), host=args.host, settings=settings, sources=sources())
    report.machine["packages"]["gpubp"] = gpubp.__version__
    out, end = args.out or new_folder("gpu", report.date), started + args.budget
    run = Run(
        report, out, folder, sizes, args.host, VARIANTS, data_dir, args.tests, say, end, end, args.second
    )
    write(run.out, report)
    return run, names


def begin(run: Run, names: Sequence[str]) -> None:
    """The facts of the device, and the samples.

    Raises:
        BackendUnavailable: no GPU, or without one no compiler for the host build.
    """
    run.say("the device")
    try:
        answer = run.worker.ask("facts", min(FACTS_SECONDS, run.left()), cupy=run.cupy)
    except Refused as why:
        run.report.refused = str(why)
        advice = "" if run.host else "; without a GPU, --host runs what can run on the processor"
        raise BackendUnavailable(f"{why}{advice}") from None
    except WorkerFailed as failure:
        answer = {"failed": str(failure)}
    run.report.machine["device"] = answer
    run.report.parts = [Part(name, PARTS[name].title, PARTS[name].columns) for name in names]
    for part in run.report.parts:
        if before := PARTS[part.name].before:
            before(run, part)
    run.say("the samples")
    run.load()


def measure(run: Run, started: float, tell: Callable[[str], None]) -> None:
    """All parts, one after the other; the files are written after each, and what goes wrong in one stays in it."""
    begun = time.perf_counter()
    shares = [share_of(PARTS[part.name], run.second) for part in run.report.parts]
    for part, share in zip(run.report.parts, accumulate(shares), strict=True):
        run.part_end = begun + share / sum(shares) * (run.end - begun)
        part_started = time.perf_counter()
        try:
            with part.item():
                run.begin(part, part.title)
                PARTS[part.name].do(run, part)
            part.ended = True
        finally:
            part.seconds = time.perf_counter() - part_started
            run.report.seconds = time.perf_counter() - started
        tell(part.to_text())
        run.save()


def share_of(job: Job, second: bool) -> float:
    """Its share of this run; of the other, where it has none in this one, but has been named."""
    share, other = (job.second, job.first) if second else (job.first, job.second)
    found = other if share is None else share
    assert found is not None
    return found


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP are Ctrl-C in here, once: results are written, and no process is left."""

    def interrupt(*_: object) -> None:
        for name in taken:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {name: signal.getsignal(name) for name in signals}
    taken = {name: was for name, was in handlers.items() if was not in (signal.SIG_IGN, None)}  # as by nohup
    for name in taken:
        signal.signal(name, interrupt)
    try:
        yield
    finally:
        for name, handler in taken.items():
            signal.signal(name, handler)


def speak(text: str, file: TextIO) -> None:
    """Print; that the terminal or the pipe has been closed ends no run."""
    try:
        print(text, file=file, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    args, started = arguments(argv), time.perf_counter()
    with (
        ended_as_by_ctrl_c(),
        tempfile.TemporaryDirectory(prefix="gpubp-bench-", ignore_cleanup_errors=True) as temporary,
    ):
        try:
            run, names = prepare(args, Path(temporary), started, lambda line: speak(line, sys.stderr))
        except GpubpError as error:
            speak(f"error: {error}", sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
        return finish(run, names, started)


def finish(run: Run, names: Sequence[str], started: float) -> int:
    """Measure, and write and say what came of it, however it ends; the exit code."""
    report, code = run.report, 0
    try:
        begin(run, names)
        measure(run, started, lambda text: speak(text, sys.stdout))
    except KeyboardInterrupt:
        report.interrupted, code = True, INTERRUPTED
    except BackendUnavailable as error:
        speak(f"error: {error}", sys.stderr)
        code = error.exit_code
    finally:
        for worker in (run.worker, *(entrant.worker for entrant in run.entrants)):
            worker.close()
        report.seconds = time.perf_counter() - started
        report.machine["load_average_after"] = machine.load_average()
        run.save()
    if report.refused is None:
        speak(report.summary(), sys.stdout)
    if run.unsaved is None:
        speak(f"results.json and results.txt are in {os.path.relpath(run.out)}", sys.stdout)
    else:
        speak(as_json(report.to_dict()), sys.stdout)
        speak(f"{run.unsaved}; results.json is above", sys.stderr)
    return code or int(report.failed or run.unsaved is not None)
