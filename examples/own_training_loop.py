"""Gradient descent with your own loop: gpubp computes the gradients, everything else is in sight.

Run: python examples/own_training_loop.py
"""

import numpy as np

import gpubp

data = gpubp.load_data("iris")
mean, deviation = data.train.inputs.mean(axis=0), data.train.inputs.std(axis=0)
X, y = (data.train.inputs - mean) / deviation, data.train.targets

network = gpubp.Network([4, 10, 3], hidden="tanh", seed=0, dtype="float64")
rng = np.random.default_rng(0)
for epoch in range(1, 31):
    costs = []
    for batch in np.array_split(rng.permutation(len(X)), 7):
        cost, gradients = gpubp.gradients(network, X[batch], y[batch], backend="numpy")
        network.parameters = [
            (weights - 0.3 * grad_weights, bias - 0.3 * grad_bias)
            for (weights, bias), (grad_weights, grad_bias) in zip(network.parameters, gradients, strict=True)
        ]
        costs.append(cost)
    if epoch % 10 == 0:
        print(f"epoch {epoch}: mean cost {np.mean(costs):.4f}")

test = (data.test.inputs - mean) / deviation
accuracy = (network.predict(test) == data.test.targets).mean()
print(f"test accuracy {accuracy:.3f}")
assert accuracy > 0.9
