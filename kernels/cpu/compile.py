"""The compilation of every CPU kernel.

============================  ===========================================================================
mark                          for a function
============================  ===========================================================================
``kernel``                    that Python calls
``part``                      of the same Python that only kernels call: no entry from Python is compiled,
                              which takes half as long
``spliced``                   as ``part``, but that has one caller and is large: its Python becomes its
                              caller's, which is compiled in two thirds of the time
``emitted`` (in vector.py)    that writes LLVM's instructions itself, where it takes vectors; one of its own
                              in LLVM too, shared by all kernels, or with ``inline=True`` part of its caller
============================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin

from gpubp.kernels.cpu.cache import keep

OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy"}


def kernel(function):
    """A function that Python calls, compiled for the types it first gets, and kept on disk."""
    return keep(numba.njit(nogil=True, **OPTIONS)(function))


spliced = numba.njit(inline="always", **OPTIONS)

Result = types.Type | Callable[..., types.Type]


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


def part(result: Result = types.void):
    """A function that only kernels call, compiled into them; ``result`` is its type, or gives it."""

    def decorate(function):
        def lower(context, builder, signature, arguments):
            return context.compile_internal(builder, function, signature, arguments)

        register(function, result, lower)
        return function

    return decorate
