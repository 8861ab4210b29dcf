"""Data sets and inputs from the user's own files: IDX, NumPy archives, tables, images."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data.columns import TableData, input_chunks, read_table, target_values
from gpubp.data.dataset import Dataset, Split, check_inputs, check_split, hold_out
from gpubp.data.idx import idx_chunks, one_of, read_idx
from gpubp.data.inputs import BYTES, Inputs, composed, kind_of
from gpubp.data.tables import ENDINGS, TableFormat, ending
from gpubp.data.targets import CLASSES, VALUES, Targets, name_labels, number_labels
from gpubp.errors import DataError, UsageError
from gpubp.support.files import user_path
from gpubp.support.warning import warn_caller

_ALIKE = 0.1  # of a table's rows, from which on it is no wonder that another's are among them
_IDX_NAME = re.compile(
    r"(?:(?:(?P<set>.*)[-_.])?(?P<part>train|t10k|test))?.*?(?P<role>images|labels)(?!.*\.(?:tsv|csv|txt)$).*"
)


@dataclass(frozen=True)
class _Raw:
    """The contents of a file, before any check: (inputs, targets) of each part."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None = None
    sample_weight: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    target: str = ""


def load_path(
    path: str | os.PathLike[str],
    *,
    classes: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    table: TableFormat | None = None,
    test_data: str | os.PathLike[str] | None = None,
    targets: Targets | None = None,
) -> Dataset:
    """A data set from a folder of IDX files, an .npz or a table.

    Folder: IDX files train-images*, train-labels* and, if there is a test part, t10k-* or test-*, perhaps all after the
        name of a set, as in emnist-letters-train-images-idx3-ubyte; or one *images* and one *labels* file; gzipped or
        plain. Of QMNIST's labels, the digits are taken.
    .npz: X and y, or x_train and y_train; perhaps X_test and y_test; perhaps sample_weight, for the training
        part.
    Table: .csv, .tsv or .txt, gzipped or plain, or .parquet (needs pyarrow); read as ``table`` says, its target found
        as :mod:`gpubp.data.columns` does. Inputs become float64, or bytes if they are said to be pixels.

    Labels are classes, by whatever they are called: whole numbers from 0 on are class numbers, and all else names.
    Where ``targets`` does not say what they are, words and whole numbers written without a point are classes, as is
    whatever stands in a column headed label or class, if whole; other numbers are values to be fitted.

    classes: the number of classes, or as many as the labels need; targets of floats are values without it.
    test_fraction, seed: without a test part, this fraction (0.2) is held out at random, by class.
    test_data: a second table, to test on.
    Raises DataError naming the file; UsageError for a test_fraction beside a test part or outside (0, 1), for what is
    said of a table and this is none, and for a target that must be asked for.
    """
    path, targets = _existing(path), targets or Targets()
    kind = "a folder" if path.is_dir() else ending(path)
    if kind not in ("a folder", ".npz", *ENDINGS):
        raise DataError(
            f"{path}: no data set comes as {kind or 'such a file'!r}; use a folder, .npz, {', '.join(ENDINGS)}, and "
            "save other tables as .csv"
        )
    if kind in ENDINGS:
        raw = _read_table(path, table or TableFormat(), test_data, targets)
    elif table not in (None, TableFormat()) or test_data is not None:
        raise UsageError(
            f"{path} is no table: leave out what says how one is to be read, and where its test part is"
        )
    else:
        raw = _of_arrays(path, _read_folder(path) if path.is_dir() else _read_npz(path), targets, classes)
    classes = classes or (len(raw.class_names) if raw.class_names else None)
    values = targets.kind == VALUES
    train = check_split(*raw.train, raw.sample_weight, classes=classes, values=values, name=str(path))
    test = None
    if raw.test:
        test = check_split(*raw.test, classes=classes, values=values, name=f"{test_data or path}, test part")
    classes = classes or _count_classes(train, test, path)
    if test is None:
        fraction = 0.2 if test_fraction is None else test_fraction
        train, test = hold_out(train, fraction, seed, stratify=classes is not None)
    elif test_fraction is not None:
        raise UsageError(f"{path} has a test part of its own; leave out the test fraction")
    return Dataset(
        _stem(path), train, test, classes, _image_shape(raw.train[0]), raw.class_names, str(path),
        raw.feature_names, raw.target,
    )  # fmt: skip


