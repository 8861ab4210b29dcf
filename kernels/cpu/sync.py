"""A barrier for threads that stay inside compiled code."""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpubp.kernels.cpu.compile import part
from gpubp.kernels.cpu.vector import INT32, emitted, index

ARRIVED, PASSED = 0, 8  # places in ``sync``, on cache lines of their own
SPINS = 2000  # some 20 µs: a step's imbalance; beyond, another process may have the core that is waited for


@emitted(types.intp, inline=True)
def _add_one(emit, sync, place):
    """sync[place] += 1, as one operation; returns what it was."""
    return emit.builder.atomic_rmw("add", emit.builder.gep(sync, [place]), index(1), "acq_rel")


@emitted(types.intp, inline=True)
def _read(emit, sync, place):
    """sync[place], and all that the thread which wrote it had written before."""
    return emit.builder.load_atomic(emit.builder.gep(sync, [place]), "acquire", 8)


@emitted(inline=True)
def _write(emit, sync, place, value):
    """sync[place] = value, after all that this thread wrote before."""
    emit.builder.store_atomic(value, emit.builder.gep(sync, [place]), "release", 8)


@emitted(inline=True)
def _let_others_run(emit):
    """Offer this core to another thread."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    kind = ir.FunctionType(INT32, [])
    emit.builder.call(cgutils.get_or_insert_function(emit.builder.module, kind, name), [])


@part()
def barrier(sync, threads):
    """Wait until all ``threads`` have come here; what each wrote before, all see afterwards."""
    if threads == 1:
        return
    passed = _read(sync, PASSED)
    if _add_one(sync, ARRIVED) == threads - 1:
        _write(sync, ARRIVED, 0)
        _write(sync, PASSED, passed + 1)
        return
    spins = 0
    while _read(sync, PASSED) == passed:
        spins += 1
        if spins > SPINS:
            _let_others_run()
