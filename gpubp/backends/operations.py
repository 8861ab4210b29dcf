"""The five operations of backpropagation on one kind of array, and the ways to move arrays there and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.functions import Activation, Loss
from gpubp.optimizers import Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Mask

Array = Any  # an array of the backend's own kind, wherever that lives


class Operations(ABC):
    """The operations that training is composed of. Results go into the buffers given."""

    @abstractmethod
    def describe(self) -> str:
        """The device, threads and versions in use, in one line."""

    @abstractmethod
    def to_device(self, array: np.ndarray, out: Array | None = None) -> Array:
        """A copy of a host array as this backend's kind of array, into ``out`` if given."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """A copy of an array on the host, after all work that leads to it."""

    @abstractmethod
    def gather(self, source: Array, order: Array, out: Array) -> None:
        """out[b] = source[order[b]]; uint8 source rows become floats as in ``byte_table``, to the bit."""

    @abstractmethod
    def deform(
        self,
        source: Array,
        order: Array,
        deformation: Deformation,
        step: int,
        classes: Array | None,
        out: Array,
    ) -> None:
        """out[b] = source[order[b]] deformed at a step, as :meth:`.Deformation.images` has it, to the bit.

        ``source`` (N, n_in) are bytes, whose samples are of these ``classes`` (N,), and become floats as in ``gather``.
        """

    @abstractmethod
    def forward(
        self, a_prev: Array, weights: Array, bias: Array, activation: Activation, z: Array, a: Array
    ) -> None:
        """z = a_prev Wᵀ + b, a = σ(z): (B, n_in) to (B, n_out). ``z`` and ``a`` may be one buffer."""

    @abstractmethod
    def output_delta(
        self,
        z: Array,
        a: Array,
        targets: Array,
        sample_weight: Array,
        activation: Activation,
        loss: Loss,
        delta: Array,
        row_cost: Array,
        row_hit: Array,
    ) -> None:
        """BP1: δ = ∇ₐC ⊙ σ'(z) into ``delta`` (B, n_out), with each row's cost and whether it was a hit, (B,).

        All but the hit are times the sample weight. A hit is an output whose largest element is where the
        target's is (the first of equals), or, with one output, on the same side of ½.
        """

    @abstractmethod
    def drop(self, a: Array, mask: Mask, order: Array, out: Array) -> None:
        """out = a ⊙ m, (B, n): the mask for the samples ``order`` (B,). ``a`` and ``out`` may be one buffer."""

    @abstractmethod
    def hidden_delta(
        self,
        delta_next: Array,
        weights_next: Array,
        a: Array,
        activation: Activation,
        delta: Array,
        mask: Mask | None = None,
        order: Array | None = None,
    ) -> None:
        """BP2: δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n).

        With a mask, that of ``a`` for the samples ``order`` (B,), δ = ((δ_next W_next) ⊙ m) ⊙ σ'(z); ``a`` is whole.
        """

    @abstractmethod
    def weight_grad(self, delta: Array, a_prev: Array, grad_weights: Array, grad_bias: Array) -> None:
        """BP4 and BP3: ∂C/∂W = δᵀ a_prev / B, (n_out, n_in), and ∂C/∂b = Σ δ / B, (n_out,)."""

    @abstractmethod
    def update(
        self,
        parameter: Array,
        gradient: Array,
        slots: Sequence[Array],
        optimizer: Optimizer,
        coefficients: Sequence[float],
    ) -> None:
        """The optimizer's rule on one parameter and its slots, in place."""
