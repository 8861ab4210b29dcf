"""Tables: CSV, plain or gzipped, and Parquet, row by row, with every misreading that can be noticed refused.

The target is, in this order: the column that is asked for; the column headed label or target, wherever it stands;
that headed class or y, if it is the first or the last; and of a table without such a header the last. Where two of
these headers are there, or class or y stands amid the others, or the first column of a table without names looks more
like labels than the last, it must be asked for.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data.inputs import BYTES, Inputs, say_left_out, say_unnamed, shown
from gpubp.data.targets import CLASSES, VALUES, Targets, name_labels, number_labels
from gpubp.errors import DataError, UsageError
from gpubp.support.optional import need
from gpubp.support.warning import warn_caller

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
_ANYWHERE, _AT_AN_END = ("label", "target"), ("class", "y")
_HEADERS = (*_ANYWHERE, *_AT_AN_END)
_OF_CLASSES = ("label", "class")  # headers of classes, where nothing else says what targets are
_MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "?")
_DOUBTFUL = (*_MISSING, "-", ".", "\\n", "missing", "nat")  # as labels among words
_TRUTH = {"true": 1.0, "false": 0.0}
_YES_OR_NO = ("yes", "no", "y", "n", "t", "f")
_FILL_IN = (
    "a network takes whole rows: leave such rows out or fill them in, with pandas by table.dropna() or "
    "table.fillna(table.mean(numeric_only=True))"
)


def ending(path: Path) -> str:
    """The ending of a file's name, in lower case: .csv.gz has both."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


@dataclass(frozen=True)
class TableFormat:
    """How a table is to be read, where it does not say so itself.

    target: the column of targets, by its name or by its number, counted from 1.
    delimiter: what stands between cells: by default a tab in .tsv, else a comma.
    decimal: what stands before the fraction of a number, "." or ",".
    header: whether the first row names the columns; by default told from its cells.
    pixels: the inputs are bytes from 0 to 255, scaled by 1/255, as those of images are.

    Raises:
        UsageError: a delimiter or decimal mark that cannot be one.
    """

    target: str | None = None
    delimiter: str | None = None
    decimal: str = "."
    header: bool | None = None
    pixels: bool = False

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise UsageError(f"the decimal mark is . or , and not {self.decimal!r}")
        if self.delimiter is not None and (len(self.mark("")) != 1 or self.mark("") in '"\r\n.0123456789+-'):
            raise UsageError(f"a delimiter is one character such as ; or tab, not {self.delimiter!r}")

    def mark(self, of_file: str) -> str:
        """The delimiter of a file with this ending."""
        if self.delimiter is None:
            return "\t" if of_file.startswith(".tsv") else ","
        return {"tab": "\t", "\\t": "\t", "space": " "}.get(self.delimiter, self.delimiter)


@dataclass
class Table:
    """An open table: the names of its columns, if they have any, and its rows of cells with their numbers."""

    path: Path
    format: TableFormat
    names: tuple[str, ...]
    width: int
    rows: Iterator[tuple[int, Sequence[Any]]]
    unit: str = "line"
    first_column: int = 1  # the number of the first of the cells in the file
    trailing: bool = False  # whether lines end in a delimiter

    def where(self, row: int, column: int) -> str:
        called = f" ({self.names[column]})" if self.names else ""
        return f"{self.path}: {self.unit} {row}, column {column + self.first_column}{called}"

    def called(self, column: int) -> str:
        return repr(self.names[column]) if self.names else f"column {column + self.first_column}"

    def numbers(
        self, row: int, cells: Sequence[Any], columns: Sequence[int], advice: str = ""
    ) -> list[float]:
        """The cells of these columns as finite numbers; True and False are 1 and 0."""
        chosen = [cells[column] for column in columns]
        with suppress(ValueError, TypeError):
            values = list(map(float, chosen if self.format.decimal == "." else map(self.pointed, chosen)))
            underscored = "_" in "".join(chosen if self.unit == "line" else filter(_is_text, chosen))
            if not underscored and all(map(math.isfinite, values)):  # Python reads 1_000 as 1000
                return values
        return [self._number(row, column, cells[column], advice) for column in columns]

    def pointed(self, cell: Any) -> Any:
        """A cell with a decimal point, if it has the table's decimal mark."""
        if self.format.decimal == "." or not isinstance(cell, str):
            return cell
        return cell.replace(".", "not a mark here").replace(",", ".")

    def _number(self, row: int, column: int, cell: Any, advice: str) -> float:
        if is_missing(cell):
            stands = "the cell is empty" if str(cell).strip() in ("", "None") else f"{cell!r} is no number"
            raise DataError(f"{self.where(row, column)}: {stands}; {_FILL_IN}")
        text = str(cell).strip()
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        value = number(self.pointed(text))
        if value is None or not math.isfinite(value):
            if row == 1 and not self.names:
                advice = "; if the first row names the columns, say --header"
            raise DataError(
                f"{self.where(row, column)}: {cell!r} is not a number{self.advice(text) or advice}"
            )
        return value

    def advice(self, text: str) -> str:
        """What to do about a cell that is no number, if it looks like one of another format."""
        if self.format.decimal == "." and re.fullmatch(r"[+-]?\d*,\d+", text):
            return "; --decimal , reads a decimal comma; a comma between thousands must go"
        if other := next((mark for mark in ";\t|" if mark in text), None):
            return f"; the cells seem to be separated by {other!r}, which --delimiter can name"
        if text.lower() in _YES_OR_NO:
            return "; write 1 and 0 for it"
        if (value := number(text)) is not None and not math.isfinite(value):
            return " that is finite; leave such rows out"
        if any(map(str.isdecimal, text)):
            return "; take units, signs and marks of thousands out of numbers, and leave out dates"
        return ""


