"""What every kernel takes of a GPU, by NVIDIA's compiler.

``python -m tests.kernels.cuda.nvrtc`` writes the table of what every kernel takes, ``kernels/cuda/resources.csv``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.backends.cuda import backend
from gpubp.backends.cuda.build import ARCHITECTURES, jobs
from gpubp.backends.cuda.epoch import shared_bytes
from gpubp.backends.cuda.nvrtc import WHEEL, compile_kernels, version
from gpubp.backends.cuda.units import Grid, of_shared_memory
from gpubp.kernels import cuda
from gpubp.optimizers import SGD
from tests.networks import random_problem

TABLE = Path(cuda.__file__).with_name("resources.csv")
COLUMNS = (
    "kernel", "dtype", "precision", "units", "cluster", "dropout", "architecture", "registers", "spilled_bytes",
    "stack_bytes", "shared_bytes", "threads", "resident_threads", "occupancy",
)  # fmt: skip

# Of a multiprocessor: threads, registers, blocks, and bytes of shared memory (CUDA C++ Programming Guide, "Technical
# specifications per compute capability"). Registers go by 256 a warp, shared memory takes 1,024 bytes more a block.
LIMITS = {
    "sm_80": (2048, 65536, 32, 164 << 10),
    "sm_90": (2048, 65536, 32, 228 << 10),
    "sm_100": (2048, 65536, 32, 228 << 10),
}

MOST_SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10}  # of one block


def _bytes(of: str, text: str) -> int:
    return sum(map(int, re.findall(rf"(\d+) bytes {of}", text)))


def resources(log: str) -> Iterator[dict[str, Any]]:
    """For each kernel of a log its registers, and bytes: spilled (its functions' too), of stack, of shared memory."""
    for part in re.split(r"Compiling entry function '", log)[1:]:
        ((registers, used),) = re.findall(r"Used (\d+) registers(.*)", part)
        found = {"kernel": part.split("'")[0], "registers": int(registers)}
        yield found | {
            "spilled_bytes": _bytes("spill stores", part),
            "stack_bytes": _bytes("cumulative stack size", used),
            "shared_bytes": _bytes("smem", used),
        }


def resident_threads(architecture: str, registers: int, shared: int, threads: int) -> int:
    """How many threads of a kernel a multiprocessor holds at a time, in blocks of ``threads``."""
    most_threads, all_registers, most_blocks, all_shared = LIMITS[architecture]
    taken = -(-registers * cuda.WARP // 256) * 256 * (threads // cuda.WARP)
    blocks = min(most_threads // threads, all_registers // taken, most_blocks, all_shared // (shared + 1024))
    return blocks * threads


def dynamic_shared_bytes(
    kernel: str, dtype: np.dtype, units: tuple[int, int] | None, dropout: bool, most: int
) -> int:
    """What a launch asks for beside; of units, for 784-128-10 in batches of 128 by plain SGD, or of 32 if need be."""
    if units is None:
        return shared_bytes(2, dropout) if kernel == "epoch" else 0
    problems = (random_problem((784, 128, 10), batch, dtype=dtype, optimizer=SGD(0.1)) for batch in (128, 32))
    grids = (of_shared_memory(problem, *units, most) for problem in problems)
    return next(grid.shared for grid in grids if isinstance(grid, Grid))


def threads_of(kernel: str) -> int:
    """A block's threads, as the backend launches the kernel."""
    if kernel in cuda.PERSISTENT:
        return cuda.THREADS
    if kernel == "weight_grad":
        return cuda.WARP * cuda.SUM_ROWS
    return int(np.prod(backend.FLAT_BLOCK if kernel == "update" else cuda.ROW_THREADS))


def heading() -> str:
    """The table's first line: the compiler, and a digest of all that it is given."""
    given = [job[:-1] for job in jobs(ARCHITECTURES[:1])]
    text = "".join(cuda.source(files) + " ".join(cuda.definitions(*kind)) for files, *kind in given)
    return f"# {WHEEL} {version()}, source {hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def table(some: Sequence[tuple]) -> str:
    """The CSV of these jobs' kernels."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = chain.from_iterable(pool.map(lambda job: list(_rows(*job)), some))
    out = io.StringIO()
    out.write(heading())
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@cache
def compiled(
    files: tuple[str, ...],
    dtype,
    precision: str,
    units: tuple[int, int] | None,
    dropout: bool,
    architecture: str,
):
    """What comes of these files, compiled as the backend does, and the lines of the source beside the code."""
    options = cuda.options(dtype, precision, units, dropout)
    return compile_kernels(cuda.source(files), (*options, "-lineinfo"), architecture)


def columns_of(dtype, precision, units, dropout, architecture) -> dict[str, object]:
    """What a table's rows have of the job that they are of."""
    given = {"dtype": dtype.name, "precision": precision, "dropout": int(dropout)}
    given |= dict(zip(("units", "cluster"), units or ("", ""), strict=True))
    return {**given, "architecture": architecture}


def _rows(files, dtype, precision, units, dropout, architecture) -> Iterator[dict[str, object]]:
    job = dtype, precision, units, dropout, architecture
    log, given = compiled(files, *job).log, columns_of(*job)
    for taken in sorted(resources(log), key=lambda taken: taken["kernel"]):
        taken["shared_bytes"] += dynamic_shared_bytes(
            taken["kernel"], dtype, units, dropout, MOST_SHARED[architecture]
        )
        threads = threads_of(taken["kernel"])
        resident = resident_threads(architecture, taken["registers"], taken["shared_bytes"], threads)
        occupancy = f"{resident / LIMITS[architecture][0]:.3f}"
        held = {"threads": threads, "resident_threads": resident, "occupancy": occupancy}
        yield {**taken, **given, **held}


if __name__ == "__main__":
    TABLE.write_text(table(jobs(ARCHITECTURES)))
