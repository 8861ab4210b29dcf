"""Tables as they lie in files: CSV, plain or gzipped, and Parquet, as named columns and rows of cells.

Whatever may be read in two ways is refused with what to say, or said aloud: what separates cells, whether the first row
names the columns, what is a number.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data.inputs import composed, shown
from gpubp.errors import DataError, UsageError
from gpubp.support.optional import need
from gpubp.support.warning import warn_caller

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
ANYWHERE, AT_AN_END = ("label", "target"), ("class", "y")  # headers of targets, and where they mean it
TARGET_HEADERS = (*ANYWHERE, *AT_AN_END)
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "?")
_TITLES = 9  # lines that may stand above a table and be told from it
_NO_TEXT = {  # how files begin that are no text
    b"\x1f\x8b": "is compressed by gzip: add .gz to its name, or unpack it",
    b"PK\x03\x04": "is an Excel workbook or another zip archive: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook: save the table as CSV",
    b"PAR1": "is a Parquet file: name it .parquet",
    b"BZh": "is compressed by bzip2: unpack it",
    b"\xfd7zXZ": "is compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by Zstandard: unpack it",
    b"\xff\xfe": "is text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16: save it as UTF-8",
}
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")  # how pages begin, after blanks
TRUTH = {"true": 1.0, "false": 0.0}
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
        if text.lower() in TRUTH:
            return TRUTH[text.lower()]
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
    return cell is None or str(cell).strip().lower() in MISSING


def _has_text(row: Sequence[str]) -> bool:
    return any(map(str.strip, row))


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
    return _open_csv(path, how, columns, known)


def _open_csv(path: Path, how: TableFormat, columns: int, known: Sequence[str]) -> Table:
    mark = how.mark(ending(path))
    lines = _csv_rows(path, mark)
    line, first = next(lines, (0, []))
    cleared = []
    if first and not _has_text(first):  # of no account above a header; data where there is none
        cleared, (line, first) = [(line, first)], next(lines)
    ahead = list(itertools.islice(lines, _TITLES))
    lines = itertools.chain(ahead, lines)
    filled = [row for _, row in ahead if _has_text(row)]
    below = filled[0] if filled else []
    cells = _first_cells(path, how, first, filled, columns)
    headed = _is_header(path, cells, below, known) if how.header is None else how.header
    if (
        mark == how.decimal and not headed
    ):  # a header tells how many columns there are, if a number is not quoted
        raise UsageError(
            f"{path}: cells cannot be separated by {mark!r} if numbers have it too, unless a header names the columns: "
            "name a --delimiter"
        )
    table = Table(path, how, (), len(cells), lines)
    if not headed:
        table.rows = itertools.chain(cleared, [(line, first)], lines)
    if len(cells) > columns and cells[-1] == "":
        table.trailing, table.width, cells = True, table.width - 1, cells[:-1]
    if headed:
        one_more = len(below) == len(cells) + 1 + table.trailing and cells[0] != "" and mark != how.decimal
        if one_more and below[-1].strip():  # the row names that R writes without a name of their own
            table.width, cells = table.width + 1, ["", *cells]
        elif one_more:  # lines end in a delimiter, but for the header
            table.trailing = True
        _name_columns(table, cells)
    table.rows = _whole_rows(table, table.rows)
    return table


def _first_cells(
    path: Path, how: TableFormat, first: list[str], below: Sequence[list[str]], columns: int
) -> list[str]:
    """The cells of the first row, or a DataError where it cannot be that of a table with so many columns."""
    if not first:
        raise DataError(f"{path}: the file is empty")
    mark = how.mark(ending(path))
    whole = mark.join(first).strip(" ")
    if whole.lower().startswith("sep="):  # Excel's own
        named = "" if whole[4:] == mark else ", and name the --delimiter that it says"
        raise DataError(f"{path}: take its first line out, {whole!r}{named}")
    cells = [cell.strip() for cell in first]
    if len(cells) < columns and whole.startswith("#"):
        raise DataError(f"{path}: its first line is a comment, {whole!r}; take it out")
    other = next((other for other in ";\t|, " if other != mark and _separates(other, whole, mark, below)), "")
    if not other and how.header is not False and mark != how.decimal and _is_title(cells, below, columns):
        raise DataError(
            f"{path}: its first line, {whole.strip(mark)!r}, seems to be a title above the table: take it out"
        )
    if len(cells) < columns:
        said = {"\t": "tab", " ": "space"}.get(other, repr(other))
        advice = f"; they seem to be separated by {other!r}: --delimiter {said}" if other else ""
        raise DataError(f"{path}: {len(cells)} columns, separated by {mark!r}, are too few{advice}")
    cells[0] = cells[0].removeprefix("#").strip()  # NumPy writes a header as a comment
    return list(composed(cells))


def _separates(other: str, whole: str, mark: str, below: Sequence[list[str]]) -> bool:
    """Whether another delimiter stands in the first line and as often in the next, or once more, by names of rows."""
    count = whole.count(other)
    return count > 0 and (not below or mark.join(below[0]).count(other) in (count, count + 1))


def _is_title(cells: Sequence[str], below: Sequence[list[str]], columns: int) -> bool:
    """Whether a first row has one word, perhaps beside empty cells, above a table of more columns.

    A row of two cells below it may be of one column and names of rows, to which R gives no header.
    """
    alone = cells[0] != "" and not any(cells[1:]) and number(cells[0]) is None
    filled = max((sum(map(bool, map(str.strip, row))) for row in below), default=0)
    return alone and (filled > 2 or (filled == 2 and (len(cells) == 2 or columns == 2)))


def _is_header(path: Path, cells: list[str], second: Sequence[str], known: Sequence[str]) -> bool:
    """Return True for a row that names columns, by the ``known`` names or by the looks of its cells.

    That is, none of them is a number, or they count the columns, as pandas does, but for one that names a target.

    Raises:
        UsageError: it may be either.
    """
    if (known and set(known) <= set(cells)) or all(number(cell) is None for cell in cells):
        return True
    named = [cell for cell in cells if cell.lower() in TARGET_HEADERS]
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
    """Whether three or more whole numbers count in ones, or, above a row that is not whole, rise, fall or count in any
    order, as names do.
    """
    if len(cells) < 3 or not _whole(cells):
        return False
    steps = np.diff([float(cell) for cell in cells])
    by_ones = bool((steps == 1).all()) and all(map(str.isdecimal, cells))
    in_order = bool((steps > 0).all() or (steps < 0).all()) or sorted(cells) == sorted(
        map(str, range(len(cells)))
    )
    return by_ones or (in_order and not _whole(second))


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
            ends = ", the last without a name" if table.trailing else ""
            raise DataError(
                f"{table.path}: line {at} has {len(row)} columns, the first has {stop + table.trailing}{ends}"
            )
        yield at, row[left_out:stop]
    if at is None:
        raise DataError(f"{table.path}: no rows of data")


def _csv_rows(path: Path, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of lines that are not blank, with their line numbers.

    Of rows without text, as spreadsheets write where cells were cleared, those at the end are left out, and only the
    first of others that follow each other is given: it is refused.
    """
    opener: Any = gzip.open if ending(path).endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            start = file.peek(64)
            if what := next((what for first, what in _NO_TEXT.items() if start.startswith(first)), None):
                raise DataError(f"{path} {what}")
            if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
                raise DataError(f"{path} is a web page or XML, not a table: download the file itself")
            if b"\0" in start[:2]:
                raise DataError(f"{path} is no text in UTF-8, but perhaps in UTF-16: save it as UTF-8")
            text = io.TextIOWrapper(file, newline="", encoding="utf-8-sig")
            raw, cleared = "", None
            reader = csv.reader((raw := each for each in text), delimiter=mark, skipinitialspace=mark != " ")
            for row in reader:
                if _has_text(row):
                    if cleared is not None:
                        yield cleared
                        cleared = None
                    yield reader.line_num, row
                elif cleared is None and (len(row) > 1 or raw.strip()):  # one cell may be in quotes
                    cleared = reader.line_num, row
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
    _name_columns(table, list(composed(names)))
    table.rows = _whole_rows(table, table.rows)
    return table