def is_missing(cell: Any) -> bool:
    return cell is None or str(cell).strip().lower() in _MISSING


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str)


def number(cell: str) -> float | None:
    """A cell as a number, which may be infinite or NaN; None for anything else, 1_000 among it."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def open_table(path: Path, how: TableFormat, columns: int, known: Sequence[str] = ()) -> Table:
    """A table of at least so many columns, some of which may have ``known`` names.

    Raises:
        DataError: it cannot be read, or has too few columns; the same for a row, when its turn has come.
    """
    if ending(path) == ".parquet":
        return _open_parquet(path, how, columns)
    mark = how.mark(ending(path))
    lines = _csv_rows(path, mark)
    first_line, first = next(lines, (0, []))
    if not first:
        raise DataError(f"{path}: the file is empty")
    if (said := ",".join(first).strip()).lower().startswith("sep="):  # Excel's own
        raise DataError(f"{path}: take its first line out, {said!r}, and name the --delimiter that it says")
    cells = [cell.strip() for cell in first]
    if cells[0].startswith("#") and len(cells) < columns:
        raise DataError(f"{path}: its first line is a comment, {shown(cells)!r}; take it out")
    cells[0] = cells[0].removeprefix("#").strip()  # NumPy writes a header as a comment
    if len(cells) < columns:
        other = next((other for other in ";\t|, " if other != mark and other in "".join(first).strip()), "")
        said = {"\t": "tab", " ": "space"}.get(other, repr(other))
        advice = f"; they seem to be separated by {other!r}: --delimiter {said}" if other else ""
        raise DataError(f"{path}: {len(cells)} columns, separated by {mark!r}, are too few{advice}")
    second = next(lines, None)
    lines = lines if second is None else itertools.chain([second], lines)
    rest = [] if second is None else second[1]
    headed = _is_header(path, cells, rest, known) if how.header is None else how.header
    if (
        mark == how.decimal and not headed
    ):  # a header tells how many there are, and so that numbers are quoted
        raise UsageError(
            f"{path}: cells cannot be separated by {mark!r} if numbers have it too, unless a header names the columns: "
            "name a --delimiter"
        )
    table = Table(
        path, how, (), len(cells), lines if headed else itertools.chain([(first_line, first)], lines)
    )
    if len(cells) > columns and cells[-1] == "":
        table.trailing, table.width, cells = True, table.width - 1, cells[:-1]
    if headed:
        one_more = len(rest) == len(cells) + 1 + table.trailing and cells[0] != "" and mark != how.decimal
        if one_more:  # the row names that R writes without a name of their own
            table.width, cells = table.width + 1, ["", *cells]
        _name_columns(table, cells)
    table.rows = _whole_rows(table, table.rows)
    return table


def _is_header(path: Path, cells: list[str], second: Sequence[str], known: Sequence[str]) -> bool:
    """Return True for a row that names columns, by the ``known`` names or by the looks of its cells.

    That is, none of them is a number, or they count the columns, as pandas does, but for one that names a target.

    Raises:
        UsageError: it may be either.
    """
    if (known and set(known) <= set(cells)) or all(number(cell) is None for cell in cells):
        return True
    named = [cell for cell in cells if cell.lower() in _HEADERS]
    rest = [cell for cell in (cells[1:] if cells[0] == "" else cells) if cell not in named]
    counts = any(
        rest == [str(i) for i in range(first, first + len(rest))] for first in (0, 1)[: 1 + len(named)]
    )
    by_number = bool(known) and all(number(name) is not None for name in known) and _whole(rest)
    if cells == ["0"] or (named and not counts) or by_number or (not counts and _like_years(rest, second)):
        raise UsageError(
            f"{path}: its first row, {shown(cells)}, may be a header or data: say --header or --no-header"
        )
    if counts:
        warn_caller(
            f"{path}: the first row, {shown(cells)}, is taken for a header; --no-header makes it data"
        )
    return counts


def _whole(cells: Sequence[str]) -> bool:
    return all((x := number(cell)) is not None and math.isfinite(x) and x == x // 1 for cell in cells)


def _like_years(cells: Sequence[str], second: Sequence[str]) -> bool:
    """Whether three or more whole numbers rise or fall, as names do, by ones or above a row that is not whole."""
    if len(cells) < 3 or not _whole(cells):
        return False
    steps = np.diff([float(cell) for cell in cells])
    by_ones = bool((steps == 1).all()) and all(map(str.isdecimal, cells))
    return by_ones or (bool((steps > 0).all() or (steps < 0).all()) and not _whole(second))


def _name_columns(table: Table, cells: list[str]) -> None:
    if cells[0] == "" and len(cells) > 1:
        warn_caller(f"{table.path}: its first column has no name, as an index has none, and is left out")
        table.first_column, table.width = 2, table.width - 1
        cells = cells[1:]
    names = [cell or f"column {i}" for i, cell in enumerate(cells, start=table.first_column)]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{table.path}: two columns are called {twice!r}; give each a name of its own")
    table.names = tuple(names)


def _whole_rows(
    table: Table, rows: Iterator[tuple[int, Sequence[Any]]]
) -> Iterator[tuple[int, Sequence[Any]]]:
    left_out = table.first_column - 1
    stop = table.width + left_out
    at = None
    for at, row in rows:
        if len(row) != stop + table.trailing or (table.trailing and row[-1].strip()):
            ends = "; the first line ends in a delimiter" if table.trailing else ""
            raise DataError(
                f"{table.path}: line {at} has {len(row)} columns, the first has {stop + table.trailing}{ends}"
            )
        yield at, row[left_out:stop]
    if at is None:
        raise DataError(f"{table.path}: no rows of data")


def _csv_rows(path: Path, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with their line numbers."""
    opener: Any = gzip.open if ending(path).endswith(".gz") else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=mark, skipinitialspace=mark != " ")
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a readable CSV file: {error}; save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from error


