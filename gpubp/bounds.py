"""How far a correct computation may be from the reference: the running error bound of one training step.

Every quantity is a :class:`Bounded`: its value in float64, from the reference's own functions, and an error that
no correct evaluation in the working dtype can exceed, whatever its order of summation. With u the unit roundoff
and γ_K = K u / (1 − K u), a sum of K products has |fl(Σ a b) − Σ a b| ≤ γ_K Σ|a||b| (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1), and errors already in a and b are carried through. Elementwise
functions add a few roundings, stated where they are used; monotone activations are bounded by their values at
both ends of the interval that z may lie in.

Where a correct evaluation may fall on either side of a kink (ReLU at z = 0, a clipped probability), both sides
are right: the error is widened by the whole jump. Errors in norm are judged by what is probable rather than
possible, so a jump that the probabilistic bound (√K for K; Higham and Mary 2019) leaves open is also kept apart
as ``kink``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpubp import reference
from gpubp.functions import ACTIVATIONS, LOSSES, Activation, Loss
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE, PROBABILITY_FLOOR
from gpubp.network import Layer

# Roundings of one activation in units of u: a library exp or tanh within 2 ulp (4 u), then the arithmetic on it.
ACTIVATION_ROUNDINGS = {
    "identity": 0,
    "sigmoid": 8,  # exp 4, its sum and quotient with it at most half of that again, two of their own
    "tanh": 4,
    "lecun_tanh": 9,  # tanh 4; the argument and both constants are rounded, the product too
    "relu": 0,
    "leaky_relu": 2,
}
EXP_ROUNDINGS = 4
LOG_ROUNDINGS = 4


@dataclass(frozen=True)
class Precision:
    """The working dtype: u, with the reference's own float64 roundoff on top, and its underflow threshold."""

    unit: float
    tiny: float

    @classmethod
    def of(cls, dtype: np.dtype | type) -> Precision:
        info = np.finfo(dtype)
        return cls(float(info.eps) / 2 + 2.0**-53, float(info.tiny))

    def gamma(self, k: int) -> float:
        """γ_k, or infinity where k u ≥ 1 and nothing is known."""
        ku = k * self.unit
        return ku / (1 - ku) if ku < 1 else np.inf


@dataclass(frozen=True)
class Bounded:
    """A value, the largest error a correct evaluation may have, and the part of it from kinks that are probable."""

    value: np.ndarray
    error: np.ndarray
    kink: np.ndarray | None = None

    @classmethod
    def exact(cls, value: np.ndarray) -> Bounded:
        return cls(value, np.zeros_like(value))


@dataclass(frozen=True)
class BoundedStep:
    """The mean cost of a batch, its gradients [∂C/∂W₁, ∂C/∂b₁, …], and the fewest and most hits it can have."""

    cost: Bounded
    gradients: list[Bounded]
    hits: tuple[int, int]


def forward(
    a_prev: Bounded, weights: np.ndarray, bias: np.ndarray, activation: Activation, precision: Precision
) -> tuple[Bounded, Bounded]:
    """Bounds of z and a for exact parameters and an ``a_prev`` that may be off."""
    z, a = reference.forward(a_prev.value, weights, bias, activation)
    gamma = precision.gamma(weights.shape[1] + 1)
    spread = a_prev.error + gamma * (np.abs(a_prev.value) + a_prev.error)
    e_z = spread @ np.abs(weights).T + gamma * np.abs(bias) + weights.shape[1] * precision.tiny
    if activation.slope is None:
        return Bounded(z, e_z), Bounded(a, _softmax_error(z, e_z, a, precision))
    drift = np.maximum(activation.apply(z + e_z) - a, a - activation.apply(z - e_z))
    rounding = ACTIVATION_ROUNDINGS[activation.name] * precision.unit * (np.abs(a) + drift)
    return Bounded(z, e_z), Bounded(a, drift + rounding + precision.tiny)


def _exponent_error(z: np.ndarray, e_z: np.ndarray, precision: Precision) -> np.ndarray:
    """Relative error of e^(z − max z): that of the argument, twice the row's largest e_z, and of exp itself."""
    shifted = np.abs(z - z.max(axis=1, keepdims=True))
    argument = 2 * e_z.max(axis=1, keepdims=True) + precision.unit * shifted
    return np.expm1(argument + EXP_ROUNDINGS * precision.unit)


