"""JAX: an epoch is one compiled lax.scan over its mini-batches, the samples on the device."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net


class JaxTrainer:
    """Parameters are given to the compiled epoch for good, so that it may change them in place."""

    version, details, differs = jax.__version__, "jit of lax.scan over an epoch", ""

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.batch = net.batch
        self.tensors = [jnp.array(p) for p in parameters]
        self.inputs = jnp.asarray(data.floats())
        self.targets = jnp.asarray(
            data.labels.astype(np.int32) if net.loss == "cross_entropy" else data.one_hot(net.layers[-1])
        )
        self.epoch = jax.jit(partial(epoch, net), donate_argnums=0)

    def run_epoch(self, order: np.ndarray) -> float:
        order = order.astype(np.int32)
        full = len(order) // self.batch * self.batch
        batches, rest = order[:full].reshape(-1, self.batch), order[full:]
        self.tensors, cost = self.epoch(self.tensors, self.inputs, self.targets, batches, rest)
        jax.block_until_ready(self.tensors)
        return float(cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [np.asarray(p) for p in self.tensors]


def mean_loss(net: Net, tensors: list[Array], x: Array, y: Array) -> Array:
    """The loss of a mini-batch, by the parameters [W1, b1, …]."""
    last = len(tensors) // 2 - 1
    for i in range(last + 1):
        x = x @ tensors[2 * i].T + tensors[2 * i + 1]
        if i < last:
            x = jax.nn.relu(x) if net.hidden == "relu" else jax.nn.sigmoid(x)
    if net.loss == "cross_entropy":
        true = jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(x, axis=1) - true)
    scale = (0.5 if net.loss == "quadratic" else 1.0) / len(x)
    return jnp.sum(jnp.square(jax.nn.sigmoid(x) - y)) * scale


def epoch(
    net: Net, tensors: list[Array], inputs: Array, targets: Array, batches: Array, rest: Array
) -> tuple[list[Array], Array]:
    """Steps over ``batches`` (S, B) and the short last one; the new parameters and the sum of the losses."""

    def step(tensors: list[Array], batch: Array) -> tuple[list[Array], Array]:
        x = inputs.at[batch].get(mode="promise_in_bounds")
        y = targets.at[batch].get(mode="promise_in_bounds")
        loss, gradient = jax.value_and_grad(partial(mean_loss, net))(tensors, x, y)
        return [p - net.lr * g for p, g in zip(tensors, gradient, strict=True)], loss

    tensors, losses = lax.scan(step, tensors, batches)
    cost = losses.sum() * net.batch
    if len(rest):
        tensors, loss = step(tensors, rest)
        cost += loss * len(rest)
    return tensors, cost


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> JaxTrainer:
    """XLA takes its number of threads from NPROC, or else all cores; there is no other way to set it."""
    return JaxTrainer(net, data, parameters)
