"""What the compilation of CPU kernels stands on, and what it makes."""

from __future__ import annotations

import inspect

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba.core import compiler
from numba.core.codegen import AOTCodeLibrary, AOTCPUCodegen
from numba.core.registry import cpu_target

from gpubp.kernels.cpu import compile, machine
from gpubp.kernels.cpu.compile import kernel, part
from gpubp.kernels.cpu.entry import Entry


@pytest.mark.parametrize(
    "name", ["_optimize_functions", "_optimize_final_module", "finalize", "get_llvm_str"]
)
def test_numbas_library_has_what_is_overridden_and_called(name):
    """Where Numba calls these by other names, kernels are still right, but are compiled in twice the time."""
    assert inspect.isfunction(getattr(AOTCodeLibrary, name))


def test_numbas_code_generator_and_flags_are_as_expected():
    assert inspect.isfunction(AOTCPUCodegen._customize_tm_features)
    assert inspect.isfunction(AOTCPUCodegen._module_pass_manager)
    assert issubclass(AOTCPUCodegen._library_class, AOTCodeLibrary)
    assert hasattr(cpu_target.target_context, "_internal_codegen")
    known = set(compiler.Flags.options)
    wrappers = {"no_cpython_wrapper", "no_cfunc_wrapper"}
    assert known >= {"fastmath", "error_model", "nrt", "no_compile", "no_rewrites", *wrappers}


@part()
def _twice(x, y):
    for i in range(len(x)):
        y[i] = 2 * x[i]


@kernel
def four_times(x, y):
    _twice(x, y)
    _twice(y, y)


def test_a_kernel_is_one_module_without_references_and_optimised_once(monkeypatch):
    passes, usual = [], AOTCPUCodegen._module_pass_manager

    def counted(self, **how):
        passes.append(how)
        return usual(self, **how)

    monkeypatch.setattr(AOTCPUCodegen, "_module_pass_manager", counted)
    modules, emit = [], machine.target_machine().emit_object
    monkeypatch.setattr(
        machine.target_machine(), "emit_object", lambda module: (modules.append(module), emit(module))[1]
    )
    arguments = np.arange(4.0), np.zeros(4)
    code = compile.machine_code(four_times, arguments, "kernel")
    assert len(passes) == len(modules) == 1
    assert "NRT_" not in str(modules[0])
    written = [function for function in modules[0].functions if not function.is_declaration]
    assert [f.name for f in written if f.linkage != llvm.Linkage.internal] == ["kernel"]
    assert machine.load(code, "kernel")
    Entry(__name__, "four_times")(*arguments)
    np.testing.assert_array_equal(arguments[1], [0, 4, 8, 12])


def _half_raised(x, y):
    for i in range(0, len(x), int(y[0])):
        y[i] = x[i]


def test_a_kernel_that_raises_is_no_silent_one():
    kernel(_half_raised)
    with pytest.raises(RuntimeError, match="a kernel ended with status 1"):
        Entry(__name__, "_half_raised")(np.ones(3), np.zeros(3))
