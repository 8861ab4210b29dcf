"""How every CPU kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

OPTIONS = {"cache": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

# Multiply-adds below which the fork and join of threads costs more than they save (about 10 µs of one core).
PARALLEL_WORK = 200_000

kernel = numba.njit(**OPTIONS)
inlined = numba.njit(fastmath={"contract"}, error_model="numpy")


def serial_and_parallel(function: Callable) -> tuple[Any, Any]:
    """The function compiled twice: for one thread, and with its ``prange`` spread over all of them."""
    return numba.njit(**OPTIONS)(function), numba.njit(parallel=True, **OPTIONS)(function)
