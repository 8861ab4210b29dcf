"""Inputs of which only the non-zero ones are stored: SciPy's sparse matrices, as rows (CSR)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.data.arrays import storage
from gpubp.errors import DataError


def is_sparse(inputs: Any) -> bool:
    """Return True for a sparse matrix or array of SciPy's, which need not be imported to tell."""
    return hasattr(inputs, "tocsr")


def check_sparse(inputs: Any, name: str) -> Any:
    """A sparse matrix as a ``csr_array`` (N, n_in) with sorted columns, in uint8, float32 or float64.

    Nothing is copied that is so already. Raises DataError for no samples or columns, anything but numbers, and for
    NaN or infinity, naming the row and column.
    """
    from scipy.sparse import csr_array

    if inputs.ndim != 2 or 0 in inputs.shape:
        raise DataError(
            f"{name}: no data, the inputs have shape {inputs.shape}; they need (samples, columns)"
        )
    if inputs.dtype.kind not in "biuf":
        raise DataError(f"{name}: the inputs have dtype {inputs.dtype}, not numbers")
    x = csr_array(inputs)
    if not x.has_canonical_format:  # sorted, and no entry twice
        x = x.copy()
        x.sum_duplicates()
    x = x.astype(storage(x.data), copy=False)
    if x.dtype.kind == "f" and not np.isfinite(x.data).all():
        at = int((~np.isfinite(x.data)).argmax())
        row = int(np.searchsorted(x.indptr, at, side="right")) - 1
        raise DataError(
            f"{name}: the input in row {row}, column {x.indices[at]} is {x.data[at]}; "
            "remove or fill in such rows before training"
        )
    return x


def with_values(inputs: Any, values: np.ndarray) -> Any:
    """The same entries with other values."""
    return type(inputs)((values, inputs.indices, inputs.indptr), shape=inputs.shape)
