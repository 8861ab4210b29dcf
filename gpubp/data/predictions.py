"""Predictions written to a file as they come, so that neither they nor their inputs need to fit into memory."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpubp.errors import DataError, UsageError
from gpubp.support.files import write_atomically


def require_suffix(path: Path) -> str:
    """The suffix of a file for predictions, or a UsageError where it is neither .npy nor .csv."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise UsageError(f"{path}: predictions are written as .npy or .csv, by the name's ending")
    return suffix


def write_predictions(
    path: str | os.PathLike, parts: Iterable[np.ndarray], classes: Sequence | None = None
) -> int:
    """Write labels (n,) or outputs (n, n_out), part after part, and give the number of rows.

    The file appears under its name once it is whole; until then, and if anything fails, an old one stays. As .csv it
    has a header, "label" or a name for each output: its class in ``classes``, the second of two for a single output,
    else its number; numbers are as many digits as tell them apart.

    Raises:
        UsageError: neither .npy nor .csv.
        GpubpError: the file cannot be written, or the disk is full.
        DataError: no parts; and whatever the parts raise.
    """
    path = Path(path)
    fill = _fill_npy if require_suffix(path) == ".npy" else _fill_csv
    parts, rows = iter(parts), 0
    first = next(parts, None)
    if first is None:
        raise DataError("no data: there are no predictions to write")

    def counted() -> Iterator[np.ndarray]:
        nonlocal rows
        for part in itertools.chain([first], parts):
            rows += len(part)
            yield part

    write_atomically(path, lambda file: fill(file, first, counted(), classes))
    return rows


def _fill_npy(file: BinaryIO, first: np.ndarray, parts: Iterator[np.ndarray], classes: object) -> None:
    rows = 0
    start = _npy_header(file, first, 0)
    for part in parts:
        file.write(np.ascontiguousarray(part).data)
        rows += len(part)
    file.seek(0)
    # NumPy leaves room in a header for the digits of a first dimension that grows.
    assert _npy_header(file, first, rows) == start


def _npy_header(file: BinaryIO, like: np.ndarray, rows: int) -> int:
    descr = np.lib.format.dtype_to_descr(like.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (rows, *like.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _fill_csv(
    file: BinaryIO, first: np.ndarray, parts: Iterator[np.ndarray], classes: Sequence | None
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    width = 1 if first.ndim == 1 else first.shape[1]
    named = list(classes or ())[1:] if width == 1 else list(classes or ())
    names = named if len(named) == width else list(range(width))
    writer.writerow(["label"] if first.ndim == 1 else names)
    for part in parts:
        writer.writerows(part.reshape(len(part), width))
    text.detach()  # the file stays open
