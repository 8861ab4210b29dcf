"""NVIDIA's run-time compiler, from the wheel nvidia-cuda-nvrtc: compiles for any GPU, without one or its driver."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

WHEEL = "nvidia-cuda-nvrtc"
# What CuPy 14 adds to the options that it is given (cupy/cuda/compiler.py), so that the machine's code is the same, and
# a log of what each kernel takes.
_ADDED = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")


class Compiled(NamedTuple):
    """The compiler's log, with what each kernel takes, the PTX, and the machine's code that is made from it."""

    log: str
    ptx: str
    cubin: bytes


@cache
def version() -> str | None:
    """The wheel's version; None if it is not installed."""
    try:
        return metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        return None


@cache
def _library() -> ctypes.CDLL:
    files = {Path(str(file)).name: file for file in metadata.files(WHEEL) or []}
    builtins = next(name for name in files if re.fullmatch(r"libnvrtc-builtins\.so[\d.]*", name))
    # The compiler looks for this one by name.
    ctypes.CDLL(str(files[builtins].locate()), mode=ctypes.RTLD_GLOBAL)
    compiler = next(name for name in files if re.fullmatch(r"libnvrtc\.so[\d.]*", name))
    return ctypes.CDLL(str(files[compiler].locate()))


def compile_kernels(source: str, options: tuple[str, ...], architecture: str) -> Compiled:
    """Compile a text for an architecture, sm_90 say, as CuPy does.

    Raises RuntimeError: the source does not compile; with the log.
    """
    library, program, size = _library(), ctypes.c_void_p(), ctypes.c_size_t()
    if library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None):
        raise RuntimeError("NVRTC makes no program")
    try:
        given = [o.encode() for o in (*options, f"-arch={architecture}", *_ADDED)]
        failed = library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))

        def content_of(what: str) -> bytes:
            getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
            content = ctypes.create_string_buffer(size.value)
            getattr(library, f"nvrtcGet{what}")(program, content)
            return content.raw

        log = content_of("ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise RuntimeError(log)
        return Compiled(log, content_of("PTX").rstrip(b"\0").decode(), content_of("CUBIN"))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
