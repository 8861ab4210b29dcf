"""The matrix products of an epoch by cuBLAS, and nothing else: what a plan of products cannot go below."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpubp.benchmark.data import Data
from gpubp.benchmark.gpu_device import Device
from gpubp.benchmark.gpu_nets import GpuNet


class Products:
    """Not a training: every product reads and writes arrays of its own, on random numbers."""

    differs = "the matrix products alone, no training"
    details = "cupy.matmul in float32 for each z, each hidden δ and each ∂C/∂W; TF32 off"

    def __init__(self, device: Device, net: GpuNet, samples: int) -> None:
        self.version, self.seconds = device.cp.__version__, device.seconds
        self.matmul = device.cp.matmul
        to_device = device.backend("composed").to_device
        rng = np.random.default_rng(0)

        def numbers(*shape: int) -> Any:
            return to_device(rng.standard_normal(shape, dtype=np.float32))

        batch = min(net.batch, samples)
        sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
        layers = list(pairwise(net.layers))
        weights = [numbers(n_out, n_in) for n_in, n_out in layers]
        gradients = [numbers(n_out, n_in) for n_in, n_out in layers]
        activations = [numbers(batch, n) for n in net.layers]
        deltas = [numbers(batch, n) for n in net.layers]
        z = [numbers(batch, n) for n in net.layers]
        self.steps = []
        for rows in sizes:
            step = []
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


def ready(options: dict[str, Any]) -> None:
    """Raises BackendUnavailable: no GPU."""
    Device(options["host"]).prepare()


def build(net: GpuNet, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> Products:
    return Products(Device(options["host"]), net, len(data))
