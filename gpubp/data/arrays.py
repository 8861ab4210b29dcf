"""Arrays of other libraries as NumPy's: the same memory where the host can read it, else one copy from the device."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from gpubp.errors import DataError

_HOST = (1, 3, 11)  # DLPack's device types for host memory: kDLCPU, kDLCUDAHost, kDLROCMHost
_FLOAT32_EXACT = 1 << 24  # up to here float32 holds every integer
_FAILURES = (ValueError, TypeError, RuntimeError, BufferError, AttributeError)


def host_array(values: Any, what: str) -> np.ndarray:
    """``values`` as a NumPy array: array-likes, and whatever has DLPack or ``__cuda_array_interface__``.

    Host memory is shared, not copied; it may be read-only. Device memory is copied once, by CuPy, since the reference
    and the verifier run on the host. A tensor that requires a gradient is taken without it.

    Raises:
        DataError: none of these, a dtype that NumPy has not, or device memory without CuPy; ``what`` is how its
            message calls the values.
    """
    refuse_masked(values, what)
    if isinstance(values, np.ndarray):
        return np.asarray(values)  # of a subclass, the plain array
    if getattr(values, "requires_grad", False) and hasattr(values, "detach"):
        values = values.detach()
    try:
        if not _on_device(values):
            only_dlpack = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
            return np.from_dlpack(values) if only_dlpack else np.asarray(values)
    except _FAILURES as error:  # ragged lists; dtypes such as bfloat16; sparse tensors
        hint = "; bfloat16 is not NumPy's, convert it to float32" if "bfloat16" in str(error).lower() else ""
        raise DataError(f"{what} cannot be made an array: {error}{hint}") from error
    return _from_device(values, what)


def refuse_masked(values: Any, what: str) -> None:
    """Raise a DataError for a masked array with masked values, whose numbers underneath mean nothing."""
    parts = values if isinstance(values, list | tuple) else [values]
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise DataError(f"{what} have masked values: leave out such rows, or fill them in with .filled(…)")


def refuse_columns(frame: Any, what: str) -> None:
    """Raise a DataError that names the first column of a DataFrame that is not numbers, but dates or words, say."""
    rows = frame.iloc if hasattr(frame, "iloc") else frame
    with suppress(TypeError):  # NumPy's own, where there is no dtype for all columns
        if np.asarray(rows[:1]).dtype.kind in "biuf":
            return
    names = list(getattr(frame, "column_names", frame.columns))
    for i, name in enumerate(names):
        column = frame.iloc[:, i] if hasattr(frame, "iloc") else frame[name]
        if getattr(column, "dtype", None) is not None and getattr(column.dtype, "kind", "O") in "biuf":
            continue  # perhaps with gaps, which are for others to refuse
        values = np.asarray(column)
        try:
            if values.dtype.kind in "mMc":
                raise TypeError(f"it has dtype {values.dtype}")
            values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{what}: the columns of a DataFrame must be numbers, but {name!r} is not: {error}; leave it out, or "
                "make numbers of it, such as days since the first of its dates, or 0 and 1 for each of its words"
            ) from error


def _on_device(values: Any) -> bool:
    """Return True if the values lie in memory that the host cannot read."""
    if hasattr(values, "__cuda_array_interface__"):
        return True
    return hasattr(values, "__dlpack_device__") and int(values.__dlpack_device__()[0]) not in _HOST


def _from_device(values: Any, what: str) -> np.ndarray:
    try:
        cupy: Any = import_module("cupy")
    except ImportError:
        cupy = None
    try:
        if cupy is not None:
            shared = cupy.asarray if hasattr(values, "__cuda_array_interface__") else cupy.from_dlpack
            return shared(values).get()
        if hasattr(values, "__array__"):
            return np.asarray(values)  # JAX and Numba copy theirs themselves
        reason = "CuPy, which would copy them, is not installed"
    except _FAILURES as error:
        reason = str(error)
    raise DataError(f"{what} are on a device: {reason}; copy them to the host first, by .cpu() or .get()")


def storage(array: np.ndarray) -> type[np.generic]:
    """The narrowest of uint8, float32 and float64 that keeps the values; bool is a number, not a byte."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype == np.uint8:
        return np.uint8
    if kind == "f":
        return np.float32 if size <= 4 else np.float64
    exact = size <= 2 or not array.size or (array.min() >= -_FLOAT32_EXACT and array.max() <= _FLOAT32_EXACT)
    return np.float32 if exact else np.float64
