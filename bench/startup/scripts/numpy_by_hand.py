"""784-128-10 in NumPy. Usage: numpy_by_hand.py DATA BATCH SCHEDULE"""

import sys

import numpy as np
from common import learning_rates, load

path, batch, schedule = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x_train, y_train, x_test, y_test = load(path)
targets = np.eye(10, dtype=np.float32)[y_train]

rng = np.random.default_rng(0)
w1 = rng.normal(0, (2 / 784) ** 0.5, (784, 128)).astype(np.float32)
w2 = rng.normal(0, (2 / 128) ** 0.5, (128, 10)).astype(np.float32)
parameters = [w1, np.zeros(128, np.float32), w2, np.zeros(10, np.float32)]
velocities = [np.zeros_like(p) for p in parameters]


def forward(x):
    w1, b1, w2, b2 = parameters
    hidden = np.maximum(x @ w1 + b1, 0)
    return hidden, hidden @ w2 + b2


def gradients(x, y):
    hidden, z = forward(x)
    a = np.exp(z - z.max(axis=1, keepdims=True))
    delta = (a / a.sum(axis=1, keepdims=True) - y) / len(x)
    back = (delta @ parameters[2].T) * (hidden > 0)
    return x.T @ back, back.sum(axis=0), hidden.T @ delta, delta.sum(axis=0)


starts = range(0, len(x_train), batch)
rates = learning_rates(schedule, 10 * len(starts)).astype(np.float32).reshape(10, -1)
for epoch in range(10):
    order = rng.permutation(len(x_train))
    for start, rate in zip(starts, rates[epoch], strict=True):
        chosen = order[start : start + batch]
        for p, v, g in zip(parameters, velocities, gradients(x_train[chosen], targets[chosen]), strict=True):
            v *= np.float32(0.9)
            v += g
            p -= rate * v
    accuracy = (forward(x_test)[1].argmax(axis=1) == y_test).mean()
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}", flush=True)
