"""The running error bound of one training step.

Every quantity is a :class:`Bounded`: its value in float64, from the reference's own functions, and an error that
no correct evaluation in the working dtype can exceed, whatever its order of summation. With u the unit roundoff
and γ_K = K u / (1 − K u), a sum of K products has |fl(Σ a b) − Σ a b| ≤ γ_K Σ|a||b| (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1), and errors already in a and b are carried through. Elementwise
functions add a few roundings, stated where they are used; monotone activations are bounded by their values at
both ends of the interval that z may lie in.

Where a correct evaluation may fall on either side of a kink (ReLU at z = 0, a clipped probability), both sides
are right: the error is widened by the whole jump.

The worst case grows with depth as the product of ‖W‖, far beyond what happens. So a ``variance`` runs along: what
the squared error comes to when roundings have independent signs, which for a sum of K products s_k with partial
sums that wander or grow evenly is at most about K u² (Σ s_k² + (Σ s_k)²) (Higham and Mary, SIAM J. Sci. Comput.
41, 2019). Errors in norm are held to :data:`DEVIATIONS` of its square root; the jumps of kinks that are as
probable as that are kept apart as ``kink``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpubp import reference
from gpubp.errors import UsageError
from gpubp.functions import Activation, Loss
from gpubp.kernels import (
    LEAKY_SLOPE,
    LECUN_RATE,
    LECUN_SCALE,
    PROBABILITY_FLOOR,
    AdamCoefficients,
    SGDCoefficients,
)
from gpubp.reference import Parameters

# Roundings of one activation in units of u: an exp within 2 ulp (4 u) or a tanh within 3, then the arithmetic on it.
# The functions of kernels/cpu/elementary.py are measured to keep to this (tests/kernels/cpu/test_elementary.py).
ACTIVATION_ROUNDINGS = {
    "identity": 0,
    "sigmoid": 8,  # exp 4, its sum and quotient with it at most half of that again, two of their own
    "tanh": 6,
    "lecun_tanh": 11,  # tanh 6; the argument and both constants are rounded, the product too
    "relu": 0,
    "leaky_relu": 2,
}
# Where σ has no one slope: at which z, and by how much its slope jumps there.
KINKS: dict[str, tuple[tuple[float, float], ...]] = {
    "relu": ((0.0, 1.0),),
    "leaky_relu": ((0.0, 1 - LEAKY_SLOPE),),
}
EXP_ROUNDINGS = 4
LOG_ROUNDINGS = 4

# Standard deviations allowed for. The roundings of a sum are not quite independent: where its terms come in runs of
# one sign, as those of neighbouring pixels do, its partial sums are up to √(K/12) of the above, 8 for K = 784.
DEVIATIONS = 16.0
LARGEST_EXPONENT = 100.0  # beyond e^100 an error bound says nothing more


@dataclass(frozen=True)
class Precision:
    """The working dtype: u, with the reference's own float64 roundoff on top, and its underflow threshold.

    Of matrix products, ``sum_unit`` is what one term adds to the error of their sums; on tensor cores, ``factor_unit``
    is that of each factor, which is rounded first.
    """

    unit: float
    tiny: float
    sum_unit: float
    factor_unit: float = 0.0

    @classmethod
    def of(cls, dtype: np.dtype | type, products: str = "float32") -> Precision:
        """Return that of a dtype; ``products`` names how those of float32 matrices are computed.

        "tf32" rounds factors to 11 bits and truncates sums, so that a term costs them 2 u. "3xtf32" splits a factor
        into two such numbers, which leaves 2⁻²² of it, and drops the product of the second ones, 2⁻²² of the product:
        3 · 2⁻²² for both factors; it adds up three products a term.
        """
        info = np.finfo(dtype)
        unit = float(info.eps) / 2 + 2.0**-53
        sum_unit, factor_unit = {
            "float32": (unit, 0.0),
            "tf32": (2 * unit, 2.0**-11),
            "3xtf32": (6 * unit, 1.5 * 2.0**-22),
        }[products]
        return cls(unit, float(info.tiny), sum_unit, factor_unit)

    def gamma(self, k: int) -> float:
        """γ_k, or infinity where k u ≥ 1 and nothing is known."""
        return _gamma(k * self.unit)

    def product_gamma(self, k: int) -> float:
        """γ_k for a sum of k terms of a matrix product."""
        factors = self.factor_unit * (2 + self.factor_unit)
        gamma = _gamma(k * self.sum_unit)
        return factors + gamma * (1 + factors)


def _gamma(ku: float) -> float:
    return ku / (1 - ku) if ku < 1 else np.inf


@dataclass(frozen=True)
class Bounded:
    """A value, the largest error and the error variance of a correct evaluation, and its probable kinks' jumps.

    The variance leaves out the kinks, which are no roundings.
    """

    value: np.ndarray
    error: np.ndarray
    variance: np.ndarray
    kink: np.ndarray | None = None

    @classmethod
    def exact(cls, value: np.ndarray) -> Bounded:
        return cls(value, np.zeros_like(value), np.zeros_like(value))

    @property
    def deviation(self) -> np.ndarray:
        """The error that is still probable."""
        return DEVIATIONS * np.sqrt(self.variance)


@dataclass(frozen=True)
class BoundedStep:
    """The mean cost of a batch, its gradients [∂C/∂W₁, ∂C/∂b₁, …], and the fewest and most hits it can have.

    ``delta`` is that of the first layer, for what it takes of these ``inputs``.
    """

    cost: Bounded
    gradients: list[Bounded]
    hits: tuple[int, int]
    delta: Bounded
    inputs: Bounded

    @property
    def size(self) -> np.ndarray:
        """The most that Σ |δ| |a_prev| / B can be for W₁."""
        delta = np.abs(self.delta.value) + self.delta.error
        return delta.T @ (np.abs(self.inputs.value) + self.inputs.error) / len(delta)


def forward(
    a_prev: Bounded, weights: np.ndarray, bias: np.ndarray, activation: Activation, precision: Precision
) -> tuple[Bounded, Bounded]:
    """Bounds of z and a for exact parameters and an ``a_prev`` that may be off."""
    z, a = reference.forward(a_prev.value, weights, bias, activation)
    gamma = precision.product_gamma(weights.shape[1] + 1)
    spread = a_prev.error + gamma * (np.abs(a_prev.value) + a_prev.error)
    e_z = spread @ np.abs(weights).T + gamma * np.abs(bias) + weights.shape[1] * precision.tiny
    z_bound = Bounded(z, e_z, _product_variance(a_prev, (weights**2).T, z, weights.shape[1], precision))
    unit = precision.unit
    if activation.slope is None:
        return z_bound, _softmax(z_bound, a, precision)
    drift = np.maximum(activation.apply(z + e_z) - a, a - activation.apply(z - e_z))
    roundings = ACTIVATION_ROUNDINGS[activation.name] * unit
    variance = activation.slope(a) ** 2 * z_bound.variance + (roundings * a) ** 2
    return z_bound, Bounded(a, drift + roundings * (np.abs(a) + drift) + precision.tiny, variance)


def _product_variance(
    a: Bounded, squares: np.ndarray, product: np.ndarray, terms: int, precision: Precision
) -> np.ndarray:
    """Error variance of ``product``, sums of ``terms`` products of ``a`` with exact factors of these squares."""
    rounding = terms * precision.sum_unit**2
    of_factors = 2 * precision.factor_unit**2
    return (a.variance + (rounding + of_factors) * a.value**2) @ squares + rounding * product**2


def _exponent_error(z: Bounded, precision: Precision) -> np.ndarray:
    """Relative error of e^(z − max z): that of the argument, twice the row's largest e_z, and of exp itself."""
    shifted = np.abs(z.value - z.value.max(axis=1, keepdims=True))
    argument = 2 * z.error.max(axis=1, keepdims=True) + precision.unit * shifted
    return np.expm1(np.minimum(argument + EXP_ROUNDINGS * precision.unit, LARGEST_EXPONENT))


