"""Data sets: a training part, perhaps a test part, and the gate every array passes through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpubp.data.arrays import host_array, refuse_columns, storage
from gpubp.data.inputs import BYTES, kind_of, shown
from gpubp.data.mapped import is_mapped
from gpubp.data.sparse import check_sparse, is_sparse
from gpubp.data.targets import TO_FIT
from gpubp.errors import DataError, UsageError

_SCAN = 1 << 20  # elements looked at together, so that a scan needs a megabyte and not a second copy


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: N samples and what is known about them.

    inputs: (N, n_in), uint8 or floating, C-contiguous, or a SciPy ``csr_array``.
    targets: (N,) int64 class labels, or (N,) or (N, n_out) floating values.
    sample_weight: (N,) float64 or None, when every sample counts the same.
    """

    inputs: Any = field(repr=False)
    targets: np.ndarray = field(repr=False)
    sample_weight: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def take(self, rows: np.ndarray) -> Split:
        """The samples at the indices `rows`, in that order, copied."""
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return Split(self.inputs[rows], self.targets[rows], weight)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set. Raises DataError when its two parts differ in width.

    classes: number of classes, None for regression.
    image_shape: (height, width) where a row of inputs is an image, row by row.
    class_names: one name per class, where the classes have names.
    source: where the data came from and under which licence.
    feature_names: one name per column of the inputs, where these have names.
    target: what the column of targets is called, of a table.
    """

    name: str
    train: Split
    test: Split | None
    classes: int | None
    image_shape: tuple[int, int] | None
    class_names: tuple[str, ...] | None
    source: str
    feature_names: tuple[str, ...] | None = None
    target: str = ""

    def __post_init__(self) -> None:
        if self.test is not None and self.test.inputs.shape[1] != self.n_in:
            raise DataError(
                f"{self.name}: the training part has {self.n_in} columns and the test part "
                f"{self.test.inputs.shape[1]}; both need the same"
            )

    @property
    def n_in(self) -> int:
        return int(self.train.inputs.shape[1])

    def summary(self) -> str:
        """What was read, in a line: rows, inputs, and targets, whether classes or values."""
        rows = f"{len(self.train):,} rows to train on"
        if self.test is not None:
            rows += f" and {len(self.test):,} to test"
        inputs = f"{self.n_in} input{'s' if self.n_in != 1 else ''}"
        if self.feature_names:
            inputs += f" ({shown(self.feature_names, 4)})"
        if kind_of(self.train.inputs) == BYTES:
            shape = (
                "" if self.image_shape is None else f" of images, {' × '.join(map(str, self.image_shape))}"
            )
            inputs += f", bytes{shape}"
        target = f"target {self.target}" if self.target else "targets"
        return f"{self.name}: {rows}; {inputs}; {target}: {self._told()}"

    def _told(self) -> str:
        targets = self.train.targets
        if self.classes is None:
            low, high = targets.min(), targets.max()
            several = f" in {targets.shape[1]} columns" if targets.ndim == 2 else ""
            return f"values from {low:.6g} to {high:.6g}{several}"
        names = self.class_names or [str(label) for label in np.unique(targets).tolist()]
        return f"{len(names)} classes ({shown(names, 4)})"


def check_split(
    inputs: Any,
    targets: Any,
    sample_weight: Any = None,
    *,
    classes: int | None = None,
    values: bool = False,
    look_through_mapped: bool = True,
    name: str = "data",
) -> Split:
    """The Split of arrays from outside, or a DataError that says what is wrong with which of them.

    inputs: (N, n_in), or (N, h, w, ...), which is flattened to (N, h*w*...); see `check_inputs`.
    targets: integers (N,) or (N, 1) are class labels, from 0; floats (N,) or (N, n_out) are values, and so
        are integers (N, n_out). With `classes` given they are labels below it, whole floats included; with `values`
        integers are values too.
    look_through_mapped: whether NaN and infinity are looked for in inputs that are mapped from a file, too.
    sample_weight: (N,), not negative, not all zero.
    name: what messages call the data.
    """
    x = check_inputs(inputs, name, look_through_mapped=look_through_mapped)
    y = _check_targets(targets, x.shape[0], classes, values, name)
    weight = None if sample_weight is None else _check_weight(sample_weight, x.shape[0], name)
    return Split(x, y, weight)


def check_inputs(
    inputs: Any, name: str = "data", *, first_row: int = 0, look_through_mapped: bool = True
) -> Any:
    """Inputs as (N, n_in), C-contiguous, in uint8, float32 or float64; SciPy's sparse ones as a ``csr_array``.

    Arrays of other libraries count too (`gpubp.data.arrays.host_array`). Nothing is copied that already is so.
    uint8, float32 and float64 stay as they are; bool and float16 become float32, and so do other integers
    unless their values need float64. Raises DataError for fewer than two dimensions, no samples, no
    columns, anything but numbers, and for NaN or infinity, naming the row and column; rows are counted
    from `first_row`.
    """
    x = rows_of(inputs, name)
    if is_sparse(x):
        return x
    x = np.ascontiguousarray(x.reshape(len(x), -1), dtype=storage(x))
    if (look_through_mapped or not is_mapped(x)) and (said := not_finite(x, name, first_row)):
        raise DataError(said)
    return x


def not_finite(x: np.ndarray, name: str, first_row: int = 0) -> str | None:
    """What is to be said of the first of these inputs (N, n_in) that is NaN or infinite, counted from that row."""
    if (at := _first_not_finite(x)) is None:
        return None
    return (
        f"{name}: the input in row {first_row + at[0]}, column {at[1]} is {x[at]}; "
        "remove or fill in such rows before training"
    )


def rows_of(inputs: Any, name: str = "data") -> Any:
    """Inputs as an array of two or more dimensions and any dtype of numbers, with nothing read or copied yet.

    Sparse ones are checked already. Raises DataError as `check_inputs` does, but for NaN and infinity in an array.
    """
    if is_sparse(inputs):
        return check_sparse(inputs, name)
    x = _numbers(_of_frame(inputs, name), f"{name}: the inputs")
    if x.ndim < 2:
        raise DataError(
            f"{name}: inputs need two dimensions, (samples, columns), not shape {x.shape}; "
            "one sample is x[None, :], one column x[:, None]"
        )
    if x.size == 0:
        raise DataError(f"{name}: no data, the inputs have shape {x.shape}")
    return x


def _of_frame(inputs: Any, name: str) -> Any:
    """A DataFrame as an array of numbers: its columns are no bytes of images, however few bits they have."""
    if not hasattr(inputs, "columns"):
        return inputs
    refuse_columns(inputs, name)
    array = np.asarray(inputs)
    try:
        return array.astype(np.float64) if array.dtype == np.uint8 or array.dtype.kind == "O" else array
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: the columns of a DataFrame must be numbers, without gaps: {error}"
        ) from error


def _numbers(values: Any, what: str) -> np.ndarray:
    array = host_array(values, what)
    if array.dtype.kind not in "biuf":
        remedy = "convert them with .astype(float)"
        if array.dtype.kind in "US":
            remedy = "number the words first: labels = np.unique(words, return_inverse=True)[1]"
        raise DataError(f"{what} have dtype {array.dtype}, not numbers; {remedy}")
    return array


def _first_not_finite(x: np.ndarray) -> tuple[int, int] | None:
    if x.dtype.kind != "f":
        return None
    step = max(1, _SCAN // x.shape[1])
    for start in range(0, len(x), step):
        finite = np.isfinite(x[start : start + step])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            return start + int(row), int(column)
    return None


def _check_targets(targets: Any, n: int, classes: int | None, values: bool, name: str) -> np.ndarray:
    y = _numbers(targets, f"{name}: the targets")
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] == 0):
        raise DataError(f"{name}: targets need shape (samples,) or (samples, outputs), not {y.shape}")
    if len(y) != n:
        raise DataError(f"{name}: {n} rows of inputs but {len(y)} targets; give one target for every row")
    whole = y.dtype.kind in "biu"
    if y.ndim == 2 and y.shape[1] == 1 and (whole or classes is not None):
        y = y[:, 0]
    if classes is not None or (whole and y.ndim == 1 and not values):
        return _check_labels(y, classes, name)
    kept = storage(y)
    y = np.ascontiguousarray(y, dtype=np.float32 if kept is np.uint8 else kept)
    if (at := _first_not_finite(y.reshape(n, -1))) is not None:
        raise DataError(
            f"{name}: the target in row {at[0]}{f', column {at[1]}' if y.ndim == 2 else ''} is "
            f"{y.reshape(n, -1)[at]}; remove such rows before training"
        )
    return y


def _check_labels(y: np.ndarray, classes: int | None, name: str) -> np.ndarray:
    if y.ndim != 1:
        raise DataError(
            f"{name}: with classes, targets are one label for every row, not shape {y.shape}; "
            "one-hot rows become labels with .argmax(axis=1)"
        )
    what = f"{name}: the label"
    if y.dtype.kind == "f":
        _refuse(y, ~np.isfinite(y) | (y != np.floor(y)), what, ", but labels are whole numbers from 0")
    if classes is None:
        _refuse(y, y < 0, what, ", but class labels count from 0; give regression targets as floats")
    else:
        rule = f", but the labels of {classes} classes go from 0 to {classes - 1}"
        _refuse(y, (y < 0) | (y >= classes), what, rule)
    return np.ascontiguousarray(y, dtype=np.int64)


def _refuse(values: np.ndarray, bad: np.ndarray, what: str, rule: str) -> None:
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{what} at index {at} is {values[at]}{rule}")


def _check_weight(sample_weight: Any, n: int, name: str) -> np.ndarray:
    weight = _numbers(sample_weight, f"{name}: the sample weights")
    if weight.shape != (n,):
        raise DataError(f"{name}: sample weights need shape ({n},), one for every row, not {weight.shape}")
    bad = ~np.isfinite(weight) | (weight < 0)
    _refuse(weight, bad, f"{name}: the sample weight", "; weights are 0 or more")
    if not weight.any():
        raise DataError(f"{name}: every sample weight is 0, which leaves nothing to learn from")
    return np.ascontiguousarray(weight, dtype=np.float64)


def hold_out(whole: Split, test_size: float | int, seed: int, *, stratify: bool) -> tuple[Split, Split]:
    """Shuffle and part in two: (train, test), the test part a fraction (float) or a count (int) of the rows.

    With `stratify` every label keeps its share in both parts. The same seed parts the same way. Raises
    UsageError for a fraction outside (0, 1), DataError where there are too few rows or too few of a class.
    """
    from sklearn.model_selection import train_test_split

    if isinstance(test_size, float) and not 0 < test_size < 1:
        raise UsageError(f"the test fraction is {test_size}; it must lie between 0 and 1")
    rows, labels = np.arange(len(whole)), whole.targets if stratify else None
    try:
        train, test = train_test_split(rows, test_size=test_size, random_state=seed, stratify=labels)
    except ValueError as error:
        said = str(error).split(" (")[0].split(". ")[0]  # it may list every class
        advice = f", if these are classes; {TO_FIT}" if stratify else ""
        raise DataError(f"cannot hold out a test part of {test_size}: {said}{advice}") from error
    return whole.take(train), whole.take(test)


def fold_of(whole: Split, folds: int, fold: int, seed: int, *, stratify: bool) -> tuple[Split, Split]:
    """Shuffle, part in so many folds, and hold out one, counted from 1: (the others, it).

    With `stratify` every label has its share in each fold. The same seed parts the same way. Raises DataError where
    there are fewer rows, or fewer of a class, than folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = np.arange(len(whole))
    if stratify and (fewest := int(np.unique(whole.targets, return_counts=True)[1].min())) < folds:
        raise DataError(
            f"cannot make {folds} folds: the smallest class has {fewest} row{'s' if fewest > 1 else ''}, if these are "
            f"classes; {TO_FIT}"
        )
    if len(whole) < folds:
        raise DataError(f"cannot make {folds} folds of {len(whole)} rows")
    kind = StratifiedKFold if stratify else KFold
    parted = kind(folds, shuffle=True, random_state=seed).split(rows, whole.targets if stratify else None)
    train, held = list(parted)[fold - 1]
    return whole.take(train), whole.take(held)
