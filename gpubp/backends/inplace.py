"""The ``numpy`` backend's own plan: the equations of the reference with their results in place, and in few calls.

What a step of a small network costs is the calls, and of a large one the memory that elementwise work goes through
beside its products. So nothing large is allocated in a step, and

* all parameters are one array, as are their gradients and each slot: a few calls update all of them;
* W lies in memory transposed, (n_in, n_out): its product with a is then the fastest that BLAS has;
* bytes stay bytes until their batch is gathered: there is a fourth of the memory to read;
* the output's δ is divided by B, so that no gradient has to be;
* the targets of a run are gathered at its beginning, and costs and hits counted at its end, of all its samples at once.

Losses, costs and slopes are the reference's own functions, and so is all else that has no form in place below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np

from gpubp import reference
from gpubp.backends.plan import (
    Plan,
    PlanState,
    Problem,
    StepStats,
    check_batch,
    check_order,
    pairs,
    sums_by_step,
)
from gpubp.data.mapped import is_mapped
from gpubp.data.samples import Samples, dense_inputs
from gpubp.functions import Activation
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE, AdamCoefficients, SGDCoefficients
from gpubp.model import labels_of
from gpubp.network import Layer
from gpubp.optimizers import SGD, Adam, Array, Optimizer, Slots
from gpubp.randomness.dropout import Dropout
from gpubp.reference import Parameters

EVALUATION_ROWS = 1024  # that an evaluation takes at a time
BLOCK = 1 << 15  # elements updated at a time: they stay in the second-level cache from one call to the next
# Outputs, up to which sums over rows take less time, copies included, with the samples last in memory.
SHORT_ROW = 32
# Elements, up to which a product with ones is the fastest sum over a batch; OpenBLAS wakes threads from 9,216 on.
ONE_THREAD = 1 << 13

Masks = Sequence[np.ndarray | None]  # of the inputs of each layer
Update = Callable[[Any], None]  # of some parameters, with the coefficients of a step


class Tensors:
    """An array for each W and b of a network, zeros: views of one, which has all weights before all biases."""

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype) -> None:
        self.weights = sum(layer.n_in * layer.n_out for layer in layers)  # elements
        self.whole = np.zeros(self.weights + sum(layer.n_out for layer in layers), dtype)
        self.turned: list[Array] = []  # Wᵀ of each layer, as it lies in memory
        self.biases: list[Array] = []
        w, b = 0, self.weights
        for layer in layers:
            size = layer.n_in * layer.n_out
            self.turned.append(self.whole[w : w + size].reshape(layer.n_in, layer.n_out))
            self.biases.append(self.whole[b : b + layer.n_out])
            w, b = w + size, b + layer.n_out
        # [W₁, b₁, W₂, b₂, …]
        self.flat = [
            p for turned, bias in zip(self.turned, self.biases, strict=True) for p in (turned.T, bias)
        ]

    def copy(self) -> list[np.ndarray]:
        """[W₁, b₁, W₂, b₂, …], each an array of its own without gaps."""
        return [p.copy() for p in self.flat]

    def load(self, flat: Sequence[np.ndarray]) -> None:
        for ours, theirs in zip(self.flat, flat, strict=True):
            ours[...] = theirs


class Workspace:
    """The buffers of a batch of up to ``rows`` samples: the inputs and activations, and in training each layer's δ.

    ``taken`` are what goes into each layer: the same but for what dropout leaves of them.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        rows: int,
        dtype: np.dtype,
        *,
        train: bool,
        dropout: Dropout | None = None,
    ) -> None:
        self.bytes = np.zeros((rows, layers[0].n_in if train else 0), np.uint8)
        self.a = [np.zeros((rows, layer.n_in), dtype) for layer in layers]
        dropped = dropout.dropped if dropout else [0] * len(layers)
        self.taken = [np.zeros_like(a) if some else a for a, some in zip(self.a, dropped, strict=True)]
        self.delta = [np.zeros((rows, layer.n_out), dtype) for layer in layers if train]
        self.ones = np.ones(rows, dtype)
        self._of_size: dict[int, Workspace] = {}

    def first(self, rows: int) -> Workspace:
        """The same buffers, seen as those of ``rows``; made once per size, since a run has two sizes at most."""
        if rows not in self._of_size:
            view = object.__new__(Workspace)
            view.bytes, view.ones = self.bytes[:rows], self.ones[:rows]
            view.a, view.delta = [a[:rows] for a in self.a], [delta[:rows] for delta in self.delta]
            view.taken = [a[:rows] for a in self.taken]
            self._of_size[rows] = view
        return self._of_size[rows]


