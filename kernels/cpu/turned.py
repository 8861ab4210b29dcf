"""Whole rows, turned: a vector holds one unit's value for as many samples as it has lanes.

What needs all of a row (softmax, a cost, which output is the largest) is then a loop over vectors for all these
samples at once, and no lane waits for another. A block of n units lies at block, block + lanes, …: n vectors, on
which elementwise functions work as on a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from numba import types

from gpubp import kernels
from gpubp.kernels.cpu.elementary import exp, log, log1p, sigmoid
from gpubp.kernels.cpu.rowwise import activate, pull_back
from gpubp.kernels.cpu.vector import INT64, Emit, Lanes, emitted, index

SOFTMAX = kernels.ACTIVATIONS["softmax"]
FLOOR, CEILING = kernels.PROBABILITY_FLOOR, 1 - kernels.PROBABILITY_FLOOR


def _each_unit(emit: Emit, n, carried, body) -> list:
    """body(place in the block, *carried) for each of n units."""
    return emit.loop(index(0), emit.multiply(n, index(emit.lanes)), emit.lanes, carried, body)


def _exponentials(emit: Emit, memory, z, n, target) -> tuple[Lanes, Lanes]:
    """e^(z − max z) at ``target``; returns max z and the sum."""

    def larger(i, largest):
        value = emit.load_lanes(memory, emit.add(z, i))
        return [value.where(value > largest, largest)]

    (largest,) = _each_unit(emit, n, [emit.constant(-math.inf)], larger)

    def exponential(i, total):
        e = exp(emit.load_lanes(memory, emit.add(z, i)) - largest)
        emit.store_lanes(e, memory, emit.add(target, i))
        return [total + e]

    (total,) = _each_unit(emit, n, [emit.constant(0)], exponential)
    return largest, total


@emitted()
def softmax(emit, memory, z, n):
    """z becomes softmax(z)."""
    _, total = _exponentials(emit, memory, z, n, z)

    def divide(i):
        place = emit.add(z, i)
        emit.store_lanes(emit.load_lanes(memory, place) / total, memory, place)
        return []

    _each_unit(emit, n, [], divide)


@emitted()
def pull_back_softmax(emit, memory, delta, a, n):
    """∂C/∂a becomes ∂C/∂z = a ⊙ (∂C/∂a − Σ a ∂C/∂a)."""

    def both(i):
        return emit.load_lanes(memory, emit.add(delta, i)), emit.load_lanes(memory, emit.add(a, i))

    def add(i, total):
        d, a = both(i)
        return [total + d * a]

    (mean,) = _each_unit(emit, n, [emit.constant(0)], add)

    def subtract(i):
        d, a = both(i)
        emit.store_lanes(a * (d - mean), memory, emit.add(delta, i))
        return []

    _each_unit(emit, n, [], subtract)


def _loss_terms(loss: str, a: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """The terms of C and ∇ₐC, for outputs that are not the loss's matched activation."""
    if loss == "quadratic":
        difference = a - y
        return 0.5 * (difference * difference), difference
    if loss == "squared_error":
        difference = a - y
        return difference * difference, 2 * difference
    low, high = a < FLOOR, a > CEILING
    p = a.emit.constant(FLOOR).where(low, a.emit.constant(CEILING).where(high, a))
    if loss == "cross_entropy":
        term, gradient = -(y * log(p)), -(y / p)
    else:
        term, gradient = -(y * log(p) + (1 - y) * log1p(-p)), (p - y) / (p * (1 - p))
    zero = a.emit.constant(0)  # outside [ε, 1 − ε], the cost is constant
    return term, zero.where(low, zero.where(high, gradient))


