"""A :class:`Problem` to be trained, and the contract of what trains it, a :class:`Plan`.

The trainer knows nothing of a backend but its plan, and the verifier holds every plan to the same contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpubp.data.samples import Samples
from gpubp.errors import UsageError
from gpubp.functions import ACTIVATIONS, Activation, Loss
from gpubp.model import labels_of
from gpubp.network import Layer
from gpubp.optimizers import Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.reference import Parameters


@dataclass(frozen=True)
class Problem:
    """A network to be trained, from these (W, b) of each layer on, by mini-batches of host samples.

    ``dropout`` is that of training, and so is ``deformation``, that of inputs which are images of bytes; evaluation and
    predictions have neither.
    """

    layers: Sequence[Layer]
    parameters: Parameters
    loss: Loss
    optimizer: Optimizer
    batch_size: int
    samples: Samples
    dropout: Dropout | None = None
    deformation: Deformation | None = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of parameters and arithmetic."""
        return self.parameters[0][0].dtype

    @property
    def sizes(self) -> list[int]:
        """The widths of the inputs and of each layer."""
        return [self.layers[0].n_in, *(layer.n_out for layer in self.layers)]

    @property
    def activations(self) -> list[Activation]:
        """The activation of each layer."""
        return [ACTIVATIONS[layer.activation] for layer in self.layers]

    @property
    def by_chance(self) -> bool:
        """Whether each step draws random numbers."""
        return self.dropout is not None or self.deformation is not None

    @cached_property
    def classes(self) -> np.ndarray | None:
        """The class of each sample, (N,), if the deformation goes by classes."""
        by_class = self.deformation is not None and self.deformation.by_class
        return labels_of(self.samples.targets) if by_class else None

    def batch(self, step: int, order: np.ndarray) -> Samples:
        """These samples as the step after so many updates takes them, on the host."""
        samples = self.samples.take(order)
        if self.deformation is None:
            return samples
        return replace(samples, inputs=self.deformed(samples.inputs, step, order))

    def deformed(self, images: np.ndarray, step: int, order: np.ndarray) -> np.ndarray:
        """The images of these samples, bytes, as that step deforms them; as they are where there is no deformation."""
        if self.deformation is None:
            return images
        classes = None if self.classes is None else self.classes[order]
        return self.deformation.images(images, order, step, classes)

    def masks(
        self, step: int, order: np.ndarray, dtype: np.dtype | type | None = None
    ) -> list[np.ndarray | None] | None:
        """What the inputs of each layer are multiplied by for these samples in the step after so many updates.

        In the parameters' dtype, or another.
        """
        if self.dropout is None:
            return None
        return self.dropout.masks(step, order, self.sizes[:-1], dtype or self.dtype)

    def two_batches(self, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The samples of a full and a second batch, a short one where there is one, and a learning rate for each.

        They are the first of ``order``, by default of the samples as they come.
        """
        n, size = len(self.samples), self.batch_size
        order = (np.arange(n) if order is None else order)[: size + (n % size or size)]
        return order, self.optimizer.lr * np.array([1.0, 0.5])[: -(-len(order) // size)]


@dataclass(frozen=True)
class StepStats:
    """Sums over a run of S steps, before each step's update: cost sums (S,) float64 and hits (S,) int64.

    Kept by step, so that an epoch's sum does not depend on how many calls it was run in.
    """

    samples: int
    costs: np.ndarray
    hits: np.ndarray

    @property
    def mean_cost(self) -> float:
        return float(self.costs.sum()) / self.samples

    @property
    def accuracy(self) -> float:
        return int(self.hits.sum()) / self.samples


@dataclass(frozen=True)
class PlanState:
    """All that a plan changes as it trains, on the host: enough to go on bitwise.

    ``parameters`` is [W₁, b₁, W₂, b₂, …]; ``slots`` has the optimizer's arrays of each of them; ``step`` counts
    the updates made.
    """

    parameters: list[np.ndarray]
    slots: list[tuple[np.ndarray, ...]]
    step: int

    @property
    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The parameters as (W, b) pairs."""
        return pairs(self.parameters)


class Plan(ABC):
    """Training data and parameters where a backend wants them, and the steps that change the parameters."""

    why = ""  # it was chosen, where there was a choice
    products = "float32"  # how it computes products of float32 matrices, as Precision.of has it
    by_sample = (
        False  # whether W₁ takes each sample's products one by one, so that a step forms no gradient of it
    )

    def __init__(self, problem: Problem) -> None:
        self.problem, self.step = problem, 0
        self.layers, self.optimizer = problem.layers, problem.optimizer
        self.batch_size, self.dtype = problem.batch_size, problem.dtype

    @property
    def kind(self) -> Hashable:
        """What computes: two plans of one kind run the same code on arrays of the same shapes."""
        return type(self), self.describe()

    @abstractmethod
    def describe(self) -> str:
        """Which plan this is, in one line."""

    @abstractmethod
    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        """Train: step s takes the samples ``order[s*B : (s+1)*B]`` at ``learning_rates[s]``; the last may be short.

        Several steps in one call leave the very bits that they leave one by one.
        """

    @abstractmethod
    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        """Cost and hits of one batch, and the gradient (∂C/∂W, ∂C/∂b) of its mean cost for each layer, on the host.

        It is the very gradient, bit for bit, that :meth:`run` would step along from the present parameters, but for
        W₁ where that is changed ``by_sample``: there :meth:`run` adds up the same products with other roundings.
        Raises UsageError for more samples than a batch has.
        """

    def gradients(self, order: np.ndarray) -> tuple[float, Parameters]:
        """The mean cost over one batch, and its gradients as :meth:`stats_and_gradients` has them."""
        stats, gradients = self.stats_and_gradients(order)
        return stats.mean_cost, gradients

    @abstractmethod
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """The network's outputs (N, n_out) for host inputs (N, n_in)."""

    @abstractmethod
    def upload(self, samples: Samples) -> Any:
        """Host samples, kept as :meth:`evaluate` wants them."""

    @abstractmethod
    def evaluate(self, samples: Any) -> StepStats:
        """Cost and hits of uploaded samples at the present parameters."""

    @abstractmethod
    def state(self) -> PlanState:
        """A copy of all that training has changed."""

    def trained(self) -> Parameters:
        """A copy of (W, b) of each layer as they are now, on the host."""
        return self.state().layers

    @abstractmethod
    def load_state(self, state: PlanState) -> None:
        """Go on from ``state``."""


def check_batch(n: int, batch_size: int) -> None:
    """Raises UsageError if gradients of n samples are asked of a plan whose batches are smaller."""
    if n > batch_size:
        raise UsageError(f"gradients of {n} samples from a plan whose batches have {batch_size}")


def check_order(order: np.ndarray, count: int) -> None:
    """Raises IndexError if ``order`` has anything but numbers of ``count`` samples, which kernels do not check."""
    if len(order) and not 0 <= order.min() <= order.max() < count:
        raise IndexError(f"samples {order.min()} … {order.max()} of {count}")


def pairs(flat: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """[W₁, b₁, W₂, b₂, …] as (W, b) of each layer."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def sums_by_step(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """The sum over each batch of ``batch_size`` rows, (S,); the last may be short."""
    full = len(rows) // batch_size * batch_size
    sums = rows[:full].reshape(-1, batch_size).sum(axis=1)
    return np.append(sums, rows[full:].sum()) if full < len(rows) else sums
