"""The compilation of every CPU kernel.

============================  ===========================================================================
mark                          for a function
============================  ===========================================================================
``kernel``                    that Python calls, by an :class:`gpubp.kernels.cpu.entry.Entry`
``part``                      of the same Python that only kernels call, compiled into them
``emitted`` (in vector.py)    that writes LLVM's instructions itself, where it takes vectors; one of its own
                              in LLVM too, shared by all kernels, or with ``inline=True`` part of its caller
============================  ===========================================================================

Numba's own way to compile gives every function an entry from Python, counts references to arrays, and optimises every
part by itself and again with all that calls it, down to machine code. Kernels need none of it, which takes more than
half the time; so this asks Numba's compiler for LLVM's instructions alone, as it does for code that is compiled ahead
of time, and LLVM for the rest. That stands on some of Numba's inner names, which tests/kernels/cpu/test_compile.py
knows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import compiler
from numba.core.codegen import AOTCodeLibrary, AOTCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin
from numba.np import arrayobj

from gpubp.kernels.cpu import machine

OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy"}

SYSTEM = {"sched_yield", "SwitchToThread"}  # functions that kernels may call outside themselves

Result = types.Type | Callable[..., types.Type]


_apart: set[str] = set()  # names of parts that are not inlined


def register(function: Callable, result: Result, lower: Callable) -> None:
    """Make ``function`` known to Numba as one that ``lower`` emits; ``result`` is its type, or gives it.

    Whole numbers are taken as 64-bit ones: Numba would compile a function anew for each literal among them.
    """

    class Template(AbstractTemplate):
        key = function

        def generic(self, args, kws):
            kinds = [
                types.intp if isinstance(kind, types.Integer) else types.unliteral(kind) for kind in args
            ]
            return (result if isinstance(result, types.Type) else result(*kinds))(*kinds)

    infer_global(function, types.Function(Template))
    lower_builtin(function, types.VarArg(types.Any))(lower)


def part(result: Result = types.void, *, optional: bool = False):
    """A function that only kernels call, compiled into them; ``result`` is its type, or gives it.

    One without a result stays a function of its own in LLVM, which takes less time to compile than a large one. One
    that is ``optional`` is left out where its first argument, an array, is not there and a whole number stands for it:
    so kernels that have no use for it need not wait for it to be compiled.
    """

    def decorate(function):
        def lower(context, builder, signature, arguments):
            if optional and isinstance(signature.args[0], types.Integer):
                return context.get_dummy_value()
            made = context.compile_subroutine(builder, function, signature).fndesc
            if result == types.void:
                _apart.add(made.mangled_name)
            return context.call_internal(builder, made, signature, arguments)

        register(function, result, lower)
        return function

    return decorate


kernel = part()


class _Library(AOTCodeLibrary):
    """LLVM's instructions of a function and of those that it calls, optimised once, when they are all there.

    ``entry`` is then the one function that others may call, so that what is inlined is not kept beside that.
    """

    entry: str | None = None

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        if self.entry is None:
            return
        for function in self._final_module.functions:
            if not function.is_declaration and function.name != self.entry:
                function.linkage = "internal"
                if function.name in _apart:
                    function.add_function_attribute("noinline")
        # Numba runs all passes twice, for counted references, and vectorisers: kernels do without either.
        passes, builder = self._codegen._module_pass_manager(opt=1, loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)


class _Codegen(AOTCPUCodegen):
    """LLVM's instructions for this machine, of which Numba makes no machine code."""

    _library_class = _Library

    def __init__(self) -> None:
        super().__init__("gpubp", machine.CPU)

    def _customize_tm_features(self) -> str:
        return machine.FEATURES


