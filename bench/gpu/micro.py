"""The kernels of micro.cu: a line here, and a kernel there, measure a further thing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpubp.kernels import cuda

# The files of kernels, and the persistent kernel whose headers come before each.
FILES = {"micro.cu": "epoch", "micro_cluster.cu": "units"}
CYCLES = "micro_cycles.cuh"
MEMORY = 1 << 20  # numbers that a kernel may use


@dataclass(frozen=True)
class Kernel:
    """A kernel that does something so many times.

    what: it is that is measured. grid: whether by each grid of ``Sizes.blocks``, else by one block. cost: the entry of
    gpubp's costs.toml that its cycles are, on the largest grid. file: of FILES. shared: bytes of shared memory after
    HEAD_BYTES. units: hidden units and blocks of a cluster, for a kernel on clusters, which is launched as one.
    """

    name: str
    what: str
    grid: bool = False
    cost: str | None = None
    file: str = "micro.cu"
    shared: int = 0
    dtype: str = "float32"
    precision: str = "float32"
    units: tuple[int, int] | None = None

    def grids(self, several: tuple[int, ...]) -> tuple[int, ...]:
        """The numbers of blocks that it is measured on."""
        if self.grid:
            return several
        return (self.units[1] if self.units else 1,)


CLUSTER = (8, max(cuda.CLUSTERS))
KERNELS = (
    Kernel("barriers", "barrier", grid=True, cost="barrier"),
    Kernel("barriers_and_stores", "barrier after stores", grid=True),
    Kernel("cluster_barriers", "barrier of a cluster", file="micro_cluster.cu", units=CLUSTER),
    Kernel(
        "exchanges",
        "barrier of a cluster after 16 bytes a thread for the next block",
        file="micro_cluster.cu",
        shared=2 * cuda.THREADS * 16,
        units=CLUSTER,
    ),
)


def source(file: str) -> str:
    """The text of a file as it is compiled."""
    headers = tuple(name for name in cuda.PERSISTENT[FILES[file]] if name.endswith(".cuh"))
    own = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in (CYCLES, file))
    return cuda.source(headers) + re.sub(r"[^\x00-\x7f]", " ", own)
