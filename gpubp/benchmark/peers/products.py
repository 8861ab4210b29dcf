"""The matrix products of an epoch by cuBLAS, and nothing else: what a plan of products cannot go below."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpubp.benchmark import clock
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Trainer
from gpubp.benchmark.peers.plan import cupy_backend, cupy_of, ready

__all__ = ["build", "ready"]


class Products(Trainer):
    """Not a training: every product reads and writes arrays of its own, on random numbers."""

    differs = "the matrix products alone, no training"
    details = "cupy.matmul in float32 for each z, each hidden δ and each ∂C/∂W; TF32 off"

    def __init__(self, net: Net, samples: int, options: dict[str, Any]) -> None:
        cp = cupy_of(options)
        self.version, self.clock, self.matmul = cp.__version__, clock.of_cupy(cp), cp.matmul
        to_device = cupy_backend(options).to_device
        rng = np.random.default_rng(0)

        def numbers(*shape: int) -> Any:
            return to_device(rng.standard_normal(shape, dtype=np.float32))

        batch = min(net.batch, samples)
        layers = list(pairwise(net.layers))
        weights = [numbers(n_out, n_in) for n_in, n_out in layers]
        gradients = [numbers(n_out, n_in) for n_in, n_out in layers]
        activations, deltas, z = ([numbers(batch, n) for n in net.layers] for _ in range(3))
        self.steps = []
        for start in range(0, samples, batch):
            rows, step = min(batch, samples - start), []
            for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                a, delta = activations[i][:rows], deltas[i + 1][:rows]
                step += [(a, w.T, z[i + 1][:rows]), (delta.T, a, g)]
                step += [(delta, w, deltas[i][:rows])] if i else []
            self.steps.append(step)

    def run_epoch(self, order: np.ndarray) -> float:
        for step in self.steps:
            for a, b, out in step:
                self.matmul(a, b, out=out)
        return 0.0

    def parameters(self) -> list[np.ndarray]:
        return []


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> Products:
    return Products(net, len(data), options)
