"""Arrays that lie in a file and are mapped into memory, such as ``np.load(path, mmap_mode="r")`` gives.

Of these only what is asked for is read. So nobody looks through all of one where a part will do: ranks that train
together look through a part each.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.support.checksums import crc32

BLOCKS = 64  # that the rows of a mapped array are looked through in, whoever looks


def is_mapped(array: Any) -> bool:
    """Return True for an array of NumPy's whose memory is a file's, as far as views tell."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def share_of_rows(count: int, rank: int, ranks: int) -> Iterator[slice]:
    """The rows of the blocks that are this rank's to look through; of all ranks together, all of them."""
    for block in range(BLOCKS * rank // ranks, BLOCKS * (rank + 1) // ranks):
        yield slice(count * block // BLOCKS, count * (block + 1) // BLOCKS)


def checksums(array: np.ndarray, rank: int, ranks: int) -> list[int]:
    """The CRC-32 of each of this rank's blocks of rows."""
    return [crc32([array[some]]) for some in share_of_rows(len(array), rank, ranks)]
