"""Compiled kernels kept on disk: held to all sources of the kernels, and never a reason to fail.

A file is named for all that its content depends on: the kernel, the types of its arguments, the processor, the
sources, and the versions of what compiled it. It begins with a hash of that and of the machine code, so that one
that is damaged, or another's, is compiled anew and never run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import llvmlite

from gpubp.kernels.cpu import machine

FORGOTTEN = 90 * 24 * 3600  # seconds after which a kernel that nobody loaded is removed

_warned: set[Path] = set()


class Key(NamedTuple):
    """Which kernel: its module, its name there, and the types of its arguments."""

    module: str
    name: str
    types: str


def folder() -> Path:
    """Where kernels are kept: $NUMBA_CACHE_DIR, or else in $GPUBP_CACHE_DIR or the user's cache."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    root = os.environ.get("GPUBP_CACHE_DIR", "")
    if not root:
        try:
            from platformdirs import user_cache_path
        except ImportError:  # as gpubp.support.files.user_cache, which kernels do without
            root = "~/.cache/gpubp"
        else:
            root = str(user_cache_path("gpubp"))
    return Path(root).expanduser() / "kernels"


@cache
def source_stamp(module: str) -> bytes:
    """A hash of the files that the kernels of ``module`` are compiled from; b"" where they cannot be read."""
    here, found = Path(__file__).parent, hashlib.sha256()
    try:
        paths = {here.parent / "__init__.py", *here.glob("*.py")}
        if not module.startswith(f"{__package__}."):
            paths.add(Path(str(sys.modules[module].__file__)))
        for path in sorted(paths):
            found.update(hashlib.sha256(path.name.encode()).digest())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError:  # in a zip file: nothing is kept
        return b""
    return found.digest()


@cache
def _compiler() -> str:
    """What compiles kernels, and for what processor."""
    try:
        numba = version("numba")
    except PackageNotFoundError:  # only what was kept can be run
        numba = "none"
    return f"{numba} {llvmlite.__version__} {machine.CPU} {machine.FEATURES} {sys.platform}"


def _digest(key: Key) -> bytes:
    return hashlib.sha256(repr((*key, source_stamp(key.module), _compiler())).encode()).digest()


def _path(key: Key) -> Path:
    return folder() / f"{key.name}-{_digest(key).hex()[:32]}.kernel"


def is_there(key: Key) -> bool:
    """Whether a file of this kernel is there. Whether it is whole is seen when it is loaded."""
    return bool(source_stamp(key.module)) and _path(key).is_file()


def load(key: Key, symbol: str) -> int | None:
    """The address of the kernel, loaded; None where it is not kept, or what is kept is not what it should be."""
    path = _path(key)
    try:
        content = path.read_bytes()
        digest, code = content[:32], content[32:]
        if digest != _check(key, code):
            raise ValueError("a file is damaged")
        with suppress(OSError):
            os.utime(path)
        return machine.load(code, symbol)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn(error)
        with suppress(OSError):
            path.unlink()
        return None


def save(key: Key, code: bytes) -> None:
    """Keep a kernel for later processes, and remove what nobody has loaded for long."""
    path, temporary = _path(key), None
    if not source_stamp(key.module):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = Path(file.name)
            file.write(_check(key, code) + code)
        os.replace(temporary, path)
    except OSError as error:
        _warn(error)
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        return
    for old in path.parent.glob("*.kernel"):
        with suppress(OSError):
            if old.stat().st_mtime < time.time() - FORGOTTEN:
                old.unlink()


def _check(key: Key, code: bytes) -> bytes:
    return hashlib.sha256(_digest(key) + code).digest()


def _warn(error: Exception) -> None:
    """Say once what is wrong with the folder."""
    where = folder()
    if where in _warned:
        return
    _warned.add(where)
    warnings.warn(
        f"the cache of compiled kernels in {where} failed ({error or type(error).__name__}): they are compiled "
        "anew. If this comes again, set NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=2,
    )
