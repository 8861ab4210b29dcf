"""The IDX file format: two zero bytes, a type, the number of dimensions, each of them, then the elements.

All numbers are big-endian; dimensions are 32-bit. Source: yann.lecun.com/exdb/mnist, "The IDX file format".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpubp.errors import DataError

_GZIP = b"\x1f\x8b"
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CODES = {np.dtype(dtype): code for code, dtype in _TYPES.items()}
_MAX_DIMS = 64  # what an ndarray can have; the format itself allows 255


def read_idx(path: str | os.PathLike[str], *, expect_dims: int | None = None) -> np.ndarray:
    """The array in an IDX file, gzipped or plain whatever its name, in native byte order.

    expect_dims: the number of dimensions it must have, None for any.
    Raises DataError, naming the file, unless it is there, whole, undamaged and nothing follows the array.
    """
    return parse_idx(unpack(file_bytes(path), path), path, expect_dims=expect_dims)


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array of 1 to 64 dimensions as IDX, gzipped if the name ends in .gz.

    The same array gives the same bytes. Raises DataError for a dtype other than uint8, int8, int16, int32,
    float32 and float64.
    """
    code = _CODES.get(array.dtype.newbyteorder(">"))
    if code is None or array.ndim == 0:
        raise DataError(f"{path}: IDX cannot hold an array of dtype {array.dtype} and shape {array.shape}")
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    content = header + array.astype(_TYPES[code]).tobytes()
    Path(path).write_bytes(gzip.compress(content, mtime=0) if os.fspath(path).endswith(".gz") else content)


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Everything in a file; DataError when it is absent, a directory or unreadable."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def unpack(raw: bytes, where: object) -> bytes:
    """Bytes without their gzip wrapping, or as they are without one; DataError when damaged or none."""
    if not raw:
        raise DataError(f"{where}: the file is empty")
    if not raw.startswith(_GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{where}: a damaged or incomplete gzip file: {error}") from error


def parse_idx(content: bytes, where: object, *, expect_dims: int | None = None) -> np.ndarray:
    """The array in the bytes of an IDX file; errors as in `read_idx`, where `where` is the file's name."""
    dtype, shape, start = _header(content, where, expect_dims)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(_wrong_length(where, dtype, shape, expected, str(len(content))))
    try:
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:  # a 0 among dimensions whose product is beyond any array
        raise DataError(f"{where}: impossible shape {shape}: {error}") from error


def idx_chunks(path: str | os.PathLike[str], rows: int) -> Iterator[np.ndarray]:
    """The array in an IDX file, gzipped or plain, as arrays of so many rows and a last one, read one by one.

    Raises DataError as `read_idx` does; of a gzipped file, damage is noticed where reading has come to.
    """
    zipped = False
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            size = None if zipped else os.fstat(raw.fileno()).st_size
            with gzip.open(raw) if zipped else raw as file:
                yield from _chunks(file, path, rows, size)
    except (
        MemoryError,
        OverflowError,
    ) as error:  # of a header that promises too much, since a plain file's is checked
        raise DataError(f"{path}: rows too large to be read; its header may be damaged") from error
    except (EOFError, OSError, zlib.error) as error:
        what = "a damaged or incomplete gzip file" if zipped else "cannot be read"
        raise DataError(f"{path}: {what}: {getattr(error, 'strerror', None) or error}") from error


def _chunks(
    file: IO[bytes] | gzip.GzipFile, where: object, rows: int, size: int | None
) -> Iterator[np.ndarray]:
    if size == 0:
        raise DataError(f"{where}: the file is empty")
    dtype, shape, start = _header(file.read(4 + 4 * 255), where, None)
    file.seek(start)
    row = math.prod(shape[1:]) * dtype.itemsize
    expected = start + shape[0] * row
    if size not in (None, expected):
        raise DataError(_wrong_length(where, dtype, shape, expected, str(size)))
    if 0 in shape:
        raise DataError(f"{where}: no data, its shape is {shape}")
    for first in range(0, shape[0], rows):
        count = min(rows, shape[0] - first)
        content = file.read(count * row)
        if len(content) < count * row:
            found = start + first * row + len(content)
            raise DataError(_wrong_length(where, dtype, shape, expected, str(found)))
        yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
    if file.read(1):
        raise DataError(_wrong_length(where, dtype, shape, expected, "more"))


def _wrong_length(where: object, dtype: np.dtype, shape: tuple[int, ...], expected: int, found: str) -> str:
    return f"{where}: shape {shape} of {dtype.name} needs {expected} bytes, found {found}"


def _header(content: bytes, where: object, expect_dims: int | None) -> tuple[np.dtype, tuple[int, ...], int]:
    """The dtype and shape that an IDX file starts with, and the number of bytes that tell them."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{where}: not an IDX file; it starts with {content[:4].hex(' ')}, "
            "where 00 00, a type (08 09 0b 0c 0d 0e) and the number of dimensions were expected"
        )
    dtype, ndim = np.dtype(_TYPES[content[2]]), content[3]
    if not 1 <= ndim <= _MAX_DIMS or ndim != (expect_dims or ndim):
        raise DataError(f"{where}: {ndim} dimensions, expected {expect_dims or f'1 to {_MAX_DIMS}'}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(f"{where}: ends within its header, after {len(content)} of {start} bytes")
    shape = tuple(np.frombuffer(content, ">i4", ndim, 4).tolist())
    if min(shape) < 0:
        raise DataError(f"{where}: a negative dimension in {shape}")
    return dtype, shape, start
