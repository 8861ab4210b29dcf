"""Bytes of IDX files, right and wrong ones."""

from __future__ import annotations

import numpy as np

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def header(code: int, *dims: int) -> bytes:
    return bytes([0, 0, code, len(dims)]) + b"".join(n.to_bytes(4, "big", signed=n < 0) for n in dims)


def idx(array: np.ndarray) -> bytes:
    content = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return header(CODES[array.dtype.str[1:]], *array.shape) + content
