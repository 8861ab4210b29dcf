"""A fused plan with one planted fault: a step is run phase by phase, and what a phase left in memory is changed."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

from gpubp import reference
from gpubp.backends.backend import Backend
from gpubp.backends.cpu.fused import FusedPlan
from gpubp.backends.cpu.stored import StoredSamples
from gpubp.backends.plan import PlanState, Problem, StepStats
from gpubp.data.samples import Samples, as_inputs
from gpubp.kernels.cpu import layout
from gpubp.reference import Parameters
from tests.faults import Arrays, Fault, overridden


@dataclass
class Batch:
    """A batch on its way through the phases: where the plan finds its samples, and what they hold."""

    stored: StoredSamples
    order: np.ndarray
    samples: Samples
    inputs: np.ndarray  # (B, n_in) as gathered


class PhasedPlan(FusedPlan):
    """The fused plan on one thread, each step of which runs in its phases, with a fault after those of one operation.

    Faults see host arrays in the shapes of the operations. δ is the textbook's where a fault takes it in, and times
    1/B, as the memory has it, where a fault changes it.
    """

    def __init__(self, operation: str, fault: Fault, problem: Problem):
        super().__init__("one thread", 1, problem)
        assert self.batch_size <= self.net.chunk  # phases of several chunks would run through each other
        self.operation, self.fault, self.host = operation, fault, problem.samples
        self.stale_inputs = np.zeros((self.batch_size, self.layers[0].n_in), self.dtype)
        self.stale_costs = np.zeros(self.batch_size, self.dtype)

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        parts = []
        for s, lr in enumerate(learning_rates):
            batch = self._batch(order[s * self.batch_size : (s + 1) * self.batch_size])
            parts.append(self._propagate(batch))
            coefficients = [
                self.optimizer.coefficients(float(lr), self.step + 1, decay=decay) for decay in (True, False)
            ]
            if self.operation == "weight_grad":
                self._update_by_the_rule(self._gradients(batch), coefficients)
            else:
                self._update_in_place(batch, coefficients)
            self.step += 1
        costs, hits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("costs", "hits"))
        return StepStats(len(order), costs, hits)

    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        batch = self._batch(order)
        stats = self._propagate(batch)
        return stats, self._gradients(batch)

    def _batch(self, order: np.ndarray) -> Batch:
        samples = self.host.take(order)
        return Batch(self.samples, order, samples, as_inputs(samples.inputs, self.dtype))

    def _phase(
        self, batch: Batch, kind: int, layer: int, mode=layout.GRADIENTS, coefficients=None
    ) -> StepStats:
        count, only = len(batch.order), layout.phase(kind, layer)
        return self._run(batch.stored, batch.order, count, 1, coefficients, mode, only=only)

    def _rows(self, i: int, place: int, batch: Batch, row: int = layout.ROW) -> np.ndarray:
        """(B, n) of layer i in memory, a view: what is at this place, in rows as long as that entry says."""
        entry, count = self.net.layers[i], len(batch.order)
        n = self.layers[i].n_in if place == layout.A_PREV else self.layers[i].n_out
        return self.net.memory[entry[place] :][: count * entry[row]].reshape(count, entry[row])[:, :n]

    def _a_prev(self, i: int, batch: Batch) -> np.ndarray:
        """What goes into layer i."""
        return self._rows(i - 1, layout.A, batch) if i else batch.inputs

    def _propagate(self, batch: Batch) -> StepStats:
        """All phases before the gradients'."""
        last = len(self.layers) - 1
        self._gather(batch)
        for i in range(last + 1):
            self._forward(batch, i)
        stats = self._output(batch)
        for i in range(last, 0, -1):
            self._back(batch, i)
        return stats

    def _planted(self, operation: str, inputs: dict, before: Arrays, after: Arrays) -> bool:
        """Change ``after``, if the fault is one of this operation's."""
        if operation != self.operation:
            return False
        whole = {name: array.copy() for name, array in after.items()}  # without the padding between rows
        self.fault(inputs, before, whole)
        for name, array in after.items():
            array[...] = whole[name]
        return True

    def _gather(self, batch: Batch) -> None:
        self._phase(batch, layout.GATHER, 0)
        stale, sparse = self.stale_inputs[: len(batch.order)], "non-zero" in self.describe()
        if not sparse:
            batch.inputs = self._rows(0, layout.A_PREV, batch, layout.A_PREV_ROW)
        if self._planted("gather", {}, {"out": stale.copy()}, {"out": batch.inputs}) and sparse:
            # How the memory holds sparse inputs is the plan's own affair: they are gathered again, from faulty samples.
            faulty = Samples(batch.inputs, batch.samples.targets, batch.samples.sample_weight)
            with patch("gpubp.backends.cpu.stored._by_column", return_value=self.samples.data.pitch > 0):
                batch.stored, batch.order = self.upload(faulty), np.arange(len(batch.order))
            self._phase(batch, layout.GATHER, 0)
        stale[...] = batch.inputs

    def _forward(self, batch: Batch, i: int) -> None:
        stale = self._rows(i, layout.A, batch).copy()
        self._phase(batch, layout.FORWARD, i)
        memory, activation = self._rows(i, layout.A, batch), self.problem.activations[i]
        weights, bias = self._get(self.net.layers[i, layout.W], i)
        a_prev = self._a_prev(i, batch)
        inputs = {"a_prev": a_prev, "weights": weights, "bias": bias, "activation": activation}
        if i == len(self.layers) - 1:  # the output phase makes a of z
            z, a = memory, activation.apply(memory)
        else:
            z, a = reference.forward(a_prev, weights, bias, activation)[0], memory
        self._planted("forward", inputs, {"z": stale, "a": stale}, {"z": z, "a": a})

    def _output(self, batch: Batch) -> StepStats:
        last, count = len(self.layers) - 1, len(batch.order)
        activation, loss = self.problem.activations[last], self.problem.loss
        z, stale = self._rows(last, layout.A, batch).copy(), self._rows(last, layout.DELTA, batch).copy()
        stats = self._phase(batch, layout.OUTPUT_DELTA, 0)
        a, targets, weight = activation.apply(z), batch.samples.targets, batch.samples.sample_weight
        row_cost = reference.cost(z, a, targets, weight, activation, loss).astype(self.dtype)
        own = row_cost.sum(dtype=np.float64)
        before = {"delta": stale, "row_cost": self.stale_costs[:count].copy()}
        self._planted(
            "output_delta", {}, before, {"delta": self._rows(last, layout.DELTA, batch), "row_cost": row_cost}
        )
        self.stale_costs[:count] = row_cost
        # The plan keeps the sum of the costs only.
        return StepStats(count, stats.costs + (row_cost.sum(dtype=np.float64) - own), stats.hits)

    def _back(self, batch: Batch, i: int) -> None:
        stale = self._rows(i - 1, layout.DELTA, batch).copy()
        self._phase(batch, layout.HIDDEN_DELTA, i - 1)
        self._planted("hidden_delta", {}, {"delta": stale}, {"delta": self._rows(i - 1, layout.DELTA, batch)})

    def _gradients(self, batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
        pairs = []
        for i in range(len(self.layers)):
            names, place = ("grad_weights", "grad_bias"), self.net.layers[i, layout.GRADIENT]
            before = dict(zip(names, self._get(place, i), strict=True))
            self._phase(batch, layout.WEIGHT_GRAD, i)
            after = dict(zip(names, self._get(place, i), strict=True))
            delta = self._rows(i, layout.DELTA, batch) * self.dtype.type(len(batch.order))
            inputs = {"delta": delta, "a_prev": self._a_prev(i, batch)}
            if self._planted("weight_grad", inputs, before, after):
                self._put(place, i, *after.values())
            pairs.append((after["grad_weights"], after["grad_bias"]))
        return pairs

    def _update_by_the_rule(self, gradients, coefficients) -> None:
        """The step along gradients that a fault has changed, which the plan itself would compute anew."""
        state, flat = self.state(), [gradient for pair in gradients for gradient in pair]
        parameters, slots = [], []
        for k, (parameter, gradient, old) in enumerate(zip(state.parameters, flat, state.slots, strict=True)):
            given = coefficients[k % 2]
            rounded = type(given)(*map(self.dtype.type, given))
            parameter, new = self.optimizer.rule(parameter, gradient, old, rounded)
            parameters.append(parameter)
            slots.append(new)
        self.load_state(PlanState(parameters, slots, state.step))

    def _update_in_place(self, batch: Batch, coefficients) -> None:
        before = self.state()
        flat = np.array(coefficients, self.dtype).reshape(-1)
        for i in range(len(self.layers)):
            self._phase(batch, layout.WEIGHT_GRAD, i, layout.TRAIN, flat)
        after = self.state()
        for k in range(len(after.parameters)):
            new, old = (
                {
                    "parameter": state.parameters[k],
                    **{f"slots{j}": slot for j, slot in enumerate(state.slots[k])},
                }
                for state in (after, before)
            )
            self._planted("update", {}, old, new)
        self.load_state(after)


def plant_in_plan(backend: Backend, operation: str, fault: Fault) -> Backend:
    """A copy of the numba backend in whose fused plan the phases of ``operation`` have the fault."""

    return overridden(backend, plan=lambda self, problem: PhasedPlan(operation, fault, problem))
