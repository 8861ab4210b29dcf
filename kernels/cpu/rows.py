"""Activation functions on one row, forward and back."""

from __future__ import annotations

import math

from gpubp import kernels
from gpubp.kernels.cpu.compile import inlined

IDENTITY = kernels.ACTIVATIONS["identity"]
SIGMOID = kernels.ACTIVATIONS["sigmoid"]
TANH = kernels.ACTIVATIONS["tanh"]
LECUN_TANH = kernels.ACTIVATIONS["lecun_tanh"]
RELU = kernels.ACTIVATIONS["relu"]
LEAKY_RELU = kernels.ACTIVATIONS["leaky_relu"]
SOFTMAX = kernels.ACTIVATIONS["softmax"]
LEAKY_SLOPE, LECUN_SCALE, LECUN_RATE = kernels.LEAKY_SLOPE, kernels.LECUN_SCALE, kernels.LECUN_RATE


@inlined
def apply_activation(z_n, a_n, activation):
    """a = σ(z) for one row; both may be the same memory."""
    number = a_n.dtype.type
    one = number(1)
    n_count = len(z_n)
    if activation == SIGMOID:
        for n in range(n_count):
            e = math.exp(-abs(z_n[n]))
            a_n[n] = (one if z_n[n] >= 0 else e) / (one + e)
    elif activation == TANH:
        for n in range(n_count):
            a_n[n] = math.tanh(z_n[n])
    elif activation == LECUN_TANH:
        for n in range(n_count):
            a_n[n] = number(LECUN_SCALE) * math.tanh(number(LECUN_RATE) * z_n[n])
    elif activation == RELU:
        for n in range(n_count):
            a_n[n] = z_n[n] if not z_n[n] <= 0 else number(0)  # so that NaN goes through
    elif activation == LEAKY_RELU:
        for n in range(n_count):
            a_n[n] = z_n[n] if z_n[n] > 0 else number(LEAKY_SLOPE) * z_n[n]
    elif activation == SOFTMAX:
        largest = z_n[0]
        for n in range(1, n_count):
            largest = z_n[n] if z_n[n] > largest else largest
        total = number(0)
        for n in range(n_count):
            a_n[n] = math.exp(z_n[n] - largest)
            total += a_n[n]
        for n in range(n_count):
            a_n[n] /= total
    else:
        for n in range(n_count):
            a_n[n] = z_n[n]


@inlined
def pull_back(gradient_n, a_n, activation):
    """∂C/∂z from ∂C/∂a for one row, in place: times σ'(z) as a function of a; for softmax, times the Jacobian."""
    number = a_n.dtype.type
    one = number(1)
    n_count = len(a_n)
    if activation == SIGMOID:
        for n in range(n_count):
            gradient_n[n] *= a_n[n] * (one - a_n[n])
    elif activation == TANH:
        for n in range(n_count):
            gradient_n[n] *= one - a_n[n] * a_n[n]
    elif activation == LECUN_TANH:
        rate, scale = number(LECUN_RATE), number(LECUN_SCALE)
        for n in range(n_count):
            gradient_n[n] *= rate * (scale - a_n[n] * (a_n[n] / scale))
    elif activation == RELU:
        for n in range(n_count):
            gradient_n[n] *= one if a_n[n] > 0 else number(0)
    elif activation == LEAKY_RELU:
        for n in range(n_count):
            gradient_n[n] *= one if a_n[n] > 0 else number(LEAKY_SLOPE)
    elif activation == SOFTMAX:
        mean = number(0)
        for n in range(n_count):
            mean += gradient_n[n] * a_n[n]
        for n in range(n_count):
            gradient_n[n] = a_n[n] * (gradient_n[n] - mean)