def _sum_error(a: np.ndarray, relative: np.ndarray, precision: Precision) -> np.ndarray:
    """Relative error of Σ e^z, (B, 1): each term's weighted by its share a of the sum, and the summation's."""
    return (a * relative).sum(axis=1, keepdims=True) + precision.gamma(a.shape[1] + 1)


def _softmax_error(z: np.ndarray, e_z: np.ndarray, a: np.ndarray, precision: Precision) -> np.ndarray:
    relative = _exponent_error(z, e_z, precision)
    total = np.minimum(_sum_error(a, relative, precision), 0.5)
    known = (relative + total + precision.unit) / (1 - total)
    return np.where(total < 0.5, a * known, 1.0) + precision.tiny  # a probability is never off by more than 1


def pull_back(
    gradient: Bounded, z: Bounded, a: Bounded, terms: int, activation: Activation, precision: Precision
) -> Bounded:
    """Bounds of ∂C/∂z from those of ∂C/∂a: times σ'(z), or the softmax Jacobian; z is a sum of ``terms``."""
    value = activation.pull_back(gradient.value, a.value)
    g, e_g, e_a = np.abs(gradient.value), gradient.error, a.error
    unit = precision.unit
    if activation.slope is None:
        p = np.abs(a.value)
        products = e_g * p + g * e_a + e_g * e_a
        e_mean = products + precision.gamma(p.shape[1]) * (g * p + products)
        e_mean = e_mean.sum(axis=1, keepdims=True)
        mean = (g * p).sum(axis=1, keepdims=True)
        error = e_a * (g + mean) + (p + e_a) * (e_g + e_mean + 3 * unit * (g + mean + e_g + e_mean))
        return Bounded(value, error + precision.tiny, _sum_kinks(gradient.kink, p))
    slope = np.abs(activation.slope(a.value))
    e_slope = _slope_error(a, activation.name, unit)
    error = e_g * slope + g * e_slope + e_g * e_slope + unit * (g + e_g) * (slope + e_slope)
    jump = {"relu": 1.0, "leaky_relu": 1 - LEAKY_SLOPE}.get(activation.name)
    kink = None if gradient.kink is None else gradient.kink * (slope + e_slope)
    if jump is not None:
        error = error + np.where(np.abs(z.value) <= z.error, jump * (g + e_g), 0)
        probable = np.abs(z.value) <= z.error / terms**0.5
        if probable.any():
            kink = np.where(probable, jump * (g + e_g), 0 if kink is None else kink)
    return Bounded(value, error + precision.tiny, kink)


def _sum_kinks(kink: np.ndarray | None, p: np.ndarray) -> np.ndarray | None:
    return None if kink is None else p * (kink + (kink * p).sum(axis=1, keepdims=True))


def _slope_error(a: Bounded, name: str, unit: float) -> np.ndarray:
    """Error of σ'(z) as computed from an a that may be off, away from any kink."""
    size, e = np.abs(a.value), a.error
    if name == "sigmoid":  # a (1 − a): three roundings
        return np.abs(1 - 2 * a.value) * e + e * e + 3 * unit * (size + e) * (np.abs(1 - a.value) + e)
    if name == "tanh":  # 1 − a²
        return 2 * size * e + e * e + 2 * unit * (1 + (size + e) ** 2)
    if name == "lecun_tanh":  # ⅔ (A − a²/A), both constants rounded
        square = 2 * size * e + e * e
        rounding = 6 * unit * (LECUN_SCALE + (size + e) ** 2 / LECUN_SCALE)
        return LECUN_RATE * (square / LECUN_SCALE + rounding)
    return np.full_like(size, unit * LEAKY_SLOPE if name == "leaky_relu" else 0.0)


def output_delta(
    z: Bounded,
    a: Bounded,
    terms: int,
    targets: np.ndarray,
    sample_weight: np.ndarray,
    activation: Activation,
    loss: Loss,
    precision: Precision,
) -> Bounded:
    """Bounds of BP1; z is a sum of ``terms``."""
    value = reference.output_delta(a.value, targets, sample_weight, activation, loss)
    if loss.matched == activation.name:
        error, kink = a.error + precision.unit * (np.abs(a.value - targets) + a.error), None
    else:
        gradient = _loss_gradient(a, terms, targets, loss, precision)
        delta = pull_back(gradient, z, a, terms, activation, precision)
        error, kink = delta.error, delta.kink
    w = sample_weight[:, None]
    error = w * error + precision.unit * (np.abs(value) + w * error) + precision.tiny
    return Bounded(value, error, None if kink is None else w * kink)


