"""The columns of a table: which of them is the target and what it holds, and which are inputs.

The target is, in this order: the column that is asked for; the column headed label or target, wherever it stands;
that headed class or y, if it is the first or the last; and of a table without such a header the last. Where two of
these headers are there, or class or y stands amid the others, or the first column of a table without names looks more
like labels than the last, it must be asked for.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data.doubts import LOOKED_AT, Doubts, Known
from gpubp.data.inputs import BYTES, NUMBERS, Inputs, composed, shown
from gpubp.data.tables import (
    ANYWHERE,
    MISSING,
    TARGET_HEADERS,
    TRUTH,
    Table,
    TableFormat,
    is_missing,
    number,
    open_table,
)
from gpubp.data.targets import CLASSES, VALUES, Targets, name_labels, number_labels
from gpubp.errors import DataError, UsageError
from gpubp.support.warning import warn_caller

_SOME, _MANY = 8, 30  # rows in which columns are seldom alike by chance, or whole numbers without a gap
_OF_CLASSES = ("label", "class")  # headers of classes, where nothing else says what targets are
_DOUBTFUL = (*MISSING, "-", ".", "\\n", "missing", "nat")  # as labels among words


@dataclass
class TableData:
    """A whole table with targets: inputs (N, n_in) float64 or uint8, and the cells of the target as they are."""

    table: Table
    columns: list[int]  # of the inputs
    target: int
    inputs: np.ndarray
    cells: list[Any]
    rows: list[int]
    doubts: Doubts | None = None  # that has looked through the inputs

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the inputs; () if the columns have none."""
        return tuple(self.table.names[column] for column in self.columns) if self.table.names else ()

    @property
    def known(self) -> tuple[str, ...]:
        """Those of the inputs, and of the target."""
        return (*self.names, self.table.names[self.target]) if self.table.names else ()

    def target_said(self) -> str:
        """What the target column is called, and where it stands."""
        if not self.table.names:
            return f"{self.table.called(self.target)} of a table without header"
        last = self.target == self.table.width - 1
        return f"{self.table.called(self.target)}{', the last column' if last else ''}"


def read_table(path: Path, how: TableFormat, like: TableData | None = None) -> TableData:
    """A table with its target; of a test part, the columns that the training part ``like`` has, by their names.

    Raises:
        UsageError, DataError: no such target, or more than one that it could be; cells that are no numbers.
    """
    known = () if like is None else like.known
    table = open_table(path, how, 2, known)
    arranged = Inputs(names=known).order_of(table.names, str(path)) if table.names else None
    if arranged is not None:
        *columns, target = arranged
    elif like is not None:
        columns, target = like.columns, like.target
        if table.width != like.table.width:
            raise DataError(f"{path} has {table.width} columns, and the training part {like.table.width}")
        if not table.names:
            Inputs(names=like.names).order_of((), str(path))
        elif not like.table.names:
            _take_in_order(table, like)
    else:
        target = find_target(table)
        columns = [column for column in range(table.width) if column != target]
    first: list[list[Any]] = []
    cells: list[Any] = []
    rows: list[int] = []
    flat = array("d")  # a list of floats would take four times the memory
    for row, line in table.rows:
        if len(cells) < LOOKED_AT:
            first.append([line[column] for column in columns])
        cells.append(line[target])
        rows.append(row)
        flat.extend(
            table.numbers(row, line, columns, "; only a target can be words: --target names its column")
        )
    inputs = np.frombuffer(flat).reshape(len(cells), len(columns))
    data = TableData(table, columns, target, inputs, cells, rows)
    if how.pixels:
        data.inputs = as_pixels(inputs, str(path))
    if like is None:
        _check_varies(data)
        _say_what_counts_rows(data)
        _say_if_the_target_counts_rows(data)
        _say_what_gives_the_target_away(data)
    of_training = like.doubts.known(like.inputs) if like is not None and like.doubts is not None else None
    data.doubts = Doubts(table, columns, of_training, training=like is None)
    data.doubts.look(inputs, rows, first)
    data.doubts.end()
    return data


