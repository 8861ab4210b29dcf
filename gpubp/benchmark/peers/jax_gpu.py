"""JAX on a GPU: an epoch is one compiled lax.scan over its mini-batches."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gpubp.benchmark.data import Data
from gpubp.benchmark.gpu_device import by_clock
from gpubp.benchmark.gpu_nets import GpuNet
from gpubp.benchmark.peers.jax_scan import mean_loss
from gpubp.errors import BackendUnavailable

MATMUL = {"float32": "highest", "tf32": "tensorfloat32"}  # JAX's names of the precisions

State = tuple[list[Array], list[Array]]  # parameters; velocities, where there is momentum


class ScanTrainer:
    """Samples are on the device; parameters are given to the compiled epoch for good, so that it may change them.

    JAX has no events: its time is the clock's, until the new parameters are there.
    """

    version, differs, seconds = jax.__version__, "", staticmethod(by_clock)

    def __init__(self, net: GpuNet, data: Data, parameters: list[np.ndarray], device: jax.Device) -> None:
        self.batch, self.device = net.batch, device
        precision = jax.config.jax_default_matmul_precision
        self.details = f'jit of lax.scan over an epoch, matmul precision "{precision}"'
        put = partial(jax.device_put, device=device)
        tensors = [put(p) for p in parameters]
        self.state: State = (tensors, [jnp.zeros_like(p) for p in tensors] if net.momentum else [])
        classifies = net.loss == "cross_entropy"
        self.inputs = put(data.floats())
        self.targets = put(data.labels.astype(np.int32) if classifies else data.one_hot(net.layers[-1]))
        self.epoch = jax.jit(partial(epoch, net), donate_argnums=0)

    def run_epoch(self, order: np.ndarray) -> float:
        full = len(order) // self.batch * self.batch
        order = order.astype(np.int32)
        batches, rest = (
            jax.device_put(part, self.device) for part in (order[:full].reshape(-1, self.batch), order[full:])
        )
        self.state, cost = self.epoch(self.state, self.inputs, self.targets, batches, rest)
        jax.block_until_ready(self.state)
        return float(cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [np.asarray(p) for p in self.state[0]]


def epoch(
    net: GpuNet, state: State, inputs: Array, targets: Array, batches: Array, rest: Array
) -> tuple[State, Array]:
    """Steps over ``batches`` (S, B) and the short last one; the new state and the sum of the losses."""

    def step(state: State, batch: Array) -> tuple[State, Array]:
        tensors, velocities = state
        x = inputs.at[batch].get(mode="promise_in_bounds")
        y = targets.at[batch].get(mode="promise_in_bounds")
        loss, gradient = jax.value_and_grad(partial(mean_loss, net))(tensors, x, y)
        if velocities:
            velocities = [net.momentum * v + g for v, g in zip(velocities, gradient, strict=True)]
        steps = velocities or gradient
        return ([p - net.lr * s for p, s in zip(tensors, steps, strict=True)], velocities), loss

    state, losses = lax.scan(step, state, batches)
    cost = losses.sum() * net.batch
    if len(rest):
        state, loss = step(state, rest)
        cost += loss * len(rest)
    return state, cost


def find_device(host: bool) -> jax.Device:
    """Raises BackendUnavailable: this JAX sees no GPU."""
    try:
        return jax.devices("cpu" if host else "gpu")[0]
    except (
        RuntimeError,
        AssertionError,
    ):  # the latter where it was built without, and the environment asks for one
        raise BackendUnavailable(f"JAX {jax.__version__} sees no GPU") from None


def ready(options: dict[str, Any]) -> None:
    """Raises BackendUnavailable: this JAX sees no GPU."""
    jax.block_until_ready(jax.device_put(np.zeros(1), find_device(options["host"])))


def build(net: GpuNet, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> ScanTrainer:
    """options: ``precision`` of the products; ``host``, for the processor.

    Raises BackendUnavailable: this JAX sees no GPU.
    """
    jax.config.update("jax_default_matmul_precision", MATMUL[options["precision"]])
    return ScanTrainer(net, data, parameters, find_device(options["host"]))
