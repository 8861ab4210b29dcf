"""JAX on either device: an epoch is one compiled lax.scan over its mini-batches, the samples on the device."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Trainer
from gpubp.errors import BackendUnavailable

MATMUL = {"float32": "highest", "tf32": "tensorfloat32"}  # JAX's names of the precisions, on a GPU

State = tuple[list[Array], list[Array]]  # parameters; velocities, where there is momentum


class ScanTrainer(Trainer):
    """Parameters are given to the compiled epoch for good, so that it may change them in place.

    JAX has no events: its time is the clock's, until the new parameters are there.
    """

    version, details = jax.__version__, "jit of lax.scan over an epoch"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray], device: jax.Device) -> None:
        self.batch, self.device = net.batch, device
        if precision := jax.config.jax_default_matmul_precision:
            self.details += f', matmul precision "{precision}"'
        with jax.default_device(device):
            tensors = [jnp.array(p) for p in parameters]
            self.state: State = (tensors, [jnp.zeros_like(p) for p in tensors] if net.momentum else [])
            self.inputs = jnp.asarray(data.floats())
            self.targets = jnp.asarray(data.targets(net))
        self.epoch = jax.jit(partial(epoch, net), donate_argnums=0)

    def run_epoch(self, order: np.ndarray) -> float:
        order = order.astype(np.int32)
        full = len(order) // self.batch * self.batch
        batches, rest = order[:full].reshape(-1, self.batch), order[full:]
        self.state, cost = self.epoch(self.state, self.inputs, self.targets, batches, rest)
        jax.block_until_ready(self.state)
        return float(cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [np.asarray(p) for p in self.state[0]]


def mean_loss(net: Net, tensors: list[Array], x: Array, y: Array) -> Array:
    """The loss of a mini-batch, by the parameters [W1, b1, …]."""
    last = len(tensors) // 2 - 1
    for i in range(last + 1):
        x = x @ tensors[2 * i].T + tensors[2 * i + 1]
        if i < last:
            x = jax.nn.relu(x) if net.hidden == "relu" else jax.nn.sigmoid(x)
    if net.classifies:
        true = jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(x, axis=1) - true)
    scale = (0.5 if net.loss == "quadratic" else 1.0) / len(x)
    return jnp.sum(jnp.square(jax.nn.sigmoid(x) - y)) * scale


def epoch(
    net: Net, state: State, inputs: Array, targets: Array, batches: Array, rest: Array
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


def _device(options: dict[str, Any]) -> jax.Device:
    try:
        return jax.devices(options["device"])[0]
    except (
        RuntimeError,
        AssertionError,
    ):  # the latter where JAX was built without, and JAX_PLATFORMS asks for one
        raise BackendUnavailable(f"JAX {jax.__version__} sees no GPU") from None


def ready(options: dict[str, Any]) -> None:
    """Have the device ready, once a process.

    Raises:
        BackendUnavailable: a GPU is meant, and this JAX sees none.
    """
    jax.block_until_ready(jax.device_put(np.zeros(1), _device(options)))


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> ScanTrainer:
    """XLA takes its number of threads from NPROC, or else all cores; there is no other way to set it."""
    if options["device"] == "gpu":
        jax.config.update("jax_default_matmul_precision", MATMUL[options["precision"]])
    return ScanTrainer(net, data, parameters, _device(options))
