"""Data sets and inputs from the user's own files: IDX, NumPy archives, CSV, images."""

from __future__ import annotations

import csv
import itertools
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data.dataset import Dataset, Split, check_inputs, check_split, hold_out
from gpubp.data.idx import idx_chunks, read_idx
from gpubp.errors import DataError, UsageError

_CLASS_HEADERS = ("label", "class")  # a column so named holds classes, whatever its cells look like
_TARGET_HEADERS = (*_CLASS_HEADERS, "target", "y")


@dataclass(frozen=True)
class _Raw:
    """The contents of a file, before any check: (inputs, targets) of each part."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None = None
    sample_weight: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None


def load_path(
    path: str | os.PathLike[str],
    *,
    classes: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set from a folder of IDX files, an .npz or a .csv.

    Folder: train-images*, train-labels* and, if there is a test part, t10k-* or test-*; or one *images* and
        one *labels* file; gzipped or plain.
    .npz: X and y, or x_train and y_train; perhaps X_test and y_test; perhaps sample_weight, for the training
        part.
    .csv: comma-separated, a header if it likes; the target is the column headed label, class, target or y, else the
        last. Words are class names; whole numbers written without a point are class labels, or the names of classes
        if they do not begin with 0; and other numbers are values to be fitted (write 3.0, not 3). Inputs become
        float64.

    classes: the number of classes, or as many as the labels need; targets of floats are values without it.
    test_fraction, seed: without a test part, this fraction (0.2) is held out at random, by class.
    Raises DataError naming the file; UsageError for a test_fraction beside a test part or outside (0, 1).
    """
    path = _existing(path)
    kind = "a folder" if path.is_dir() else path.suffix.lower()
    readers = {"a folder": _read_folder, ".npz": _read_npz, ".csv": _read_csv}
    if kind not in readers:
        raise DataError(f"{path}: no data set comes as {kind or 'such a file'!r}; use {', '.join(readers)}")
    raw = readers[kind](path)
    classes = classes or (len(raw.class_names) if raw.class_names else None)
    train = check_split(*raw.train, raw.sample_weight, classes=classes, name=str(path))
    test = check_split(*raw.test, classes=classes, name=f"{path}, test part") if raw.test else None
    classes = classes or _count_classes(train, test, path)
    if test is None:
        fraction = 0.2 if test_fraction is None else test_fraction
        train, test = hold_out(train, fraction, seed, stratify=classes is not None)
    elif test_fraction is not None:
        raise UsageError(f"{path} has a test part of its own; leave out the test fraction")
    height_width = raw.train[0].shape[1:]
    shape = (height_width[0], height_width[1]) if len(height_width) == 2 else None
    return Dataset(path.resolve().stem, train, test, classes, shape, raw.class_names, str(path))


def stream_inputs(path: str | os.PathLike[str], rows: int) -> Iterator[np.ndarray]:
    """Yield inputs to predict for, (n, n_in) in uint8, float32 or float64, some `rows` at a time.

    .npy, .csv of numbers, a header if it likes, and IDX images can be larger than memory; .npz with X or a single
    array; .png and .jpg, one image as (1, h*w) 8-bit grey. Images are taken as they are: one drawn dark on white is
    not what a network trained on MNIST's white on black expects.
    Raises DataError, naming the file, for what is missing, damaged or of another kind; for what is wrong with a row,
    when its turn has come.
    """
    path = _existing(path)
    kind = path.suffix.lower()
    if kind in ("", ".gz") or ".idx" in kind or path.name.endswith("-ubyte"):
        kind = ".idx"
    if kind not in _INPUTS or path.is_dir():
        raise DataError(f"{path}: not a known kind of file; use {', '.join(_INPUTS)}")
    first = 0
    for part in _INPUTS[kind](path, rows):
        checked = check_inputs(part, str(path), first_row=first)
        first += len(checked)
        yield checked


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return path