def _take_in_order(table: Table, like: TableData) -> None:
    """Say that the columns of a test part, which have names, are taken as those of the training part, without, stand.

    Raises:
        DataError: by its header, the target is another.
    """
    headed = [i for i, name in enumerate(table.names) if name.lower() in TARGET_HEADERS]
    if headed and like.target not in headed:
        raise DataError(
            f"{table.path}: the target of the training part, which has no names of columns, is column "
            f"{like.target + like.table.first_column}; here that is {table.called(like.target)}, and "
            f"{table.called(headed[0])} stands elsewhere: put the columns of both in one order, or give both a header"
        )
    Inputs(NUMBERS).order_of([table.names[column] for column in like.columns], str(table.path))


def find_target(table: Table) -> int:
    """The column of targets, by the order that the module's docstring says."""
    asked, names = table.format.target, table.names
    if asked is not None:
        (asked,) = composed([asked])
        if asked in names:
            return names.index(asked)
        alike = [i for i, name in enumerate(names) if name.casefold() == asked.casefold()]
        if len(alike) == 1:
            return alike[0]
        if asked.isdecimal() and 1 <= int(asked) - table.first_column + 1 <= table.width:
            return int(asked) - table.first_column
        known = f"there are {shown(names, 20)}" if names else f"the columns are numbered 1 to {table.width}"
        raise UsageError(f"{table.path}: there is no column {asked!r} to be the target; {known}")
    last = table.width - 1
    headed = [i for i, name in enumerate(names) if name.lower() in TARGET_HEADERS]
    if not headed:
        return last
    if len(headed) > 1 or not (names[headed[0]].lower() in ANYWHERE or headed[0] in (0, last)):
        candidates = dict.fromkeys([*(names[i] for i in headed), names[last]])
        raise UsageError(
            f"{table.path}: the target could be {' or '.join(map(repr, candidates))}; "
            "say which column it is: --target NAME"
        )
    return headed[0]


def _check_varies(data: TableData) -> None:
    """Refuse a target with one value, and one that is a worse guess than the first column."""
    table, found = data.table, set(composed(str(cell).strip() for cell in data.cells))
    first_is_label = (
        not table.names
        and data.target
        and table.format.target is None
        and _look_like_labels(data.inputs[:, 0])
    )
    advice = (
        "the first column looks like labels: --target 1"
        if first_is_label
        else "--target names another column"
    )
    if len(found) == 1:
        raise DataError(
            f"{table.path}: the target, {data.target_said()}, is {found.pop()!r} in every row, so that there is "
            f"nothing to learn; {advice}"
        )
    first = str(data.cells[0]).strip()
    if (
        not table.names
        and table.format.header is None
        and number(first) is None
        and data.cells.count(first) == 1
    ):
        raise UsageError(
            f"{table.path}: {first!r}, the target in the first row, stands in no other: if that row names the columns, "
            "say --header, and if not, --no-header"
        )
    values = [number(cell) for cell in found]
    if first_is_label and None not in values and not _look_like_labels(np.array(values), len(data.cells)):
        raise UsageError(
            f"{table.path}: the target could be the first or the last column: {advice}, or --target {table.width}"
        )


def _say_what_counts_rows(data: TableData) -> None:
    """Warn of inputs that are but the numbers of their rows, from which nothing is learned that holds elsewhere.

    Where many rows are shuffled, so are their numbers.
    """
    count = np.arange(len(data.inputs))
    for i, x in enumerate(data.inputs.T):
        in_order = len(x) > 2 and np.array_equal(x - x[0], count)
        shuffled = not in_order and len(x) >= _MANY and np.ptp(x) == count[-1]
        if in_order or (shuffled and np.array_equal(np.sort(x) - x.min(), count)):
            warn_caller(
                f"{data.table.path}: {data.table.called(data.columns[i])} counts the rows"
                f"{', in another order' if shuffled else ''}; leave it out unless that is what is to be learned from"
            )


def _say_if_the_target_counts_rows(data: TableData) -> None:
    first, cells = number(str(data.cells[0])), data.cells
    if len(cells) > 2 and first is not None and all(number(str(x)) == first + i for i, x in enumerate(cells)):
        warn_caller(
            f"{data.table.path}: the target, {data.target_said()}, counts the rows; --target names another column"
        )


