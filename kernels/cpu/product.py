"""product: C[m, n] = start[n] + Σ_k A[m, k] B[k, n], the one matrix product behind three operations.

A tile of four rows and two vectors of C stays in registers while k runs: eight independent sums hide the latency
of the multiply-add, and each vector of B serves four rows. Every element is summed in the order of k.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from gpubp.kernels.cpu.compile import inlined, parallel_kernel
from gpubp.kernels.cpu.rows import apply_activation, pull_back
from gpubp.kernels.cpu.vector import BYTES, load, multiply_add, spread, store

ROWS = 4  # of a tile; written out below, since Numba unrolls no loop over vectors
PACK_ROWS = 32  # from so many rows on, a copied panel of B pays

# What is done to a row once it is summed.
NOTHING, ACTIVATE, PULL_BACK = 0, 1, 2


@parallel_kernel
def product(a_mk, b_kn, start_1n, c_mn, rows, finish, activation, act_mn):
    """C = start + A B, (M, K) and (K, N) to (M, N); then act = σ(C), or C ⊙= σ'(z) as a function of act.

    A thread takes ``rows`` rows at a time; the result does not depend on how many.
    """
    m_count, lanes = np.uintp(len(c_mn)), np.uintp(BYTES // c_mn.itemsize)
    for chunk in prange((len(c_mn) + rows - 1) // rows):
        first = np.uintp(chunk * rows)
        last = min(first + np.uintp(rows), m_count)
        tiled = first
        if np.uintp(c_mn.shape[1]) >= lanes:
            tiled = first + (last - first) // np.uintp(ROWS) * np.uintp(ROWS)
            tile_rows(a_mk, b_kn, start_1n, c_mn, first, tiled)
        for m in range(tiled, last):
            one_row(a_mk, b_kn, start_1n, c_mn, np.uintp(m))
        if finish == ACTIVATE:
            for m in range(first, last):
                apply_activation(c_mn[m], act_mn[m], activation)
        elif finish == PULL_BACK:
            for m in range(first, last):
                pull_back(c_mn[m], act_mn[m], activation)


@inlined
def tile_rows(a_mk, b_kn, start_1n, c_mn, first, last):
    """Rows first … last of C, in tiles: two vectors of columns at a time, the last ones once more at the end."""
    zero, tile = np.uintp(0), np.uintp(ROWS)
    n_count, lanes = np.uintp(c_mn.shape[1]), np.uintp(BYTES // c_mn.itemsize)
    # Where many rows use a panel of B, it pays to copy it to where its rows are neighbours: in a wide B they are
    # pages apart, and where N is a power of two they compete for the same lines of the cache.
    packed = last - first >= np.uintp(PACK_ROWS)
    panel_kn = np.empty((a_mk.shape[1] if packed else 0, 2 * lanes), c_mn.dtype)
    n = zero
    while n < n_count:
        if n_count - n <= lanes:
            n = n_count - lanes
            for m in range(first, last, tile):
                four_by_one(a_mk, b_kn, start_1n, c_mn, np.uintp(m), n)
        else:
            p = min(n + lanes, n_count - lanes)
            source_kn, i, j = b_kn, n, p
            if packed:
                for k in range(np.uintp(a_mk.shape[1])):
                    store(panel_kn, k, zero, load(b_kn, k, n))
                    store(panel_kn, k, lanes, load(b_kn, k, p))
                source_kn, i, j = panel_kn, zero, lanes
            for m in range(first, last, tile):
                four_by_two(a_mk, source_kn, i, j, start_1n, c_mn, np.uintp(m), n, p)
        n += lanes + lanes


@inlined
def four_by_two(a_mk, b_kn, i, j, start_1n, c_mn, m, n, p):
    """Four rows of C, at the vectors of columns n and p; those of B are at i and j."""
    zero, one, two, three = np.uintp(0), np.uintp(1), np.uintp(2), np.uintp(3)
    s, t = load(start_1n, zero, n), load(start_1n, zero, p)
    s0, s1, s2, s3 = s, s, s, s
    t0, t1, t2, t3 = t, t, t, t
    for k in range(np.uintp(a_mk.shape[1])):
        b, d = load(b_kn, k, i), load(b_kn, k, j)
        a0, a1, a2, a3 = a_mk[m, k], a_mk[m + one, k], a_mk[m + two, k], a_mk[m + three, k]
        s0, t0 = multiply_add(spread(a0), b, s0), multiply_add(spread(a0), d, t0)
        s1, t1 = multiply_add(spread(a1), b, s1), multiply_add(spread(a1), d, t1)
        s2, t2 = multiply_add(spread(a2), b, s2), multiply_add(spread(a2), d, t2)
        s3, t3 = multiply_add(spread(a3), b, s3), multiply_add(spread(a3), d, t3)
    store(c_mn, m, n, s0)
    store(c_mn, m, p, t0)
    store(c_mn, m + one, n, s1)
    store(c_mn, m + one, p, t1)
    store(c_mn, m + two, n, s2)
    store(c_mn, m + two, p, t2)
    store(c_mn, m + three, n, s3)
    store(c_mn, m + three, p, t3)


@inlined
def four_by_one(a_mk, b_kn, start_1n, c_mn, m, n):
    """Four rows of C, at the vector of columns n."""
    zero, one, two, three = np.uintp(0), np.uintp(1), np.uintp(2), np.uintp(3)
    s = load(start_1n, zero, n)
    s0, s1, s2, s3 = s, s, s, s
    for k in range(np.uintp(a_mk.shape[1])):
        b = load(b_kn, k, n)
        s0 = multiply_add(spread(a_mk[m, k]), b, s0)
        s1 = multiply_add(spread(a_mk[m + one, k]), b, s1)
        s2 = multiply_add(spread(a_mk[m + two, k]), b, s2)
        s3 = multiply_add(spread(a_mk[m + three, k]), b, s3)
    store(c_mn, m, n, s0)
    store(c_mn, m + one, n, s1)
    store(c_mn, m + two, n, s2)
    store(c_mn, m + three, n, s3)


@inlined
def one_row(a_mk, b_kn, start_1n, c_mn, m):
    """Row m of C: what is left where M is no multiple of four."""
    n_count = np.uintp(c_mn.shape[1])
    lanes = np.uintp(BYTES // c_mn.itemsize)
    if n_count < lanes:
        narrow_row(a_mk[m], b_kn, start_1n[0], c_mn[m])
        return
    zero, n = np.uintp(0), np.uintp(0)
    while n < n_count:
        n = min(n, n_count - lanes)
        s = load(start_1n, zero, n)
        for k in range(np.uintp(a_mk.shape[1])):
            s = multiply_add(spread(a_mk[m, k]), load(b_kn, k, n), s)
        store(c_mn, m, n, s)
        n += lanes


@inlined
def narrow_row(a_k, b_kn, start_n, c_n):
    """A row narrower than a vector."""
    for n in range(len(c_n)):
        c_n[n] = start_n[n]  # as a loop: Numba takes two seconds to compile the assignment of a slice
    for k in range(len(a_k)):
        for n in range(len(c_n)):
            c_n[n] += a_k[k] * b_kn[k, n]


def rows_a_thread(m_count: int) -> int:
    """How many rows of C each thread takes at a time: whole tiles, spread evenly."""
    tiles = -(-m_count // ROWS)
    return -(-tiles // numba.get_num_threads()) * ROWS
