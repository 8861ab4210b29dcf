"""Benchmarks of gpubp that are not installed with it: CPU and GPU runs, scaling, micro-benchmarks, results."""

import os
from pathlib import Path

from gpubp.benchmark.results import numbered
from gpubp.support.files import make_first

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def python_path() -> str:
    """What PYTHONPATH is to be for workers, which find the source tree, and what this process was told of."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def new_folder(kind: str, date: str) -> Path:
    """Make bench/results/DATE-KIND, with -2, -3, … where that is taken."""
    return make_first(numbered(RESULTS / f"{date[:10]}-{kind}"))
