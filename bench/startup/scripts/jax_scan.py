"""784-128-10 in JAX, an epoch compiled as one scan. Usage: jax_scan.py DATA BATCH SCHEDULE"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import learning_rates, load

path, batch, schedule = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x_train, y_train, x_test, y_test = map(jnp.asarray, load(path))

rng = np.random.default_rng(0)
w1 = jnp.array(rng.normal(0, (2 / 784) ** 0.5, (784, 128)), jnp.float32)
w2 = jnp.array(rng.normal(0, (2 / 128) ** 0.5, (128, 10)), jnp.float32)
parameters = [w1, jnp.zeros(128), w2, jnp.zeros(10)]
state = parameters, [jnp.zeros_like(p) for p in parameters]


def logits(parameters, x):
    w1, b1, w2, b2 = parameters
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def loss(parameters, x, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, x)), y[:, None], axis=1))


def step(state, batch):
    (parameters, velocities), (chosen, rate) = state, batch
    gradients = jax.grad(loss)(parameters, x_train[chosen], y_train[chosen])
    velocities = [0.9 * v + g for v, g in zip(velocities, gradients, strict=True)]
    return ([p - rate * v for p, v in zip(parameters, velocities, strict=True)], velocities), None


@partial(jax.jit, donate_argnums=0)
def train_epoch(state, order, rates):
    full = len(order) // batch
    state, _ = jax.lax.scan(step, state, (order[: full * batch].reshape(full, batch), rates[:full]))
    if full < len(rates):  # the short last batch
        state, _ = step(state, (order[full * batch :], rates[full]))
    return state, jnp.mean(jnp.argmax(logits(state[0], x_test), axis=1) == y_test)


rates = learning_rates(schedule, 10 * -(-len(x_train) // batch)).astype(np.float32).reshape(10, -1)
for epoch in range(10):
    order = rng.permutation(len(x_train)).astype(np.int32)
    state, accuracy = train_epoch(state, order, rates[epoch])
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}", flush=True)
