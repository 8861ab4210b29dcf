"""The machine that kernels are compiled for, and its loader of compiled ones: by LLVM alone, without Numba."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import llvmlite.binding as llvm

# Numba's own variables, for who compiles for another processor than this one.
CPU = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
FEATURES = os.environ.get("NUMBA_CPU_FEATURES") or llvm.get_host_cpu_features().flatten()


def has(feature: str) -> bool:
    """Whether this machine has what LLVM calls so."""
    return f"+{feature}" in FEATURES.split(",")


def _register_shape() -> tuple[int, int]:
    """Bytes of this machine's vector registers, and how many it has.

    Where a machine has none so wide, LLVM splits a vector into several registers: always right, only slower.
    """
    if has("avx512f"):
        return 64, 32
    if has("avx2"):
        return 32, 16
    return 16, 32 if has("neon") else 16


BYTES, REGISTERS = _register_shape()
LINE = 64  # bytes of a cache line

_engines: list[Any] = []  # what they loaded is gone with them


@cache
def target_machine() -> Any:
    """LLVM's code generator for this machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=CPU, features=FEATURES, opt=1, reloc="pic", codemodel="jitdefault"
    )


def load(machine_code: bytes, name: str) -> int:
    """Load an object file for as long as the process lives; the address of its function ``name``.

    LLVM ends the process where it is none, or has no such function: only what is known to be whole may come here.
    """
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)
