"""Activation and loss functions, in NumPy and in any float dtype: the formulas every backend is held to.

Two flat tables, ``ACTIVATIONS`` and ``LOSSES``, map a name to a few small pure functions. Derivatives of
activations are functions of the activation a = σ(z), so that no layer has to keep z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gpubp.errors import UsageError
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE, PROBABILITY_FLOOR
from gpubp.support.hints import did_you_mean


@dataclass(frozen=True)
class Activation:
    """σ: ``apply(z) -> a`` and ``slope(a) = σ'(z)``, both elementwise over (B, n), and how the two read.

    Every a lies between ``lowest`` and ``highest``. ``slope`` and its formula are None for softmax, whose Jacobian is
    no diagonal; :meth:`pull_back` serves both kinds.
    """

    name: str
    formula: str
    slope_formula: str | None
    apply: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray] | None
    lowest: float = -math.inf
    highest: float = math.inf

    def pull_back(self, gradient: np.ndarray, a: np.ndarray) -> np.ndarray:
        """∂C/∂z from ∂C/∂a: the product with the Jacobian ∂a/∂z, (B, n) and (B, n) to (B, n).

        For elementwise activations this is the Hadamard product with σ'(z); for softmax,
        ∂aᵢ/∂zⱼ = aᵢ(δᵢⱼ − aⱼ) gives aᵢ (gᵢ − Σⱼ gⱼ aⱼ).
        """
        if self.slope is None:
            return a * (gradient - (gradient * a).sum(axis=1, keepdims=True))
        return gradient * self.slope(a)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ᶻ), from e^-|z| so that nothing overflows."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softmax(z: np.ndarray) -> np.ndarray:
    """e^zᵢ / Σⱼ e^zⱼ along each row of (B, n), shifted by the row's maximum so that nothing overflows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


ACTIVATIONS = {
    f.name: f
    for f in (
        Activation("identity", "z", "1", lambda z: z.copy(), np.ones_like),
        Activation("sigmoid", "1 / (1 + e⁻ᶻ)", "a (1 − a)", sigmoid, lambda a: a * (1 - a), 0, 1),
        Activation("tanh", "tanh z", "1 − a²", np.tanh, lambda a: 1 - a * a, -1, 1),
        Activation(
            "lecun_tanh",
            "1.7159 tanh(2z/3)",
            "⅔ (1.7159 − a² / 1.7159)",
            lambda z: LECUN_SCALE * np.tanh(LECUN_RATE * z),
            lambda a: LECUN_RATE * (LECUN_SCALE - a * (a / LECUN_SCALE)),
            -LECUN_SCALE,
            LECUN_SCALE,
        ),
        Activation(
            "relu",
            "max(z, 0)",
            "1 if z > 0 else 0",
            lambda z: np.maximum(z, 0),
            lambda a: (a > 0).astype(a.dtype),
            0,
        ),
        Activation(
            "leaky_relu",
            "z if z > 0 else 0.01 z",
            "1 if z > 0 else 0.01",
            lambda z: np.where(z > 0, z, LEAKY_SLOPE * z),
            lambda a: np.where(a > 0, 1, LEAKY_SLOPE).astype(a.dtype),
        ),
        Activation("softmax", "e^zᵢ / Σⱼ e^zⱼ", None, softmax, None, 0, 1),
    )
}


@dataclass(frozen=True)
class Loss:
    """C of one sample: ``cost(a, y) -> (B,)`` and ``gradient(a, y) = ∇ₐC -> (B, n)``.

    Where the output activation is ``matched``, ∂C/∂z collapses to a − y, and ``cost_from_logits(z, y)`` is
    used instead of ``cost``: it takes the logarithm analytically, so no probability underflows to log 0.
    """

    name: str
    formula: str
    cost: Callable[[np.ndarray, np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray]
    matched: str | None = None
    cost_from_logits: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    probabilities: bool = False


def clipped(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs kept inside [ε, 1 − ε], ε = ``PROBABILITY_FLOOR``, and the mask of those that were inside already.

    The logarithmic losses of outputs that are not their matched activation go through this; outside the
    interval such a loss is constant and its gradient is 0.
    """
    p = np.clip(a, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return p, p == a


def _cross_entropy(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -(y * np.log(clipped(a)[0])).sum(axis=1)


def _cross_entropy_gradient(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    p, inside = clipped(a)
    return np.where(inside, -y / p, 0)


def _cross_entropy_from_logits(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    shifted = z - z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (y * (log_sum - shifted)).sum(axis=1)


def _binary_cross_entropy(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = clipped(a)[0]
    return -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=1)


def _binary_cross_entropy_gradient(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    p, inside = clipped(a)
    return np.where(inside, (p - y) / (p * (1 - p)), 0)


def _binary_cross_entropy_from_logits(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))).sum(axis=1)


LOSSES = {
    f.name: f
    for f in (
        # The literature has both conventions for the squared error; they differ by a factor of two in δ.
        Loss("quadratic", "½‖y−a‖²", lambda a, y: 0.5 * ((a - y) ** 2).sum(axis=1), lambda a, y: a - y),
        Loss("squared_error", "‖y−a‖²", lambda a, y: ((a - y) ** 2).sum(axis=1), lambda a, y: 2 * (a - y)),
        Loss(
            "cross_entropy",
            "−Σ y ln a",
            _cross_entropy,
            _cross_entropy_gradient,
            matched="softmax",
            cost_from_logits=_cross_entropy_from_logits,
            probabilities=True,
        ),
        Loss(
            "binary_cross_entropy",
            "−Σ y ln a + (1−y) ln(1−a)",
            _binary_cross_entropy,
            _binary_cross_entropy_gradient,
            matched="sigmoid",
            cost_from_logits=_binary_cross_entropy_from_logits,
            probabilities=True,
        ),
    )
}

T = TypeVar("T")


def lookup(table: dict[str, T], name: str, what: str) -> T:
    """``table[name]``, or a :class:`UsageError` that names the nearest valid one."""
    if name in table:
        return table[name]
    raise UsageError(f"unknown {what} {name!r}: {did_you_mean(name, table)}choose from {', '.join(table)}")