def _stem(path: Path) -> str:
    """The name of a file without its ending, of which a gzipped table has two."""
    whole = path.resolve()
    return whole.name[: -len(ending(whole))] if ending(whole) in ENDINGS else whole.stem


def _image_shape(inputs: np.ndarray) -> tuple[int, int] | None:
    """(height, width) of images, or of square ones whose pixels are columns."""
    if inputs.ndim == 3:
        return inputs.shape[1], inputs.shape[2]
    side = math.isqrt(inputs.shape[1]) if inputs.ndim == 2 and kind_of(inputs) == BYTES else 0
    return (side, side) if side > 1 and side * side == inputs.shape[1] else None


def _read_table(
    path: Path, how: TableFormat, test_data: str | os.PathLike[str] | None, targets: Targets
) -> _Raw:
    train = read_table(path, how)
    test = None if test_data is None else read_table(_existing(test_data), how, like=train)
    if test is not None and np.array_equal(train.inputs, test.inputs) and train.cells == test.cells:
        raise UsageError(
            f"{test_data} holds the table that is trained on, and cannot test what was learned from it"
        )
    if test is not None:
        _say_if_trained_on(train, test, str(test_data))
    (y, *of_test), names = target_values([train] if test is None else [train, test], targets)
    pair = (test.inputs, of_test[0]) if test is not None else None
    return _Raw((train.inputs, y), pair, None, names, train.names or None, train.target_said())


def _say_if_trained_on(train: TableData, test: TableData, name: str) -> None:
    """Warn of a test table most of whose rows are trained on, unless rows are often alike in such tables."""
    rows, tested = (  # by their hashes: the rows themselves would take as much memory again
        [hash((row.tobytes(), cell)) for row, cell in zip(table.inputs, table.cells, strict=True)]
        for table in (train, test)
    )
    known = set(rows)
    shared = sum(row in known for row in tested)
    if 2 * shared > len(tested) and len(known) > (1 - _ALIKE) * len(rows):
        warn_caller(
            f"{name}: {shared} of its {len(tested)} rows are rows of the table that is trained on, so that they tell "
            "little of what the network makes of others"
        )


def _of_arrays(path: Path, raw: _Raw, targets: Targets, classes: int | None) -> _Raw:
    """Arrays with labels that are words, or do not count from 0, as the numbers of classes with names.

    Where targets are classes, whole floats are labels as whole numbers are.
    """
    if targets.kind == CLASSES:
        train, test = raw.train, raw.test
        test = test and (test[0], _whole_labels(test[1]))
        raw = replace(raw, train=(train[0], _whole_labels(train[1])), test=test)
    labels = raw.train[1]
    whole = labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size
    named = labels.dtype.kind in "US" or (whole and labels.min() != 0)
    if targets.kind == VALUES or classes is not None or not named:
        return raw
    written = [composed(np.asarray(part[1]).astype(str).tolist()) for part in (raw.train, raw.test) if part]
    what = f"{path}: the labels"
    numbers, names = name_labels(written[0], replace(targets, kind=CLASSES), what)
    if raw.test is None:
        return replace(raw, train=(raw.train[0], numbers), class_names=names)
    test = raw.test[0], number_labels(written[1], names, f"{path}: the labels of the test part")
    return replace(raw, train=(raw.train[0], numbers), test=test, class_names=names)


def _whole_labels(labels: np.ndarray) -> np.ndarray:
    floats = labels.dtype.kind == "f" and labels.ndim == 1 and np.isfinite(labels).all()
    return labels.astype(np.int64) if floats and (labels == np.rint(labels)).all() else labels