def _say_what_gives_the_target_away(data: TableData) -> None:
    """Warn of inputs that are the target once more: a copy, or columns of 0 and 1 that tell its classes apart."""
    text, inputs = [str(cell).strip() for cell in data.cells], data.inputs
    if len(text) < _SOME:
        return
    numbers = {cell: _number_or_truth(data.table.pointed(cell)) for cell in set(text)}
    target = np.array([numbers[cell] for cell in text])
    first = inputs[:LOOKED_AT]  # where most columns differ
    alike = np.flatnonzero((first == target[:LOOKED_AT, None]).all(axis=0)).tolist()
    bits = np.flatnonzero(((first == 0) | (first == 1)).all(axis=0)).tolist()
    given = {i for i in alike if np.array_equal(inputs[:, i], target)}
    bits = [i for i in bits if np.isin(inputs[:, i], (0, 1)).all()]
    names, codes, counts = np.unique(text, return_inverse=True, return_counts=True)
    marks: dict[int, int] = {}
    for i in bits:
        marked = codes[inputs[:, i] == 1]
        if len(marked) and len(marked) == counts[marked[0]] and (marked == marked[0]).all():
            marks[i] = marked[0]
    if len(set(marks.values())) >= len(names) - 1:  # the last is where no other is
        given |= set(marks)
    said = f"{data.table.path}: the target, {data.target_said()},"
    if given:
        warn_caller(
            f"{said} can be told in every row from {_called(data, sorted(given))}: leave out what is not known where "
            "the network is to be used"
        )
    elif np.isin(target, (0, 1)).all() and (spread := _one_hot_with(data, target, bits)):
        warn_caller(
            f"{said} and {_called(data, spread)} look like one thing's classes in columns of 0 and 1, one of which is "
            "1 in each row: put the class into one column, as .idxmax(axis=1) does in pandas, or leave the others out"
        )


def _one_hot_with(data: TableData, target: np.ndarray, bits: Sequence[int]) -> list[int]:
    """The inputs, of these of 0 and 1, of which one is 1 where the target is 0: named like it, or beside it."""
    names, at = data.table.names, {data.columns[i]: i for i in bits}
    named = []
    if names:
        stem = names[data.target][: 1 + max(map(names[data.target].rfind, "_.= "))]
        named = [i for column, i in at.items() if stem and names[column].startswith(stem)]
    sides = itertools.count(data.target - 1, -1), itertools.count(data.target + 1)
    beside = [[at[column] for column in itertools.takewhile(at.__contains__, side)] for side in sides]
    for runs in ([named], beside):
        total, found = target, []
        for run in runs:
            for i in run:
                if (more := total + data.inputs[:, i]).max() > 1:
                    break
                total = more
                found.append(i)
                if total.min() == 1:
                    return [i for i in found if data.inputs[:, i].any()]
    return []


def _called(data: TableData, inputs: Sequence[int]) -> str:
    return shown([data.table.called(data.columns[i]) for i in inputs])


def _number_or_truth(cell: str) -> float:
    value = TRUTH.get(cell.lower(), number(cell))
    return math.nan if value is None else value


def _look_like_labels(values: np.ndarray, count: int | None = None) -> bool:
    """Return True for whole numbers that begin at 0 or 1, leave none out, and are few beside the rows."""
    found = np.unique(values)
    consecutive = found[0] in (0, 1) and len(found) > 1 and (found == found[0] + np.arange(len(found))).all()
    return bool(consecutive) and 2 * len(found) <= (len(values) if count is None else count)


def as_pixels(inputs: np.ndarray, where: str, *, bits: bool = False) -> np.ndarray:
    """Whole numbers from 0 to 255 as bytes.

    Raises:
        DataError: others, or none above 1, which have been scaled already, unless they are to be ``bits``.
    """
    with np.errstate(invalid="ignore"):  # what is out of range differs below
        pixels = inputs.astype(np.uint8)
    if not np.array_equal(pixels, inputs):
        row, column = np.argwhere(pixels != inputs)[0]
        raise DataError(
            f"{where}: {inputs[row, column]:g}, in input {column + 1} of row {row + 1} of data, is no pixel: those "
            "are whole numbers from 0 to 255"
        )
    if pixels.max() == 1 and not bits:  # all 0, as in black images, they may be as they are
        raise DataError(
            f"{where}: no pixel is above 1, so that they seem to be scaled already, and are no bytes"
        )
    return pixels


