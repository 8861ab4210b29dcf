"""What a report says of the machine: nothing that names it, or where on it things are."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "gpubp",
    "numpy",
    "numba",
    "llvmlite",
    "cupy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "jax",
    "jaxlib",
    "keras",
    "tensorflow",
    "scikit-learn",
    "threadpoolctl",
)


def facts() -> dict[str, Any]:
    """Processor, cores, system, Python, versions and NumPy's BLAS."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gb": memory_gb(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": versions(),
        "blas": blas(),
    }


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float | None:
    """RAM, GB; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def load_average() -> float | None:
    """Processes that wanted a core, as a mean over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """The packages of ``PACKAGES`` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def blas() -> list[dict[str, Any]]:
    """The BLAS that NumPy has loaded; nothing where threadpoolctl is not installed."""
    import numpy  # noqa: F401  (loads it)

    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [
        {"library": pool["internal_api"], "version": pool.get("version"), "for": pool.get("architecture")}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def commit() -> dict[str, Any] | None:
    """The commit that is checked out, and whether files have been changed since; None without git or a source tree."""
    if not (ROOT / "pyproject.toml").exists():
        return None

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    try:
        return {"id": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
