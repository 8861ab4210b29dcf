"""Numbers of threads: those of NumPy's BLAS, which are one number for the whole process, and in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_runs = 0  # that are on, of all Python threads
_undo = ExitStack()


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """BLAS with ``count`` threads. Of runs that overlap, the first one's count stands until the last one ends."""
    global _runs
    with _lock:
        if _runs == 0:
            _undo.enter_context(libraries().limit(limits=count, user_api="blas"))
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if _runs == 0:
                _undo.close()


@cache
def libraries() -> Any:
    """Return the libraries that NumPy has loaded; found once, for that takes milliseconds."""
    import numpy  # noqa: F401  (its BLAS must be loaded to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def counted(threads: int) -> str:
    """ "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"
