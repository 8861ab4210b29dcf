"""A plan as one of several that train one network together: what it can do of a step, and what it must be told.

All parameters are one vector, as are their gradient and each of the optimizer's slots, all in one order, so that ranks
can exchange any part of them. :class:`gpubp.distributed.plan.DistributedPlan` makes the steps of this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp import reference
from gpubp.backends.plan import Plan, PlanState, StepStats
from gpubp.errors import UsageError
from gpubp.optimizers import SGD, Adam, Optimizer


class Span(NamedTuple):
    """Elements of the vectors that are of one parameter, whose weights may decay."""

    first: int
    stop: int
    decays: bool


class Share(ABC):
    """One plan's share of the work. The vectors, (L,), are host memory of the problem's dtype.

    ``plan`` computes, ``optimizer`` is what updates. ``unit`` is what places of a vector must be multiples of where it
    is cut.
    """

    unit = 1

    def __init__(self, plan: Plan, optimizer: Optimizer) -> None:
        self.plan, self.optimizer = plan, optimizer

    @property
    @abstractmethod
    def parameters(self) -> np.ndarray:
        """All parameters."""

    @property
    @abstractmethod
    def gradient(self) -> np.ndarray:
        """Where :meth:`sum_gradient` leaves it; :meth:`update` may spoil it."""

    @property
    @abstractmethod
    def slots(self) -> list[np.ndarray]:
        """Each of the optimizer's slots."""

    @abstractmethod
    def sum_gradient(self, order: np.ndarray, whole: int) -> StepStats:
        """Σ ∂C/∂W over these samples, one or more, divided by ``whole``: a part of the gradient of so many."""

    @abstractmethod
    def update(self, first: int, stop: int, lr: float) -> None:
        """The step's update of parameters first … stop by their gradient; ``plan.step`` counts the updates before."""

    def by_element(self, work: Callable[[slice], object]) -> None:
        """Do work on vectors that is the same for each element, on as many threads as there are for it."""
        work(slice(None))

    @abstractmethod
    def take_parameters(self) -> None:
        """Use the parameters as they are now, which others have written to."""

    @abstractmethod
    def unpack(self, vector: np.ndarray) -> list[np.ndarray]:
        """A copy of such a vector as [W₁, b₁, W₂, b₂, …]."""

    @abstractmethod
    def pack(self, arrays: Sequence[np.ndarray], vector: np.ndarray) -> None:
        """[W₁, b₁, W₂, b₂, …] into such a vector."""


def within(spans: Sequence[Span], first: int, stop: int) -> list[Span]:
    """What of the spans lies in first … stop."""
    cut = (Span(max(s.first, first), min(s.stop, stop), s.decays) for s in spans)
    return [span for span in cut if span.first < span.stop]


def check_by_element(optimizer: Optimizer) -> None:
    """Refuse a rule that might look at a parameter as a whole, of which each rank updates a part.

    Raises:
        UsageError: names the optimizers whose rules are known.
    """
    if type(optimizer).rule not in (SGD.rule, Adam.rule):
        raise UsageError(
            f"each rank updates a part of the parameters, which the rule of {type(optimizer).__name__} may not allow: "
            "train with SGD, Adam or AdamW"
        )


class CopiedShare(Share):
    """Any plan's share, by copies: its gradients are copied from it, and the parameters to it.

    The plan's own optimizer is never asked, and its slots are not used: it had best have none. ``parameters`` of the
    vectors are W₁, b₁, W₂, b₂, … one after the other.
    """

    def __init__(self, plan: Plan, optimizer: Optimizer) -> None:
        super().__init__(plan, optimizer)
        check_by_element(optimizer)
        self._state = plan.state()
        self._shapes = [p.shape for p in self._state.parameters]
        self._cuts = np.cumsum([0, *(p.size for p in self._state.parameters)])
        self._spans = [
            Span(first, stop, len(shape) == 2)
            for first, stop, shape in zip(self._cuts[:-1], self._cuts[1:], self._shapes, strict=True)
        ]
        vector = np.zeros(self._cuts[-1], plan.dtype)
        self._parameters, self._gradient = vector, vector.copy()
        self._slots = [vector.copy() for _ in optimizer.slots]
        self.pack(self._state.parameters, self._parameters)

    @property
    def parameters(self) -> np.ndarray:
        return self._parameters

    @property
    def gradient(self) -> np.ndarray:
        return self._gradient

    @property
    def slots(self) -> list[np.ndarray]:
        return self._slots

    def sum_gradient(self, order: np.ndarray, whole: int) -> StepStats:
        n = len(order)
        stats, gradients = self.plan.stats_and_gradients(order)
        self.pack([g for pair in gradients for g in pair], self._gradient)
        if n != whole:
            # A gradient of a part has fewer sums than one of the whole, and this one rounding more, so that the
            # bounds of the whole hold for the sum of the parts.
            wide: Any = np.float64 if self._gradient.dtype == np.float32 else np.longdouble
            self._gradient[:] = self._gradient.astype(wide) * n / whole
        return stats

    def update(self, first: int, stop: int, lr: float) -> None:
        step = self.plan.step + 1
        by_kind = [self.optimizer.coefficients(lr, step, decay=decay) for decay in (False, True)]
        for span in within(self._spans, first, stop):
            part = slice(span.first, span.stop)
            p, g, slots = self._parameters[part], self._gradient[part], [slot[part] for slot in self._slots]
            p[:], new = reference.update(p, g, slots, self.optimizer, by_kind[span.decays])
            for slot, value in zip(slots, new, strict=True):
                slot[:] = value

    def take_parameters(self) -> None:
        own = self._state
        self.plan.load_state(PlanState(self.unpack(self._parameters), own.slots, self.plan.step))

    def unpack(self, vector: np.ndarray) -> list[np.ndarray]:
        parts = zip(self._cuts[:-1], self._cuts[1:], self._shapes, strict=True)
        return [vector[first:stop].reshape(shape).copy() for first, stop, shape in parts]

    def pack(self, arrays: Sequence[np.ndarray], vector: np.ndarray) -> None:
        for first, stop, array in zip(self._cuts[:-1], self._cuts[1:], arrays, strict=True):
            vector[first:stop] = array.reshape(-1)
