"""Kernels as Python calls them: compiled once for the types of their arguments, kept, and called without Numba.

An :class:`Entry` gives a kernel one block of 64-bit words: of an array its address and shape, of a named tuple the
address of a block of its own, and a whole number as it is. So all that a call needs is the address of machine code,
which LLVM loads in milliseconds; Numba is imported when there is something to compile. Calls give the interpreter's
lock free.
"""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gpubp.kernels.cpu import kept, machine

SYMBOL = "kernel"  # the compiled function's name

_names: dict[tuple[np.dtype, int], str] = {}  # of arrays' types


class Packed:
    """An argument that is given in many calls: its types and its words, made once."""

    __slots__ = ("argument", "block", "types", "words")

    def __init__(self, argument: Any) -> None:
        self.argument = argument
        self.types, self.words, self.block = _pack((argument,))


class Entry:
    """The kernel that ``module`` calls ``name``. Arguments are arrays in C order, whole numbers, and tuples of these.

    Raises TypeError for other arguments.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.compiled: dict[str, Callable] = {}  # by the types of their arguments
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> None:
        self.bind(*arguments)()

    def bind(self, *arguments: Any) -> Callable[[], None]:
        """The call, ready to be made once or more; a function of C's, in which no interrupt can come."""
        types, words, inner = _pack(arguments)
        call = self.compiled.get(types) or self._make(types, arguments)
        block = array("q", words)
        return partial(call, block.buffer_info()[0], (block, inner, arguments))

    def is_kept(self, *arguments: Any) -> bool:
        """Whether a call with such arguments would find the kernel compiled, by this process or one before it."""
        types = _pack(arguments)[0]
        return types in self.compiled or kept.is_there(self._key(types))

    def _key(self, types: str) -> kept.Key:
        return kept.Key(self.module, self.name, types)

    def _make(self, types: str, arguments: tuple) -> Callable:
        with self._lock:
            if types in self.compiled:
                return self.compiled[types]
            address = kept.load(self._key(types), SYMBOL)
            if address is None:
                from gpubp.kernels.cpu.compile import machine_code

                arguments = tuple(a.argument if isinstance(a, Packed) else a for a in arguments)
                function = getattr(import_module(self.module), self.name)
                code = machine_code(function, arguments, SYMBOL)
                kept.save(self._key(types), code)
                address = machine.load(code, SYMBOL)
            # The second argument is for Python alone: it keeps alive what the first points to.
            self.compiled[types] = ctypes.CFUNCTYPE(_check, ctypes.c_void_p, ctypes.py_object)(address)
            return self.compiled[types]


def _check(status: int) -> None:
    """Numba's status of a function: not 0 where it raised, which no kernel does on what it is given."""
    if status:
        raise RuntimeError(f"a kernel ended with status {status}")


def _pack(arguments: Sequence) -> tuple[str, list[int], list]:
    """The types and the words of arguments, and the blocks that they point to."""
    types: list[str] = []
    words: list[int] = []
    inner: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            kind = argument.dtype, argument.ndim
            if not argument.flags.c_contiguous:
                raise TypeError("kernels take arrays in C order")
            types.append(_names.get(kind) or _names.setdefault(kind, f"{kind[0].str}{kind[1]}"))
            words.append(_address(argument))
            words += argument.shape
        elif isinstance(argument, int | np.integer):
            types.append("i")
            words.append(int(argument))
        elif isinstance(argument, Packed):
            types.append(argument.types)
            words += argument.words
        elif isinstance(argument, tuple):
            fields, contents, further = _pack(argument)
            block = array("q", contents)
            types.append(f"{type(argument).__name__}({fields})")
            words.append(block.buffer_info()[0])
            inner += [block, further]
        else:
            raise TypeError(f"kernels take arrays and whole numbers, not {argument!r}")
    return ",".join(types), words, inner


def _address(memory: np.ndarray) -> int:
    if memory.flags.writeable and memory.size:  # four times as fast
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory.__array_interface__["data"][0]
