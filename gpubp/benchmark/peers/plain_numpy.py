"""NumPy as one who knows it would write it for one net: nothing is allocated in an epoch but a few views."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Trainer


class NumpyTrainer(Trainer):
    """Every product goes into a buffer, and every elementwise step is done in place."""

    version, details = np.__version__, "products into preallocated buffers, updates in place"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.net = net
        self.batch = min(net.batch, len(data))
        self.weights = [w.copy() for w in parameters[::2]]
        self.biases = [b.copy() for b in parameters[1::2]]
        self.weight_steps = [np.empty_like(w) for w in self.weights]
        self.bias_steps = [np.empty_like(b) for b in self.biases]
        self.inputs, self.targets = data.floats(), data.targets(net)

        def buffers(widths: tuple[int, ...]) -> list[np.ndarray]:
            return [np.empty((self.batch, n), np.float32) for n in widths]

        self.activations, self.deltas = buffers(net.layers), buffers(net.layers[1:])
        self.slopes = buffers(net.layers[1:])
        self.rows = np.arange(self.batch)

    def run_epoch(self, order: np.ndarray) -> float:
        cost = 0.0
        with np.errstate(over="ignore"):  # e^-z of a saturated sigmoid is infinite, and its output rightly 0
            for start in range(0, len(order), self.batch):
                cost += self._step(order[start : start + self.batch])
        return cost / len(order)

    def _step(self, batch: np.ndarray) -> float:
        """One mini-batch; the sum of its losses before the update."""
        rows, last = len(batch), len(self.weights) - 1
        a = [buffer[:rows] for buffer in self.activations]
        delta = [buffer[:rows] for buffer in self.deltas]
        np.take(self.inputs, batch, axis=0, out=a[0], mode="clip")  # the default mode copies through a buffer
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            np.dot(a[i], w.T, out=a[i + 1])
            a[i + 1] += b
            if i < last:
                _activate(a[i + 1], self.net.hidden)
        cost = self._output_delta(a[-1], batch, delta[-1])
        delta[-1] *= np.float32(self.net.lr / rows)  # where it is small: all steps below have η/B in them
        for i in range(last, -1, -1):
            np.dot(delta[i].T, a[i], out=self.weight_steps[i])
            np.sum(delta[i], axis=0, out=self.bias_steps[i])
            if i:
                np.dot(delta[i], self.weights[i], out=delta[i - 1])
                _pull_back(delta[i - 1], a[i], self.net.hidden, self.slopes[i - 1][:rows])
            self.weights[i] -= self.weight_steps[i]
            self.biases[i] -= self.bias_steps[i]
        return cost

    def _output_delta(self, z: np.ndarray, batch: np.ndarray, delta: np.ndarray) -> float:
        """∂C/∂z of the outputs into ``delta`` (B, n), from z, which is overwritten; the sum of the losses."""
        if self.net.classifies:
            rows, labels = self.rows[: len(batch)], self.targets[batch]
            z -= z.max(axis=1, keepdims=True)
            true = z[rows, labels]
            np.exp(z, out=delta)
            total = delta.sum(axis=1, keepdims=True)
            delta /= total
            delta[rows, labels] -= 1
            return float(np.log(total).sum() - true.sum())
        _activate(z, self.net.output)
        np.take(self.targets, batch, axis=0, out=delta, mode="clip")
        np.subtract(z, delta, out=delta)
        cost = float(np.vdot(delta, delta))
        _pull_back(delta, z, self.net.output, self.slopes[-1][: len(batch)])
        if self.net.loss == "quadratic":
            return cost / 2
        delta *= 2
        return cost

    def parameters(self) -> list[np.ndarray]:
        return [p for pair in zip(self.weights, self.biases, strict=True) for p in pair]


def _activate(z: np.ndarray, name: str) -> None:
    """σ in place."""
    if name == "relu":
        np.maximum(z, 0, out=z)
    else:
        np.negative(z, out=z)
        np.exp(z, out=z)
        z += 1
        np.reciprocal(z, out=z)


def _pull_back(delta: np.ndarray, a: np.ndarray, name: str, slope: np.ndarray) -> None:
    """delta ⊙= σ'(z), from a = σ(z); ``slope`` is room for it."""
    if name == "relu":
        np.greater(a, 0, out=slope)
    else:
        np.subtract(1, a, out=slope)
        slope *= a
    delta *= slope


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> NumpyTrainer:
    """Threads are those of NumPy's BLAS, from the environment."""
    return NumpyTrainer(net, data, parameters)
