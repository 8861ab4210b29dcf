"""The kernels: five operations of backpropagation, once for CPUs (Numba) and once for NVIDIA GPUs (CUDA).

Imports nothing from gpubp. Kernels take activations, losses and rules as small integers, listed here; arrays
follow the field's shapes: batches are rows, weights are (n_out, n_in).

=============  ==========================================  ===================================
operation      equation                                    shapes
=============  ==========================================  ===================================
forward        z = a_prev Wᵀ + b, a = σ(z)                 (B, n_in) → (B, n_out)
output_delta   δ = ∇ₐC ⊙ σ'(z)                     (BP1)   (B, n_out)
hidden_delta   δ = (δ_next W_next) ⊙ σ'(z)         (BP2)   (B, n_next) → (B, n)
weight_grad    ∂C/∂W = δᵀ a_prev / B, ∂C/∂b = Σ δ / B      (n_out, n_in), (n_out,)
update         the optimizer's rule                        in place
=============  ==========================================  ===================================

Beside them stand ``gather``, out[b] = source[order[b]], which moves data and computes nothing but i/255; ``deform``,
which deforms images of bytes on their way; and ``drop``, out = a ⊙ m, with dropout's mask.
"""

from __future__ import annotations

from typing import NamedTuple

OPERATIONS = ("forward", "output_delta", "hidden_delta", "weight_grad", "update")

ACTIVATIONS = {
    "identity": 0,
    "sigmoid": 1,
    "tanh": 2,
    "lecun_tanh": 3,
    "relu": 4,
    "leaky_relu": 5,
    "softmax": 6,
}

LOSSES = {"quadratic": 0, "squared_error": 1, "cross_entropy": 2, "binary_cross_entropy": 3}

RULES = {"sgd": 0, "adam": 1, "adamw": 1}  # by kind of optimizer; sgd with a slot is that with momentum


class SGDCoefficients(NamedTuple):
    """The numbers of a step of SGD, in the order in which kernels are given them."""

    lr: float
    momentum: float
    decay: float  # λ
    nesterov: float  # 1 for Nesterov's form, else 0


class AdamCoefficients(NamedTuple):
    """The numbers of step t of Adam or AdamW, for which one of the two decays is 0."""

    rate: float  # η / (1 − β₁ᵗ)
    beta1: float
    rest1: float  # 1 − β₁
    beta2: float
    rest2: float  # 1 − β₂
    epsilon: float
    correction: float  # 1 / √(1 − β₂ᵗ)
    decay: float  # λ, on the gradient
    decoupled: float  # ηλ, on the weights


COEFFICIENTS = {"sgd": SGDCoefficients, "adam": AdamCoefficients, "adamw": AdamCoefficients}

LEAKY_SLOPE = 0.01
LECUN_SCALE = 1.7159  # LeCun, Bottou, Orr, Müller: Efficient BackProp (1998), section 4.4
LECUN_RATE = 2.0 / 3.0

# Probabilities that are not their loss's matched activation are kept in [ε, 1 − ε] under the logarithm, with
# this ε in every dtype; outside, such a loss is constant and its gradient 0. 1 − ε is exact in float32.
PROBABILITY_FLOOR = 2.0**-23
