"""Benchmarks of gpubp that are not installed with it: CPU and GPU runs, scaling, micro-benchmarks, results."""

from pathlib import Path

from gpubp.benchmark.results import numbered
from gpubp.support.files import make_first

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def new_folder(kind: str, date: str) -> Path:
    """Make bench/results/DATE-KIND, with -2, -3, … where that is taken."""
    return make_first(numbered(RESULTS / f"{date[:10]}-{kind}"))
