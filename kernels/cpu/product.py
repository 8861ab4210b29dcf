"""product: C[m, n] = start[n] + Σ_k A[m, k] B[k, n], the one matrix product behind three operations."""

from __future__ import annotations

import numba
from numba import prange

from gpubp.kernels.cpu.blocks import activate_rows, pull_back_rows
from gpubp.kernels.cpu.compile import kernel, part
from gpubp.kernels.cpu.inner import TILE_ROWS, TILE_VECTORS, tiles
from gpubp.kernels.cpu.vector import BYTES, get, put

# What is done to a row once it is summed.
NOTHING, ACTIVATE, PULL_BACK = 0, 1, 2


@kernel(parallel=True)
def product(a_mk, b_kn, start_1n, c_mn, rows, finish, activation, act_mn):
    """C = start + A B, (M, K) and (K, N) to (M, N); then act = σ(C), or C ⊙= σ'(z) as a function of act.

    A thread takes ``rows`` rows at a time; the result does not depend on how many.
    """
    m_count, k_count, n_count = len(a_mk), len(b_kn), c_mn.shape[1]
    a, b, start, c = a_mk.reshape(-1), b_kn.reshape(-1), start_1n.reshape(-1), c_mn.reshape(-1)
    act = act_mn.reshape(-1)
    for chunk in prange((m_count + rows - 1) // rows):
        first = chunk * rows
        last = min(first + rows, m_count)
        multiply_rows(a, b, start, c, first, last - first, k_count, n_count)
        if finish == ACTIVATE:
            activate_rows(c, act, first * n_count, last - first, n_count, activation)
        elif finish == PULL_BACK:
            pull_back_rows(c, act, first * n_count, last - first, n_count, activation)


@part()
def multiply_rows(a, b, start, c, first, rows, k_count, n_count):
    """Rows first … first + rows of C, in panels of whole vectors; the last one may overlap the one before."""
    lanes = BYTES // c.itemsize
    place = first * n_count
    n = 0
    while n < n_count and n_count >= lanes:
        vectors = min(TILE_VECTORS, (n_count - n) // lanes)
        at = n if vectors > 0 else n_count - lanes
        vectors = max(1, vectors)
        tiles(
            a, first * k_count, k_count, 1, b, at, n_count, k_count, start, at, 0, c, place + at, n_count,
            rows, vectors,
        )  # fmt: skip
        n = at + vectors * lanes
    if n_count < lanes:  # rows narrower than a vector
        for m in range(rows):
            for n in range(n_count):
                put(c, place + m * n_count + n, get(start, n))
            for k in range(k_count):
                x = get(a, (first + m) * k_count + k)
                for n in range(n_count):
                    at = place + m * n_count + n
                    put(c, at, get(c, at) + x * get(b, k * n_count + n))


def rows_a_thread(m_count: int) -> int:
    """How many rows of C each thread takes at a time: whole tiles, spread evenly."""
    count = -(-m_count // TILE_ROWS)
    return -(-count // numba.get_num_threads()) * TILE_ROWS
