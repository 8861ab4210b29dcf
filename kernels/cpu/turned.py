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

    _each_unit(emit, n, [], subtract)


def _loss_terms(loss: str, a: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """The terms of C and ∇ₐC, for outputs that are not the loss's matched activation."""
    difference = a - y
    if loss == "quadratic":
        return 0.5 * (difference * difference), difference
    if loss == "squared_error":
        return difference * difference, 2 * difference
    low, high = a < FLOOR, a > CEILING
    p = a.emit.constant(FLOOR).where(low, a.emit.constant(CEILING).where(high, a))
    if loss == "cross_entropy":
        term, gradient = -(y * log(p)), -(y / p)
    else:
        term, gradient = -(y * log(p) + (1 - y) * log1p(-p)), (p - y) / (p * (1 - p))
    zero = a.emit.constant(0)  # outside [ε, 1 − ε], the cost is constant
    return term, zero.where(low, zero.where(high, gradient))


class _OutputLayer:
    """The output layer of as many samples as a vector has lanes, as instructions that are being written.

    Blocks at z, a, targets y and δ; a becomes σ(z), in z's own block, unless it is ``given``.
    """

    def __init__(self, emit: Emit, memory, z, a, y, delta, n, scale: Lanes, given: bool) -> None:
        self.emit, self.memory, self.n = emit, memory, n
        self.z, self.a, self.y, self.delta = z, a, y, delta
        self.scale, self.given = scale, given
        self.cost = emit.builder.alloca(emit.vector)

    def write(self, activation, loss) -> Lanes:
        """δ = scale ∇ₐC ⊙ σ'(z); returns C."""
        cases = {code: self._matched_or_not(name, activation) for name, code in kernels.LOSSES.items()}
        self.emit.choose(loss, cases)
        return Lanes(self.emit, self.emit.builder.load(self.cost))

    def _matched_or_not(self, loss: str, activation) -> Callable[[], None]:
        matched = {
            "cross_entropy": ("softmax", self._softmax_cross_entropy),
            "binary_cross_entropy": ("sigmoid", self._sigmoid_cross_entropy),
        }
        if loss not in matched:
            return lambda: self._by_gradient(loss, activation)
        name, special = matched[loss]
        cases = {kernels.ACTIVATIONS[name]: special, -1: lambda: self._by_gradient(loss, activation)}
        return lambda: self.emit.choose(activation, cases)

    def _at(self, block, i) -> Lanes:
        return self.emit.load_lanes(self.memory, self.emit.add(block, i))

    def _put(self, value: Lanes, block, i) -> None:
        self.emit.store_lanes(value, self.memory, self.emit.add(block, i))

    def _sum(self, term: Callable) -> None:
        """C = Σ term(i) over the units."""
        emit = self.emit
        (total,) = _each_unit(emit, self.n, [emit.constant(0)], lambda i, total: [total + term(i)])
        emit.builder.store(total.value, self.cost)

    def _matched_delta(self, i, activated: Callable[[], Lanes], target: Lanes) -> None:
        """δ = scale (a − y)."""
        a = self._at(self.a, i) if self.given else activated()
        if not self.given:
            self._put(a, self.a, i)
        self._put((a - target) * self.scale, self.delta, i)

    def _softmax_cross_entropy(self) -> None:
        largest, total = _exponentials(self.emit, self.memory, self.z, self.n, self.delta)
        log_total = log(total)

        def term(i):
            z, target = self._at(self.z, i), self._at(self.y, i)
            self._matched_delta(i, lambda: self._at(self.delta, i) / total, target)
            return target * (log_total - (z - largest))  # −y ln a, without the logarithm of a tiny a

        self._sum(term)

    def _sigmoid_cross_entropy(self) -> None:
        def term(i):
            z, target = self._at(self.z, i), self._at(self.y, i)
            self._matched_delta(i, lambda: sigmoid(z), target)
            positive = self.emit.constant(0).where(z < 0, z)
            return positive - z * target + log1p(exp(-z.absolute()))

        self._sum(term)

    def _by_gradient(self, loss: str, activation) -> None:
        emit, memory, row = self.emit, self.memory, (index(0), index(1), self.n, activation)

        def term(i):
            terms, gradient = _loss_terms(loss, self._at(self.a, i), self._at(self.y, i))
            self._put(gradient * self.scale, self.delta, i)
            return terms

        if not self.given:
            in_rows = {
                SOFTMAX: lambda: emit.run(softmax, memory, self.a, self.n),
                -1: lambda: emit.run(activate, memory, self.a, *row),
            }
            emit.choose(activation, in_rows)
        self._sum(term)
        back = {
            SOFTMAX: lambda: emit.run(pull_back_softmax, memory, self.delta, self.a, self.n),
            -1: lambda: emit.run(pull_back, memory, self.delta, self.a, *row),
        }
        emit.choose(activation, back)


@emitted(types.float64)
def output(emit, memory, z, y, delta, n, weight, rows, batch, activation, loss):
    """z becomes a = σ(z), and delta w/B ∇ₐC ⊙ σ'(z); returns Σ w C over the samples of the first ``rows`` lanes.

    memory[weight : weight + lanes] are the samples' weights w; lanes without a sample get a δ of 0.
    """
    inside = emit.first_lanes(rows)
    weights = emit.load_lanes(memory, weight).where(inside, 0)
    scale = weights / emit.spread(emit.builder.sitofp(batch, emit.element))
    layer = _OutputLayer(emit, memory, z, z, y, delta, n, scale, given=False)
    return (weights * layer.write(activation, loss)).where(inside, 0).sum()


@emitted()
def output_of(emit, memory, z, a, y, delta, n, weight, cost, hit, activation, loss):
    """delta becomes w ∇ₐC ⊙ σ'(z) for an a that is there; w C of each lane goes to ``cost``, 1 or 0 to ``hit``."""
    weights = emit.load_lanes(memory, weight)
    layer = _OutputLayer(emit, memory, z, a, y, delta, n, weights, given=True)
    emit.store_lanes(weights * layer.write(activation, loss), memory, cost)
    one = emit.constant(1)
    _choose_hits(emit, memory, a, y, n, lambda mask: emit.store_lanes(one.where(mask, 0), memory, hit))


def _choose_hits(emit: Emit, memory, a, y, n, take: Callable[..., None]) -> None:
    """take(the mask of the lanes where the first largest output is where the first largest target is).

    With one output: where they are on the same side of ½.
    """

    def same_side() -> None:
        sides = [emit.load_lanes(memory, block) > 0.5 for block in (a, y)]
        take(emit.builder.not_(emit.builder.xor(*sides)))

    def first_largest(block) -> Lanes:
        def larger(i, unit, largest, found):
            value = emit.load_lanes(memory, emit.add(block, i))
            new = value > largest
            return [unit + 1, value.where(new, largest), unit.where(new, found)]

        start = [emit.constant(number) for number in (0, -math.inf, -1)]
        return _each_unit(emit, n, start, larger)[2]

    emit.choose(n, {1: same_side, 0: lambda: take(first_largest(a).equals(first_largest(y)))})


@emitted(types.intp)
def count_hits(emit, memory, a, y, n, rows):
    """Count the hits among the first ``rows`` lanes."""
    builder = emit.builder
    hits = builder.alloca(INT64)

    def count(mask) -> None:
        builder.store(emit.count(builder.and_(mask, emit.first_lanes(rows))), hits)

    _choose_hits(emit, memory, a, y, n, count)
    return builder.load(hits)
