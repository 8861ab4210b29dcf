"""What is doubtful in a table's columns, and is said aloud: of one to train on, to test on or to predict for alike.

Of the latter two it is known besides what the columns held in training, which tells more than a few rows of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.data.inputs import Inputs, a_thousand, size_of
from gpubp.data.tables import Table, number
from gpubp.support.warning import warn_caller

LOOKED_AT = 500  # first rows, from the cells of which thousands with a mark are told
_MARKED = 8  # such cells, where nothing is known of the column
_FEW = 8  # rows that tell little by themselves: of a table not to train on, or above what may be their sum
_CODES = (-9, -99, -999, -9999, 999, 9999)  # that stand for a missing number; 99 is as often one itself
_ABOVE = 3  # times what other values span: prices like 999 lie nearer to others
_FAR_LARGER = 100  # what was read with thousands for fractions is 1000 times too small


@dataclass(frozen=True)
class Known:
    """What columns (n,) held in training: the ends of what is usual, and the size of a number.

    ``rough``, if these are of whole rows, in which a column may be much smaller than the others.
    """

    low: np.ndarray
    high: np.ndarray
    size: np.ndarray
    rough: bool = False

    @classmethod
    def of(cls, learned: Inputs, n_in: int) -> Known | None:
        """What a network knows of its inputs, if anything."""
        if (scaling := learned.scaling) is not None and len(scaling.shift) == n_in:
            reach = 2 * scaling.scale  # evenly spread numbers end at √3 standard deviations
            size = np.abs(scaling.shift) + scaling.scale
            return cls(scaling.shift - reach, scaling.shift + reach, size)
        size = np.full(n_in, learned.size)
        reach = 2 * n_in**0.5 * size  # one column may be all there is to a row
        return cls(-reach, reach, size, rough=True) if learned.size else None


class Doubts:
    """Looks through columns of a table, some rows at a time, and warns of what is doubtful in them.

    ``known`` is what they held in training, if anything is known of it; ``training``, if this is where it is learned.
    """

    def __init__(
        self, table: Table, columns: Sequence[int], known: Known | None = None, *, training: bool = False
    ) -> None:
        self._table, self._columns, self._known, self._training = table, columns, known, training
        n = len(columns)
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)  # but for what may be codes
        self._codes: dict[tuple[int, float], tuple[int, int]] = {}  # by column: the first line, and how many
        self._rows, self._line, self._last = 0, 0, np.zeros(n)
        self._sum, self._least, self._most = np.zeros(n), self._low, self._high  # of all rows but the last

    def look(self, values: np.ndarray, lines: Sequence[int], cells: Sequence[Sequence[Any]]) -> None:
        """Look through some rows (N, n), in these lines; ``cells`` are those of the first ``LOOKED_AT`` of them."""
        if self._rows:
            self._add(self._last[None])
        else:
            self._say_what_may_be_thousands(values, cells)
        self._add(values[:-1])
        self._rows, self._line, self._last = self._rows + len(values), lines[-1], values[-1]
        low, high = values.min(axis=0), values.max(axis=0)
        ends = np.isin((low, high), _CODES).any(axis=0)  # others lie amid a column's values
        for i in np.flatnonzero(ends).tolist():
            column = values[:, i]
            coded = np.isin(column, _CODES)
            for code in np.unique(column[coded]).tolist():
                at = np.flatnonzero(column == code)
                line, count = self._codes.get((i, code), (lines[at[0]], 0))
                self._codes[i, code] = line, count + len(at)
            low[i] = column.min(where=~coded, initial=np.inf)
            high[i] = column.max(where=~coded, initial=-np.inf)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def end(self) -> None:
        """Warn of what only a look at all rows tells."""
        self.say_what_may_be_codes()
        self._say_what_is_beyond()
        self._say_what_may_be_totals()

    def known(self, values: np.ndarray) -> Known:
        """What these columns, all rows of which have been looked through, let one know of others."""
        some = np.abs(a_thousand(values))
        return Known(self._low, self._high, np.median(some, axis=0))

    def _add(self, rows: np.ndarray) -> None:
        if len(rows):
            self._sum += rows.sum(axis=0)
            self._least = np.minimum(self._least, rows.min(axis=0))
            self._most = np.maximum(self._most, rows.max(axis=0))

    def _say_what_may_be_thousands(self, values: np.ndarray, cells: Sequence[Sequence[Any]]) -> None:
        """Warn of a column whose numbers look like whole ones with a mark between thousands: 980 beside 1.848.

        All of them may have one; but numbers of three decimals are as common, other than where commas are in use, or
        where the column held far larger ones in training.
        """
        how, known = self._table.format, self._known
        commas = how.decimal == "," or how.delimiter == ";"
        thousands = re.compile(rf"-?[1-9]\d{{0,2}}{re.escape(how.decimal)}\d{{3}}")
        for i, column in enumerate(zip(*cells, strict=True)):
            text = [str(cell).strip() for cell in column]
            if not any(how.decimal in cell for cell in text):  # as in hundreds of columns of pixels
                continue
            marked = [cell for cell in text if thousands.fullmatch(cell)]
            whole = sum(bool(re.fullmatch(r"-?\d{1,3}", cell)) for cell in text)
            if not marked or len(marked) + whole < len(text):
                continue
            far = False
            if known is not None:
                read = [abs(number(self._table.pointed(cell)) or 0.0) for cell in marked]
                size = size_of(values) if known.rough else np.median(read)
                far = _FAR_LARGER * size < known.size[i]
            if far or (len(marked) >= _MARKED and (whole or commas)):
                warn_caller(
                    f"{self._table.path}: {self._table.called(self._columns[i])} may have marks of thousands, which "
                    f"are read as those of a fraction: {marked[0]}; if so, take them out"
                )

    def say_what_may_be_codes(self) -> None:
        """Warn of codes of missing numbers that lie apart from all else in a column."""
        for (i, code), (line, count) in self._codes.items():
            if not self._is_apart(i, code):
                continue
            what, low, high = "the column's other values", self._low[i], self._high[i]
            if self._known is not None and low > high:
                what, low, high = "those in training", self._known.low[i], self._known.high[i]
            warn_caller(
                f"{self._table.where(line, self._columns[i])}: {code:g}, in {count} of {self._rows} rows, is far from "
                f"{what}, {low:g} to {high:g}; if it stands for a missing one, leave such rows out or fill them in"
            )

    def _is_apart(self, i: int, code: float) -> bool:
        """Whether a code lies apart from the column's other values, and from those in training.

        Below them it does, if it alone is negative, or as far off as they span; above them, if some times as far.
        """
        low, high, known = self._low[i], self._high[i], self._known
        enough = self._training or self._rows > _FEW
        positive = low >= 0 and enough
        if known is not None and not (known.rough and enough):
            positive = positive or min(low, known.low[i]) >= 0
            low, high, enough = min(low, known.low[i]), max(high, known.high[i]), True
        if low > high or not enough:
            return False
        if code > 0:
            return bool(0 < _ABOVE * (high - low) <= code - high)
        return bool(code < low and (positive or 0 < high - low <= low - code))

    def _say_what_is_beyond(self) -> None:
        """Warn of whole numbers of so many digits that not all of them are kept."""
        for i in np.flatnonzero(np.maximum(-self._low, self._high) >= 2**53).tolist():
            warn_caller(
                f"{self._table.path}: {self._table.called(self._columns[i])} has numbers beyond 2⁵³ (9e15), of which "
                "only the first 15 digits are kept; leave it out if these are the numbers of things"
            )

    def _say_what_may_be_totals(self) -> None:
        """Warn of a last row that is the sum or the mean of those above it in every column, as exported tables have."""
        above, last, sums = self._rows - 1, self._last, self._sum
        if above < _FEW:
            return
        means, largest = sums / above, np.maximum(-self._least, self._most)
        if np.isclose(last, sums, rtol=1e-6, atol=0).all() and (np.abs(sums) > 2 * largest).any():
            word = "sums"
        elif (
            len(means) > 1
            and (self._least < self._most).any()
            and np.isclose(last, means, rtol=1e-6, atol=0).all()
        ):
            word = "means"
        else:
            return
        warn_caller(
            f"{self._table.path}: the inputs of the last row, in line {self._line}, are the {word} of those above it: "
            "leave that row out"
        )
