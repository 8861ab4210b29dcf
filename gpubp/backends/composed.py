"""The plan that every backend has: its operations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from gpubp.backends.operations import Array, Operations
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats, check_batch, pairs, sums_by_step
from gpubp.data.samples import Samples, dense_inputs
from gpubp.network import Layer
from gpubp.randomness.dropout import Mask
from gpubp.reference import Parameters

EVALUATION_ROWS = 1024  # rows an evaluation takes at a time, at least


class Workspace:
    """The buffers of one mini-batch of up to ``rows`` samples, allocated once.

    ``activations[0]`` holds the inputs; ``taken`` what of each goes into the next layer, which is another buffer where
    some are ``dropped``; ``deltas`` holds the errors of each layer, or of the last one only.
    """

    def __init__(
        self,
        backend: Operations,
        layers: Sequence[Layer],
        rows: int,
        dtype: np.dtype,
        *,
        train: bool,
        dropped: Sequence[bool] = (),
    ):
        def buffer(*shape: int) -> Array:
            return backend.to_device(np.zeros(shape, dtype))

        n_out = layers[-1].n_out
        self.activations = [buffer(rows, layers[0].n_in)] + [buffer(rows, layer.n_out) for layer in layers]
        drops = dropped or [False] * len(layers)
        self.taken = [
            buffer(rows, layer.n_in) if some else a
            for some, layer, a in zip(drops, layers, self.activations, strict=False)
        ]
        self.logits = buffer(rows, n_out)
        self.targets = buffer(rows, n_out)
        self.sample_weight = buffer(rows)
        hidden = layers[:-1] if train else []
        self.deltas = [buffer(rows, layer.n_out) for layer in hidden] + [buffer(rows, n_out)]
        self._views: dict[int, Workspace] = {}

    def first(self, rows: int) -> Workspace:
        """The same buffers, seen as a batch of ``rows``; made once per size, since a run has two sizes at most."""
        if rows not in self._views:
            view = object.__new__(Workspace)
            view.activations = [a[:rows] for a in self.activations]
            view.taken = [a[:rows] for a in self.taken]
            view.logits, view.targets = self.logits[:rows], self.targets[:rows]
            view.sample_weight = self.sample_weight[:rows]
            view.deltas = [delta[:rows] for delta in self.deltas]
            self._views[rows] = view
        return self._views[rows]


class ComposedPlan(Plan):
    """Training composed from a backend's operations, one after the other; nothing is allocated inside an epoch."""

    def __init__(self, backend: Operations, problem: Problem) -> None:
        super().__init__(problem)
        self.backend = backend
        self.activations = problem.activations
        self.samples = self.upload(problem.samples)
        flat = list(chain(*problem.parameters))
        self.parameters = [backend.to_device(p) for p in flat]
        self.gradient = [backend.to_device(np.zeros_like(p)) for p in flat]
        self.slots = [tuple(backend.to_device(np.zeros_like(p)) for _ in self.optimizer.slots) for p in flat]
        self._order = backend.to_device(np.zeros(len(self.samples), np.int64))
        self._row_cost = backend.to_device(np.zeros(len(self.samples), self.dtype))
        self._row_hit = backend.to_device(np.zeros(len(self.samples), np.uint8))
        self._classes = None if problem.classes is None else backend.to_device(problem.classes)
        self._drops = [bool(count) for count in problem.dropout.dropped] if problem.dropout else []
        how = backend, self.layers, self.batch_size, self.dtype
        self._workspace = Workspace(*how, train=True, dropped=self._drops)

    def describe(self) -> str:
        parts = "composed plan, one call an operation", self.why, self.backend.describe()
        return "; ".join(filter(None, parts))

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        n = len(order)
        device_order = self.backend.to_device(order, out=self._order[:n])
        for s, lr in enumerate(learning_rates):
            rows = slice(s * self.batch_size, min((s + 1) * self.batch_size, n))
            self._backpropagate(device_order, rows)
            self._update(float(lr))
        return self._stats(self._row_cost[:n], self._row_hit[:n], self.batch_size)

    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        n = len(order)
        check_batch(n, self.batch_size)
        device_order = self.backend.to_device(order, out=self._order[:n])
        self._backpropagate(device_order, slice(0, n))
        stats = self._stats(self._row_cost[:n], self._row_hit[:n], n)
        return stats, pairs([self.backend.to_host(g) for g in self.gradient])

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        work, n = self._evaluation, inputs.shape[0]
        chunk = len(work.logits)
        order = self.backend.to_device(np.arange(chunk, dtype=np.int64))
        outputs = np.empty((n, self.layers[-1].n_out), self.dtype)
        for start in range(0, n, chunk):
            part = self.backend.to_device(dense_inputs(inputs[start : start + chunk], self.dtype))
            view = work.first(len(part))
            self._forward(part, order[: len(part)], view)
            outputs[start : start + chunk] = self.backend.to_host(view.activations[-1])
        return outputs

    def upload(self, samples: Samples) -> Samples:
        return Samples(
            self.backend.to_device(dense_inputs(samples.inputs, self.dtype)),
            self.backend.to_device(samples.targets),
            self.backend.to_device(samples.sample_weight),
        )

    def evaluate(self, samples: Samples) -> StepStats:
        work = self._evaluation
        n, chunk = len(samples), len(work.logits)
        order = self.backend.to_device(np.arange(n, dtype=np.int64))
        row_cost = self.backend.to_device(np.zeros(n, self.dtype))
        row_hit = self.backend.to_device(np.zeros(n, np.uint8))
        for start in range(0, n, chunk):
            rows = slice(start, min(start + chunk, n))
            view = work.first(rows.stop - rows.start)
            self._forward(samples.inputs, order[rows], view)
            self._output_delta(samples, order[rows], view, row_cost[rows], row_hit[rows])
        return self._stats(row_cost, row_hit, n)

    def state(self) -> PlanState:
        to_host = self.backend.to_host
        slots = [tuple(map(to_host, slots)) for slots in self.slots]
        return PlanState(list(map(to_host, self.parameters)), slots, self.step)

    def load_state(self, state: PlanState) -> None:
        given = chain(state.parameters, *state.slots)
        for ours, theirs in zip(chain(self.parameters, *self.slots), given, strict=True):
            self.backend.to_device(theirs, out=ours)
        self.step = state.step

    @cached_property
    def _evaluation(self) -> Workspace:
        rows = max(self.batch_size, EVALUATION_ROWS)
        return Workspace(self.backend, self.layers, rows, self.dtype, train=False)

    def _stats(self, row_cost: Array, row_hit: Array, batch_size: int) -> StepStats:
        costs = self.backend.to_host(row_cost).astype(np.float64)
        hits = self.backend.to_host(row_hit).astype(np.int64)
        return StepStats(len(costs), sums_by_step(costs, batch_size), sums_by_step(hits, batch_size))

    def _mask(self, i: int) -> Mask | None:
        """That of what goes into layer i in the step that comes."""
        dropout = self.problem.dropout
        return None if dropout is None else dropout.mask(i, self.step)

    def _forward(self, inputs: Array, order: Array, work: Workspace, *, train: bool = False) -> None:
        deformation = self.problem.deformation
        if train and deformation:
            self.backend.deform(inputs, order, deformation, self.step, self._classes, work.activations[0])
        else:
            self.backend.gather(inputs, order, work.activations[0])
        last = len(self.layers) - 1
        for i, activation in enumerate(self.activations):
            a = work.activations[i + 1]
            z = work.logits if i == last else a  # only the output layer's z is needed again, by the cost
            weights, bias = self.parameters[2 * i], self.parameters[2 * i + 1]
            if train and (mask := self._mask(i)):
                self.backend.drop(work.activations[i], mask, order, work.taken[i])
            self.backend.forward(work.taken[i], weights, bias, activation, z, a)

    def _output_delta(
        self, samples: Samples, order: Array, work: Workspace, row_cost: Array, row_hit: Array
    ) -> None:
        self.backend.gather(samples.targets, order, work.targets)
        self.backend.gather(samples.sample_weight, order, work.sample_weight)
        self.backend.output_delta(
            work.logits, work.activations[-1], work.targets, work.sample_weight,
            self.activations[-1], self.problem.loss, work.deltas[-1], row_cost, row_hit,
        )  # fmt: skip

    def _backpropagate(self, order: Array, rows: slice) -> None:
        work = self._workspace.first(rows.stop - rows.start)
        self._forward(self.samples.inputs, order[rows], work, train=True)
        self._output_delta(self.samples, order[rows], work, self._row_cost[rows], self._row_hit[rows])
        for i in range(len(self.layers) - 1, -1, -1):
            delta = work.deltas[i]
            self.backend.weight_grad(delta, work.taken[i], *self.gradient[2 * i : 2 * i + 2])
            if i:
                given = delta, self.parameters[2 * i], work.activations[i], self.activations[i - 1]
                self.backend.hidden_delta(*given, work.deltas[i - 1], self._mask(i), order[rows])

    def _update(self, lr: float) -> None:
        self.step += 1
        pair = [self.optimizer.coefficients(lr, self.step, decay=decay) for decay in (True, False)]
        coefficients = pair * len(self.layers)  # of weights and of biases, in turn
        for parameter, gradient, slots, c in zip(
            self.parameters, self.gradient, self.slots, coefficients, strict=True
        ):
            self.backend.update(parameter, gradient, slots, self.optimizer, c)
