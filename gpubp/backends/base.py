"""The contract: a :class:`Backend` offers five operations, a :class:`Plan` runs many training steps with them.

A backend is complete once it has the operations: :class:`ComposedPlan` builds training from them. A backend
that has something faster, such as one compiled call for a whole epoch, overrides :meth:`Backend.plan`; the
trainer cannot tell the difference and the verifier checks that there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpubp.data.sparse import is_sparse
from gpubp.errors import UsageError
from gpubp.kernels import RULES
from gpubp.network import Layer
from gpubp.optimizers import Optimizer

Array = Any  # an array of the backend's own kind, wherever that lives

EVALUATION_ROWS = 1024  # rows an evaluation takes at a time, at least


@dataclass(frozen=True)
class Samples:
    """N samples as a plan takes them.

    inputs (N, n_in), uint8 or the network's dtype, or a SciPy ``csr_array`` of the latter; targets (N, n_out) and
    sample_weight (N,) in its dtype.
    """

    inputs: Array
    targets: Array
    sample_weight: Array

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def take(self, order: np.ndarray) -> Samples:
        """The samples at ``order``, on the host."""
        return Samples(self.inputs[order], self.targets[order], self.sample_weight[order])


def dense_inputs(inputs: Any, dtype: np.dtype) -> np.ndarray:
    """Host inputs (N, n_in) as an array without gaps: bytes as they are, anything else in ``dtype``."""
    if is_sparse(inputs):
        inputs = inputs.toarray()
    return np.ascontiguousarray(inputs, None if inputs.dtype == np.uint8 else dtype)


@dataclass(frozen=True)
class StepStats:
    """What a run of S steps saw, before each step's update: cost sums (S,) float64 and hits (S,) int64.

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

    @abstractmethod
    def describe(self) -> str:
        """Which plan this is, in one line."""

    @abstractmethod
    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        """Train: step s takes the samples ``order[s*B : (s+1)*B]`` at ``learning_rates[s]``; the last may be short.

        Several steps in one call leave the very bits that they leave one by one.
        """

    @abstractmethod
    def gradients(self, order: np.ndarray) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
        """The mean cost over one batch and its gradient (∂C/∂W, ∂C/∂b) for each layer, on the host.

        It is the very gradient, bit for bit, that :meth:`run` would step along from the present parameters.
        Raises UsageError for more samples than a batch has.
        """

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

    @abstractmethod
    def load_state(self, state: PlanState) -> None:
        """Go on from ``state``."""


