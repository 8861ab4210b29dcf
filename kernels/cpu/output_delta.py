"""output_delta (BP1): δ[b, :] = w[b] (∇ₐC ⊙ σ'(z))[b, :], with the cost of each row and whether it was a hit."""

from __future__ import annotations

import math

from gpubp import kernels
from gpubp.kernels.cpu.compile import inlined, kernel
from gpubp.kernels.cpu.rows import SIGMOID, SOFTMAX, pull_back

QUADRATIC = kernels.LOSSES["quadratic"]
SQUARED_ERROR = kernels.LOSSES["squared_error"]
CROSS_ENTROPY = kernels.LOSSES["cross_entropy"]
BINARY_CROSS_ENTROPY = kernels.LOSSES["binary_cross_entropy"]
PROBABILITY_FLOOR = kernels.PROBABILITY_FLOOR


@kernel
def output_delta(z_bn, a_bn, y_bn, weight_b, activation, loss, delta_bn, cost_b, hit_b):
    """δ (B, n), and cost and hit (B,), for one of the losses."""
    for b in range(len(a_bn)):
        if loss == CROSS_ENTROPY and activation == SOFTMAX:
            cost = softmax_cross_entropy(z_bn[b], a_bn[b], y_bn[b], delta_bn[b])
        elif loss == BINARY_CROSS_ENTROPY and activation == SIGMOID:
            cost = sigmoid_cross_entropy(z_bn[b], a_bn[b], y_bn[b], delta_bn[b])
        else:
            cost = loss_gradient(a_bn[b], y_bn[b], loss, delta_bn[b])
            pull_back(delta_bn[b], a_bn[b], activation)
        for n in range(a_bn.shape[1]):
            delta_bn[b, n] *= weight_b[b]
        cost_b[b] = weight_b[b] * cost
        hit_b[b] = is_hit(a_bn[b], y_bn[b])


@inlined
def softmax_cross_entropy(z_n, a_n, y_n, delta_n):
    """δ = a − y and −Σ y ln a = Σ y (ln Σ e^z − z), shifted by the largest z."""
    number = z_n.dtype.type
    largest = z_n[0]
    for n in range(1, len(z_n)):
        largest = z_n[n] if z_n[n] > largest else largest
    total = number(0)
    for n in range(len(z_n)):
        total += math.exp(z_n[n] - largest)
    log_total = math.log(total)
    cost = number(0)
    for n in range(len(z_n)):
        delta_n[n] = a_n[n] - y_n[n]
        cost += y_n[n] * (log_total - (z_n[n] - largest))
    return cost


@inlined
def sigmoid_cross_entropy(z_n, a_n, y_n, delta_n):
    """δ = a − y and −Σ y ln a + (1−y) ln(1−a) = Σ max(z, 0) − zy + ln(1 + e^-|z|)."""
    number = z_n.dtype.type
    cost = number(0)
    for n in range(len(z_n)):
        delta_n[n] = a_n[n] - y_n[n]
        cost += max(z_n[n], number(0)) - z_n[n] * y_n[n] + math.log1p(math.exp(-abs(z_n[n])))
    return cost


@inlined
def loss_gradient(a_n, y_n, loss, gradient_n):
    """∇ₐC into ``gradient`` and C as the result, for outputs that are not the loss's matched activation."""
    number = a_n.dtype.type
    one, floor = number(1), number(PROBABILITY_FLOOR)
    cost = number(0)
    for n in range(len(a_n)):
        difference = a_n[n] - y_n[n]
        if loss == QUADRATIC:
            gradient_n[n] = difference
            cost += number(0.5) * difference * difference
        elif loss == SQUARED_ERROR:
            gradient_n[n] = number(2) * difference
            cost += difference * difference
        else:
            p = min(max(a_n[n], floor), one - floor)
            inside = p == a_n[n]
            if loss == CROSS_ENTROPY:
                gradient_n[n] = -y_n[n] / p if inside else number(0)
                cost -= y_n[n] * math.log(p)
            else:
                gradient_n[n] = (p - y_n[n]) / (p * (one - p)) if inside else number(0)
                cost -= y_n[n] * math.log(p) + (one - y_n[n]) * math.log1p(-p)
    return cost


@inlined
def is_hit(a_n, y_n):
    """Whether the first largest output is where the first largest target is; with one output, the side of ½."""
    if len(a_n) == 1:
        return (a_n[0] > 0.5) == (y_n[0] > 0.5)
    said, true = 0, 0
    for n in range(1, len(a_n)):
        said = n if a_n[n] > a_n[said] else said
        true = n if y_n[n] > y_n[true] else true
    return said == true
