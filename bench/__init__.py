"""Benchmarks of gpubp that are not installed with it: CPU and GPU runs, scaling, micro-benchmarks, results."""

from pathlib import Path

from gpubp.benchmark.results import free_folder

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def new_folder(kind: str, date: str) -> Path:
    """bench/results/DATE-KIND, with -2, -3, … where that is taken."""
    return free_folder(RESULTS / f"{date[:10]}-{kind}")
