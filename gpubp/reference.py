"""Backpropagation as its four equations, in NumPy and in any float dtype: the oracle.

Batches are rows: activations a and errors δ are (B, n), weights W are (n_out, n_in). With C the cost averaged
over the mini-batch and σ the activation function, the equations are (Nielsen, Neural Networks and Deep
Learning, chapter 2; ⊙ is the elementwise product)::

    forward        z = a_prev Wᵀ + b,  a = σ(z)
    output_delta   δ = ∇ₐC ⊙ σ'(z)                      (BP1)
    hidden_delta   δ = (δ_next W_next) ⊙ σ'(z)          (BP2)
    weight_grad    ∂C/∂b = mean of δ over the batch     (BP3)
                   ∂C/∂W = δᵀ a_prev / B                (BP4)
    update         W ← W − η ∂C/∂W, or another optimizer's rule

Nothing here is written for speed, and every other backend is held to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpubp.functions import Activation, Loss
from gpubp.optimizers import Array, Optimizer, Slots

Parameters = Sequence[tuple[Array, Array]]  # (W, b) of each layer, first to last


def forward(a_prev: Array, weights: Array, bias: Array, activation: Activation) -> tuple[Array, Array]:
    """z = a_prev Wᵀ + b and a = σ(z): (B, n_in) to two arrays (B, n_out)."""
    z = a_prev @ weights.T + bias
    return z, activation.apply(z)


def output_delta(a: Array, targets: Array, sample_weight: Array, activation: Activation, loss: Loss) -> Array:
    """BP1: δ = ∇ₐC ⊙ σ'(z) of the output layer, (B, n_out), each row times its sample weight (B,).

    For softmax, ⊙ σ'(z) is the product with the full Jacobian. Where the loss is matched to the activation
    the product collapses to a − y, in which nothing saturates.
    """
    matched = loss.matched == activation.name
    delta = a - targets if matched else activation.pull_back(loss.gradient(a, targets), a)
    return delta * sample_weight[:, None]


def drop(a: Array, mask: Array | None) -> Array:
    """a ⊙ m, (B, n): what dropout leaves of activations, or of ∂C/∂a on the way back; all of it without a mask."""
    return a if mask is None else a * mask


def hidden_delta(
    delta_next: Array, weights_next: Array, a: Array, activation: Activation, mask: Array | None = None
) -> Array:
    """BP2: δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n); ∂C/∂a is dropped as ``a`` was on its way on."""
    return activation.pull_back(drop(delta_next @ weights_next, mask), a)


def weight_grad(delta: Array, a_prev: Array) -> tuple[Array, Array]:
    """BP4 and BP3: ∂C/∂W = δᵀ a_prev / B, (n_out, n_in), and ∂C/∂b = Σ δ / B, (n_out,)."""
    return delta.T @ a_prev / len(delta), delta.sum(axis=0) / len(delta)


def update(
    parameter: Array, gradient: Array, slots: Slots, optimizer: Optimizer, coefficients: Sequence[float]
) -> tuple[Array, Slots]:
    """The parameter and the optimizer's slots (velocity, moments) after one step; nothing is changed in place."""
    return optimizer.rule(parameter, gradient, slots, coefficients)


def cost(
    z: Array, a: Array, targets: Array, sample_weight: Array, activation: Activation, loss: Loss
) -> Array:
    """The weighted cost of each sample, (B,), from the logits z where the loss is matched to the activation."""
    if loss.cost_from_logits is not None and loss.matched == activation.name:
        return loss.cost_from_logits(z, targets) * sample_weight
    return loss.cost(a, targets) * sample_weight


@dataclass(frozen=True)
class Trace:
    """All that backpropagation computes on its way through L layers, for a mini-batch of B.

    ``a`` is [inputs, a¹ … aᴸ]; ``z`` and ``delta`` hold (B, n) and ``gradients`` (∂C/∂W, ∂C/∂b) for each layer;
    ``taken`` are the inputs of each layer, its a_prev but for what dropout does; ``costs`` are the samples' (B,).
    """

    z: list[Array]
    a: list[Array]
    costs: Array
    delta: list[Array]
    gradients: list[tuple[Array, Array]]
    taken: list[Array]


def trace(
    parameters: Parameters,
    activations: Sequence[Activation],
    loss: Loss,
    inputs: Array,
    targets: Array,
    sample_weight: Array | None = None,
    masks: Sequence[Array | None] | None = None,
) -> Trace:
    """Forward and back through a mini-batch, (B, n_in) and (B, n_out), with everything on the way kept.

    ``masks`` are those of each layer's inputs, (B, n_in), as :meth:`.Dropout.masks` gives them.
    """
    if sample_weight is None:
        sample_weight = np.ones(len(inputs), inputs.dtype)
    masks = masks or [None] * len(parameters)

    z, a, taken = [], [inputs], []
    for (weights, bias), activation, mask in zip(parameters, activations, masks, strict=True):
        taken.append(drop(a[-1], mask))
        z_layer, a_layer = forward(taken[-1], weights, bias, activation)
        z.append(z_layer)
        a.append(a_layer)
    costs = cost(z[-1], a[-1], targets, sample_weight, activations[-1], loss)

    delta = [output_delta(a[-1], targets, sample_weight, activations[-1], loss)]
    for layer in range(len(parameters) - 1, 0, -1):
        how = parameters[layer][0], a[layer], activations[layer - 1], masks[layer]
        delta.insert(0, hidden_delta(delta[0], *how))
    gradients = [weight_grad(d, a_prev) for d, a_prev in zip(delta, taken, strict=True)]
    return Trace(z, a, costs, delta, gradients, taken)


def backpropagate(
    parameters: Parameters,
    activations: Sequence[Activation],
    loss: Loss,
    inputs: Array,
    targets: Array,
    sample_weight: Array | None = None,
    masks: Sequence[Array | None] | None = None,
) -> tuple[float, list[tuple[Array, Array]]]:
    """The mean cost of a mini-batch, (B, n_in) and (B, n_out), and its gradient (∂C/∂W, ∂C/∂b) for each layer."""
    whole = trace(parameters, activations, loss, inputs, targets, sample_weight, masks)
    return float(whole.costs.mean()), whole.gradients