def _open_parquet(path: Path, how: TableFormat, columns: int) -> Table:
    parquet = need("pyarrow.parquet", "parquet")
    if (how.delimiter, how.decimal, how.header) != (None, ".", None):
        raise UsageError(f"{path}: a Parquet file has no delimiter, decimal mark or header to be named")
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        index = [
            name for name in (schema.pandas_metadata or {}).get("index_columns", []) if name in schema.names
        ]
        names = [name for name in schema.names if name not in index]
    except Exception as error:  # pyarrow has many kinds for damage
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    if len(names) < columns:
        raise DataError(f"{path}: {len(names)} columns are too few")
    if index:
        warn_caller(f"{path}: the index that pandas kept ({shown(index)}) is left out")

    def rows() -> Iterator[tuple[int, Sequence[Any]]]:
        at = 0
        try:
            for batch in file.iter_batches(4096, columns=names):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    at += 1
                    yield at, row
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error

    table = Table(path, how, (), len(names), rows(), "row")
    _name_columns(table, names)
    table.rows = _whole_rows(table, table.rows)
    return table


@dataclass
class TableData:
    """A whole table with targets: inputs (N, n_in) float64 or uint8, and the cells of the target as they are."""

    table: Table
    columns: list[int]  # of the inputs
    target: int
    inputs: np.ndarray
    cells: list[Any]
    rows: list[int]

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
    arranged = arrange(table, known)
    if arranged is not None:
        *columns, target = arranged
    elif like is not None:
        columns, target = like.columns, like.target
        if table.width != like.table.width:
            raise DataError(f"{path} has {table.width} columns, and the training part {like.table.width}")
    else:
        target = find_target(table)
        columns = [column for column in range(table.width) if column != target]
    cells, rows, flat = [], [], array("d")  # a list of floats would take four times the memory
    for row, line in table.rows:
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
        _say_what_is_beyond(data)
    return data


def arrange(table: Table, known: Sequence[str]) -> list[int] | None:
    """Where the columns of the ``known`` names stand in the table; None where one of the two has no names.

    Raises:
        DataError: one is missing.
    """
    if not known:
        return None
    if table.names and (set(known) <= set(table.names) or not _counted(table.names)):
        columns, left_over = Inputs(names=tuple(known)).places(table.names, str(table.path))
        say_left_out(table.path, left_over)
        return columns
    say_unnamed(table.path)
    return None