def _softmax(z: Bounded, a: np.ndarray, precision: Precision) -> Bounded:
    """Bounds of a: relative errors of its exponential and of the sum, each term's weighted by its share a."""
    relative = _exponent_error(z, precision)
    total = (a * relative).sum(axis=1, keepdims=True) + precision.gamma(a.shape[1] + 1)
    known = total < 0.5
    error = (relative + total + precision.unit) / (1 - np.where(known, total, 0))
    error = np.where(known, a * error, 1.0)  # a probability is never off by more than 1
    shifted = z.value - z.value.max(axis=1, keepdims=True)
    exponent = z.variance + precision.unit**2 * (shifted**2 + EXP_ROUNDINGS**2)
    spread = (a * exponent).sum(axis=1, keepdims=True) + a.shape[1] * precision.unit**2
    return Bounded(a, error + precision.tiny, 2 * a**2 * (exponent + spread))


def drop(a: Bounded, mask: np.ndarray | None, precision: Precision) -> Bounded:
    """Bounds of a ⊙ m, whose mask is 0 or 1/(1 − p): that number is rounded, and its product with what is kept."""
    if mask is None:
        return a
    value, rounding = a.value * mask, precision.gamma(2)
    error = mask * (a.error + rounding * (np.abs(a.value) + a.error)) + precision.tiny * (mask > 0)
    variance = mask**2 * a.variance + (rounding * value) ** 2
    return Bounded(value, error, variance, None if a.kink is None else mask * a.kink)


