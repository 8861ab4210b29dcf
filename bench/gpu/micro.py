"""The kernels of micro.cu: a line here, and a kernel there, measure a further thing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpubp.kernels import cuda

# The files of kernels, and the persistent kernel whose headers come before each.
FILES = {"micro.cu": "epoch"}
MEMORY = 1 << 20  # numbers that a kernel may use


@dataclass(frozen=True)
class Kernel:
    """A kernel that does something so many times.

    what: it is that is measured. grid: whether by each grid of ``Sizes.blocks``, else by one block. cost: the entry of
    gpubp's costs.toml that its cycles are, on the largest grid. file: of FILES. shared: bytes of shared memory after
    HEAD_BYTES.
    """

    name: str
    what: str
    grid: bool = False
    cost: str | None = None
    file: str = "micro.cu"
    shared: int = 0
    dtype: str = "float32"
    precision: str = "float32"


KERNELS = (
    Kernel("barriers", "barrier", grid=True, cost="barrier"),
    Kernel("barriers_and_stores", "barrier after stores", grid=True),
)


def source(file: str) -> str:
    """The text of a file as it is compiled."""
    headers = tuple(name for name in cuda.PERSISTENT[FILES[file]] if name.endswith(".cuh"))
    own = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return cuda.source(headers) + re.sub(r"[^\x00-\x7f]", " ", own)