@emitted(types.float64)
def output(emit, memory, z, y, delta, n, weight, rows, batch, activation, loss):
    """z becomes a = σ(z), and delta w/B ∇ₐC ⊙ σ'(z); returns Σ w C over the samples of the first ``rows`` lanes.

    memory[weight : weight + lanes] are the samples' weights w; lanes without a sample get a δ of 0.
    """
    builder = emit.builder
    weights = emit.load_lanes(memory, weight).where(emit.first_lanes(rows), 0)
    scale = weights / emit.spread(builder.sitofp(batch, emit.element))
    cost = builder.alloca(emit.vector)

    def at(block, i) -> Lanes:
        return emit.load_lanes(memory, emit.add(block, i))

    def put(value: Lanes, block, i) -> None:
        emit.store_lanes(value, memory, emit.add(block, i))

    def sum_terms(term: Callable) -> None:
        (total,) = _each_unit(emit, n, [emit.constant(0)], lambda i, total: [total + term(i)])
        builder.store(total.value, cost)

    def softmax_cross_entropy() -> None:
        largest, total = _exponentials(emit, memory, z, n, delta)
        log_total = log(total)

        def term(i):
            value, target = at(z, i), at(y, i)
            a = at(delta, i) / total
            put(a, z, i)
            put((a - target) * scale, delta, i)
            return target * (log_total - (value - largest))  # −y ln a, without the logarithm of a tiny a

        sum_terms(term)

    def sigmoid_cross_entropy() -> None:
        def term(i):
            value, target = at(z, i), at(y, i)
            a = sigmoid(value)
            put(a, z, i)
            put((a - target) * scale, delta, i)
            positive = emit.constant(0).where(value < 0, value)
            return positive - value * target + log1p(exp(-value.absolute()))

        sum_terms(term)

    def by_gradient(loss: str) -> None:
        def term(i):
            terms, gradient = _loss_terms(loss, at(z, i), at(y, i))
            put(gradient * scale, delta, i)
            return terms

        row = (index(0), index(1), n, activation)
        emit.choose(
            activation,
            {
                SOFTMAX: lambda: emit.run(softmax, memory, z, n),
                -1: lambda: emit.run(activate, memory, z, *row),
            },
        )
        sum_terms(term)
        emit.choose(
            activation,
            {
                SOFTMAX: lambda: emit.run(pull_back_softmax, memory, delta, z, n),
                -1: lambda: emit.run(pull_back, memory, delta, z, *row),
            },
        )

    def matched(name: str, special: Callable, loss: str) -> None:
        emit.choose(activation, {kernels.ACTIVATIONS[name]: special, -1: lambda: by_gradient(loss)})

    emit.choose(
        loss,
        {
            kernels.LOSSES["cross_entropy"]: lambda: matched(
                "softmax", softmax_cross_entropy, "cross_entropy"
            ),
            kernels.LOSSES["binary_cross_entropy"]: lambda: matched(
                "sigmoid", sigmoid_cross_entropy, "binary_cross_entropy"
            ),
            kernels.LOSSES["quadratic"]: lambda: by_gradient("quadratic"),
            kernels.LOSSES["squared_error"]: lambda: by_gradient("squared_error"),
        },
    )
    weighted = weights * Lanes(emit, builder.load(cost))
    return weighted.where(emit.first_lanes(rows), 0).sum()


@emitted(types.intp)
def count_hits(emit, memory, a, y, n, rows):
    """In how many of the first ``rows`` lanes the first largest output is where the first largest target is.

    With one output: in how many they are on the same side of ½.
    """
    builder = emit.builder
    hits = builder.alloca(INT64)

    def count(mask) -> None:
        builder.store(emit.count(builder.and_(mask, emit.first_lanes(rows))), hits)

    def same_side() -> None:
        sides = [emit.load_lanes(memory, block) > 0.5 for block in (a, y)]
        count(builder.not_(builder.xor(*sides)))

    def first_largest(block) -> Lanes:
        def larger(i, unit, largest, found):
            value = emit.load_lanes(memory, emit.add(block, i))
            new = value > largest
            return [unit + 1, value.where(new, largest), unit.where(new, found)]

        start = [emit.constant(number) for number in (0, -math.inf, -1)]
        return _each_unit(emit, n, start, larger)[2]

    def same_unit() -> None:
        count(first_largest(a).equals(first_largest(y)))

    emit.choose(n, {1: same_side, 0: same_unit})
    return builder.load(hits)