def _loss_gradient(a: Bounded, terms: int, y: np.ndarray, loss: Loss, precision: Precision) -> Bounded:
    value, unit = loss.gradient(a.value, y), precision.unit
    if not loss.probabilities:
        factor = 2 if loss.name == "squared_error" else 1
        return Bounded(value, factor * a.error + 2 * unit * (np.abs(value) + factor * a.error))
    p, low, high, outside, edge = _clipped_interval(a)
    sizes = np.abs(y) / low
    error = np.abs(y) * (1 / low - 1 / p)
    if loss.name == "binary_cross_entropy":
        sizes = sizes + np.abs(1 - y) / (1 - high)
        error = error + np.abs(1 - y) * (1 / (1 - high) - 1 / (1 - p))
    error = np.where(outside, 0.0, error + 5 * unit * sizes)
    jump = sizes * (1 + 5 * unit)
    probable = _clipped_interval(Bounded(a.value, a.error / terms**0.5))[-1]
    kink = np.where(probable, jump, 0.0) if probable.any() else None
    return Bounded(value, np.where(edge, np.maximum(error, jump), error), kink)


def _clipped_interval(a: Bounded) -> tuple[np.ndarray, ...]:
    """p = clip(a), its lowest and highest, where a is surely outside the interval, and where it may be either."""
    floor, ceiling = PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR
    low, high = a.value - a.error, a.value + a.error
    outside = (high < floor) | (low > ceiling)
    edge = ~outside & ((low < floor) | (high > ceiling))
    p = np.clip(a.value, floor, ceiling)
    return p, np.clip(low, floor, ceiling), np.clip(high, floor, ceiling), outside, edge


def hidden_delta(
    delta_next: Bounded,
    weights_next: np.ndarray,
    z: Bounded,
    a: Bounded,
    terms: int,
    activation: Activation,
    precision: Precision,
) -> Bounded:
    """Bounds of BP2; z is a sum of ``terms``."""
    gamma = precision.gamma(len(weights_next))
    size = np.abs(weights_next)
    spread = delta_next.error + gamma * (np.abs(delta_next.value) + delta_next.error)
    kink = None if delta_next.kink is None else _few_rows(delta_next.kink, lambda rows: rows @ size)
    gradient = Bounded(
        delta_next.value @ weights_next, spread @ size + len(weights_next) * precision.tiny, kink
    )
    return pull_back(gradient, z, a, terms, activation, precision)


def _few_rows(kink: np.ndarray, product) -> np.ndarray:
    """``product`` of the rows that are not all 0: kinks are rare, and most rows have none."""
    rows = kink.any(axis=1)
    part = product(kink[rows])
    result = np.zeros((len(kink), part.shape[1]))
    result[rows] = part
    return result


def weight_grad(delta: Bounded, a_prev: Bounded, precision: Precision) -> tuple[Bounded, Bounded]:
    """Bounds of BP4 and BP3."""
    grad_weights, grad_bias = reference.weight_grad(delta.value, a_prev.value)
    batch = len(delta.value)
    gamma = precision.gamma(batch + 2)
    spread = delta.error + gamma * (np.abs(delta.value) + delta.error)
    error = spread.T @ (np.abs(a_prev.value) + a_prev.error)
    if a_prev.error.any():
        error += np.abs(delta.value).T @ a_prev.error
    kink_weights = kink_bias = None
    if delta.kink is not None:
        rows = delta.kink.any(axis=1)
        kink_weights = delta.kink[rows].T @ (np.abs(a_prev.value[rows]) + a_prev.error[rows]) / batch
        kink_bias = delta.kink.sum(axis=0) / batch
    floor = batch * precision.tiny
    return (
        Bounded(grad_weights, error / batch + floor, kink_weights),
        Bounded(grad_bias, spread.sum(axis=0) / batch + floor, kink_bias),
    )