def machine_code(function: Callable, arguments: Sequence, symbol: str) -> bytes:
    """An object file with a kernel compiled for such arguments, as the one function ``symbol`` of a block of words.

    It returns 0, or another number if the kernel raised.
    """
    unpack = _unpacker([_type_of(argument) for argument in arguments])

    def entry(words):
        function(*unpack(words))

    flags = compiler.Flags()
    flags.fastmath, flags.error_model = OPTIONS["fastmath"], OPTIONS["error_model"]
    flags.nrt, flags.no_compile = False, True  # no references are counted, and no machine code is made
    flags.no_rewrites = True
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    typing, target = cpu_target.typing_context, cpu_target.target_context
    with global_compiler_lock, _without_collections():
        typing.refresh()
        target.refresh()
        target = target.subtarget(_internal_codegen=_Codegen(), aot_mode=True)
        signature = (types.CPointer(types.int64),)
        made = compiler.compile_extra(typing, target, entry, signature, types.void, flags, {})
        kind = target.call_conv.get_function_type(types.void, signature)
        made.library.add_ir_module(_caller(made.library, kind, made.fndesc.mangled_name, symbol))
        made.library.entry = symbol
        made.library.finalize()
        module = llvm.parse_assembly(made.library.get_llvm_str())
    declared = {found.name for found in module.functions if found.is_declaration}
    if foreign := sorted(name for name in declared - SYSTEM if not name.startswith("llvm.")):
        raise TypeError(f"{function.__name__} calls what is not there without Numba: {', '.join(foreign)}")
    return machine.target_machine().emit_object(module)


@contextmanager
def _without_collections() -> Iterator[None]:
    """A compiler makes much that lives long: looking through it again and again takes a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _caller(library, kind: ir.FunctionType, name: str, symbol: str) -> ir.Module:
    """A module with ``symbol``, which calls a function of Numba's: with places for what it returns and raises.

    Its second argument is not used.
    """
    module = library.create_ir_module(symbol)
    *places, words = kind.args
    function = ir.Function(module, ir.FunctionType(kind.return_type, [words, words]), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    room = [builder.bitcast(builder.alloca(ir.IntType(8).as_pointer()), place) for place in places]
    status = builder.call(ir.Function(module, kind, name), [*room, function.args[0]])
    builder.ret(status)
    return module


def _type_of(argument: Any) -> types.Type:
    """The type that a kernel has for an argument of an entry."""
    if isinstance(argument, np.ndarray):
        return types.Array(numba.from_dtype(argument.dtype), argument.ndim, "C")
    if isinstance(argument, tuple):
        return types.NamedTuple([_type_of(field) for field in argument], type(argument))
    return types.int64


def _unpacker(kinds: Sequence[types.Type]) -> Callable:
    """A function of a block of words, as entries pack it: the tuple of arguments of these types."""
    whole = types.Tuple(kinds)

    @intrinsic
    def unpack(typing, words):
        def lower(context, builder, signature, arguments):
            return _fields(context, builder, whole, arguments[0])

        return whole(types.CPointer(types.int64)), lower

    return unpack


def _fields(context, builder, kind: types.BaseTuple, block) -> Any:
    """The tuple whose fields are in a block of words."""
    places = count()

    def word():
        return builder.load(builder.gep(block, [ir.Constant(ir.IntType(64), next(places))]))

    def value(kind):
        if isinstance(kind, types.Array):
            return _array(context, builder, kind, word(), [word() for _ in range(kind.ndim)])
        if isinstance(kind, types.BaseTuple):
            return _fields(context, builder, kind, builder.inttoptr(word(), block.type))
        return word()

    return context.make_tuple(builder, kind, [value(inner) for inner in kind])


def _array(context, builder, kind: types.Array, address, shape: list) -> Any:
    """An array in C order of this shape, at this address."""
    item = context.get_data_type(kind.dtype)
    size = context.get_constant(types.intp, context.get_abi_sizeof(item))
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    made = context.make_array(kind)(context, builder)
    data = builder.inttoptr(address, item.as_pointer())
    arrayobj.populate_array(made, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return made._getvalue()