def _counted(names: Sequence[str]) -> bool:
    """Whether names are but numbers of columns, as pandas gives them."""
    return list(names) == [str(i) for i in range(len(names))]


def find_target(table: Table) -> int:
    """The column of targets, by the order that the module's docstring says."""
    asked, names = table.format.target, table.names
    if asked is not None:
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
    headed = [i for i, name in enumerate(names) if name.lower() in _HEADERS]
    if not headed:
        return last
    if len(headed) > 1 or not (names[headed[0]].lower() in _ANYWHERE or headed[0] in (0, last)):
        candidates = dict.fromkeys([*(names[i] for i in headed), names[last]])
        raise UsageError(
            f"{table.path}: the target could be {' or '.join(map(repr, candidates))}; "
            "say which column it is: --target NAME"
        )
    return headed[0]


def _check_varies(data: TableData) -> None:
    """Refuse a target with one value, and one that is a worse guess than the first column."""
    table, found = data.table, {str(cell).strip() for cell in data.cells}
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
    """Warn of inputs that are but the numbers of their rows, from which nothing is learned that holds elsewhere."""
    count = np.arange(len(data.inputs))
    counting = [i for i, x in enumerate(data.inputs.T) if len(x) > 2 and np.array_equal(x - x[0], count)]
    for name in (data.table.called(data.columns[i]) for i in counting):
        warn_caller(
            f"{data.table.path}: {name} counts the rows; leave it out unless that is what is to be learned from"
        )


def _say_what_is_beyond(data: TableData) -> None:
    """Warn of inputs that are whole numbers of so many digits that not all of them are kept."""
    for i in (
        np.flatnonzero(np.abs(data.inputs).max(axis=0) >= 2**53) if data.inputs.dtype.kind == "f" else ()
    ):
        name = data.table.called(data.columns[i])
        warn_caller(
            f"{data.table.path}: {name} has numbers beyond 2⁵³ (9e15), of which only the first 15 digits are kept; "
            "leave it out if these are the numbers of things"
        )


def _look_like_labels(values: np.ndarray, count: int | None = None) -> bool:
    """Return True for whole numbers that begin at 0 or 1, leave none out, and are few beside the rows."""
    found = np.unique(values)
    consecutive = found[0] in (0, 1) and len(found) > 1 and (found == found[0] + np.arange(len(found))).all()
    return bool(consecutive) and 2 * len(found) <= (len(values) if count is None else count)


def as_pixels(inputs: np.ndarray, where: str) -> np.ndarray:
    """Whole numbers from 0 to 255 as bytes.

    Raises:
        DataError: others, or none above 1, which have been scaled already.
    """
    with np.errstate(invalid="ignore"):  # what is out of range differs below
        pixels = inputs.astype(np.uint8)
    if not np.array_equal(pixels, inputs):
        row, column = np.argwhere(pixels != inputs)[0]
        raise DataError(
            f"{where}: {inputs[row, column]:g}, in input {column + 1} of row {row + 1} of data, is no pixel: those "
            "are whole numbers from 0 to 255"
        )
    if pixels.max() <= 1:
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
        return [_values(part, targets) for part in parts], None
    written = _labels(train)
    numbers, names = name_labels(written, targets, f"{train.table.path}: the target, {train.target_said()},")
    of_others = (number_labels(_labels(o), names, f"{o.table.path}: the target", written) for o in others)
    return [numbers, *of_others], names


def _labels(data: TableData) -> list[str]:
    """The target's cells as they are written; what may stand for a missing one is said aloud, and NaN refused."""
    text = [str(cell).strip() for cell in data.cells]
    numeric = any(number(cell) is not None for cell in text)
    for row, cell, raw in zip(data.rows, text, data.cells, strict=True):
        if raw is None or cell.lower() in ("", "nan", "<na>") or (numeric and is_missing(cell)):
            raise DataError(
                f"{data.table.where(row, data.target)}: the target is missing; leave such rows out"
            )
    if doubtful := sorted({cell for cell in text if cell.lower() in _DOUBTFUL}):
        warn_caller(
            f"{data.table.path}: the target {shown(doubtful)} is taken for a class; if it is missing there, leave such "
            "rows out"
        )
    return text


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
    arranged = arrange(table, inputs.names)
    columns = list(range(table.width)) if arranged is None else arranged
    advice = "; leave out a column of targets" if arranged is None else ""
    while part := list(itertools.islice(table.rows, rows)):
        numbers = np.array([table.numbers(row, cells, columns, advice) for row, cells in part])
        yield as_pixels(numbers, str(path)) if inputs.kind == BYTES else numbers
