"""Memory for kernels: arrays on the boundaries of cache lines, and one array handed out in pieces."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.deforming import lined
from gpubp.kernels.cpu.machine import LINE


class Memory:
    """Offsets into one array, handed out on the boundaries of cache lines."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.size = dtype, 0

    def take(self, count: int) -> int:
        place = self.size
        self.size += whole_lines(count, self.dtype)
        return place

    def allocate(self) -> np.ndarray:
        """The array, zeros."""
        return zeros(self.size, self.dtype)


def whole_lines(count: int, dtype: np.dtype) -> int:
    """Elements of as many cache lines as ``count`` of them take."""
    line = LINE // dtype.itemsize
    return -(-count // line) * line


def zeros(count: int, dtype: np.dtype | type) -> np.ndarray:
    """A one-dimensional array that begins on a cache line."""
    return lined(count * np.dtype(dtype).itemsize).view(dtype)
