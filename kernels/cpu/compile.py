"""How every CPU kernel is compiled."""

from __future__ import annotations

import numba

OPTIONS = {"cache": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

kernel = numba.njit(**OPTIONS)
parallel_kernel = numba.njit(parallel=True, **OPTIONS)
inlined = numba.njit(fastmath={"contract"}, error_model="numpy")