def pull_back(
    gradient: Bounded, z: Bounded, a: Bounded, activation: Activation, precision: Precision
) -> Bounded:
    """Bounds of ∂C/∂z from those of ∂C/∂a: times σ'(z), or the softmax Jacobian."""
    if activation.slope is None:
        return _softmax_pull_back(gradient, a, activation, precision)
    g, e_g, unit = np.abs(gradient.value), gradient.error, precision.unit
    slope = np.abs(activation.slope(a.value))
    e_slope, slope_variance = SLOPE_ERRORS[activation.name](a, unit)
    error = e_g * slope + g * e_slope + e_g * e_slope + unit * (g + e_g) * (slope + e_slope)
    variance = slope**2 * gradient.variance + g**2 * (slope_variance + unit**2 * slope**2)
    kink = None if gradient.kink is None else gradient.kink * (slope + e_slope)
    for place, jump in KINKS.get(activation.name, ()):
        distance = np.abs(z.value - place) - _kink_width(place, jump, activation, unit)
        error = error + np.where(distance <= z.error, jump * (g + e_g), 0)
        probable = distance <= z.deviation
        if probable.any():
            kink = np.where(probable, jump * (g + gradient.deviation), 0 if kink is None else kink)
    return Bounded(gradient.value * activation.slope(a.value), error + precision.tiny, variance, kink)


def _kink_width(place: float, jump: float, activation: Activation, unit: float) -> float:
    """The distance from a kink within which a computed a may lie on its other side, or at it.

    σ rises by ``jump`` times that or more on one side of the kink, and roundings of σ(place), one more if it is a
    constant, are all that can hide it. The place is rounded too.
    """
    height = float(np.abs(activation.apply(np.full((1, 1), place)))[0, 0])
    return unit * (abs(place) + (ACTIVATION_ROUNDINGS[activation.name] + 1) * height / abs(jump))


def _softmax_pull_back(
    gradient: Bounded, a: Bounded, activation: Activation, precision: Precision
) -> Bounded:
    g, e_g, p, e_a, unit = np.abs(gradient.value), gradient.error, np.abs(a.value), a.error, precision.unit
    products = e_g * p + g * e_a + e_g * e_a
    e_mean = (products + precision.gamma(p.shape[1]) * (g * p + products)).sum(axis=1, keepdims=True)
    mean = (g * p).sum(axis=1, keepdims=True)
    error = e_a * (g + mean) + (p + e_a) * (e_g + e_mean + 3 * unit * (g + mean + e_g + e_mean))
    rounding = p.shape[1] * unit**2
    mean_variance = p**2 * gradient.variance + g**2 * a.variance + rounding * (g * p) ** 2
    mean_variance = mean_variance.sum(axis=1, keepdims=True) + rounding * mean**2
    variance = p**2 * (gradient.variance + mean_variance + 3 * unit**2 * (g + mean) ** 2)
    variance = variance + (g + mean) ** 2 * a.variance
    value, kink = activation.pull_back(gradient.value, a.value), gradient.kink
    if kink is not None:
        kink = p * (kink + (kink * p).sum(axis=1, keepdims=True))
    return Bounded(value, error + precision.tiny, variance, kink)


def _no_slope_error(a: Bounded, unit: float) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(a.value), np.zeros_like(a.value)


