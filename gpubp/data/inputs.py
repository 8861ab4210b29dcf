"""What a network's inputs are: bytes or numbers, and what their columns are called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np

from gpubp.data.sparse import is_sparse, with_values
from gpubp.errors import DataError
from gpubp.support.hints import did_you_mean
from gpubp.support.warning import warn_caller

KINDS = BYTES, NUMBERS, UNKNOWN = "bytes", "numbers", "unknown"
_SHOWN = 6  # names in a message
_FEW = 8  # rows whose size says nothing
_OTHER_SCALE = 8.0  # below millimetres for centimetres, and above what random rows of one table differ by
_OTHER_UNIT, _COLUMNS_TOLD = 20, 3  # standard deviations that a column's median is off; columns told of


def kind_of(inputs: Any) -> str:
    """``BYTES`` for uint8, dense or sparse, which is scaled by 1/255; ``NUMBERS`` for all else, taken as it is."""
    return BYTES if inputs.dtype == np.uint8 else NUMBERS


@dataclass(frozen=True, eq=False)
class Scaling:
    """x → (x − shift) / scale, column by column; both (n_in,) float64. Bytes are in parts of 255 before.

    It is done in float64 and not made part of W¹: of a column far from 0, such as times in seconds, W¹x + b¹ in float32
    would leave nothing but rounding.
    """

    shift: np.ndarray
    scale: np.ndarray

    @property
    def far(self) -> bool:
        """Whether a column is so far from 0 that float32 has fewer than three digits for its deviation."""
        return bool((np.abs(self.shift) > 2**14 * self.scale).any())

    @classmethod
    def of(cls, inputs: np.ndarray) -> Scaling:
        """The scaling that gives each column of a training part mean 0 and standard deviation 1; constant ones, 0."""
        x = _in_float64(inputs)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        constant = x.max(axis=0) == x.min(axis=0)  # rounding leaves its deviation near 0, not at 0
        return cls(np.where(constant, x[0], mean), np.where(constant, 1.0, scale))

    def apply(self, inputs: Any) -> np.ndarray:
        """The inputs scaled, dense and in float64."""
        x = _in_float64(inputs) - self.shift
        x /= self.scale
        return x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scaling) and all(
            map(np.array_equal, (self.shift, self.scale), (other.shift, other.scale))
        )


def _in_float64(inputs: Any) -> np.ndarray:
    """Inputs as a network takes them: bytes in parts of 255."""
    x = inputs.toarray() if is_sparse(inputs) else inputs
    return x / 255.0 if kind_of(x) == BYTES else x.astype(np.float64, copy=False)


@dataclass(frozen=True)
class Inputs:
    """The inputs that a network learned from.

    ``kind`` is ``BYTES``, ``NUMBERS`` or, where nobody has said, ``UNKNOWN``; ``names`` has one for each column, or
    none; ``shape`` is that of a sample, (height, width) of an image, or () if it was a row; ``size`` is what
    :func:`size_of` gives of them, or 0; ``scaling`` is what they are put through before the first layer, if anything.
    """

    kind: str = UNKNOWN
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    size: float = 0.0
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", composed(self.names))

    @property
    def of_bits(self) -> bool:
        """Whether bytes, as far as is known, were 0 and 1 alone: no others are so small."""
        return self.kind == BYTES and 0 < self.size <= 1

    def check(self, inputs: Any, name: str) -> None:
        """Refuse by a DataError rows of the other kind, which would be off by a factor of 255."""
        if self.kind in (UNKNOWN, kind_of(inputs)):
            return
        if self.kind == BYTES:
            raise DataError(
                f"{name}: these inputs are {inputs.dtype} numbers, taken as they are, but the network learned from "
                "bytes (uint8), scaled by 1/255: make whole numbers from 0 to 255 bytes, .astype('uint8'), and "
                "multiply by 255 first what is in [0, 1]"
            )
        raise DataError(
            f"{name}: these inputs are bytes (uint8), which are scaled by 1/255, but the network learned from numbers "
            "as they are: convert them as it was trained, .astype(float), or train it on bytes (of a table's "
            "columns: --pixels)"
        )

    def check_shape(self, shape: Sequence[int], name: str) -> None:
        """Refuse by a DataError samples of another shape, in which pixels have other neighbours; rows have none."""
        ours, theirs = ([n for n in one if n > 1] for one in (self.shape, shape))
        if len(ours) > 1 and len(theirs) > 1 and ours != theirs:
            raise DataError(
                f"{name}: samples of shape {' × '.join(map(str, shape))}, but the network learned from samples of "
                f"shape {' × '.join(map(str, self.shape))}"
            )

    def arranged(self, values: Any, name: str) -> Any:
        """A DataFrame's columns by their names, anything else as it is; with a word where :meth:`order_of` has one.

        Raises:
            DataError: as :meth:`places` does.
        """
        return columns_at(self.order_of(names_of(values), name), values)

    def scaled(self, inputs: Any) -> Any:
        """Inputs as the first layer takes them, but for the network's dtype and bytes that are not scaled."""
        return inputs if self.scaling is None else self.scaling.apply(inputs)

    def say_if_of_another_scale(self, inputs: Any, name: str) -> bool:
        """Warn of inputs far smaller or larger than those learned from, and return whether they were enough to tell.

        All zeros, as in a black image, are not. Few rows only are where they, or those learned from, are bytes of 0
        and 1, and the others are not.
        """
        if not self.size:
            return True
        if not (size := size_of(inputs)):
            return False
        few = inputs.shape[0] < _FEW
        if few and not (kind_of(inputs) == BYTES and (inputs.max() == 1) != self.of_bits):
            return False
        share = size / self.size
        if not 1 / _OTHER_SCALE < share < _OTHER_SCALE:
            warn_caller(
                f"{name}: these inputs are {share:.3g} times as large as those that the network learned from; they may "
                "be at another scale"
            )
        elif not few and self.scaling is not None:
            self._say_if_in_another_unit(inputs, self.scaling, name)
        return True

    def _say_if_in_another_unit(self, inputs: Any, scaling: Scaling, name: str) -> None:
        """Warn of columns whose medians lie far from where they lay in training; constant ones have no scale."""
        distance = np.median(np.abs(scaling.apply(inputs)), axis=0)
        for column in np.flatnonzero((distance > _OTHER_UNIT) & (scaling.scale != 1))[:_COLUMNS_TOLD]:
            called = f" ({self.names[column]})" if self.names else ""
            warn_caller(
                f"{name}: the network's input {column + 1}{called} lies {distance[column]:,.0f} standard deviations "
                "from where it was learned; it may be in another unit"
            )

    def order_of(self, names: Sequence[str], where: str) -> list[int] | None:
        """Where each of the network's columns stands among ``names``; None where one of the two has none to speak of.

        What that means is said aloud: columns that are left over, and those that are taken in the order they come in,
        unless the names but count them, or the network's are pixels of images.

        Raises:
            DataError: as :meth:`places` does.
        """
        if not self.names:
            if self.kind != UNKNOWN and not _are_places(names):
                warn_caller(
                    f"{where}: the network learned from columns without names; these, {shown(names)}, are taken in the "
                    "order they come in"
                )
            return None
        if self.names == tuple(names):  # two of which may be the same
            return list(range(len(names)))
        counted = list(names) == [
            str(i) for i in range(len(names))
        ]  # numbers of columns, as pandas gives them
        if counted and not set(self.names) <= set(names):
            if len(self.shape) < 2 and not _are_places(self.names):
                warn_caller(
                    f"{where}: the network learned from columns {shown(self.names)}; these have no names, and are "
                    "taken in the order they come in"
                )
            return None
        places, left_over = self.places(names, where)
        if left_over:
            are = "is" if len(left_over) == 1 else "are"
            warn_caller(
                f"{where}: {shown(left_over)} {are} not among the columns that the network learned from: left out"
            )
        return places

    def places(self, names: Sequence[str], where: str) -> tuple[list[int], list[str]]:
        """Where in a table with columns of these ``names`` each of the network's stands, and the names left over.

        Raises:
            DataError: one is missing; ``where`` names the table.
        """
        places = {name: place for place, name in enumerate(names)}
        missing = [name for name in self.names if name not in places]
        if missing:
            others = [name for name in names if name not in self.names]
            hint = did_you_mean(missing[0], others)
            raise DataError(
                f"{where}: {shown(missing)} {'is' if len(missing) == 1 else 'are'} missing; the network learned from "
                f"columns of these names; {hint}this table has {shown(names)}"
            )
        left_over = [name for name in names if name not in self.names]
        return [places[name] for name in self.names], left_over


