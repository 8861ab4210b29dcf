"""An in-place plan with one planted fault: what one of its methods has left behind is changed."""

from __future__ import annotations

import numpy as np

from gpubp import reference
from gpubp.backends.backend import Backend
from gpubp.backends.inplace import InPlacePlan
from gpubp.backends.plan import Problem
from tests.faults import Arrays, Fault, overridden


class FaultyPlan(InPlacePlan):
    """The plan with a fault after each of its methods for one operation; faults see arrays as operations have them."""

    def __init__(self, operation: str, fault: Fault, problem: Problem):
        super().__init__("faulty", problem)
        self.operation, self.fault = operation, fault
        self.stale_costs = np.zeros(len(self.samples))

    def _planted(self, operation: str, inputs: dict, before: Arrays, after: Arrays) -> None:
        """Change ``after``, if the fault is one of this operation's."""
        if operation == self.operation:
            self.fault(inputs, before, after)

    def _gather(self, order, work):
        stale = work.a[0].copy()
        super()._gather(order, work)
        self._planted("gather", {}, {"out": stale}, {"out": work.a[0]})
        if deformation := self.problem.deformation:
            how = {"deformation": deformation, "step": self.step, "classes": self.problem.classes}
            given = {"source": self.samples.inputs, "order": order, **how}
            self._planted("deform", given, {"out": stale}, {"out": work.a[0]})

    def _forward(self, i, a_prev, z, a):
        before = {"z": z.copy(), "a": a.copy()}
        super()._forward(i, a_prev, z, a)
        weights, bias = self.parameters.flat[2 * i : 2 * i + 2]
        inputs = {"a_prev": a_prev, "weights": weights, "bias": bias, "activation": self.activations[i]}
        own = z if z is not a else reference.forward(a_prev, weights, bias, self.activations[i])[0]
        self._planted("forward", inputs, before, {"z": own, "a": a})

    def _output_delta(self, rows, work):
        stale = work.delta[-1].copy()
        super()._output_delta(rows, work)
        none = np.zeros(len(stale))
        self._planted(
            "output_delta",
            {},
            {"delta": stale, "row_cost": none},
            {"delta": work.delta[-1], "row_cost": none},
        )

    def _costs(self, z, a, targets, weight):
        costs, hits = super()._costs(z, a, targets, weight)
        none, stale = np.zeros_like(a), np.resize(self.stale_costs, len(costs))
        self.stale_costs = costs.copy()
        self._planted(
            "output_delta", {}, {"delta": none, "row_cost": stale}, {"delta": none, "row_cost": costs}
        )
        return costs, hits

    def _hidden_delta(self, i, work, mask):
        stale = work.delta[i - 1].copy()
        super()._hidden_delta(i, work, mask)
        self._planted("hidden_delta", {}, {"delta": stale}, {"delta": work.delta[i - 1]})

    def _weight_grad(self, i, work):
        names = "grad_weights", "grad_bias"
        gradient = dict(zip(names, self.gradient.flat[2 * i : 2 * i + 2], strict=True))
        stale = {name: array.copy() for name, array in gradient.items()}
        super()._weight_grad(i, work)
        inputs = {"delta": work.delta[i] * len(work.delta[i]), "a_prev": work.taken[i]}
        self._planted("weight_grad", inputs, stale, gradient)

    def _update(self, lr):
        names = "parameter", *(f"slots{k}" for k in range(len(self.slots)))
        arrays = [
            dict(zip(names, of_one, strict=True))
            for of_one in zip(*(t.flat for t in (self.parameters, *self.slots)), strict=True)
        ]
        before = [{name: array.copy() for name, array in of_one.items()} for of_one in arrays]
        super()._update(lr)
        for old, new in zip(before, arrays, strict=True):
            self._planted("update", {}, old, new)


def plant_in_plan(backend: Backend, operation: str, fault: Fault) -> Backend:
    """A copy of the numpy backend in whose in-place plan the methods for ``operation`` have the fault."""
    return overridden(backend, plan=lambda self, problem: FaultyPlan(operation, fault, problem))