def stream_inputs(
    path: str | os.PathLike[str], rows: int, *, inputs: Inputs | None = None, table: TableFormat | None = None
) -> Iterator[np.ndarray]:
    """Yield inputs to predict for, (n, n_in) in uint8, float32 or float64, some `rows` at a time.

    .npy, tables of numbers and IDX images can be larger than memory; .npz with X or a single array; .png and .jpg, one
    image as (1, h*w) 8-bit grey. Images are taken as they are: one drawn dark on white is not what a network trained
    on MNIST's white on black expects.

    inputs: what the network learned from: a table's columns are put in the order of its names, and are pixels if it
        learned from bytes.
    table: how a table is to be read.
    Raises DataError, naming the file, for what is missing, damaged or of another kind; for what is wrong with a row,
    when its turn has come.
    """
    path = _existing(path)
    kind, how = ending(path), table or TableFormat()
    if kind in ("", ".gz") or ".idx" in kind or path.name.removesuffix(".gz").endswith("-ubyte"):
        kind = ".idx"
    if (kind not in _INPUTS and kind not in ENDINGS) or path.is_dir():
        raise DataError(
            f"{path}: not a known kind of file; use {', '.join([*_INPUTS, *ENDINGS])}, and save other tables as .csv"
        )
    if kind not in ENDINGS and how != TableFormat():
        raise UsageError(f"{path} is no table: leave out what says how one is to be read")
    if inputs is not None and kind not in ENDINGS:
        inputs.order_of((), str(path))
    first = 0
    parts = (
        input_chunks(path, rows, how, inputs or Inputs()) if kind in ENDINGS else _INPUTS[kind](path, rows)
    )
    for part in parts:
        if inputs is not None:
            inputs.check_shape(part.shape[1:], str(path))
        checked = check_inputs(part, str(path), first_row=first)
        first += len(checked)
        yield checked


def _existing(path: str | os.PathLike[str]) -> Path:
    path = user_path(path)
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
    sets = _idx_sets(folder)
    named = [name for name, parts in sets.items() if "train" in parts] or [""]
    if len(named) > 1:
        found = ", ".join(name or "one without a name" for name in named)
        raise DataError(f"{folder}: there are several sets, {found}; give each a folder of its own")
    parts = sets.get(named[0], {})
    train, test = (_read_pair(folder, parts[part]) if part in parts else None for part in ("train", "test"))
    if train is None and test is None and "" in parts:
        train = _read_pair(folder, parts[""])
    if train is None:
        raise DataError(
            f"{folder}: no IDX files to train on, such as train-images-idx3-ubyte.gz, with labels"
        )
    return _Raw(train, test)


def _idx_sets(folder: Path) -> dict[str, dict[str, dict[str, list[Path]]]]:
    """The files of images and labels of each part of each set: emnist-letters-train-images-idx3-ubyte.gz.

    Sets have the name before the part, perhaps none; files that name no part are of part "" of the set "".
    """
    sets: dict[str, dict[str, dict[str, list[Path]]]] = {}
    whole: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            whole.setdefault(path.name.removesuffix(".gz"), []).append(path)
    for name, paths in whole.items():  # a file and its .gz count as one
        if (said := _IDX_NAME.fullmatch(name)) is None:
            continue
        part = "test" if said["part"] == "t10k" else said["part"] or ""
        files = sets.setdefault(said["set"] or "", {}).setdefault(part, {"images": [], "labels": []})
        files[said["role"]].append(one_of(paths))
    return sets


def _read_pair(folder: Path, files: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from the one file of each."""
    images, labels = files["images"], files["labels"]
    if len(images) != 1 or len(labels) != 1:
        names = ", ".join(p.name for p in images + labels)
        raise DataError(f"{folder}: expected one file of images and one of labels, found {names}")
    return read_idx(images[0]), _idx_labels(labels[0])


def _idx_labels(path: Path) -> np.ndarray:
    """The labels in an IDX file; of QMNIST's, which say in 8 columns where each digit is from, the digit."""
    labels = read_idx(path)
    if labels.ndim == 2 and labels.dtype.kind in "iu":
        if labels.shape[1] != 1 and (labels.shape[1], labels.dtype) != (8, np.int32):
            raise DataError(f"{path}: expected one label for every image, found whole numbers {labels.shape}")
        return labels[:, 0]
    return labels


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
    ".idx": idx_chunks,
    **dict.fromkeys((".png", ".jpg", ".jpeg"), lambda path, _: [_read_image(path)]),
}