def _count_classes(train: Split, test: Split | None, path: Path) -> int | None:
    """Count the classes that the labels need; None for values."""
    parts = [train.targets] if test is None else [train.targets, test.targets]
    labelled = [targets.dtype == np.int64 for targets in parts]
    if not all(labelled):
        if any(labelled):
            raise DataError(
                f"{path}: one part has whole numbers as targets, the other floats; use one of them"
            )
        return None
    largest = max(int(targets.max()) for targets in parts)
    if largest >= len(train):
        raise DataError(
            f"{path}: labels up to {largest} for {len(train)} rows are hardly classes; "
            "give regression targets as floats (3.0, not 3), or the number of classes"
        )
    return largest + 1


def _read_folder(folder: Path) -> _Raw:
    train, test = _read_pair(folder, "train"), _read_pair(folder, "t10k", "test")
    if train is None and test is None:
        train = _read_pair(folder, "")
    if train is None:
        raise DataError(
            f"{folder}: no IDX files to train on, such as train-images-idx3-ubyte.gz, with labels"
        )
    return _Raw(train, test)


def _read_pair(folder: Path, *prefixes: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels from the two files so prefixed; None where there is neither."""
    found: list[list[Path]] = []
    for role in ("images", "labels"):
        files = (p for p in sorted(folder.iterdir()) if p.name.startswith(prefixes) and role in p.name)
        # A file and its .gz count as one.
        found.append(list({p.name.removesuffix(".gz"): p for p in files if p.is_file()}.values()))
    images, labels = found
    if not images and not labels:
        return None
    if len(images) != 1 or len(labels) != 1:
        names = ", ".join(p.name for p in images + labels)
        raise DataError(f"{folder}: expected one file of images and one of labels, found {names}")
    return read_idx(images[0]), read_idx(labels[0])


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz by name in lower case; an .npy has one, named x."""
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            return {key.lower(): loaded[key] for key in loaded.files}
    except Exception as error:  # zip, zlib and NumPy each have their own for damage
        raise DataError(f"{path}: not a valid NumPy file: {error}") from error


def _read_npz(path: Path) -> _Raw:
    arrays = _read_arrays(path)
    holds = f"it holds {', '.join(arrays) or 'nothing'}"

    def part(*keys: tuple[str, str]) -> tuple[np.ndarray, np.ndarray] | None:
        for x, y in keys:
            if (x in arrays) != (y in arrays):
                raise DataError(f"{path}: {y if x in arrays else x!r} is missing; {holds}")
            if x in arrays:
                return arrays[x], arrays[y]
        return None

    train = part(("x", "y"), ("x_train", "y_train"))
    if train is None:
        raise DataError(f"{path}: needs X and y, or x_train and y_train; {holds}")
    return _Raw(train, part(("x_test", "y_test")), arrays.get("sample_weight"))


def _only_array(path: Path) -> np.ndarray:
    arrays = _read_arrays(path)
    if "x" in arrays:
        return arrays["x"]
    if len(arrays) != 1:
        raise DataError(f"{path}: needs X, or a single array; it holds {', '.join(arrays) or 'nothing'}")
    return next(iter(arrays.values()))


def _npy_chunks(path: Path, rows: int) -> Iterator[np.ndarray]:
    """The rows of an .npy file, mapped anew for each chunk, so that what was read does not stay in memory."""
    try:
        with path.open("rb") as file:
            whole = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(whole, np.memmap) or whole.ndim < 2 or not whole.size:  # for the gate to refuse
                yield _only_array(path)
                return
            order: Any = "C" if whole.flags.c_contiguous else "F"
            dtype, shape, offset = whole.dtype, whole.shape, whole.offset
            del whole
            for start in range(0, shape[0], rows):
                yield np.memmap(file, dtype, "r", offset, shape, order)[start : start + rows]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a valid NumPy file: {error}") from error


def _read_csv(path: Path) -> _Raw:
    header, rows = _open_table(path, 2)
    named = [i for i, cell in enumerate(header) if cell in _TARGET_HEADERS]
    target = named[-1] if named else len(header) - 1
    cells, lines = [], []
    flat = array("d")  # a list of floats would take four times the memory
    for line, row in rows:
        cells.append(row[target].strip())
        lines.append(line)
        row[target] = "0"  # keeps the columns' numbers for messages; dropped below
        flat.extend(_floats(path, line, row))
    inputs = np.delete(np.frombuffer(flat).reshape(-1, len(header)), target, axis=1)
    numeric = [_number(cell) is not None for cell in cells]
    if not any(numeric) and all(cells):
        names, labels = np.unique(cells, return_inverse=True)
        return _Raw((inputs, labels), class_names=tuple(str(name) for name in names))
    if not all(numeric):
        row_number = numeric.index(False)
        where = f"{path}: line {lines[row_number]}, column {target + 1}"
        raise DataError(f"{where}: the target {cells[row_number]!r} is not a number, but others are")
    values = np.array(cells, np.float64)
    labelled = named and header[target] in _CLASS_HEADERS and (values == np.floor(values)).all()
    if labelled or all(cell.isdecimal() for cell in cells):
        return _labelled(inputs, values.astype(np.int64))
    return _Raw((inputs, values))


def _labelled(inputs: np.ndarray, labels: np.ndarray) -> _Raw:
    """Labels from 0 on as they are; others, such as 1, 2, 3, are the names of as many classes."""
    names, numbers = np.unique(labels, return_inverse=True)
    if names[0] == 0 or 2 * len(names) > len(labels):  # of values to be fitted nearly all differ
        return _Raw((inputs, labels))
    return _Raw((inputs, numbers), class_names=tuple(map(str, names)))


def _open_table(path: Path, columns: int) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The cells of the first row in lower case, whether names or numbers, and the rows of data with their lines."""
    rows = _rows(path)
    first_line, first = next(rows, (0, []))
    header = [cell.strip().lower() for cell in first]
    headed = any(cell in _TARGET_HEADERS for cell in header) or all(_number(cell) is None for cell in header)
    if len(header) < columns:
        other = next((mark for mark in (";", "\t") if mark in first[0]), None) if first else None
        advice = f"; they seem to be separated by {other!r}" if other else ""
        raise DataError(f"{path}: {len(header)} columns, separated by commas, are too few{advice}")

    def wide() -> Iterator[tuple[int, list[str]]]:
        line = 0
        for line, row in rows if headed else itertools.chain([(first_line, first)], rows):
            if len(row) != len(header):
                raise DataError(f"{path}: line {line} has {len(row)} columns, the first has {len(header)}")
            yield line, row
        if not line:
            raise DataError(f"{path}: no rows of data")

    return header, wide()


def _csv_chunks(path: Path, rows: int) -> Iterator[np.ndarray]:
    _, table = _open_table(path, 1)
    while part := list(itertools.islice(table, rows)):
        yield np.array([_floats(path, line, row, "; leave out a column of targets") for line, row in part])


def _floats(path: Path, line: int, row: list[str], advice: str = "") -> list[float]:
    with suppress(ValueError):
        values = list(map(float, row))
        if all(map(math.isfinite, values)):
            return values
    at = next(i for i, cell in enumerate(row) if (x := _number(cell)) is None or not math.isfinite(x))
    raise DataError(f"{path}: line {line}, column {at + 1}: {row[at]!r} is not a number{advice}")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from error


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _read_image(path: Path) -> np.ndarray:
    """One image as (1, h, w) uint8, brightness 0 to 255."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            deep = image.mode.startswith(("I", "F"))
            transparent = np.asarray(image.convert("RGBA"))[..., 3].min() < 255
            grey = np.asarray(image.convert("L"))
    except Exception as error:  # every format's decoder has its own for damage
        raise DataError(f"{path}: not a valid image: {error}") from error
    if deep:
        raise DataError(f"{path}: more than 8 bits per channel would be cut off; save it with 8")
    if transparent:
        raise DataError(f"{path}: parts are transparent; flatten it onto a background first")
    return grey[None]


_INPUTS: dict[str, Callable[[Path, int], Iterable[np.ndarray]]] = {
    ".npy": _npy_chunks,
    ".npz": lambda path, _: [_only_array(path)],
    ".csv": _csv_chunks,
    ".idx": idx_chunks,
    **dict.fromkeys((".png", ".jpg", ".jpeg"), lambda path, _: [_read_image(path)]),
}