def _sigmoid_slope_error(a: Bounded, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The error of a (1 − a): three roundings."""
    size, rest, e = np.abs(a.value), np.abs(1 - a.value), a.error
    slope = np.abs(1 - 2 * a.value)
    error = slope * e + e * e + 3 * unit * (size + e) * (rest + e)
    return error, slope**2 * a.variance + (3 * unit * size * rest) ** 2


def _tanh_slope_error(a: Bounded, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The error of 1 − a²."""
    size, e = np.abs(a.value), a.error
    error = 2 * size * e + e * e + 2 * unit * (1 + (size + e) ** 2)
    return error, 4 * size**2 * a.variance + (2 * unit * (1 + size**2)) ** 2


def _lecun_tanh_slope_error(a: Bounded, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The error of ⅔ (A − a²/A), both constants rounded."""
    size, e = np.abs(a.value), a.error
    square = 2 * size * e + e * e
    rounding = 6 * unit * (LECUN_SCALE + (size + e) ** 2 / LECUN_SCALE)
    slope = 2 * LECUN_RATE / LECUN_SCALE * size
    variance = slope**2 * a.variance + (LECUN_RATE * rounding) ** 2
    return LECUN_RATE * (square / LECUN_SCALE + rounding), variance


def _leaky_relu_slope_error(a: Bounded, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The error of a constant, rounded."""
    constant = np.full_like(a.value, unit * LEAKY_SLOPE)
    return constant, constant**2


# Largest error and variance of σ'(z) as computed from an a that may be off, away from any kink.
SLOPE_ERRORS: dict[str, Callable[[Bounded, float], tuple[np.ndarray, np.ndarray]]] = {
    "identity": _no_slope_error,
    "sigmoid": _sigmoid_slope_error,
    "tanh": _tanh_slope_error,
    "lecun_tanh": _lecun_tanh_slope_error,
    "relu": _no_slope_error,
    "leaky_relu": _leaky_relu_slope_error,
}


def output_delta(
    z: Bounded,
    a: Bounded,
    targets: np.ndarray,
    sample_weight: np.ndarray,
    activation: Activation,
    loss: Loss,
    precision: Precision,
) -> Bounded:
    """Bounds of BP1."""
    unit = precision.unit
    if loss.matched == activation.name:
        difference = a.value - targets
        error = a.error + unit * (np.abs(difference) + a.error)
        delta = Bounded(difference, error, a.variance + unit**2 * difference**2)
    else:
        gradient = _loss_gradient(a, targets, loss, precision)
        delta = pull_back(gradient, z, a, activation, precision)
    w = sample_weight[:, None]
    value = reference.output_delta(a.value, targets, sample_weight, activation, loss)
    error = w * delta.error + unit * (np.abs(value) + w * delta.error) + precision.tiny
    variance = w**2 * delta.variance + unit**2 * value**2
    return Bounded(value, error, variance, None if delta.kink is None else w * delta.kink)


def _loss_gradient(a: Bounded, y: np.ndarray, loss: Loss, precision: Precision) -> Bounded:
    value, unit = loss.gradient(a.value, y), precision.unit
    if not loss.probabilities:
        factor = 2 if loss.name == "squared_error" else 1
        error = factor * a.error + 2 * unit * (np.abs(value) + factor * a.error)
        return Bounded(value, error, factor**2 * a.variance + (2 * unit * value) ** 2)
    p, low, high, outside, edge = _clipped_interval(a, a.error)
    sizes, slope = np.abs(y) / low, np.abs(y) / p**2
    error = np.abs(y) * (1 / low - 1 / p)
    if loss.name == "binary_cross_entropy":
        sizes, slope = sizes + np.abs(1 - y) / (1 - high), slope + np.abs(1 - y) / (1 - p) ** 2
        error = error + np.abs(1 - y) * (1 / (1 - high) - 1 / (1 - p))
    error = np.where(outside, 0.0, error + 5 * unit * sizes)
    variance = np.where(outside, 0.0, slope**2 * a.variance + (5 * unit * slope * p) ** 2)
    jump = sizes * (1 + 5 * unit)
    probable = _clipped_interval(a, a.deviation)[-1]
    kink = np.where(probable, jump, 0.0) if probable.any() else None
    return Bounded(value, np.where(edge, np.maximum(error, jump), error), variance, kink)


def _clipped_interval(a: Bounded, error: np.ndarray) -> tuple[np.ndarray, ...]:
    """p = clip(a), its lowest and highest if a is off by ``error``, where it is surely clipped, and where perhaps."""
    floor, ceiling = PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR
    low, high = a.value - error, a.value + error
    outside = (high < floor) | (low > ceiling)
    edge = ~outside & ((low < floor) | (high > ceiling))
    p = np.clip(a.value, floor, ceiling)
    return p, np.clip(low, floor, ceiling), np.clip(high, floor, ceiling), outside, edge


def hidden_delta(
    delta_next: Bounded,
    weights_next: np.ndarray,
    z: Bounded,
    a: Bounded,
    activation: Activation,
    precision: Precision,
    mask: np.ndarray | None = None,
) -> Bounded:
    """Bounds of BP2."""
    gamma = precision.product_gamma(len(weights_next))
    size = np.abs(weights_next)
    spread = delta_next.error + gamma * (np.abs(delta_next.value) + delta_next.error)
    kink = None if delta_next.kink is None else _few_rows(delta_next.kink, size)
    value = delta_next.value @ weights_next
    variance = _product_variance(delta_next, weights_next**2, value, len(weights_next), precision)
    gradient = Bounded(value, spread @ size + len(weights_next) * precision.tiny, variance, kink)
    return pull_back(drop(gradient, mask, precision), z, a, activation, precision)


def _few_rows(kink: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``kink @ weights`` by the rows that are not all 0: kinks are rare, and most rows have none."""
    rows, result = kink.any(axis=1), np.zeros((len(kink), weights.shape[1]))
    result[rows] = kink[rows] @ weights
    return result


def weight_grad(delta: Bounded, a_prev: Bounded, precision: Precision) -> tuple[Bounded, Bounded]:
    """Bounds of BP4 and BP3."""
    grad_weights, grad_bias = reference.weight_grad(delta.value, a_prev.value)
    batch = len(delta.value)
    gamma = precision.product_gamma(batch + 2)
    spread = delta.error + gamma * (np.abs(delta.value) + delta.error)
    error = spread.T @ (np.abs(a_prev.value) + a_prev.error)
    if a_prev.error.any():
        error += np.abs(delta.value).T @ a_prev.error
    ones = np.ones((batch, 1))
    transposed = Bounded(delta.value.T, delta.error.T, delta.variance.T)
    variance = _product_variance(transposed, a_prev.value**2, grad_weights * batch, batch, precision)
    if a_prev.variance.any():
        variance += (delta.value**2).T @ a_prev.variance
    bias_variance = _product_variance(transposed, ones, grad_bias[:, None] * batch, batch, precision)[:, 0]
    kink_weights = kink_bias = None
    if delta.kink is not None:
        rows = delta.kink.any(axis=1)
        kink_weights = delta.kink[rows].T @ (np.abs(a_prev.value[rows]) + a_prev.deviation[rows]) / batch
        kink_bias = delta.kink.sum(axis=0) / batch
    floor = batch * precision.tiny
    return (
        Bounded(grad_weights, error / batch + floor, variance / batch**2, kink_weights),
        Bounded(grad_bias, spread.sum(axis=0) / batch + floor, bias_variance / batch**2, kink_bias),
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
    """Bounds of the batch's mean cost. Its variance is that of errors that all have the same sign."""
    value = reference.cost(z.value, a.value, targets, sample_weight, activation, loss)
    n = targets.shape[1]
    if loss.matched == activation.name:
        softmax = activation.slope is None
        terms, drift = _log_softmax_terms(z, targets) if softmax else _log_sigmoid_terms(z, targets)
        probable = np.abs(a.value - targets) * np.sqrt(z.variance)
    else:
        terms, drift = _log_terms(a, targets, loss) if loss.probabilities else _square_terms(a, targets)
        probable = np.abs(loss.gradient(a.value, targets)) * np.sqrt(a.variance)
    roundings = n + LOG_ROUNDINGS + EXP_ROUNDINGS + 3
    error = drift.sum(axis=1) + precision.gamma(roundings) * terms.sum(axis=1)
    rows = sample_weight * error + precision.unit * np.abs(value) + precision.tiny
    probable_rows = sample_weight * (probable + precision.unit * roundings**0.5 * terms).sum(axis=1)
    own = precision.unit * np.abs(value).mean()  # of the mean itself
    return Bounded(*map(np.asarray, (value.mean(), rows.mean() + own, (probable_rows.mean() + own) ** 2)))


def _square_terms(a: Bounded, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms (a − y)²; half of both for the quadratic cost, which this need not tell."""
    difference = np.abs(a.value - y)
    return (difference + a.error) ** 2, 2 * difference * a.error + a.error**2


def _log_sigmoid_terms(z: Bounded, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms max(z, 0) − zy + ln(1 + e^-|z|)."""
    factor = 1 + np.abs(y)
    return (np.abs(z.value) + z.error) * factor + 1, z.error * factor


def _log_softmax_terms(z: Bounded, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms y (ln Σ e^z − z), shifted by the row's largest z.

    ln Σ e^z moves by no more than the z that moves most, and so its difference from z by twice that.
    """
    shifted = np.abs(z.value - z.value.max(axis=1, keepdims=True))
    log_sum = np.log(z.value.shape[1]) + 1  # at most, as its largest term is 1; and its relative rounding
    drift = 2 * z.error.max(axis=1, keepdims=True)
    return np.abs(y) * (log_sum + shifted + drift), np.abs(y) * drift


def _log_terms(a: Bounded, y: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and drifts of the terms y ln p, and (1 − y) ln(1 − p) for binary cross-entropy."""
    p, low, high, _, _ = _clipped_interval(a, a.error)
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
        margin, error = np.where(targets > 0.5, a.value - 0.5, 0.5 - a.value)[:, 0], a.error[:, 0]
        return int((margin > error).sum()), int((margin >= -error).sum())
    true, rows = targets.argmax(axis=1), np.arange(len(targets))
    gap = a.value[rows, true][:, None] - a.value
    doubt = a.error[rows, true][:, None] + a.error
    gap[rows, true], doubt[rows, true] = np.inf, 0
    worst = (gap - doubt).argmin(axis=1)
    certain = gap[rows, worst] > doubt[rows, worst]
    # A rival may be out of doubt where another, farther behind, is not: the best case asks for all of them.
    possible = (gap + doubt >= 0).all(axis=1)
    return int(certain.sum()), int(possible.sum())


def backpropagate(
    parameters: Parameters,
    activations: Sequence[Activation],
    loss: Loss,
    inputs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray,
    precision: Precision,
    masks: Sequence[np.ndarray | None] | None = None,
) -> BoundedStep:
    """One batch through the reference in float64, with the error a correct evaluation in ``precision`` may have.

    Inputs (B, n_in), targets (B, n_out) and sample weights (B,) hold values of its dtype, and so do parameters;
    ``masks`` are those of the inputs of each layer, in float64.
    """
    weights = [w.astype(np.float64) for w, _ in parameters]
    targets, sample_weight = targets.astype(np.float64), sample_weight.astype(np.float64)

    masks = masks or [None] * len(weights)
    a, z, taken = [Bounded.exact(inputs.astype(np.float64))], [Bounded.exact(np.zeros(()))], []
    for w, (_, bias), activation, mask in zip(weights, parameters, activations, masks, strict=True):
        taken.append(drop(a[-1], mask, precision))
        z_layer, a_layer = forward(taken[-1], w, bias.astype(np.float64), activation, precision)
        z.append(z_layer)
        a.append(a_layer)
    mean_cost = cost(z[-1], a[-1], targets, sample_weight, activations[-1], loss, precision)

    delta = output_delta(z[-1], a[-1], targets, sample_weight, activations[-1], loss, precision)
    gradients = [*weight_grad(delta, taken[-1], precision)]
    for i in range(len(weights) - 1, 0, -1):
        delta = hidden_delta(delta, weights[i], z[i], a[i], activations[i - 1], precision, masks[i])
        gradients[:0] = weight_grad(delta, taken[i - 1], precision)
    return BoundedStep(mean_cost, gradients, _hits(a[-1], targets), delta, taken[0])


def worst_only(value: np.ndarray | float, error: np.ndarray | float) -> Bounded:
    """A quantity whose largest error is known and whose norm is not asked for."""
    return Bounded(np.asarray(value), np.asarray(error), np.zeros_like(value))


def known_side(a: np.ndarray) -> Bounded:
    """A z far from every kink, where an operation is given a itself and no side is in doubt."""
    return worst_only(np.full(a.shape, np.inf), np.zeros(a.shape))


def update(
    parameter: np.ndarray,
    gradient: Bounded,
    slots: Sequence[np.ndarray],
    kind: str,
    coefficients: Sequence[float],
    precision: Precision,
) -> list[Bounded]:
    """Bounds of the new parameter and slots, for the exact old ones and a gradient that may be off."""
    if kind not in UPDATES:
        raise UsageError(f'no bound is known for optimizer {kind!r} ({__name__}): train with verify="off"')
    return UPDATES[kind](parameter, gradient, slots, coefficients, precision)


def update_by_sample(
    parameter: np.ndarray,
    gradient: np.ndarray,
    size: np.ndarray,
    batch: int,
    rate: float,
    precision: Precision,
) -> Bounded:
    """Bounds of W − η ∂C/∂W where each of the batch's samples adds its own product to W, as SGD may.

    ``size`` is Σ |δ| |a_prev| / B. Each sum that is rounded is at most |W| + η size, there are B of them, and the
    products are rounded once before; the gradient itself was summed apart, and is off by as much.
    """
    (new,) = _sgd(parameter, Bounded.exact(gradient), [], SGDCoefficients(rate, 0, 0, 0), precision)
    rounding = precision.gamma(batch + 2) * (np.abs(parameter) + 2 * rate * size)
    return worst_only(new.value, new.error + rounding)


def _decayed(parameter, gradient, decay, precision) -> tuple[np.ndarray, np.ndarray]:
    """The gradient with weight decay, and its error."""
    size = np.abs(gradient.value) + gradient.error + np.abs(decay * parameter)
    return gradient.value + decay * parameter, gradient.error + precision.gamma(2) * size


def _sgd(parameter, gradient, slots, c, precision) -> list[Bounded]:
    c = SGDCoefficients(*c)
    unit, two, gamma = precision.gamma(1), precision.gamma(2), precision.gamma(6)
    direction, e_direction = _decayed(parameter, gradient, c.decay, precision)
    bounded = []
    step, e_step = direction, e_direction
    if slots:
        carried = c.momentum * slots[0]
        velocity = carried + direction
        e_velocity = e_direction + two * (np.abs(carried) + np.abs(direction) + e_direction)
        bounded.append(worst_only(velocity, e_velocity + precision.tiny))
        step, e_step = velocity, e_velocity
        if c.nesterov:
            step = direction + c.momentum * velocity
            e_step = e_direction + c.momentum * e_velocity
            e_step = e_step + two * (np.abs(direction) + np.abs(c.momentum * velocity) + e_step)
    new = parameter - c.lr * step
    error = c.lr * e_step + gamma * c.lr * (np.abs(step) + e_step) + unit * (np.abs(parameter) + np.abs(new))
    return [worst_only(new, error + precision.tiny), *bounded]


def _adam(parameter, gradient, slots, c, precision) -> list[Bounded]:
    c = AdamCoefficients(*c)
    unit, gamma = precision.gamma(1), precision.gamma(8)
    g, e_g = _decayed(parameter, gradient, c.decay, precision)
    first = c.beta1 * slots[0] + c.rest1 * g
    e_first = c.rest1 * e_g
    e_first = e_first + precision.gamma(3) * (np.abs(c.beta1 * slots[0]) + c.rest1 * np.abs(g) + e_first)
    second = c.beta2 * slots[1] + c.rest2 * g * g
    e_second = c.rest2 * (2 * np.abs(g) * e_g + e_g * e_g)
    e_second = e_second + precision.gamma(4) * (second + e_second) + precision.tiny
    # The quotient is not smooth where v is near 0 (there it is the sign of g): bound it by its interval.
    quotient = first / (np.sqrt(second) * c.correction + c.epsilon)
    low, high = np.sqrt(np.maximum(second - e_second, 0)), np.sqrt(second + e_second)
    ends = [
        (first + s * (e_first + precision.tiny)) / (root * c.correction + c.epsilon)
        for s in (-1, 1)
        for root in (low, high)
    ]
    e_quotient = np.maximum(np.max(ends, axis=0) - quotient, quotient - np.min(ends, axis=0))
    step = c.rate * quotient + c.decoupled * parameter
    new = parameter - step
    size = c.rate * (np.abs(quotient) + e_quotient) + np.abs(c.decoupled * parameter)
    error = c.rate * e_quotient + gamma * size + unit * (np.abs(parameter) + np.abs(new))
    return [
        worst_only(new, error + precision.tiny),
        worst_only(first, e_first + precision.tiny),
        worst_only(second, e_second),
    ]


UPDATES = {"sgd": _sgd, "adam": _adam, "adamw": _adam}  # by kind of optimizer
