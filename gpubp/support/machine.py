"""Facts about the machine and the code on it, for reports: not its name, nor where on it things are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpubp

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "gpubp", "numpy", "numba", "llvmlite", "cupy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax", "jaxlib", "keras",
    "tensorflow", "scikit-learn", "threadpoolctl", "torchvision", "mpi4py", "mpich",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Processor, cores, system, Python, versions and NumPy's BLAS."""
    import psutil

    return {
        "cpu": processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages(),
        "blas": [
            {"library": pool["internal_api"], "version": pool.get("version"), "for": pool.get("architecture")}
            for pool in blas()
        ],
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(own_cores())


def own_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def load_average() -> float:
    """Processes that wanted a core, as a mean over the last minute."""
    import psutil

    return round(psutil.getloadavg()[0], 2)


def resident_mb() -> float:
    """Memory of this process that is in RAM now, MB."""
    import psutil

    return round(psutil.Process().memory_info().rss / 1e6, 1)


def peak_mb() -> float | None:
    """The most memory of this process that was in RAM at once, MB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts here what the parent had when it started this process
        marks = [
            line.split()[1]
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        ]
        return round(int(marks[0]) * 1024 / 1e6, 1) if marks else None
    if sys.platform == "darwin":
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)
    import psutil

    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    return None if peak is None else round(peak / 1e6, 1)


def versions() -> dict[str, str]:
    """The versions of gpubp, Python, the platform and the packages that matter."""
    found = {"gpubp": gpubp.__version__, "python": platform.python_version(), "platform": platform.platform()}
    return found | packages()


def packages() -> dict[str, str]:
    """The version of each of ``PACKAGES`` that is installed."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def blas() -> list[dict[str, Any]]:
    """The BLAS libraries that NumPy has loaded, as threadpoolctl describes them."""
    import numpy  # noqa: F401  (loads them)

    return [pool for pool in thread_pools() if pool["user_api"] == "blas"]


def thread_pools() -> list[dict[str, Any]]:
    """The BLAS and OpenMP libraries that are loaded; XLA's pool is not among them."""
    from threadpoolctl import threadpool_info

    return threadpool_info()


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    """The commit that is checked out, and whether files have been changed since; None without git or a source tree."""
    if not (root / "pyproject.toml").exists():
        return None

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=True)
        return ran.stdout.strip()

    try:
        return {"id": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
