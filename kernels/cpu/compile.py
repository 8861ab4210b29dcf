"""How every CPU kernel is compiled."""

from __future__ import annotations

import os

# GNU OpenMP's threads spin for about a millisecond at every join before they sleep. Where something else keeps a
# core busy, each of a run's thousands of joins then costs a time slice (a 0.4 s run took 25 s). With this count,
# about 30 µs, an idle machine is as fast and a busy one loses little. Read when Numba first loads the library.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numba

OPTIONS = {"cache": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

kernel = numba.njit(**OPTIONS)
parallel_kernel = numba.njit(parallel=True, **OPTIONS)
inlined = numba.njit(fastmath={"contract"}, error_model="numpy")
