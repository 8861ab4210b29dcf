"""``python -m gpubp.backends.cuda.build``: the kernels compiled ahead of any GPU, on all cores; see cubins.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from gpubp.backends.cuda import cubins, nvrtc
from gpubp.errors import BackendUnavailable, GpubpError
from gpubp.kernels import cuda
from gpubp.support import machine

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")  # that kernels are built ahead for, unless others are named

Compile = Callable[[str, tuple[str, ...], str], bytes]


def jobs(architectures: Sequence[str]) -> list[tuple]:
    """All that is compiled for these architectures: files, dtype, precision, units and architecture of each."""
    float32, float64 = np.dtype(np.float32), np.dtype(np.float64)
    kinds: list[tuple] = []
    for dtype in (float32, float64):
        kinds += [(files, dtype, "float32", None) for files in (cuda.OPERATIONS, cuda.EPOCH)]
        kinds += [(cuda.UNITS, dtype, "float32", units) for units in cuda.UNITS_OF_A_BLOCK]
    kinds += [(cuda.EPOCH, float32, precision, None) for precision in ("tf32", "3xtf32")]
    return [(*kind, architecture) for kind in kinds for architecture in architectures]


def cubin(source: str, options: tuple[str, ...], architecture: str) -> bytes:
    """The machine's code, by NVIDIA's compiler."""
    return nvrtc.compile_kernels(source, options, architecture).cubin


def build(
    where: Path,
    architectures: Sequence[str],
    compile: Compile = cubin,
    compiler: str | None = None,
) -> int:
    """Compile all for these architectures into a folder; how many binaries that are.

    compile: what compiles, in processes beside each other; NVRTC's, unless a stand-in is named, with its version.

    Raises:
        BackendUnavailable: NVRTC is not installed.
        GpubpError: a kernel does not compile, or the folder cannot be written.
    """
    if compiler is None:
        if nvrtc.version() is None:
            raise BackendUnavailable(
                f"the wheel {nvrtc.WHEEL}, whose compiler builds the kernels, is not installed: "
                f"python -m pip install {nvrtc.WHEEL}"
            )
        compiler = f"{nvrtc.WHEEL} {nvrtc.version()}"
    given = [
        (cuda.source(files), cuda.options(dtype, precision, units), architecture)
        for files, dtype, precision, units, architecture in jobs(architectures)
    ]
    given.sort(key=lambda one: len(one[0]), reverse=True)  # what takes longest, first
    try:
        with ProcessPoolExecutor(machine.cores(), get_context("spawn")) as pool:
            contents = list(pool.map(compile, *zip(*given, strict=True)))
    except RuntimeError as error:
        raise GpubpError(f"the CUDA kernels do not compile:\n{error}") from error
    named = {cubins.name_of(*one): content for one, content in zip(given, contents, strict=True)}
    cubins.write(where, named, tuple(architectures), compiler)
    return len(named)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(
        prog=cubins.BUILD,
        description="Compile the CUDA kernels ahead, without a GPU, so that none is compiled there.",
    )
    parser.add_argument(
        "architectures",
        nargs="*",
        default=ARCHITECTURES,
        help=f"such as sm_90 (default: {', '.join(ARCHITECTURES)})",
    )
    parser.add_argument("--out", type=Path, help=f"folder (${cubins.VARIABLE}, or beside the kernels)")
    args, started = parser.parse_args(argv), time.perf_counter()
    where = args.out or cubins.folder()
    try:
        count = build(where, args.architectures)
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{count} binaries in {time.perf_counter() - started:.0f} s, in {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