def cost(
    z: Bounded,
    a: Bounded,
    targets: np.ndarray,
    sample_weight: np.ndarray,
    activation: Activation,
    loss: Loss,
    precision: Precision,
) -> Bounded:
    """Bounds of the batch's mean cost."""
    value = reference.cost(z.value, a.value, targets, sample_weight, activation, loss)
    n = targets.shape[1]
    if loss.matched == activation.name == "softmax":
        terms, drift = _log_softmax_terms(z, a, targets, precision)
    elif loss.matched == activation.name:
        size = np.abs(z.value) + z.error
        terms = size * (1 + np.abs(targets)) + 1
        drift = z.error * (1 + np.abs(targets))
    elif loss.probabilities:
        terms, drift = _log_terms(a, targets, loss)
    else:
        difference = np.abs(a.value - targets)
        terms = (difference + a.error) ** 2
        drift = 2 * difference * a.error + a.error**2
    error = drift.sum(axis=1) + precision.gamma(n + LOG_ROUNDINGS + EXP_ROUNDINGS + 3) * terms.sum(axis=1)
    rows = sample_weight * error + precision.unit * np.abs(value) + precision.tiny
    return Bounded(value.mean(), rows.mean() + precision.unit * np.abs(value).mean())


def _log_softmax_terms(
    z: Bounded, a: Bounded, y: np.ndarray, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms y (ln Σ e^z − z), shifted by the row's largest z."""
    total = _sum_error(a.value, _exponent_error(z.value, z.error, precision), precision)
    shifted = np.abs(z.value - z.value.max(axis=1, keepdims=True))
    log_sum = np.log(a.value.shape[1])  # at most: the largest term of the sum is 1
    drift = 2 * z.error.max(axis=1, keepdims=True) - np.log1p(-np.minimum(total, 0.999))
    return np.abs(y) * (log_sum + shifted + drift), np.abs(y) * drift


def _log_terms(a: Bounded, y: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms y ln p, and (1 − y) ln(1 − p) for binary cross-entropy."""
    p, low, high, _, _ = _clipped_interval(a)
    terms = np.abs(y) * -np.log(low)
    drift = np.abs(y) * np.maximum(np.log(p / low), np.log(high / p))
    if loss.name == "binary_cross_entropy":
        q, q_low, q_high = 1 - p, 1 - high, 1 - low
        terms = terms - np.abs(1 - y) * np.log(q_low)
        drift = drift + np.abs(1 - y) * np.maximum(np.log(q / q_low), np.log(q_high / q))
    return terms, drift


def _hits(a: Bounded, targets: np.ndarray) -> tuple[int, int]:
    """The fewest and the most hits that a correct evaluation can count."""
    if a.value.shape[1] == 1:
        true = targets[:, 0] > 0.5
        margin = np.where(true, a.value[:, 0] - 0.5, 0.5 - a.value[:, 0])
        error = a.error[:, 0]
    else:
        true = targets.argmax(axis=1)
        rows = np.arange(len(true))
        gap = a.value[rows, true][:, None] - a.value
        doubt = a.error[rows, true][:, None] + a.error
        gap[rows, true], doubt[rows, true] = np.inf, 0
        worst = (gap - doubt).argmin(axis=1)
        margin, error = gap[rows, worst], doubt[rows, worst]
        # A rival may be out of doubt where another, farther behind, is not: the best case asks for all of them.
        possible = (gap + doubt >= 0).all(axis=1)
        return int((margin > error).sum()), int(possible.sum())
    return int((margin > error).sum()), int((margin >= -error).sum())


def backpropagate(
    layers: Sequence[Layer],
    parameters: Sequence[tuple[np.ndarray, np.ndarray]],
    loss_name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray,
    dtype: np.dtype | type,
) -> BoundedStep:
    """One batch through the reference in float64, with the error a correct evaluation in ``dtype`` may have.

    Inputs (B, n_in), targets (B, n_out) and sample weights (B,) hold values of ``dtype``, and so do parameters.
    """
    precision, loss = Precision.of(dtype), LOSSES[loss_name]
    activations = [ACTIVATIONS[layer.activation] for layer in layers]
    weights = [w.astype(np.float64) for w, _ in parameters]
    targets, sample_weight = targets.astype(np.float64), sample_weight.astype(np.float64)

    a, z = [Bounded.exact(inputs.astype(np.float64))], [Bounded.exact(np.zeros(()))]
    for w, (_, bias), activation in zip(weights, parameters, activations, strict=True):
        z_layer, a_layer = forward(a[-1], w, bias.astype(np.float64), activation, precision)
        z.append(z_layer)
        a.append(a_layer)
    mean_cost = cost(z[-1], a[-1], targets, sample_weight, activations[-1], loss, precision)

    n_in = [layer.n_in for layer in layers]
    delta = output_delta(z[-1], a[-1], n_in[-1], targets, sample_weight, activations[-1], loss, precision)
    gradients = [*weight_grad(delta, a[-2], precision)]
    for i in range(len(layers) - 1, 0, -1):
        delta = hidden_delta(delta, weights[i], z[i], a[i], n_in[i - 1], activations[i - 1], precision)
        gradients[:0] = weight_grad(delta, a[i - 1], precision)
    return BoundedStep(mean_cost, gradients, _hits(a[-1], targets))


def update(
    parameter: np.ndarray,
    gradient: Bounded,
    slots: Sequence[np.ndarray],
    kind: str,
    coefficients: Sequence[float],
    precision: Precision,
) -> list[Bounded]:
    """Bounds of the new parameter and slots, for the exact old ones and a gradient that may be off."""
    return (_sgd if kind == "sgd" else _adam)(parameter, gradient, slots, coefficients, precision)


def _sgd(parameter, gradient, slots, c, precision) -> list[Bounded]:
    lr, momentum, decay, nesterov = c
    unit, gamma = precision.unit, precision.gamma(6)
    direction = gradient.value + decay * parameter
    e_direction = gradient.error + 2 * unit * (
        np.abs(gradient.value) + gradient.error + np.abs(decay * parameter)
    )
    bounded = []
    step, e_step = direction, e_direction
    if slots:
        carried = momentum * slots[0]
        velocity = carried + direction
        e_velocity = e_direction + 2 * unit * (np.abs(carried) + np.abs(direction) + e_direction)
        bounded.append(Bounded(velocity, e_velocity + precision.tiny))
        step, e_step = velocity, e_velocity
        if nesterov:
            step = direction + momentum * velocity
            e_step = e_direction + momentum * e_velocity
            e_step = e_step + 2 * unit * (np.abs(direction) + np.abs(momentum * velocity) + e_step)
    new = parameter - lr * step
    error = lr * e_step + gamma * lr * (np.abs(step) + e_step) + unit * (np.abs(parameter) + np.abs(new))
    return [Bounded(new, error + precision.tiny), *bounded]


def _adam(parameter, gradient, slots, c, precision) -> list[Bounded]:
    rate, beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon, correction, decay, decoupled = c
    unit, gamma = precision.unit, precision.gamma(8)
    g = gradient.value + decay * parameter
    e_g = gradient.error + 2 * unit * (np.abs(gradient.value) + gradient.error + np.abs(decay * parameter))
    first = beta1 * slots[0] + one_minus_beta1 * g
    e_first = one_minus_beta1 * e_g
    e_first = e_first + 3 * unit * (np.abs(beta1 * slots[0]) + one_minus_beta1 * np.abs(g) + e_first)
    second = beta2 * slots[1] + one_minus_beta2 * g * g
    e_second = one_minus_beta2 * (2 * np.abs(g) * e_g + e_g * e_g)
    e_second = e_second + 4 * unit * (second + e_second) + precision.tiny
    # The quotient is not smooth where v is near 0 (there it is the sign of g): bound it by its interval.
    quotient = first / (np.sqrt(second) * correction + epsilon)
    low, high = np.sqrt(np.maximum(second - e_second, 0)), np.sqrt(second + e_second)
    ends = [
        (first + s * (e_first + precision.tiny)) / (root * correction + epsilon)
        for s in (-1, 1)
        for root in (low, high)
    ]
    e_quotient = np.maximum(np.max(ends, axis=0) - quotient, quotient - np.min(ends, axis=0))
    step = rate * quotient + decoupled * parameter
    new = parameter - step
    size = rate * (np.abs(quotient) + e_quotient) + np.abs(decoupled * parameter)
    error = rate * e_quotient + gamma * size + unit * (np.abs(parameter) + np.abs(new))
    return [
        Bounded(new, error + precision.tiny),
        Bounded(first, e_first + precision.tiny),
        Bounded(second, e_second),
    ]
