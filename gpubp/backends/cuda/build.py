"""``python -m gpubp.backends.cuda.build``: the kernels compiled ahead of any GPU, on all cores; see cubins.py."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np

from gpubp.backends.cuda import cubins, nvrtc
from gpubp.errors import BackendUnavailable, GpubpError
from gpubp.kernels import cuda
from gpubp.support import machine

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")  # that kernels are built ahead for, unless others are named
NO_CLUSTERS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89")  # have none
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

Compile = Callable[[str, tuple[str, ...], str], bytes]


def jobs(architectures: Sequence[str], dtypes: Sequence[np.dtype] = DTYPES) -> list[tuple]:
    """All that is compiled for these architectures: files, dtype, precision, units, dropout, architecture of each."""
    kinds: list[tuple] = []
    for dtype in dtypes:
        kinds.append((cuda.OPERATIONS, dtype, "float32", None, False))
        for dropout in (False, True):
            pairs = product(cuda.UNITS_OF_A_CLUSTER, cuda.CLUSTERS)
            kinds += [(cuda.UNITS, dtype, "float32", units, dropout) for units in pairs]
            precisions = cuda.PRECISIONS if dtype == np.float32 else ["float32"]
            kinds += [(cuda.EPOCH, dtype, precision, None, dropout) for precision in precisions]
    every = product(kinds, architectures)
    return [(*kind, of) for kind, of in every if of not in NO_CLUSTERS or kind[3] is None or kind[3][1] == 1]


def by_nvrtc(source: str, options: tuple[str, ...], architecture: str) -> bytes:
    """The machine's code, by NVIDIA's compiler."""
    return nvrtc.compile_kernels(source, options, architecture).cubin


def build(
    where: Path,
    architectures: Sequence[str],
    dtypes: Sequence[np.dtype] = DTYPES,
    compile: Compile = by_nvrtc,
    compiler: str | None = None,
    ahead: Path | None = None,
) -> tuple[int, int]:
    """Fill a folder with all binaries for these architectures; how many there are, and how many had to be compiled.

    They are compiled in processes beside each other, but for those that are there already, or in the folder ``ahead``,
    by the same compiler, or by any where there is none here.

    Args:
        compile: what compiles; NVRTC, unless a stand-in is named, with ``compiler``, its version.

    Raises:
        BackendUnavailable: NVRTC is not installed, and something is to be compiled.
        GpubpError: a kernel does not compile, or the folder cannot be written.
    """
    if compiler is None and nvrtc.version() is not None:
        compiler = f"{nvrtc.WHEEL} {nvrtc.version()}"
    there = cubins.read(where) | (cubins.read(ahead) if ahead is not None else {})
    found, wanted = {}, {}
    for files, *kind, architecture in jobs(architectures, dtypes):
        given = cuda.source(files), cuda.options(*kind), architecture
        name = cubins.name_of(*given)
        if name in there and compiler in (None, there[name].compiler):
            found[name] = there[name]
        else:
            wanted[name] = given
    if wanted:
        cubins.write(where, found, architectures)  # which are of use where the others do not compile
        found |= _compile(wanted, compile, compiler)
    cubins.write(where, found, architectures)
    return len(found), len(wanted)


def _compile(wanted: dict[str, tuple], compile: Compile, compiler: str | None) -> dict[str, cubins.Cubin]:
    if compiler is None:
        raise BackendUnavailable(
            f"the wheel {nvrtc.WHEEL}, whose compiler builds the kernels, is not installed: "
            f"python -m pip install {nvrtc.WHEEL}"
        )
    names = sorted(wanted, key=lambda name: len(wanted[name][0]), reverse=True)  # what takes longest, first
    try:
        with ProcessPoolExecutor(machine.cores(), get_context("spawn"), _end_with_parent) as pool:
            contents = list(pool.map(compile, *zip(*(wanted[name] for name in names), strict=True)))
    except RuntimeError as error:
        raise GpubpError(f"the CUDA kernels do not compile:\n{error}") from error
    return {name: cubins.Cubin(content, compiler) for name, content in zip(names, contents, strict=True)}


def _end_with_parent() -> None:
    """A process of the pool otherwise waits for ever for work, where the one that started it has been killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


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
        count, compiled = build(where, args.architectures)
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{count} binaries, {compiled} of them compiled in {time.perf_counter() - started:.0f} s, in {where}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
