"""The IDX file format: two zero bytes, a type, the number of dimensions, each of them, then the elements.

All numbers are big-endian; dimensions are 32-bit. Source: yann.lecun.com/exdb/mnist, "The IDX file format".
"""

from __future__ import annotations

import gzip
import io
import math
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from gpubp.errors import DataError
from gpubp.support.files import write_bytes

_GZIP = b"\x1f\x8b"
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMS = 64  # what an ndarray can have; the format itself allows 255


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzipped or plain whatever its name, in native byte order.

    Raises DataError, naming the file, unless it is there, whole, undamaged and nothing follows the array.
    """
    return parse_idx(unpack(file_bytes(path), path), path)


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array, gzipped if the name ends in .gz; the same array gives the same bytes.

    Raises DataError for a dtype that the format has not, GpubpError where it cannot be written.
    """
    codes = {np.dtype(kind).newbyteorder("="): code for code, kind in _TYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None:
        raise DataError(f"{path}: an IDX file cannot hold {array.dtype}; it has {', '.join(map(str, codes))}")
    sizes = np.array(array.shape, ">i4").tobytes()
    content = bytes([0, 0, code, array.ndim]) + sizes + array.astype(_TYPES[code]).tobytes()
    zipped = Path(path).suffix.lower() == ".gz"
    write_bytes(path, gzip.compress(content, mtime=0) if zipped else content)


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file; DataError when it is absent, a directory or unreadable."""
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


def one_of(paths: Sequence[Path]) -> Path:
    """The first of a file's spellings, packed and not; DataError where two of them differ."""
    first, *others = paths
    content = unpack(file_bytes(first), first) if others else b""
    for other in others:
        if unpack(file_bytes(other), other) != content:
            raise DataError(f"{other} and {first.name} should hold the same, but differ: remove one of them")
    return first


def parse_idx(content: bytes, where: object) -> np.ndarray:
    """The array in the bytes of an IDX file; errors as in `read_idx`, where `where` is the file's name."""
    (whole,) = _chunks(io.BytesIO(content), where, sys.maxsize, len(content))
    return whole.astype(whole.dtype.newbyteorder("="))


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
    except (MemoryError, OverflowError) as error:  # a gzipped file's header may promise anything
        raise DataError(f"{path}: rows too large to be read; its header may be damaged") from error
    except (EOFError, OSError, zlib.error) as error:
        what = "a damaged or incomplete gzip file" if zipped else "cannot be read"
        raise DataError(f"{path}: {what}: {getattr(error, 'strerror', None) or error}") from error


def _chunks(
    file: IO[bytes] | gzip.GzipFile, where: object, rows: int, size: int | None
) -> Iterator[np.ndarray]:
    """The array, some rows at a time; ``size`` is the number of bytes there are, where that is known beforehand."""
    if size == 0:
        raise DataError(f"{where}: the file is empty")
    dtype, shape, start = _header(file.read(4 + 4 * 255), where)
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


def _header(content: bytes, where: object) -> tuple[np.dtype, tuple[int, ...], int]:
    """The dtype and shape that an IDX file starts with, and the number of bytes that tell them."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{where}: not an IDX file; it starts with {content[:4].hex(' ')}, "
            "where 00 00, a type (08 09 0b 0c 0d 0e) and the number of dimensions were expected"
        )
    dtype, ndim = np.dtype(_TYPES[content[2]]), content[3]
    if not 1 <= ndim <= _MAX_DIMS:
        raise DataError(f"{where}: {ndim} dimensions, expected 1 to {_MAX_DIMS}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(f"{where}: ends within its header, after {len(content)} of {start} bytes")
    shape = tuple(np.frombuffer(content, ">i4", ndim, 4).tolist())
    if min(shape) < 0:
        raise DataError(f"{where}: a negative dimension in {shape}")
    return dtype, shape, start
