"""update: the rules of SGD and Adam on one parameter, flat, in place."""

from __future__ import annotations

import math

from gpubp.kernels.cpu.compile import kernel


@kernel
def sgd(parameter_i, gradient_i, velocity_i, c):
    """v ← μ v + g, W ← W − η v, or along g + μ v; c = (η, μ, λ, 1 if Nesterov). No velocity: length 0."""
    lr, momentum, decay, nesterov = c[0], c[1], c[2], c[3] != 0
    if len(velocity_i) == 0:
        for i in range(len(parameter_i)):
            parameter_i[i] -= lr * (gradient_i[i] + decay * parameter_i[i])
    else:
        for i in range(len(parameter_i)):
            direction = gradient_i[i] + decay * parameter_i[i]
            velocity_i[i] = momentum * velocity_i[i] + direction
            parameter_i[i] -= lr * (direction + momentum * velocity_i[i] if nesterov else velocity_i[i])


@kernel
def adam(parameter_i, gradient_i, first_i, second_i, c):
    """Adam's rule; c = (η/(1−β₁ᵗ), β₁, 1−β₁, β₂, 1−β₂, ε, 1/√(1−β₂ᵗ), λ on the gradient, ηλ on the weights)."""
    for i in range(len(parameter_i)):
        gradient = gradient_i[i] + c[7] * parameter_i[i]
        first_i[i] = c[1] * first_i[i] + c[2] * gradient
        second_i[i] = c[3] * second_i[i] + c[4] * (gradient * gradient)
        step = c[0] * (first_i[i] / (math.sqrt(second_i[i]) * c[6] + c[5]))
        parameter_i[i] -= step + c[8] * parameter_i[i]
