"""Data as a plan takes it: labels become targets, everything becomes the network's dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.backends.base import Samples
from gpubp.data import Split
from gpubp.data.sparse import is_sparse
from gpubp.errors import DataError
from gpubp.functions import LOSSES, lookup
from gpubp.network import Network, as_rows


@dataclass(frozen=True)
class Prepared:
    """Samples, and whether their targets stand for classes, so that an accuracy means something."""

    samples: Samples
    classification: bool


def prepare(network: Network, split: Split, loss: str, name: str = "data") -> Prepared:
    """Samples for ``network`` and ``loss`` from a checked split; ``name`` is how messages call it.

    Raises:
        DataError: inputs of another width, labels or targets that do not fit the outputs or the loss.
        UsageError: an unknown loss.
    """
    lookup(LOSSES, loss, "loss")
    n_in, n_out = network.sizes[0], network.sizes[-1]
    if split.inputs.shape[1] != n_in:
        raise DataError(
            f"{name}: inputs have {split.inputs.shape[1]} columns, but the network takes {n_in}; "
            f"give it sizes [{split.inputs.shape[1]}, …], on the command line --layers {split.inputs.shape[1]}-…"
        )
    targets, classification = _targets(np.asarray(split.targets), n_out, name)
    if LOSSES[loss].probabilities:
        classification = classification or (n_out == 1 and bool(((targets == 0) | (targets == 1)).all()))
        _check_probabilities(targets, loss, name)
    weight = split.sample_weight if split.sample_weight is not None else np.ones(len(split))
    inputs = _inputs(split.inputs, network.dtype, name)
    with np.errstate(over="ignore"):
        targets = targets.astype(network.dtype)
    if not np.isfinite(targets).all():
        raise DataError(f"{name}: targets are too large for {network.dtype}; scale them down or use float64")
    samples = Samples(inputs, targets, weight.astype(network.dtype))
    return Prepared(samples, classification)


def _inputs(inputs: Any, dtype: np.dtype, name: str) -> Any:
    """Dense inputs as bytes or in ``dtype``; sparse ones, which are few numbers, always in ``dtype``."""
    if inputs.dtype == np.uint8 and not is_sparse(inputs):
        return np.ascontiguousarray(inputs)
    with np.errstate(over="ignore"):  # found just below
        rows = as_rows(inputs, dtype)
    if not np.isfinite(rows.data if is_sparse(rows) else rows).all():
        raise DataError(f"{name}: inputs are too large for {dtype}; scale them down or use float64")
    return rows


def _targets(y: np.ndarray, n_out: int, name: str) -> tuple[np.ndarray, bool]:
    if y.ndim == 2:
        if y.shape[1] != n_out:
            raise DataError(f"{name}: targets have {y.shape[1]} columns, but the network has {n_out} outputs")
        distribution = (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-3)
        return y, bool(distribution and n_out > 1)
    if np.issubdtype(y.dtype, np.integer):
        if n_out == 1:
            return y[:, None], bool(((y == 0) | (y == 1)).all())
        return _one_hot(y, n_out, name), True
    if n_out == 1:
        return y[:, None], False
    if not (y == np.rint(y)).all():
        raise DataError(
            f"{name}: targets are single real numbers, but the network has {n_out} outputs; "
            f"give integer labels, or targets of shape (N, {n_out})"
        )
    return _one_hot(y.astype(np.int64), n_out, name), True


def _one_hot(labels: np.ndarray, n_out: int, name: str) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= n_out))
    if len(wrong):
        raise DataError(
            f"{name}: label {labels[wrong[0]]} at index {wrong[0]} is out of range: "
            f"a network with {n_out} outputs takes labels 0 to {n_out - 1}"
        )
    targets = np.zeros((len(labels), n_out))
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _check_probabilities(targets: np.ndarray, loss: str, name: str) -> None:
    wrong = np.flatnonzero(~((targets >= 0) & (targets <= 1)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{name}: {loss} takes targets in [0, 1], and those at index {wrong[0]} are not; values to be fitted take "
            "loss quadratic and output identity"
        )
    if loss == "cross_entropy":
        total = targets.sum(axis=1)
        wrong = np.flatnonzero(np.abs(total - 1) > 1e-5)
        if len(wrong):
            raise DataError(
                f"{name}: cross_entropy takes targets that sum to 1, and those at index {wrong[0]} sum to "
                f"{total[wrong[0]]:.6g}; binary_cross_entropy takes independent ones"
            )
