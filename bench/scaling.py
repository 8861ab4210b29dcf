"""``python -m bench.scaling``: how the time of gpubp's Numba plan grows with the samples and with the width."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median
from timeit import Timer
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from bench import new_folder
from gpubp.benchmark import results, terminal
from gpubp.benchmark.shown import Cell
from gpubp.errors import UsageError
from gpubp.support import machine

if TYPE_CHECKING:
    from gpubp.backends.plan import Plan

FORMAT, FORMAT_VERSION = "gpubp-bench-scaling", 1
SAMPLES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
QUICK_SAMPLES, QUICK_WIDTHS = SAMPLES[:4], WIDTHS[:5]
DENSITY = 0.19  # of MNIST: the part of its bytes that are not 0
STEPS = 4  # in one call, for each width
REPEATS, SECONDS_A_REPEAT = 3, 0.2
COLUMNS = (
    "series", "layers", "batch", "samples", "parameters", "ms", "ms_a_step", "ns_per_sample_and_parameter",
)  # fmt: skip


def images(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (N, 784), as many of them 0 as in MNIST, and random labels (N,). Blocks of 10,000 rows repeat."""
    rng = np.random.default_rng(0)
    shape = min(samples, 10_000), 784
    bytes_ = rng.integers(1, 256, shape, dtype=np.uint8) * (rng.random(shape, dtype=np.float32) < DENSITY)
    return np.resize(bytes_, (samples, 784)), rng.integers(0, 10, samples)


def plan_for(layers: list[int], batch: int, samples: int) -> Plan:
    """A plan of the Numba backend for a ReLU classifier on that many images."""
    from gpubp import SGD, Network, backends
    from gpubp.benchmark.data import Data
    from gpubp.benchmark.peers.plan import make_plan, prepared

    network, loss = Network(layers), "cross_entropy"
    content = prepared(network, Data(*images(samples)), loss)
    return make_plan(backends.get("numba"), network, loss, SGD(1e-3), batch, content)


def seconds_a_run(plan: Plan, order: np.ndarray, batch: int) -> float:
    """The median over REPEATS of the time to train on ``order`` once; what is short is run several times for one."""
    rates = np.full(-(-len(order) // batch), 1e-3)
    plan.run(order[: 2 * batch], rates[:2])  # compiles
    timer = Timer(lambda: plan.run(order, rates))
    runs = ceil(SECONDS_A_REPEAT / timer.timeit(1))
    return median(timer.repeat(REPEATS, runs)) / runs


def point(series: str, layers: list[int], batch: int, samples: int) -> dict[str, Any]:
    """The time of one epoch over ``samples``, and what that makes for each of them and each parameter."""
    plan = plan_for(layers, batch, samples)
    seconds = seconds_a_run(plan, np.random.default_rng(1).permutation(samples), batch)
    parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(layers))
    return {
        "series": series,
        "layers": "-".join(map(str, layers)),
        "batch": batch,
        "samples": samples,
        "parameters": parameters,
        "ms": seconds * 1e3,
        "ms_a_step": seconds * 1e3 / -(-samples // batch),
        "ns_per_sample_and_parameter": seconds * 1e9 / samples / parameters,
        "plan": plan.describe(),
    }


def measure(samples: Sequence[int], widths: Sequence[int]) -> list[dict[str, Any]]:
    """Both series: 784-128-10 by the number of samples, 784-W-W-10 by the width W."""
    points = []
    for n in samples:
        terminal.say(f"{n:,} samples")
        points.append(point("samples", [784, 128, 10], 128, n))
    for width in widths:
        terminal.say(f"width {width}")
        points.append(point("widths", [784, width, width, 10], 256, 256 * STEPS))
    return points


def slopes(points: list[dict[str, Any]]) -> dict[str, float | None]:
    """The slope of time over samples, and over the number of parameters."""

    def fit(series: str, x: str) -> float | None:
        """The exponent p of the ms ∝ xᵖ that fits best in logarithms: 1 is proportional. None for a single point."""
        logs = np.log([(p[x], p["ms"]) for p in points if p["series"] == series])
        return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]) if len(logs) > 1 else None

    return {"samples": fit("samples", "samples"), "widths": fit("widths", "parameters")}


def show(points: list[dict[str, Any]], fitted: dict[str, float | None], console: Console) -> None:
    """The points as a table, and the slopes."""
    shapes = ("batch", "samples", "parameters", "ms", "ms_a_step", "ns_per_sample_and_parameter")
    formats = (*["{:,}"] * 3, "{:,.2f}", "{:.3f}", "{:.4f}")
    rows = [
        p | {name: Cell(show.format(p[name])) for name, show in zip(shapes, formats, strict=True)}
        for p in points
    ]
    headings = {name.replace("_per_", "_a_").replace("_", " "): name for name in ("layers", *shapes)}
    console.print(terminal.table(headings, rows))
    for series, of in (("samples", "samples"), ("widths", "parameters")):
        if fitted[series] is not None:
            console.print(f"time grows as {of} to the power {fitted[series]:.3f}", highlight=False)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    option = parser.add_argument
    option("--threads", type=int, default=min(2, machine.cores()), help="(%(default)s)")
    option("--quick", action="store_true", help="up to 30,000 samples and width 1024")
    option("--out", type=Path, help="folder for results.csv and .json (bench/results/DATE-scaling)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the files; the exit code."""
    if not 1 <= args.threads <= (cores := machine.cores()):
        raise UsageError(f"--threads must be from 1 to the {cores} cores there are, not {args.threads}")
    os.environ["NUMBA_NUM_THREADS"] = str(args.threads)  # read when Numba is imported, which is later
    settings = {"threads": args.threads, "repeats": REPEATS, "density": DENSITY}
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **results.origin(), "settings": settings}
    samples, widths = (QUICK_SAMPLES, QUICK_WIDTHS) if args.quick else (SAMPLES, WIDTHS)
    points = measure(samples, widths)
    content |= {"slopes": slopes(points), "points": points}
    console = terminal.console()
    show(points, content["slopes"], console)
    out = args.out or new_folder("scaling", content["date"])
    results.write_files(out, content, results.csv_text(COLUMNS, points))
    terminal.print_lines([f"results.csv and results.json are in {os.path.relpath(out)}"], console)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
