"""What has passed verification before, in this process or, for the same sources and processor, on this machine.

On disk it is an empty file in the user's cache, named for a hash of all that decides what is computed. Whoever trusts
it still verifies a step of every run.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Hashable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

import gpubp
import gpubp.kernels as kernels
from gpubp.support.files import user_cache
from gpubp.support.machine import processor

FORGOTTEN = 90 * 24 * 3600  # seconds after which what was verified is verified anew
SOURCES = (
    "backends", "verification", "randomness", "data/samples.py", "functions.py", "optimizers.py", "reference.py",
)  # fmt: skip

_passed: dict[Hashable, int] = {}  # steps


def steps_passed(computed: Hashable) -> int:
    """The steps of what is ``computed`` that have passed; 0 if none have."""
    if computed not in _passed:
        _passed[computed] = _on_disk(computed)
    return _passed[computed]


def remember(computed: Hashable, steps: int) -> None:
    """Keep that so many steps have passed. A cache that cannot be written is no reason to fail: it saves time only."""
    _passed[computed] = steps
    with suppress(OSError):
        _to_disk(computed, steps)


def _to_disk(computed: Hashable, steps: int) -> None:
    _folder().mkdir(parents=True, exist_ok=True)
    for old in _folder().glob(f"{_name(computed)}-*"):
        old.unlink()
    (_folder() / f"{_name(computed)}-{steps}").touch()


def _on_disk(computed: Hashable) -> int:
    with suppress(OSError, ValueError):
        for path in _folder().glob(f"{_name(computed)}-*"):
            if path.stat().st_mtime > time.time() - FORGOTTEN:
                return int(path.name.rpartition("-")[2])
    return 0


def _folder() -> Path:
    return user_cache() / "verified"


def _name(computed: Hashable) -> str:
    return hashlib.sha256(f"{computed!r} {_origin()}".encode()).hexdigest()[:32]


@cache
def _origin() -> str:
    """A hash of the sources that compute and verify, and what they run on."""
    found, package = hashlib.sha256(), Path(gpubp.__file__).parent
    for root in (*(package / name for name in SOURCES), Path(str(kernels.__file__)).parent):
        for path in sorted(root.rglob("*.[pc][yu]*")) if root.is_dir() else [root]:
            if path.suffix in (".py", ".cu", ".cuh"):
                found.update(path.read_bytes())
    versions = gpubp.__version__, np.__version__, platform.python_version(), platform.machine(), processor()
    return f"{found.hexdigest()} {versions}"
