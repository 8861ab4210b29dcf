"""A backend's operations held to the reference, one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpubp import reference
from gpubp.backends.backend import Array, Backend
from gpubp.backends.plan import Problem
from gpubp.data.samples import Samples, as_inputs, dense_inputs
from gpubp.model import labels_of
from gpubp.optimizers import OPTIMIZERS, SGD
from gpubp.randomness.dropout import Mask
from gpubp.verification import bounds
from gpubp.verification.bounds import Bounded, Precision
from gpubp.verification.compare import TensorCheck, compare
from gpubp.verification.steps import bounded_update

STEP = 7  # one of its own, for the operations that draw random numbers
# That of this step, for the operations that drop; not every backend's plan composes them.
DROPPED = Mask(key=(20, 14), purpose=1, step=STEP, dropped=20_000)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _exact(array: np.ndarray) -> Bounded:
    return Bounded.exact(_wide(array))


class Operations:
    """Each operation of a backend by itself, on the reference's own inputs and into poisoned buffers."""

    def __init__(self, backend: Backend, problem: Problem) -> None:
        self.backend, self.problem = backend, problem
        self.parameters, self.loss = problem.parameters, problem.loss
        self.activations, self.dtype = problem.activations, problem.dtype
        self.samples = replace(problem.samples, inputs=dense_inputs(problem.samples.inputs, problem.dtype))
        self.precision = Precision.of(self.dtype)
        self.checks: list[TensorCheck] = []

    def run(self) -> list[TensorCheck]:
        order = np.arange(len(self.samples))[::-1].copy()
        batch, a = self.samples.take(order), [self._gather(order)]
        self._deform(order)
        self._drop(a[0], order)
        for i in range(len(self.activations)):
            z, a_layer = self._forward(i, a[-1])
            a.append(a_layer)
        delta = self._output_delta(z, a[-1], batch)
        for i in range(len(self.activations) - 1, -1, -1):
            self._weight_grad(i, delta, a[i])
            if i:
                self._hidden_delta(i, delta, a[i], DROPPED, order)
                delta = self._hidden_delta(i, delta, a[i])
        self._update()
        return self.checks

    def _send(self, array: np.ndarray) -> Array:
        return self.backend.to_device(np.ascontiguousarray(array))

    def _poisoned(self, *shape: int) -> Array:
        return self._send(np.full(shape, np.nan, self.dtype))

    def _check(self, name: str, got: Array, bounded: Bounded, terms: int = 1) -> None:
        self.checks.append(compare(name, self.backend.to_host(got), bounded, terms=terms))

    def _gather(self, order: np.ndarray) -> np.ndarray:
        out = self._poisoned(*self.samples.inputs.shape)
        self.backend.gather(self._send(self.samples.inputs), self._send(order), out)
        expected = as_inputs(self.samples.inputs[order], self.dtype)
        self._check("gather", out, _exact(expected))
        return expected

    def _deform(self, order: np.ndarray) -> None:
        """Of images, if the problem has them deformed; each byte to the bit."""
        if (deformation := self.problem.deformation) is None:
            return
        classes, out = self.problem.classes, self._poisoned(*self.samples.inputs.shape)
        labels = None if classes is None else self._send(classes)
        source = self._send(self.samples.inputs)
        self.backend.deform(source, self._send(order), deformation, STEP, labels, out)
        self._check("deform", out, _exact(as_inputs(self.problem.batch(STEP, order).inputs, self.dtype)))

    def _forward(self, i: int, a_prev: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias = self.parameters[i]
        activation = self.activations[i]
        z, a = self._poisoned(len(a_prev), len(bias)), self._poisoned(len(a_prev), len(bias))
        self.backend.forward(self._send(a_prev), self._send(weights), self._send(bias), activation, z, a)
        exact = _exact(a_prev), _wide(weights), _wide(bias)
        z_bound, a_bound = bounds.forward(*exact, activation, self.precision)
        self._check(f"z{i + 1} forward", z, z_bound, weights.shape[1])
        self._check(f"a{i + 1} forward", a, a_bound, weights.shape[1])
        return reference.forward(a_prev, weights, bias, activation)

    def _output_delta(self, z: np.ndarray, a: np.ndarray, batch: Samples) -> np.ndarray:
        activation, loss = self.activations[-1], self.loss
        how = activation, loss, self.precision
        delta, cost = self._poisoned(*a.shape), self._poisoned(len(a))
        hit = self._send(np.full(len(a), 255, np.uint8))
        targets, weight = self._send(batch.targets), self._send(batch.sample_weight)
        outputs = self._send(z), self._send(a)
        self.backend.output_delta(*outputs, targets, weight, activation, loss, delta, cost, hit)
        y, w = _wide(batch.targets), _wide(batch.sample_weight)
        self._check("δ output_delta", delta, bounds.output_delta(_exact(z), _exact(a), y, w, *how))
        each = [slice(b, b + 1) for b in range(len(a))]
        costs = [bounds.cost(_exact(z[b]), _exact(a[b]), y[b], w[b], *how) for b in each]
        values, errors = (np.array([getattr(c, part) for c in costs]) for part in ("value", "error"))
        self._check("cost output_delta", cost, bounds.worst_only(values, errors))
        self._check("hits output_delta", hit, _exact(labels_of(a) == labels_of(batch.targets)))
        return reference.output_delta(a, batch.targets, batch.sample_weight, activation, loss)

    def _drop(self, a: np.ndarray, order: np.ndarray) -> None:
        out = self._poisoned(*a.shape)
        self.backend.drop(self._send(a), DROPPED, self._send(order), out)
        factors = DROPPED.of(order, a.shape[1], np.float64)
        self._check("drop", out, bounds.drop(_exact(a), factors, self.precision))

    def _hidden_delta(
        self,
        i: int,
        delta_next: np.ndarray,
        a: np.ndarray,
        mask: Mask | None = None,
        order: np.ndarray | None = None,
    ) -> np.ndarray:
        weights, activation = self.parameters[i][0], self.activations[i - 1]
        delta = self._poisoned(*a.shape)
        given = self._send(delta_next), self._send(weights), self._send(a)
        exact = _exact(delta_next), _wide(weights), bounds.known_side(_wide(a)), _exact(a)
        if mask is None or order is None:
            self.backend.hidden_delta(*given, activation, delta)
            bounded = bounds.hidden_delta(*exact, activation, self.precision)
        else:
            self.backend.hidden_delta(*given, activation, delta, mask, self._send(order))
            factors = mask.of(order, a.shape[1], np.float64)
            bounded = bounds.hidden_delta(*exact, activation, self.precision, factors)
        dropped = " with dropout" if mask else ""
        self._check(f"δ{i} hidden_delta{dropped}", delta, bounded, len(weights))
        return reference.hidden_delta(delta_next, weights, a, activation)

    def _weight_grad(self, i: int, delta: np.ndarray, a_prev: np.ndarray) -> None:
        weights, bias = (self._poisoned(*p.shape) for p in self.parameters[i])
        self.backend.weight_grad(self._send(delta), self._send(a_prev), weights, bias)
        expected = bounds.weight_grad(_exact(delta), _exact(a_prev), self.precision)
        self._check(f"∂C/∂W{i + 1} weight_grad", weights, expected[0], len(delta))
        self._check(f"∂C/∂b{i + 1} weight_grad", bias, expected[1], len(delta))

    def _update(self) -> None:
        rng = np.random.default_rng(0)
        parameter = self.parameters[0][0]
        momentum = SGD(momentum=0.9, weight_decay=0.01), SGD(momentum=0.9, nesterov=True)
        for optimizer in (*(cls(lr=0.1) for cls in OPTIMIZERS.values()), *momentum):
            gradient = rng.standard_normal(parameter.shape).astype(self.dtype)
            slots = [np.abs(rng.standard_normal(parameter.shape)).astype(self.dtype) for _ in optimizer.slots]
            c = optimizer.coefficients(optimizer.lr, 3, decay=True)
            p, memory = self._send(parameter), [self._send(slot) for slot in slots]
            self.backend.update(p, self._send(gradient), memory, optimizer, c)
            expected = bounded_update(parameter, gradient, slots, optimizer, c)
            nesterov = " nesterov" if getattr(optimizer, "nesterov", False) else ""
            for kind, got, bounded in zip(("W", *optimizer.slots), [p, *memory], expected, strict=True):
                self._check(f"{kind} update by {optimizer.kind}{nesterov}", got, bounded)