def target_values(
    parts: Sequence[TableData], targets: Targets
) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """The targets of each part, the first of which is for training, as class numbers or values; and the classes' names.

    The names are None for values, and for classes that are called 0, 1, 2, …
    """
    train, *others = parts
    if targets.kind is None:
        targets = _by_look(train, targets)
    if targets.kind == VALUES:
        values, known = [_values(part, targets) for part in parts], None
        for part, y in zip(parts, values, strict=True):
            doubts = Doubts(part.table, [part.target], known, training=part is train)
            doubts.look(y[:, None], part.rows, [[cell] for cell in part.cells[:LOOKED_AT]])
            doubts.say_what_may_be_codes()
            known = known or doubts.known(y[:, None])
        return values, None
    written, *of_others = map(_labels, parts)
    said = f"{train.table.path}: the target, {train.target_said()},"
    numbers, names = name_labels(written, targets, said)
    if names is not None and targets.outputs is not None and len(names) < targets.outputs:
        warn_caller(
            f"{said} has {len(names)} classes, and the network {targets.outputs} outputs: give it one for each"
        )
    found = [numbers]
    for other, labels in zip(others, of_others, strict=True):
        found.append(number_labels(labels, names, f"{other.table.path}: the target", written))
    for part, labels in zip(parts, (written, *of_others), strict=True):
        _say_what_may_be_missing(part, labels)
    return found, names


def _labels(data: TableData) -> list[str]:
    """The target's cells as they are written, but for how letters are composed.

    Raises:
        DataError: one that is missing.
    """
    text = list(composed(str(cell).strip() for cell in data.cells))
    numeric = any(number(cell) is not None for cell in text)
    for row, cell, raw in zip(data.rows, text, data.cells, strict=True):
        if raw is None or cell.lower() in ("", "nan", "<na>") or (numeric and is_missing(cell)):
            raise DataError(
                f"{data.table.where(row, data.target)}: the target is missing; leave such rows out"
            )
    return text


def _say_what_may_be_missing(data: TableData, labels: Sequence[str]) -> None:
    """Warn of classes that may stand for a target that is missing."""
    if doubtful := sorted({cell for cell in labels if cell.lower() in _DOUBTFUL}):
        warn_caller(
            f"{data.table.path}: the target {shown(doubtful)} is taken for a class; if it is missing there, leave such "
            "rows out"
        )


def _values(data: TableData, targets: Targets) -> np.ndarray:
    values = []
    for row, cell, text in zip(data.rows, data.cells, _labels(data), strict=True):
        value = number(data.table.pointed(text))
        if value is None or not math.isfinite(value):
            raise DataError(
                f"{data.table.where(row, data.target)}: the target {cell!r} is not a number, {targets.because}"
                f"{data.table.advice(text)}"
            )
        values.append(value)
    return np.array(values)


def _by_look(data: TableData, targets: Targets) -> Targets:
    """Classes or values, where neither loss nor output says: words, and whole numbers without a point, are classes."""
    text = _labels(data)
    values = [number(data.table.pointed(cell)) for cell in text]
    headed = data.table.names and data.table.names[data.target].lower() in _OF_CLASSES
    whole = all(value is not None and value == value // 1 for value in values)
    if values.count(None) == len(values) or all(map(str.isdecimal, text)) or (headed and whole):
        return replace(targets, kind=CLASSES)
    return replace(targets, kind=VALUES, because="but others are")


def input_chunks(path: Path, rows: int, how: TableFormat, inputs: Inputs) -> Iterator[np.ndarray]:
    """The inputs of a table without targets, some rows at a time, the columns in the order of the network's."""
    table = open_table(path, how, min(2, len(inputs.names) or 1), inputs.names)
    arranged = inputs.order_of(table.names, str(path))
    columns = list(range(table.width)) if arranged is None else arranged
    advice = "; leave out a column of targets" if arranged is None else ""
    doubts = Doubts(table, columns, Known.of(inputs, len(columns)))
    while part := list(itertools.islice(table.rows, rows)):
        numbers = np.array([table.numbers(row, cells, columns, advice) for row, cells in part])
        given = as_pixels(numbers, str(path), bits=inputs.of_bits) if inputs.kind == BYTES else numbers
        first = [[cells[column] for column in columns] for _, cells in part[:LOOKED_AT]]
        doubts.look(numbers, [row for row, _ in part], first)
        yield given
    doubts.end()
