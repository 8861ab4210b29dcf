"""Peaks of this machine, measured: multiply-adds in registers, and reading memory.

``python -m gpubp.benchmark.peaks THREADS`` prints both as JSON.
"""

from __future__ import annotations

import json
import sys
import timeit
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numba import types

from gpubp.backends.cpu.memory import Memory
from gpubp.backends.cpu.team import Team
from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.entry import Entry
from gpubp.kernels.cpu.inner import tiles
from gpubp.kernels.cpu.layout import TILE_ROWS, TILE_VECTORS
from gpubp.kernels.cpu.machine import BYTES
from gpubp.kernels.cpu.vector import Emit, emitted, index

TERMS = 256  # of each sum: A and B of a tile stay in the first-level cache
STREAM_BYTES = 512 << 20  # far beyond any cache


@kernel
def _multiply(memory, b, c, repeats, rows):
    vectors = TILE_VECTORS
    row = vectors * BYTES // memory.itemsize
    for _ in range(repeats):
        tiles(
            memory, 0, TERMS, 1, memory, b, row, TERMS, memory, c, row, memory, c, row, rows, vectors,
            memory.dtype.type(1),
        )  # fmt: skip


@emitted(types.float64)
def _sum_of(emit: Emit, memory, first, stop):
    """The sum of memory[first:stop], in four chains of vectors."""
    step = 4 * emit.lanes

    def add(i, *sums):
        places = (emit.add(i, index(k * emit.lanes)) for k in range(4))
        return [s + emit.load_lanes(memory, place) for s, place in zip(sums, places, strict=True)]

    a, b, c, d = emit.loop(first, stop, step, [emit.constant(0)] * 4, add)
    return ((a + b) + (c + d)).sum()


@kernel
def _read(memory, first, stop, total):
    total[0] = _sum_of(memory, first, stop)


multiply, read = Entry(__name__, "_multiply"), Entry(__name__, "_read")


@cache
def flops_per_second(threads: int) -> float:
    """The most floating-point operations a second (a multiply-add is two), in float32."""
    lanes = BYTES // 4
    row = TILE_VECTORS * lanes
    space = Memory(np.dtype(np.float32))
    space.take(TILE_ROWS * TERMS)
    b, c = space.take(TERMS * row), space.take(TILE_ROWS * row)
    memories = [space.allocate() for _ in range(threads)]
    repeats = 20_000
    seconds = _fastest(threads, lambda rank: multiply(memories[rank], b, c, repeats, TILE_ROWS))
    return 2.0 * TERMS * TILE_ROWS * row * repeats * threads / seconds


@cache
def bytes_per_second(threads: int) -> float:
    """The most bytes a second that are read from memory."""
    memory = np.ones(STREAM_BYTES // 4, np.float32)
    part = len(memory) // threads // (BYTES * 4) * (BYTES * 4)
    totals = np.zeros((threads, 1))
    seconds = _fastest(threads, lambda rank: read(memory, rank * part, (rank + 1) * part, totals[rank]))
    return 4.0 * part * threads / seconds


def _fastest(threads: int, job: Callable[[int], object]) -> float:
    team = Team(threads)
    jobs = [partial(job, rank) for rank in range(threads)]
    team.run(jobs)  # compiles
    return min(timeit.repeat(lambda: team.run(jobs), number=1, repeat=7))


if __name__ == "__main__":
    count = int(sys.argv[1])
    found = {"gflop_per_s": flops_per_second(count) / 1e9, "gb_per_s": bytes_per_second(count) / 1e9}
    print(json.dumps(found))
