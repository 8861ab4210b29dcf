"""The fused plan's share of a step that several train together: summed and updated where it lies, without copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from gpubp.backends.backend import check_rule
from gpubp.backends.cpu.fused import FusedPlan
from gpubp.backends.plan import StepStats
from gpubp.backends.share import Share, Span, check_by_element, within
from gpubp.kernels.cpu import entries, layout
from gpubp.kernels.cpu.machine import BYTES

SLOTS = layout.SLOT1, layout.SLOT2


class FusedShare(Share):
    """Vectors in the plan's own memory: W and b of each layer transposed, in rows of whole machine vectors."""

    plan: FusedPlan

    def __init__(self, plan: FusedPlan) -> None:
        super().__init__(plan, plan.optimizer)
        check_by_element(self.optimizer)
        self.unit = BYTES // plan.dtype.itemsize
        self._pieces: dict[tuple[int, int], np.ndarray] = {}

    @property
    def parameters(self) -> np.ndarray:
        return self.plan.vector(layout.W)

    @property
    def gradient(self) -> np.ndarray:
        return self.plan.vector(layout.GRADIENT)

    @property
    def slots(self) -> list[np.ndarray]:
        return [self.plan.vector(column) for column in SLOTS[: len(self.optimizer.slots)]]

    def sum_gradient(self, order: np.ndarray, whole: int) -> StepStats:
        return self.plan.sum_gradient(order, whole)

    def update(self, first: int, stop: int, lr: float) -> None:
        coefficients = self.plan.coefficients(np.array([lr]))
        net = self.plan.net
        columns = layout.W, layout.GRADIENT, *SLOTS
        places = (int(net.layers[0, column]) for column in columns)
        spans = self._spans_within(first, stop)
        rule = check_rule(self.optimizer), coefficients, len(coefficients) // 2
        entries.update_spans(net.memory, *places, spans, *rule)

    def by_element(self, work: Callable[[slice], object]) -> None:
        if self.plan.threads == 1:
            work(slice(None))
        else:
            length = len(self.gradient)
            self.plan.team.share(length, lambda _, first, stop: work(slice(first, stop)))

    def take_parameters(self) -> None:
        """They are used where they lie."""

    def unpack(self, vector: np.ndarray) -> list[np.ndarray]:
        pairs = (self.plan.get(vector, start, i) for i, start in enumerate(self._starts))
        return list(chain(*pairs))

    def pack(self, arrays: Sequence[np.ndarray], vector: np.ndarray) -> None:
        for i, (start, *pair) in enumerate(zip(self._starts, arrays[::2], arrays[1::2], strict=True)):
            self.plan.put(vector, start, i, *pair)

    @cached_property
    def _starts(self) -> list[int]:
        """Where each layer begins in a vector."""
        places = self.plan.net.layers[:, layout.W]
        return [int(place) for place in places - places[0]]

    @cached_property
    def _spans(self) -> list[Span]:
        spans: list[Span] = []
        rows = self.plan.net.layers[:, layout.ROW].tolist()
        for start, row, layer in zip(self._starts, rows, self.plan.layers, strict=True):
            biases = start + layer.n_in * row
            spans += [Span(start, biases, True), Span(biases, biases + row, False)]
        return spans

    def _spans_within(self, first: int, stop: int) -> np.ndarray:
        """As the kernel takes them: where each begins, its machine vectors, and whether it is of biases."""
        if (first, stop) not in self._pieces:
            cut = within(self._spans, first, stop)
            table = [[s.first, (s.stop - s.first) // self.unit, not s.decays] for s in cut]
            self._pieces[first, stop] = np.array(table, np.int64).reshape(-1, 3)
        return self._pieces[first, stop]
