"""Kernels of the operations one by one: the matrix product, and what is done to rows once they are summed.

An operation's arrays end where their numbers end, and a vector read or written beyond would be an error. So rows of a
product are padded to whole vectors, and what is done to rows is done to them turned, as turned.py has them.
"""

from __future__ import annotations

from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.inner import tiles
from gpubp.kernels.cpu.layout import TILE_VECTORS
from gpubp.kernels.cpu.machine import BYTES
from gpubp.kernels.cpu.rowwise import activate, pull_back, update_rows
from gpubp.kernels.cpu.turned import SOFTMAX, output_of, pull_back_softmax, softmax


@kernel
def multiply(a, b, start_n, c, k_count, n_count, first, stop):
    """c[m, n] = start[n] + Σ_k a[m, k] b[k, n] for rows first … stop of C; n goes over whole vectors."""
    lanes = BYTES // c.itemsize
    for n in range(0, n_count, TILE_VECTORS * lanes):
        tiles(
            a, first * k_count, k_count, 1, b, n, n_count, k_count, start_n, n, 0, c, first * n_count + n, n_count,
            stop - first, min(TILE_VECTORS, (n_count - n) // lanes), c.dtype.type(1),
        )  # fmt: skip


@kernel
def activate_blocks(memory, n, activation):
    """z becomes a = σ(z), in blocks of n units."""
    lanes = BYTES // memory.itemsize
    if activation != SOFTMAX:
        activate(memory, 0, 0, 1, len(memory) // lanes, activation)
        return
    for place in range(0, len(memory), n * lanes):
        softmax(memory, place, n)


@kernel
def pull_back_blocks(memory, n, activation):
    """∂C/∂a becomes ∂C/∂z, of blocks that have ∂C/∂a of n units and then a."""
    size = n * (BYTES // memory.itemsize)
    if activation != SOFTMAX:
        pull_back(memory, 0, size, 2 * size, len(memory) // (2 * size), n, activation)
        return
    for place in range(0, len(memory), 2 * size):
        pull_back_softmax(memory, place, place + size, n)


@kernel
def output_blocks(memory, n, activation, loss):
    """δ = w ∇ₐC ⊙ σ'(z), cost and hit, of blocks that have z, a, y, room for δ, each n, w, and room for the two."""
    lanes = BYTES // memory.itemsize
    for z in range(0, len(memory), (4 * n + 3) * lanes):
        a, y, delta = z + n * lanes, z + 2 * n * lanes, z + 3 * n * lanes
        weight = z + 4 * n * lanes
        output_of(memory, z, a, y, delta, n, weight, weight + lanes, weight + 2 * lanes, activation, loss)


@kernel
def update_padded(memory, slots, rule, c):
    """W and its slots by the rule with these coefficients; memory has W, its gradient and room for two slots."""
    n = len(memory) // 4
    vectors = n // (BYTES // memory.itemsize)
    update_rows(memory, 0, n, n, n, 2 * n if slots > 0 else -1, 3 * n, 1, vectors, rule, c, 0)


@kernel
def update_spans(memory, parameters, gradient, slot1, slot2, spans, rule, coefficients, width):
    """The rule on spans of vectors of parameters, their gradient and slots, which begin at these places of memory.

    spans (n, 3): where each begins, how many vectors it has, and which coefficients of ``width`` are for it, 0 for
    those of weights or 1 for those of biases. A slot that the rule does not have is −1.
    """
    for s in range(len(spans)):
        at, vectors, c = spans[s, 0], spans[s, 1], spans[s, 2] * width
        update_rows(
            memory, parameters + at, 0, gradient + at, 0, slot1 + at if slot1 >= 0 else -1,
            slot2 + at if slot2 >= 0 else -1, 1, vectors, rule, coefficients, c,
        )  # fmt: skip
