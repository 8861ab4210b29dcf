"""The contract of a backend: five operations of backpropagation, from which training is composed.

A backend is complete once it has the operations: :class:`gpubp.backends.composed.ComposedPlan` builds training from
them. One that has something faster, such as a compiled call for a whole epoch, overrides :meth:`Backend.plan`; the
trainer cannot tell the difference and the verifier checks that there is none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import ClassVar

import numpy as np

from gpubp.backends.composed import ComposedPlan
from gpubp.backends.operations import Array, Operations
from gpubp.backends.plan import Plan, Problem
from gpubp.backends.share import CopiedShare, Share
from gpubp.data.mapped import is_mapped
from gpubp.data.samples import as_inputs
from gpubp.errors import UsageError
from gpubp.kernels import RULES
from gpubp.optimizers import SGD, Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Mask


class Backend(Operations):
    """The operations, and the plans that train with them.

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
        for what, value, offered in (
            ("precision", precision, self.precisions),
            ("plan", plan, ("auto", *self.plans)),
        ):
            if value not in offered:
                raise UsageError(
                    f"the {self.name} backend has no {what} {value!r}: choose from {', '.join(offered)}"
                )
        self.precision, self.plan_kind = precision, plan

    def limits(self) -> AbstractContextManager:
        """To be held while a run is on: what it sets for the whole process, such as the threads of BLAS."""
        return nullcontext()

    def plan(self, problem: Problem) -> Plan:
        """A plan that trains copies of the problem's parameters."""
        return ComposedPlan(self, problem)

    def share(self, problem: Problem) -> Share:
        """A plan's share of a step that several train together, each on batches of at most the problem's size."""
        return CopiedShare(
            self.plan(replace(problem, optimizer=SGD(problem.optimizer.lr))), problem.optimizer
        )


class HostBackend(Backend):
    """A backend whose arrays are NumPy's, so that a copy is all there is to moving one; or none, from a mapped file.

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
            return array if is_mapped(array) else np.array(array, order="C")
        out[...] = array
        return out

    def to_host(self, array: Array) -> np.ndarray:
        return array.copy()

    def gather(self, source: Array, order: Array, out: Array) -> None:
        out[...] = as_inputs(source[order], out.dtype)

    def deform(
        self,
        source: Array,
        order: Array,
        deformation: Deformation,
        step: int,
        classes: Array | None,
        out: Array,
    ) -> None:
        labels = None if classes is None else classes[order]
        out[...] = as_inputs(deformation.images(source[order], order, step, labels), out.dtype)

    def drop(self, a: Array, mask: Mask, order: Array, out: Array) -> None:
        np.multiply(a, mask.of(order, a.shape[1], a.dtype), out=out)


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
