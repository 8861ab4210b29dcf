"""Training by several ranks: each sums the gradient over its parts of every mini-batch, and updates its piece of it.

A mini-batch of B samples is cut into parts of B/P. A step is

1. by rank: Σ ∂C/∂W over each of its parts, one after the other, divided by B;
2. all to all: rank r gets the r-th piece of every rank's sum, and adds these up: a piece of the gradient;
3. by rank: the optimizer's rule on that piece of the parameters, whose slots it alone has;
4. all to all: each rank's piece of the new parameters to the others.

Steps 2 and 4 send 2 (1 − 1/N) times the parameters, the least that any exchange of gradients among N ranks can, and
each update is computed once. Sums of parts and of ranks go by :func:`tree_sum`: where P is a power of two that N
divides, the parts' sums are added in the same pairs on any number of ranks, and leave the same bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from gpubp.backends.backend import Backend
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats, check_batch, pairs
from gpubp.data.samples import Samples
from gpubp.distributed.ranks import Alone, Ranks, tree_sum
from gpubp.errors import UsageError
from gpubp.reference import Parameters


class DistributedPlan(Plan):
    """A share of a backend's plan on each rank, and what they exchange.

    Args:
        parts: of each mini-batch, a power of two that the number of ranks divides: then the weights have the same
            bits on any such number. By default as many as there are ranks.

    Raises:
        UsageError: parts that are no such number.
    """

    def __init__(
        self, backend: Backend, problem: Problem, ranks: Ranks | None = None, parts: int | None = None
    ) -> None:
        super().__init__(problem)
        self.ranks = ranks or Alone()
        self.asked_parts = check_parts(parts, self.ranks.size)
        self.parts = self.asked_parts or self.ranks.size
        self.share = backend.share(replace(problem, batch_size=-(-problem.batch_size // self.parts)))
        self.local = self.share.plan
        self.products = self.local.products
        each = self.parts // self.ranks.size
        self._own = range(self.ranks.rank * each, (self.ranks.rank + 1) * each)
        self._cuts = _cuts(len(self.share.parameters), self.ranks.size, self.share.unit)
        self._piece = slice(*self._cuts[self.ranks.rank : self.ranks.rank + 2])
        vector = self.share.gradient
        # A vector for each level of the tree below its root, which is the gradient itself.
        self._sums = [np.zeros_like(vector) for _ in range(each.bit_length() - 1)]

    @property
    def kind(self) -> Hashable:
        return type(self), self.local.kind, self.ranks.size, self.parts

    def describe(self) -> str:
        parts = f"{self.parts} parts" if self.parts > 1 else "1 part"
        return f"{self.ranks.describe()}, each mini-batch in {parts}; {self.local.describe()}"

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        sums = np.zeros((2, len(learning_rates)))
        for s, lr in enumerate(learning_rates.tolist()):
            sums[:, s] = self._sum_gradient(order[s * self.batch_size : (s + 1) * self.batch_size])
            self._reduce()
            self.share.update(self._piece.start, self._piece.stop, lr)
            self.ranks.spread(self.share.parameters, self._cuts)
            self.step += 1
            self.local.step = self.step
            self.share.take_parameters()
        return self._stats(len(order), sums)

    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        check_batch(len(order), self.batch_size)
        sums = self._sum_gradient(order)[:, None]
        self._reduce()
        self.ranks.spread(self.share.gradient, self._cuts)
        return self._stats(len(order), sums), pairs(self.share.unpack(self.share.gradient))

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.local.predict(inputs)

    def upload(self, samples: Samples) -> tuple[int, list[Any]]:
        """The number of samples, and of this rank's parts of them those that are not empty."""
        n = len(samples)
        rows = [np.arange(*self._part(part, n)) for part in self._own]
        return n, [self.local.upload(samples.take(some)) if len(some) else None for some in rows]

    def evaluate(self, samples: tuple[int, list[Any]]) -> StepStats:
        n, parts = samples
        sums = [np.zeros(2) if part is None else _sums(self.local.evaluate(part)) for part in parts]
        return self._stats(n, tree_sum(sums)[:, None])

    def state(self) -> PlanState:
        slots = self.share.slots
        for slot in slots:
            self.ranks.spread(slot, self._cuts)
        of_each = zip(*map(self.share.unpack, slots), strict=True)
        parameters = self.share.unpack(self.share.parameters)
        return PlanState(parameters, list(of_each) or [()] * len(parameters), self.step)

    def trained(self) -> Parameters:
        return pairs(self.share.unpack(self.share.parameters))

    def load_state(self, state: PlanState) -> None:
        self.share.pack(state.parameters, self.share.parameters)
        for k, slot in enumerate(self.share.slots):
            self.share.pack([slots[k] for slots in state.slots], slot)
        self.step = self.local.step = state.step
        self.share.take_parameters()

    def _part(self, part: int, n: int) -> tuple[int, int]:
        """Where this part of n samples begins and ends."""
        return n * part // self.parts, n * (part + 1) // self.parts

    def _sum_gradient(self, order: np.ndarray) -> np.ndarray:
        """Σ of this rank's parts of a batch, divided by the whole of it, left in the gradient; their cost and hits."""
        if len(self._own) == 1:
            return self._sum_part(order, self._own[0])
        return self._sum_parts(order, self._own, self.share.gradient, self._sums)

    def _sum_parts(
        self, order: np.ndarray, parts: range, into: np.ndarray, room: Sequence[np.ndarray]
    ) -> np.ndarray:
        """As :func:`tree_sum` adds them: the first half in ``room``, then the second, then both into a vector."""
        if len(parts) == 2:
            gradient = self.share.gradient
            first = self._sum_part(order, parts[0])
            self.share.by_element(lambda some: np.copyto(room[0][some], gradient[some]))
            second = self._sum_part(order, parts[1])
            self.share.by_element(lambda some: np.add(room[0][some], gradient[some], out=into[some]))
            return first + second
        half, own = len(parts) // 2, room[-1]
        first = self._sum_parts(order, parts[:half], own, room[:-1])
        second = self._sum_parts(order, parts[half:], into, room[:-1])
        self.share.by_element(lambda some: np.add(own[some], into[some], out=into[some]))
        return first + second

    def _sum_part(self, order: np.ndarray, part: int) -> np.ndarray:
        """Of one part, whose gradient is 0 where it has no samples."""
        first, stop = self._part(part, len(order))
        if first == stop:
            self.share.gradient[:] = 0
            return np.zeros(2)
        return _sums(self.share.sum_gradient(order[first:stop], len(order)))

    def _reduce(self) -> None:
        """The sum over all ranks into this rank's piece of the gradient."""
        if self.ranks.size > 1:
            gradient = self.share.gradient
            tree_sum(self.ranks.deal(gradient, self._cuts), out=gradient[self._piece])

    def _stats(self, samples: int, sums: np.ndarray) -> StepStats:
        """From each rank's costs and hits, (2, S), of its parts of S steps."""
        costs, hits = tree_sum(self.ranks.all(np.ascontiguousarray(sums)))
        return StepStats(samples, costs, hits.astype(np.int64))


def check_parts(parts: Any, ranks: int) -> int | None:
    """The parts asked for, if any. Raises UsageError for those that ranks cannot share with the same bits."""
    if parts is None:
        return None
    count = 0 if isinstance(parts, bool) or not isinstance(parts, SupportsIndex) else index(parts)
    if count < 1 or count & (count - 1):
        raise UsageError(f"parts must be a power of two, such as 8, not {parts!r}")
    if count % ranks:
        raise UsageError(f"{count} parts cannot be shared evenly by {ranks} ranks: start 1, 2, 4, … of them")
    return count


def _sums(stats: StepStats) -> np.ndarray:
    """The cost and hits of one step, or of an evaluation."""
    return np.array([stats.costs.sum(), stats.hits.sum()], np.float64)


def _cuts(length: int, pieces: int, unit: int) -> list[int]:
    """Where each of so many pieces of a vector begins, and the last ends; whole units but for the last."""
    units = -(-length // unit)
    return [min(units * piece // pieces * unit, length) for piece in range(pieces + 1)]
