"""Data sets by name or path, checked before anything trains on them."""

from __future__ import annotations

import os
from collections.abc import Callable

from gpubp.data import builtin, mnist
from gpubp.data.dataset import Dataset, Split, check_split
from gpubp.data.files import load_path, stream_inputs
from gpubp.data.tables import TableFormat
from gpubp.data.targets import CLASSES, VALUES, Targets
from gpubp.errors import UsageError
from gpubp.support.files import user_path
from gpubp.support.hints import did_you_mean

__all__ = ["Dataset", "Split", "check_split", "load", "load_path", "names", "stream_inputs"]

_FIXED: dict[str, Callable[[], Dataset]] = {"mnist-sample": builtin.mnist_sample, "parity": builtin.parity}
_PARTED: dict[str, Callable[..., Dataset]] = {"digits": builtin.digits, "iris": builtin.iris}


def names() -> tuple[str, ...]:
    """Return the data sets that `load` knows by name."""
    return ("mnist-sample", "digits", "iris", "parity", *mnist.COLLECTIONS)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    seed: int = 0,
    test_fraction: float | None = None,
    target: str | int | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
    header: bool | None = None,
    pixels: bool = False,
    test_data: str | os.PathLike[str] | None = None,
    targets: str | Targets | None = None,
) -> Dataset:
    """Return the data set of that name, or in that file or folder (`load_path`); a name goes before a path.

    data_dir: the folder with the files of mnist or fashion-mnist; the other sets need none.
    quiet: no progress bar.
    seed, test_fraction: how to part a set that comes in one piece.
    target, delimiter, decimal, header, pixels: how a table is to be read (`gpubp.data.tables.TableFormat`).
    test_data: a second table, to test on.
    targets: "classes" or "values", where looks would deceive.
    Raises UsageError for what is neither a name nor a path, for a test_fraction where the test part is
    given, and for what is said of a table and this is none; DataError for data that is missing or unusable.
    """
    name = str(name_or_path)
    table = TableFormat(None if target is None else str(target), delimiter, decimal, header, pixels)
    if isinstance(targets, str):
        if targets not in (CLASSES, VALUES):
            raise UsageError(f"targets are 'classes' or 'values', not {targets!r}")
        targets = Targets(targets, because="but values were asked for")
    if name_or_path in names() and (table != TableFormat() or test_data is not None):
        raise UsageError(
            f"{name} is no table: leave out what says how one is to be read, and where its test part is"
        )
    if name_or_path in _PARTED:
        return _PARTED[name](seed=seed, **({} if test_fraction is None else {"test_fraction": test_fraction}))
    if name_or_path in names():
        if test_fraction is not None:
            raise UsageError(f"{name} has a test part of its own; leave out the test fraction")
        return _FIXED[name]() if name in _FIXED else mnist.load_idx_collection(name, data_dir, quiet)
    path = user_path(name_or_path)
    path_is_meant = not isinstance(name_or_path, str) or path.exists() or path.name != name or path.suffix
    if name and path_is_meant:
        return load_path(
            path, test_fraction=test_fraction, seed=seed, table=table, test_data=test_data, targets=targets
        )
    hint = did_you_mean(name.lower(), names(), at_least=0)
    raise UsageError(f"{name!r} is neither a data set nor a file; {hint}Known are {', '.join(names())}")