class Backend(ABC):
    """The five operations of backpropagation on one kind of array. Results go into the buffers given.

    ``precision`` names how it computes the products of float32 matrices, one of ``precisions``.
    ``plan`` is the kind of plan it makes, one of ``plans``, or "auto" for the fastest that fits what is to be trained:
    "composed" calls the operations one after the other, "fused" is a whole epoch in one call, others are its own.

    Raises:
        UsageError: it has no plan of that kind, or no such precision.
    """

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
        self, a_prev: Array, weights: Array, bias: Array, activation: str, z: Array, a: Array
    ) -> None:
        """z = a_prev Wᵀ + b, a = σ(z): (B, n_in) to (B, n_out). ``z`` and ``a`` may be one buffer."""

    @abstractmethod
    def output_delta(
        self,
        z: Array,
        a: Array,
        targets: Array,
        sample_weight: Array,
        activation: str,
        loss: str,
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
        self, delta_next: Array, weights_next: Array, a: Array, activation: str, delta: Array
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

    def plan(
        self,
        layers: Sequence[Layer],
        parameters: Sequence[tuple[np.ndarray, np.ndarray]],
        loss: str,
        optimizer: Optimizer,
        batch_size: int,
        samples: Samples,
    ) -> Plan:
        """A plan that trains copies of ``parameters`` on host ``samples``."""
        return ComposedPlan(self, layers, parameters, loss, optimizer, batch_size, samples)


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


class Workspace:
    """The buffers of one mini-batch of up to ``rows`` samples, allocated once.

    ``activations[0]`` holds the inputs; ``deltas`` holds the errors of each layer, or of the last one only.
    """

    def __init__(self, backend: Backend, layers: Sequence[Layer], rows: int, dtype: np.dtype, *, train: bool):
        def buffer(*shape: int) -> Array:
            return backend.to_device(np.zeros(shape, dtype))

        n_out = layers[-1].n_out
        self.activations = [buffer(rows, layers[0].n_in)] + [buffer(rows, layer.n_out) for layer in layers]
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
            view.logits, view.targets = self.logits[:rows], self.targets[:rows]
            view.sample_weight = self.sample_weight[:rows]
            view.deltas = [delta[:rows] for delta in self.deltas]
            self._views[rows] = view
        return self._views[rows]


class ComposedPlan(Plan):
    """Training composed from a backend's operations, one after the other; nothing is allocated inside an epoch."""

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[Layer],
        parameters: Sequence[tuple[np.ndarray, np.ndarray]],
        loss: str,
        optimizer: Optimizer,
        batch_size: int,
        samples: Samples,
    ) -> None:
        self.backend, self.layers, self.loss, self.optimizer = backend, list(layers), loss, optimizer
        self.batch_size = batch_size
        self.dtype = parameters[0][0].dtype
        self.samples = self.upload(samples)
        self.parameters = [backend.to_device(p) for pair in parameters for p in pair]
        self.gradient = [backend.to_device(np.zeros_like(p)) for pair in parameters for p in pair]
        self.slots = [
            tuple(backend.to_device(np.zeros_like(p)) for _ in optimizer.slots)
            for pair in parameters
            for p in pair
        ]
        self.step = 0
        self._order = backend.to_device(np.zeros(len(samples), np.int64))
        self._row_cost = backend.to_device(np.zeros(len(samples), self.dtype))
        self._row_hit = backend.to_device(np.zeros(len(samples), np.uint8))
        self._workspace = Workspace(backend, self.layers, batch_size, self.dtype, train=True)
        self._evaluation: Workspace | None = None

    def describe(self) -> str:
        return "; ".join(
            ["composed plan, one call an operation", *filter(None, [self.why]), self.backend.describe()]
        )

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        n = len(order)
        device_order = self.backend.to_device(order, out=self._order[:n])
        for s, lr in enumerate(learning_rates):
            rows = slice(s * self.batch_size, min((s + 1) * self.batch_size, n))
            self._backpropagate(device_order, rows)
            self._update(float(lr))
        return self._stats(self._row_cost[:n], self._row_hit[:n], self.batch_size)

    def gradients(self, order: np.ndarray) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
        n = len(order)
        check_batch(n, self.batch_size)
        device_order = self.backend.to_device(order, out=self._order[:n])
        self._backpropagate(device_order, slice(0, n))
        flat = [self.backend.to_host(g) for g in self.gradient]
        mean_cost = self._stats(self._row_cost[:n], self._row_hit[:n], n).mean_cost
        return mean_cost, pairs(flat)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        work = self._evaluation_workspace()
        chunk = len(work.logits)
        order = self.backend.to_device(np.arange(chunk, dtype=np.int64))
        n = inputs.shape[0]
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
        work = self._evaluation_workspace()
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
        slots = [tuple(to_host(slot) for slot in slots) for slots in self.slots]
        return PlanState([to_host(p) for p in self.parameters], slots, self.step)

    def load_state(self, state: PlanState) -> None:
        for ours, theirs in zip(self.parameters, state.parameters, strict=True):
            self.backend.to_device(theirs, out=ours)
        for our_slots, their_slots in zip(self.slots, state.slots, strict=True):
            for ours, theirs in zip(our_slots, their_slots, strict=True):
                self.backend.to_device(theirs, out=ours)
        self.step = state.step

    def _evaluation_workspace(self) -> Workspace:
        if self._evaluation is None:
            rows = max(self.batch_size, EVALUATION_ROWS)
            self._evaluation = Workspace(self.backend, self.layers, rows, self.dtype, train=False)
        return self._evaluation

    def _stats(self, row_cost: Array, row_hit: Array, batch_size: int) -> StepStats:
        costs = self.backend.to_host(row_cost).astype(np.float64)
        hits = self.backend.to_host(row_hit).astype(np.int64)
        return StepStats(len(costs), _sum_by_step(costs, batch_size), _sum_by_step(hits, batch_size))

    def _forward(self, inputs: Array, order: Array, work: Workspace) -> None:
        self.backend.gather(inputs, order, work.activations[0])
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            a = work.activations[i + 1]
            z = work.logits if i == last else a  # only the output layer's z is needed again, by the cost
            weights, bias = self.parameters[2 * i], self.parameters[2 * i + 1]
            self.backend.forward(work.activations[i], weights, bias, layer.activation, z, a)

    def _output_delta(
        self, samples: Samples, order: Array, work: Workspace, row_cost: Array, row_hit: Array
    ) -> None:
        self.backend.gather(samples.targets, order, work.targets)
        self.backend.gather(samples.sample_weight, order, work.sample_weight)
        self.backend.output_delta(
            work.logits,
            work.activations[-1],
            work.targets,
            work.sample_weight,
            self.layers[-1].activation,
            self.loss,
            work.deltas[-1],
            row_cost,
            row_hit,
        )

    def _backpropagate(self, order: Array, rows: slice) -> None:
        work = self._workspace.first(rows.stop - rows.start)
        self._forward(self.samples.inputs, order[rows], work)
        self._output_delta(self.samples, order[rows], work, self._row_cost[rows], self._row_hit[rows])
        for i in range(len(self.layers) - 1, -1, -1):
            delta = work.deltas[i]
            self.backend.weight_grad(
                delta, work.activations[i], self.gradient[2 * i], self.gradient[2 * i + 1]
            )
            if i:
                self.backend.hidden_delta(
                    delta,
                    self.parameters[2 * i],
                    work.activations[i],
                    self.layers[i - 1].activation,
                    work.deltas[i - 1],
                )

    def _update(self, lr: float) -> None:
        self.step += 1
        coefficients = [
            self.optimizer.coefficients(lr, self.step, decay=True),  # weights
            self.optimizer.coefficients(lr, self.step, decay=False),  # biases
        ]
        for i, (parameter, gradient, slots) in enumerate(
            zip(self.parameters, self.gradient, self.slots, strict=True)
        ):
            self.backend.update(parameter, gradient, slots, self.optimizer, coefficients[i % 2])


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


def _sum_by_step(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """The sum over each batch of ``batch_size`` rows, (S,); the last may be short."""
    full = len(rows) // batch_size * batch_size
    sums = rows[:full].reshape(-1, batch_size).sum(axis=1)
    return np.append(sums, rows[full:].sum()) if full < len(rows) else sums