class InPlacePlan(Plan):
    """Training by calls of NumPy that write where their results belong."""

    def __init__(self, device: str, problem: Problem) -> None:
        super().__init__(problem)
        self.device, self.activations = device, problem.activations
        self.samples = self.upload(problem.samples)
        self.parameters, self.gradient = Tensors(self.layers, self.dtype), Tensors(self.layers, self.dtype)
        self.slots = [Tensors(self.layers, self.dtype) for _ in self.optimizer.slots]
        self.parameters.load(list(chain(*problem.parameters)))
        n = max(len(self.samples), 2)
        shape = n, self.layers[-1].n_out
        self._targets, self._z, self._a = (np.zeros(shape, self.dtype) for _ in range(3))  # of a run
        self._weighted, self._weight = bool((self.samples.sample_weight != 1).any()), np.ones(n, self.dtype)
        how = self.layers, self.batch_size, self.dtype
        self._workspace = Workspace(*how, train=True, dropout=problem.dropout)
        self._activate = [IN_PLACE.get(a.name, partial(_applied, a)) for a in self.activations]
        self._updates = self._lay_out_updates()

    def describe(self) -> str:
        return f"in-place plan, all parameters updated as one array; {self.device}"

    @np.errstate(over="ignore")  # e⁻ᶻ of a saturated sigmoid is infinite, and its output rightly 0
    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        n = len(order)
        self._gather_targets(order)
        for s, lr in enumerate(learning_rates.tolist()):
            self._backpropagate(order, slice(s * self.batch_size, min((s + 1) * self.batch_size, n)))
            self.step += 1
            self._update(lr)
        return self._stats(n, self.batch_size)

    @np.errstate(over="ignore")
    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        n = len(order)
        check_batch(n, self.batch_size)
        self._gather_targets(order)
        self._backpropagate(order, slice(0, n))
        return self._stats(n, n), pairs(self.gradient.copy())

    @np.errstate(over="ignore")
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        outputs = np.zeros((inputs.shape[0], self.layers[-1].n_out), self.dtype)
        for start in range(0, len(outputs), EVALUATION_ROWS):
            rows = slice(start, start + EVALUATION_ROWS)
            self._evaluate(dense_inputs(inputs[rows], self.dtype), outputs[rows], outputs[rows])
        return outputs

    def upload(self, samples: Samples) -> Samples:
        rows = dense_inputs(samples.inputs, self.dtype)
        inputs = rows if is_mapped(rows) else np.array(rows, order="C")
        return Samples(inputs, samples.targets.copy(), samples.sample_weight.copy())

    @np.errstate(over="ignore")
    def evaluate(self, samples: Samples) -> StepStats:
        n = len(samples)
        z, a = (np.zeros((n, self.layers[-1].n_out), self.dtype) for _ in range(2))
        for start in range(0, n, EVALUATION_ROWS):
            rows = slice(start, start + EVALUATION_ROWS)
            self._evaluate(samples.inputs[rows], z[rows], a[rows])
        costs, hits = self._costs(z, a, samples.targets, samples.sample_weight)
        return StepStats(n, sums_by_step(costs, n), sums_by_step(hits, n))

    def state(self) -> PlanState:
        parameters = self.parameters.copy()
        slots = [tuple(slot) for slot in zip(*(slot.copy() for slot in self.slots), strict=True)]
        return PlanState(parameters, slots or [()] * len(parameters), self.step)

    def trained(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return pairs(self.parameters.copy())

    def load_state(self, state: PlanState) -> None:
        self.parameters.load(state.parameters)
        for k, slot in enumerate(self.slots):
            slot.load([slots[k] for slots in state.slots])
        self.step = state.step

    @cached_property
    def _evaluation(self) -> Workspace:
        return Workspace(self.layers, EVALUATION_ROWS, self.dtype, train=False)

    def _evaluate(self, inputs: np.ndarray, z: np.ndarray, a: np.ndarray) -> None:
        work = self._evaluation.first(len(inputs))
        _scaled(inputs, work.a[0])
        self._propagate(work, z, a)

    def _gather_targets(self, order: np.ndarray) -> None:
        """Those of all samples of a run, and what these weigh, in the run's order."""
        check_order(order, len(self.samples))
        _take(self.samples.targets, order, self._targets[: len(order)])
        if self._weighted:
            _take(self.samples.sample_weight, order, self._weight[: len(order)])

    def _backpropagate(self, order: np.ndarray, rows: slice) -> None:
        """All gradients of the batch ``order[rows]``."""
        work = self._workspace.first(rows.stop - rows.start)
        masks = self.problem.masks(self.step, order[rows])
        self._gather(order[rows], work)
        self._propagate(work, self._z[rows], self._a[rows], masks)
        self._output_delta(rows, work)
        for i in range(len(self.layers) - 1, -1, -1):
            self._weight_grad(i, work)
            if i:
                self._hidden_delta(i, work, masks[i] if masks else None)

    def _gather(self, order: np.ndarray, work: Workspace) -> None:
        if self.samples.inputs.dtype == np.uint8:
            _take(self.samples.inputs, order, work.bytes)
            _scaled(self.problem.deformed(work.bytes, self.step, order), work.a[0])
        else:
            _take(self.samples.inputs, order, work.a[0])

    def _propagate(self, work: Workspace, z: np.ndarray, a: np.ndarray, masks: Masks | None = None) -> None:
        """From the inputs in ``work`` to the outputs a and their z; of hidden layers a alone is kept."""
        for i, taken in enumerate(work.taken):
            if masks and (mask := masks[i]) is not None:
                np.multiply(work.a[i], mask, out=taken)
            hidden = work.a[i + 1 : i + 2] * 2
            self._forward(i, taken, *(hidden or (z, a)))

    def _forward(self, i: int, a_prev: np.ndarray, z: np.ndarray, a: np.ndarray) -> None:
        np.dot(a_prev, self.parameters.turned[i], out=z)
        z += self.parameters.biases[i]
        self._activate[i](z, a)

    def _output_delta(self, rows: slice, work: Workspace) -> None:
        """BP1, divided by B."""
        a, targets, delta = self._a[rows], self._targets[rows], work.delta[-1]
        activation, loss = self.activations[-1], self.problem.loss
        if loss.matched == activation.name:
            np.subtract(a, targets, out=delta)
        else:
            _pull_back(activation, loss.gradient(a, targets), a, delta)
        if self._weighted:
            delta *= self._weight[rows, None]
        delta /= len(delta)

    def _hidden_delta(self, i: int, work: Workspace, mask: np.ndarray | None) -> None:
        """BP2: from layer i to the one before, past what dropped its activations."""
        a, activation, delta = work.a[i], self.activations[i - 1], work.delta[i - 1]
        np.dot(work.delta[i], self.parameters.turned[i].T, out=delta)
        if mask is not None:
            delta *= mask
        _pull_back(activation, delta, a, delta)

    def _weight_grad(self, i: int, work: Workspace) -> None:
        """BP4 and BP3."""
        delta, bias = work.delta[i], self.gradient.biases[i]
        np.dot(work.taken[i].T, delta, out=self.gradient.turned[i])
        if delta.size <= ONE_THREAD:
            np.dot(work.ones, delta, out=bias)
        else:
            np.add.reduce(delta, axis=0, out=bias)

    def _costs(
        self, z: np.ndarray, a: np.ndarray, targets: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The cost of each sample, in float64, and whether it is a hit, (N,) both."""
        turned = _turned(z), _turned(a), _turned(targets)
        costs = reference.cost(*turned, weight, self.activations[-1], self.problem.loss)
        return costs.astype(np.float64), labels_of(a) == labels_of(targets)

    def _stats(self, n: int, batch_size: int) -> StepStats:
        """What came of the n samples of a run, in batches of so many."""
        rows = slice(max(n, 2))  # since a single one would be summed in another order than each of several
        costs, hits = self._costs(self._z[rows], self._a[rows], self._targets[rows], self._weight[rows])
        return StepStats(n, sums_by_step(costs[:n], batch_size), sums_by_step(hits[:n], batch_size))

    def _lay_out_updates(self) -> list[tuple[bool, list[Update]]]:
        """The updates of a step, each of as much as can be updated at once; with True those that take weight decay."""
        tensors, rule = (self.parameters, self.gradient, *self.slots), UPDATES.get(type(self.optimizer).rule)
        if rule is None:  # one of its own, which may be of a parameter as a whole
            arrays = zip(*(t.flat for t in tensors), strict=True)
            updates: list[Update] = [
                partial(_updated, self.optimizer, p, g, slots) for p, g, *slots in arrays
            ]
            return [(True, updates[::2]), (False, updates[1::2])]
        size, blocks = self.parameters.whole.size, list[Update]()
        room = np.empty(min(BLOCK, size), self.dtype)
        for start in range(0, size, BLOCK):
            p, g, *slots = (t.whole[start : start + BLOCK] for t in tensors)
            weights = max(0, self.parameters.weights - start)  # of this block, which alone decay
            blocks.append(partial(rule, p, g, slots, room[: len(p)], slice(weights)))
        return [(True, blocks)]

    def _update(self, lr: float) -> None:
        for decay, updates in self._updates:
            c = self.optimizer.coefficients(lr, self.step, decay=decay)
            for update in updates:
                update(c)


def _take(source: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    """out[b] = source[order[b]]; the default mode would copy through a buffer."""
    source.take(order, 0, out, "clip")


def _scaled(inputs: np.ndarray, out: np.ndarray) -> None:
    """Inputs as floats: bytes as i/255, to the bits of ``byte_table``."""
    if inputs.dtype == np.uint8:
        np.divide(inputs, out.dtype.type(255), out=out)
    else:
        out[...] = inputs


def _turned(rows: np.ndarray) -> np.ndarray:
    """The same (B, n); if rows are short with the samples last in memory, where sums over rows are of whole vectors."""
    return np.asfortranarray(rows) if rows.shape[1] <= SHORT_ROW else rows


def _pull_back(activation: Activation, gradient: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    if activation.slope is None:
        out[...] = activation.pull_back(gradient, a)
    else:
        np.multiply(gradient, activation.slope(a), out=out)


def _applied(activation: Activation, z: np.ndarray, a: np.ndarray) -> None:
    a[...] = activation.apply(z)


def _sigmoid(z: np.ndarray, a: np.ndarray) -> None:
    np.negative(z, out=a)
    np.exp(a, out=a)
    a += 1
    np.reciprocal(a, out=a)


def _lecun_tanh(z: np.ndarray, a: np.ndarray) -> None:
    np.multiply(z, LECUN_RATE, out=a)
    np.tanh(a, out=a)
    a *= LECUN_SCALE


def _leaky_relu(z: np.ndarray, a: np.ndarray) -> None:
    np.maximum(z, LEAKY_SLOPE * z, out=a)


def _softmax(z: np.ndarray, a: np.ndarray) -> None:
    e = _turned(z)
    e = np.subtract(e, e.max(axis=1, keepdims=True), out=a if e is z else e)
    np.exp(e, out=e)
    np.divide(e, e.sum(axis=1, keepdims=True), out=a)


# By name: a = σ(z), into ``a``, which may be z.
IN_PLACE: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "lecun_tanh": _lecun_tanh,
    "relu": lambda z, a: np.maximum(z, 0, out=a),
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
}


def _updated(optimizer: Optimizer, p: Array, g: Array, slots: Slots, c: Any) -> None:
    p[...], new = reference.update(p, g, slots, optimizer, c)
    for slot, value in zip(slots, new, strict=True):
        slot[...] = value


def _decay(p: Array, g: Array, rate: float, t: Array, decayed: slice) -> None:
    """g ← g + λ p, of those elements that decay."""
    if rate:
        t = t[decayed]
        np.multiply(p[decayed], rate, out=t)
        g[decayed] += t


def _sgd(p: Array, g: Array, slots: Slots, t: Array, decayed: slice, c: SGDCoefficients) -> None:
    _decay(p, g, c.decay, t, decayed)
    direction = g
    if c.momentum:
        (direction,) = slots
        direction *= c.momentum
        direction += g
        if c.nesterov:
            np.multiply(direction, c.momentum, out=t)
            g += t
            direction = g
    np.multiply(direction, c.lr, out=g)
    p -= g


def _adam(p: Array, g: Array, slots: Slots, t: Array, decayed: slice, c: AdamCoefficients) -> None:
    _decay(p, g, c.decay, t, decayed)
    first, second = slots
    first *= c.beta1
    np.multiply(g, c.rest1, out=t)
    first += t
    second *= c.beta2
    np.multiply(g, g, out=g)
    g *= c.rest2
    second += g
    np.sqrt(second, out=t)
    t *= c.correction
    t += c.epsilon
    np.divide(first, t, out=t)
    t *= c.rate
    if c.decoupled:
        np.multiply(p[decayed], c.decoupled, out=g[decayed])
        t[decayed] += g[decayed]
    p -= t


# By the optimizer's own rule: the same in place, to the bit, on any part of all parameters. The gradient is used up,
# ``t`` is room, and ``decayed`` are the weights, which alone decay.
UPDATES: dict[Callable, Callable] = {SGD.rule: _sgd, Adam.rule: _adam}
