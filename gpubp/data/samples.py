"""Data as a plan takes it: labels become targets, bytes become numbers, everything the network's dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.data.dataset import Split
from gpubp.data.sparse import is_sparse, with_values
from gpubp.data.targets import VALUES, Targets
from gpubp.errors import DataError
from gpubp.functions import Activation, Loss


def byte_table(dtype: np.dtype | type) -> np.ndarray:
    """The 256 values i/255 in ``dtype``: how every backend scales uint8 inputs, so that their bits agree."""
    return np.arange(256, dtype=dtype) / np.asarray(255, dtype=dtype)


def as_inputs(inputs: Any, dtype: np.dtype | type) -> np.ndarray:
    """Inputs as floats: uint8 through :func:`byte_table`, anything else converted to ``dtype``; sparse ones dense."""
    return as_rows(inputs.toarray() if is_sparse(inputs) else inputs, dtype)


def as_rows(inputs: Any, dtype: np.dtype | type) -> Any:
    """Convert as :func:`as_inputs` does, but leave sparse ones sparse."""
    if is_sparse(inputs):
        return with_values(inputs, as_rows(inputs.data, dtype))
    if inputs.dtype == np.uint8:
        return byte_table(dtype)[inputs]
    return np.ascontiguousarray(inputs, dtype=dtype)


def dense_inputs(inputs: Any, dtype: np.dtype) -> np.ndarray:
    """Host inputs (N, n_in) as an array without gaps: bytes as they are, anything else in ``dtype``."""
    if is_sparse(inputs):
        inputs = inputs.toarray()
    return np.ascontiguousarray(inputs, None if inputs.dtype == np.uint8 else dtype)


@dataclass(frozen=True)
class Samples:
    """N samples as a plan takes them.

    inputs (N, n_in), uint8 or the network's dtype, or a SciPy ``csr_array`` of the latter; targets (N, n_out) and
    sample_weight (N,) in its dtype; all of them arrays of a backend's own kind, wherever that lives.
    """

    inputs: Any
    targets: Any
    sample_weight: Any

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def take(self, order: np.ndarray) -> Samples:
        """The samples at ``order``, on the host."""
        return Samples(self.inputs[order], self.targets[order], self.sample_weight[order])


@dataclass(frozen=True)
class Prepared:
    """Samples, and whether their targets stand for classes, so that an accuracy means something."""

    samples: Samples
    classification: bool


@dataclass(frozen=True)
class Task:
    """What a network is to learn from samples: the numbers of inputs and outputs, its dtype, output and loss."""

    n_in: int
    n_out: int
    dtype: np.dtype
    output: Activation
    loss: Loss

    @property
    def targets(self) -> Targets:
        """What targets in one column are to be; as :meth:`Targets.of`."""
        return Targets.of(self.output, self.loss, self.n_out)

    @property
    def values(self) -> bool:
        """Whether targets in one column are values, whatever they look like."""
        return self.targets.kind == VALUES


def prepare(split: Split, task: Task, name: str = "data") -> Prepared:
    """Samples for a task from a checked split; ``name`` is how messages call it.

    Raises:
        UsageError: softmax over one output, which is 1 whatever its input.
        DataError: inputs of another width, labels or targets that do not fit the outputs, which these cannot reach,
            or which the loss does not take.
    """
    if split.inputs.shape[1] != task.n_in:
        raise DataError(
            f"{name}: inputs have {split.inputs.shape[1]} columns, but the network takes {task.n_in}; "
            f"give it sizes [{split.inputs.shape[1]}, …], on the command line --layers {split.inputs.shape[1]}-…"
        )
    targets, classification = _targets(np.asarray(split.targets), task, name)
    if task.loss.probabilities:
        classification = classification or (task.n_out == 1 and bool(((targets == 0) | (targets == 1)).all()))
        _check_probabilities(targets, task.loss.name, name)
    else:
        _check_reached(targets, task.output, name)
    weight = split.sample_weight if split.sample_weight is not None else np.ones(len(split))
    inputs = _inputs(split.inputs, task.dtype, name)
    with np.errstate(over="ignore"):
        targets = targets.astype(task.dtype)
    if not np.isfinite(targets).all():
        raise DataError(f"{name}: targets are too large for {task.dtype}; scale them down or use float64")
    return Prepared(Samples(inputs, targets, weight.astype(task.dtype)), classification)


def _inputs(inputs: Any, dtype: np.dtype, name: str) -> Any:
    """Dense inputs as bytes or in ``dtype``; sparse ones, which are few numbers, always in ``dtype``."""
    if inputs.dtype == np.uint8 and not is_sparse(inputs):
        return np.ascontiguousarray(inputs)
    with np.errstate(over="ignore"):  # found just below
        rows = as_rows(inputs, dtype)
    if rows.dtype != inputs.dtype and not np.isfinite(rows.data if is_sparse(rows) else rows).all():
        raise DataError(f"{name}: inputs are too large for {dtype}; scale them down or use float64")
    return rows


def _targets(y: np.ndarray, task: Task, name: str) -> tuple[np.ndarray, bool]:
    """Targets (N, n_out), and whether they are classes."""
    n_out = task.n_out
    if y.ndim == 2:
        if y.shape[1] != n_out:
            raise DataError(f"{name}: targets have {y.shape[1]} columns, but the network has {n_out} outputs")
        distribution = (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-3)
        return y, bool(distribution and n_out > 1)
    if n_out == 1:
        two = y.dtype.kind in "iu" and bool(((y == 0) | (y == 1)).all())
        return y[:, None], two and not task.values
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


def _check_reached(targets: np.ndarray, output: Activation, name: str) -> None:
    wrong = np.argwhere((targets < output.lowest) | (targets > output.highest))
    if len(wrong):
        raise DataError(
            f"{name}: the target at index {wrong[0][0]} is {targets[tuple(wrong[0])]:.6g}, but {output.name} outputs "
            f"lie between {output.lowest:g} and {output.highest:g}: values take output 'identity' (--output identity)"
        )


def _check_probabilities(targets: np.ndarray, loss: str, name: str) -> None:
    wrong = np.flatnonzero(~((targets >= 0) & (targets <= 1)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{name}: {loss} takes targets in [0, 1], and those at index {wrong[0]} are not; regression takes "
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