def a_thousand(rows: Any) -> Any:
    """A thousand or two of many rows, from all over, dense or sparse; of few, all."""
    return rows[:: max(1, rows.shape[0] // 1000)]


def size_of(inputs: Any) -> float:
    """The usual size of a row (N, n_in), dense or sparse: the median of the rows' root mean squares.

    Rows of zeros do not count, and of many rows a thousand or two do. A mean over all would be that of the few rows
    with the largest numbers, which another part of the same table may lack.
    """
    few = a_thousand(inputs)
    with np.errstate(over="ignore"):
        if is_sparse(few):
            squares = with_values(few, np.square(few.data, dtype=np.float64)).sum(axis=1)
        else:
            squares = np.einsum("ij,ij->i", few, few, dtype=np.float64)
    squares = squares[squares > 0]
    return float(np.sqrt(np.median(squares) / few.shape[1])) if len(squares) else 0.0


def shape_of(before: Inputs, inputs: Any) -> tuple[int, ...]:
    """The shape of a sample, as a network knew it before or as these inputs have it; () of rows."""
    shape = tuple(getattr(inputs, "shape", ()))[1:]
    return before.shape or (shape if len(shape) > 1 else ())


def names_of(values: Any) -> tuple[str, ...]:
    """The names of a table's columns, as text; () of anything else, and where they are but counted from 0."""
    columns = list(
        getattr(values, "column_names", getattr(values, "columns", ()))
    )  # of Arrow, of a DataFrame
    return () if columns == list(range(len(columns))) else composed(map(str, columns))


def columns_at(places: Sequence[int] | None, values: Any) -> Any:
    """The columns of a DataFrame at these places; all as it is where there are none to move."""
    if places is None or list(places) == list(range(values.shape[1])):
        return values
    if hasattr(values, "iloc"):
        return values.iloc[:, places]
    theirs = list(getattr(values, "column_names", values.columns))
    return values.select([theirs[place] for place in places])


def composed(names: Iterable[str]) -> tuple[str, ...]:
    """Names with their letters composed alike: ä may be one character, or an a and its dots."""
    return tuple(normalize("NFC", name) for name in names)


def _are_places(names: Sequence[str]) -> bool:
    """Whether names but count the columns, as pixel0, pixel1 … or 1x1, 1x2 … do, or there are none."""
    numbers = [tuple(map(int, re.findall(r"[0-9]+", name))) for name in names]
    alike = len({re.sub(r"[0-9]+", "0", name) for name in names}) < 2
    return alike and () not in numbers and all(a < b for a, b in itertools.pairwise(numbers))


def shown(names: Sequence[object], most: int = _SHOWN) -> str:
    """The first few of many names."""
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
