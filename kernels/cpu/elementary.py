"""exp, log and tanh of vectors, each from one Taylor series, within the roundings that the bounds allow them.

The series are cut where what is left out is far below half a unit in the last place.
"""

from __future__ import annotations

import math

from gpubp.kernels.cpu.vector import Lanes, multiply_add

# By the width of a number in bits.
# ln 2 = the first + the second; whole multiples of the first, up to the largest exponent, are exact.
LN2 = {32: (0.693145751953125, 1.4286068203094173e-06), 64: (0.6931471805598903, 5.497923018708371e-14)}
# Where e^x stops being a normal number; below, it is taken for 0.
LOWEST = {32: -87.33654, 64: -708.3964185322641}
EXP_TERMS = {32: 8, 64: 14}  # r^j / j! up to this j, for |r| ≤ ½ ln 2
LOG_TERMS = {32: 6, 64: 12}  # 2 s^(2j) / (2j + 1) up to this j, for |s| ≤ 3 − 2√2


def _polynomial(x: Lanes, coefficients: list[float]) -> Lanes:
    """Σ c_j x^j, by Horner's rule from the last on."""
    *others, last = coefficients
    p = x.emit.constant(last)
    for coefficient in reversed(others):
        p = multiply_add(p, x, coefficient)
    return p


def _reduce(x: Lanes) -> tuple[Lanes, Lanes]:
    """(k, r) with x = k ln 2 + r, k whole and |r| ≤ ½ ln 2; where x is too low for that, any k, and NaN stays in r."""
    bits = x.emit.bits
    k = (x.where(x > LOWEST[bits], LOWEST[bits]) * (1 / math.log(2))).nearest()
    high, low = LN2[bits]
    return k, multiply_add(k, -low, multiply_add(k, -high, x))


def exp(x: Lanes) -> Lanes:
    """e^x for x ≤ 0, which is all that sigmoid, softmax and their costs ask for."""
    k, r = _reduce(x)
    p = _polynomial(r, [1 / math.factorial(j) for j in range(EXP_TERMS[x.emit.bits] + 1)])
    result = p * k.power_of_two()
    return x.emit.constant(0).where(x < LOWEST[x.emit.bits], result)


def expm1(x: Lanes) -> Lanes:
    """e^x − 1 for x ≤ 0."""
    k, r = _reduce(x)
    p = _polynomial(r, [1 / math.factorial(j) for j in range(2, EXP_TERMS[x.emit.bits] + 1)])
    p = multiply_add(p, r * r, r)  # e^r − 1
    scale = k.power_of_two()
    result = multiply_add(scale, p, scale - 1)
    return x.emit.constant(-1).where(x < LOWEST[x.emit.bits], result)


def log(x: Lanes) -> Lanes:
    """ln x for positive normal x."""
    m, k = x.split()
    # ln m = 2 artanh s = f − s (f − s² (⅔ + …)) with f = m − 1 exact and s = f / (m + 1).
    f = m - 1 + (x - x)  # + NaN, if x is
    s = f / (m + 1)
    square = s * s
    p = _polynomial(square, [2 / (2 * j + 1) for j in range(1, LOG_TERMS[x.emit.bits] + 1)])
    high, low = LN2[x.emit.bits]
    return multiply_add(k, high, f + multiply_add(k, low, s * (p * square - f)))


def log1p(x: Lanes) -> Lanes:
    """ln(1 + x) for x > −1."""
    u = 1 + x
    return log(u) + (x - (u - 1)) / u  # with what rounding 1 + x took away


def tanh(x: Lanes) -> Lanes:
    """tanh x, from e^(−2|x|) − 1."""
    m = expm1(-2 * x.absolute())
    negative = m / (2 + m)
    return negative.where(x < 0, -negative)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e⁻ˣ), from e^-|x|."""
    e = exp(-x.absolute())
    return e.where(x < 0, 1) / (1 + e)
