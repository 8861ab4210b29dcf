"""Kernels of the operations one by one: the matrix product, and what is done to rows once they are summed.

An operation's arrays end where their numbers end, and a vector read or written beyond would be an error. So rows of a
product are padded to whole vectors, and what is done to rows is done to them turned, as turned.py has them.
"""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.inner import TILE_VECTORS, tiles
from gpubp.kernels.cpu.rowwise import activate, pull_back, update_rows
from gpubp.kernels.cpu.turned import SOFTMAX, output_of, pull_back_softmax, softmax
from gpubp.kernels.cpu.vector import BYTES


def padded(rows_bn: np.ndarray) -> np.ndarray:
    """(B, n) with each row padded to whole vectors."""
    count, n = rows_bn.shape
    lanes = BYTES // rows_bn.itemsize
    rows = np.zeros((count, -(-n // lanes) * lanes), rows_bn.dtype)
    rows[:, :n] = rows_bn
    return rows


def turned(rows_bn: np.ndarray) -> np.ndarray:
    """(B, n) as blocks (⌈B / lanes⌉, n, lanes): as many samples as a vector has lanes, with a vector for each unit."""
    count, n = rows_bn.shape
    lanes = BYTES // rows_bn.itemsize
    rows = np.zeros((-(-count // lanes) * lanes, n), rows_bn.dtype)
    rows[:count] = rows_bn
    return np.ascontiguousarray(rows.reshape(-1, lanes, n).swapaxes(1, 2))


def turned_back(blocks: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` rows of blocks."""
    return blocks.swapaxes(1, 2).reshape(-1, blocks.shape[1])[:count]


@kernel
def multiply(a_mk, b_kn, start_n, c_mn, first, stop):
    """c[m, n] = start[n] + Σ_k a[m, k] b[k, n] for rows first … stop of C; n goes over whole vectors."""
    k_count, n_count, lanes = a_mk.shape[1], c_mn.shape[1], BYTES // c_mn.itemsize
    a, b, c = a_mk.reshape(-1), b_kn.reshape(-1), c_mn.reshape(-1)
    for n in range(0, n_count, TILE_VECTORS * lanes):
        tiles(
            a, first * k_count, k_count, 1, b, n, n_count, k_count, start_n, n, 0, c, first * n_count + n, n_count,
            stop - first, min(TILE_VECTORS, (n_count - n) // lanes),
        )  # fmt: skip


@kernel
def activate_blocks(blocks, activation):
    """z becomes a = σ(z)."""
    memory, n, lanes = blocks.reshape(-1), blocks.shape[1], blocks.shape[2]
    if activation != SOFTMAX:
        activate(memory, 0, 0, 1, len(blocks) * n, activation)
        return
    for place in range(0, len(memory), n * lanes):
        softmax(memory, place, n)


@kernel
def pull_back_blocks(blocks, activation):
    """∂C/∂a becomes ∂C/∂z, of blocks of rows that have ∂C/∂a and then a."""
    memory, n, lanes = blocks.reshape(-1), blocks.shape[1] // 2, blocks.shape[2]
    if activation != SOFTMAX:
        pull_back(memory, 0, n * lanes, 2 * n * lanes, len(blocks), n, activation)
        return
    for place in range(0, len(memory), 2 * n * lanes):
        pull_back_softmax(memory, place, place + n * lanes, n)


@kernel
def output_blocks(blocks, activation, loss):
    """δ = w ∇ₐC ⊙ σ'(z), cost and hit, of blocks of rows that have z, a, y, room for δ, w, and room for the two."""
    memory, size, lanes = blocks.reshape(-1), blocks.shape[1], blocks.shape[2]
    n = size // 4
    for z in range(0, len(memory), size * lanes):
        a, y, delta = z + n * lanes, z + 2 * n * lanes, z + 3 * n * lanes
        weight = z + 4 * n * lanes
        output_of(memory, z, a, y, delta, n, weight, weight + lanes, weight + 2 * lanes, activation, loss)


@kernel
def update_padded(arrays, slots, rule, c):
    """W and its slots by the rule with these coefficients; arrays (4, n) are W, its gradient, and up to two slots."""
    memory, n = arrays.reshape(-1), arrays.shape[1]
    vectors = n // (BYTES // memory.itemsize)
    update_rows(memory, 0, n, n, n, 2 * n if slots > 0 else -1, 3 * n, 1, vectors, rule, c, 0)
