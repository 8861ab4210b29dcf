"""The contract of a backend: five operations of backpropagation, from which training is composed.

A backend is complete once it has the operations: :class:`gpubp.backends.composed.ComposedPlan` builds training from
them. One that has something faster, such as a compiled call for a whole epoch, overrides :meth:`Backend.plan`; the
trainer cannot tell the difference and the verifier checks that there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from gpubp.backends.composed import ComposedPlan
from gpubp.backends.plan import Plan, Problem
from gpubp.data.samples import as_inputs
from gpubp.errors import UsageError
from gpubp.functions import Activation, Loss
from gpubp.kernels import RULES
from gpubp.optimizers import Optimizer

Array = Any  # an array of the backend's own kind, wherever that lives


class Backend(ABC):
    """The five operations of backpropagation on one kind of array. Results go into the buffers given.

    ``precision`` names how it computes the products of float32 matrices, one of ``precisions``.
    ``plan`` is the kind of plan it makes, one of ``plans``, or "auto" for the fastest that fits what is to be trained:
    "composed" calls the operations one after the other, "fused" is a whole epoch in one call, others are its own.

    Raises:
        UsageError: it has no plan of that kind, or no such precision.
    """

    why = "given"  # it was chosen, where that was left to gpubp
    name: ClassVar[str]
    plans: ClassVar[tuple[str, ...]] = ("composed",)
    precisions: ClassVar[tuple[str, ...]] = ("float32",)

    def __init__(self, plan: str = "auto", precision: str = "float32") -> None:
        if precision not in self.precisions:
            raise UsageError(
                f"the {self.name} backend has no precision {precision!r}: choose from {', '.join(self.precisions)}"
            )
        self.precision = precision
        if plan not in ("auto", *self.plans):
            raise UsageError(
                f"the {self.name} backend has no plan {plan!r}: choose from {', '.join(('auto', *self.plans))}"
            )
        self.plan_kind = plan

    @abstractmethod
    def describe(self) -> str:
        """The device, threads and versions in use, in one line."""

    def limits(self) -> AbstractContextManager:
        """To be held while a run is on: what it sets for the whole process, such as the threads of BLAS."""
        return nullcontext()

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
    def hidden_delta(
        self, delta_next: Array, weights_next: Array, a: Array, activation: Activation, delta: Array
    ) -> None:
        """BP2: δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n)."""

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

    def plan(self, problem: Problem) -> Plan:
        """A plan that trains copies of the problem's parameters."""
        return ComposedPlan(self, problem)


class HostBackend(Backend):
    """A backend whose arrays are NumPy's, so that a copy is all there is to moving one.

    ``threads`` is how many it may use; None for as many as there are.

    Raises:
        UsageError: no positive integer.
    """

    def __init__(self, threads: int | None = None, plan: str = "auto", precision: str = "float32") -> None:
        super().__init__(plan, precision)
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise UsageError(f"threads must be 1 or more, not {threads!r}")
        self.threads = threads

    def to_device(self, array: np.ndarray, out: Array | None = None) -> Array:
        if out is None:
            return np.array(array, order="C")
        out[...] = array
        return out

    def to_host(self, array: Array) -> np.ndarray:
        return array.copy()

    def gather(self, source: Array, order: Array, out: Array) -> None:
        out[...] = as_inputs(source[order], out.dtype)


def check_rule(optimizer: Optimizer) -> int:
    """The number of the optimizer's rule in the kernels.

    Raises:
        UsageError: they do not have it; NumPy's backend has every rule.
    """
    if optimizer.kind not in RULES:
        raise UsageError(
            f"optimizer {optimizer.kind!r} is not in the kernels, which have {', '.join(RULES)}: "
            'train with backend="numpy"'
        )
    return RULES[optimizer.kind]
