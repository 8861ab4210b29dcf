"""Activations, costs and update rules on rows of vectors in one memory.

Rows are padded to whole vectors. The padding of parameters and of δ is 0; that of activations is never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from numba import types

from gpubp import kernels
from gpubp.kernels.cpu.elementary import exp, log, log1p, sigmoid, tanh
from gpubp.kernels.cpu.vector import INT64, Emit, Lanes, emitted, index

SOFTMAX = kernels.ACTIVATIONS["softmax"]
LEAKY_SLOPE, LECUN_SCALE, LECUN_RATE = kernels.LEAKY_SLOPE, kernels.LECUN_SCALE, kernels.LECUN_RATE
FLOOR, CEILING = kernels.PROBABILITY_FLOOR, 1 - kernels.PROBABILITY_FLOOR

# a = σ(z), for the elementwise ones; NaN goes through.
APPLY: dict[str, Callable[[Lanes], Lanes]] = {
    "relu": lambda z: z.emit.constant(0).where(z < 0, z),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "lecun_tanh": lambda z: LECUN_SCALE * tanh(LECUN_RATE * z),
    "leaky_relu": lambda z: z * z.emit.constant(1).where(z > 0, LEAKY_SLOPE),
}
# σ'(z) as a function of a.
SLOPE: dict[str, Callable[[Lanes], Lanes]] = {
    "relu": lambda a: a.emit.constant(1).where(a > 0, 0),
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "lecun_tanh": lambda a: LECUN_RATE * (LECUN_SCALE - a * (a / LECUN_SCALE)),
    "leaky_relu": lambda a: a.emit.constant(1).where(a > 0, LEAKY_SLOPE),
}


def _by_activation(emit: Emit, activation, elementwise: dict, emit_elementwise, emit_softmax) -> None:
    """The variants of something that depends on the activation; nothing at all for the identity."""
    cases = {kernels.ACTIVATIONS[name]: lambda f=f: emit_elementwise(f) for name, f in elementwise.items()}
    cases[SOFTMAX] = emit_softmax
    cases[kernels.ACTIVATIONS["identity"]] = lambda: None
    emit.choose(activation, cases)


def _each(emit: Emit, first, stop, carried, body) -> list:
    """Go through the vectors of a row: body(place, *carried)."""
    if emit.one_vector:
        return list(body(first, *carried))
    return emit.loop(first, stop, emit.lanes, carried, body)


def _by_width(emit: Emit, vectors, emit_row: Callable[[], None]) -> None:
    """Emit what is done to a row twice: without loops, for rows of one vector, which then stays in its register."""

    def one() -> None:
        emit.one_vector = True
        emit_row()
        emit.one_vector = False

    emit.choose(vectors, {1: one, 0: emit_row})


def _row_end(emit: Emit, first, vectors):
    return emit.add(first, emit.multiply(vectors, index(emit.lanes)))


def _kept(emit: Emit, lanes: Lanes, place, end_of_values, other: float) -> Lanes:
    """The lanes that hold values, and ``other`` in those of the padding."""
    return lanes.where(emit.first_lanes(emit.builder.sub(end_of_values, place)), other)


def _maximum(emit: Emit, memory, first, stop, end_of_values) -> Lanes:
    """The largest value of a row, in every lane."""

    def larger(place, largest):
        value = _kept(emit, emit.load_lanes(memory, place), place, end_of_values, -math.inf)
        return [value.where(value > largest, largest)]

    (largest,) = _each(emit, first, stop, [emit.constant(-math.inf)], larger)
    return emit.spread(largest.largest())


def _softmax(emit: Emit, memory, first, stop, end_of_values, shift) -> tuple[Lanes, Lanes]:
    """e^(z − max z) to ``shift`` places further on, 0 in the padding; returns max z and the sum, in every lane."""
    largest = _maximum(emit, memory, first, stop, end_of_values)

    def exponential(place, total):
        e = exp(emit.load_lanes(memory, place) - largest)
        e = _kept(emit, e, place, end_of_values, 0)
        emit.store_lanes(e, memory, emit.add(place, shift))
        return [total + e]

    (total,) = _each(emit, first, stop, [emit.constant(0)], exponential)
    return largest, emit.spread(total.sum())


def _activate_row(emit: Emit, memory, first, stop, end_of_values, apply) -> None:
    """z becomes a = σ(z) in one row; ``apply`` is None for softmax."""

    def elementwise(place):
        emit.store_lanes(apply(emit.load_lanes(memory, place)), memory, place)
        return []

    if apply is None:
        _, total = _softmax(emit, memory, first, stop, end_of_values, index(0))

        def elementwise(place):
            emit.store_lanes(emit.load_lanes(memory, place) / total, memory, place)
            return []

    _each(emit, first, stop, [], elementwise)


def _pull_back_row(emit: Emit, memory, delta, a, vectors, n, slope) -> None:
    """∂C/∂a becomes ∂C/∂z in one row: times σ'(z); for softmax (``slope`` is None) times the Jacobian."""
    stop, end_of_values = _row_end(emit, delta, vectors), emit.add(delta, n)
    shift = emit.builder.sub(a, delta)

    def both(place):
        return emit.load_lanes(memory, place), emit.load_lanes(memory, emit.add(place, shift))

    def elementwise(place):
        d, a = both(place)
        emit.store_lanes(d * slope(a), memory, place)
        return []

    if slope is None:

        def product(place, total):
            d, a = both(place)
            return [total + _kept(emit, d * a, place, end_of_values, 0)]

        (total,) = _each(emit, delta, stop, [emit.constant(0)], product)
        mean = emit.spread(total.sum())

        def elementwise(place):
            d, a = both(place)
            emit.store_lanes(_kept(emit, a * (d - mean), place, end_of_values, 0), memory, place)
            return []

    _each(emit, delta, stop, [], elementwise)


@emitted()
def activate(emit, memory, place, row, rows, vectors, n, activation):
    """z becomes a = σ(z), for ``rows`` rows of ``vectors`` vectors; softmax takes whole rows, of n values."""

    def each_row(apply) -> None:
        def one(r):
            first = emit.add(place, emit.multiply(r, row))
            stop, end_of_values = _row_end(emit, first, vectors), emit.add(first, n)
            _activate_row(emit, memory, first, stop, end_of_values, apply)
            return []

        emit.loop(index(0), rows, 1, [], one)

    _by_activation(emit, activation, APPLY, each_row, lambda: each_row(None))


@emitted()
def pull_back(emit, memory, delta, a, row, rows, vectors, n, activation):
    """∂C/∂a becomes ∂C/∂z: times σ'(z) as a function of a; for softmax, times the Jacobian, on whole rows."""

    def each_row(slope) -> None:
        def one(r):
            shift = emit.multiply(r, row)
            _pull_back_row(emit, memory, emit.add(delta, shift), emit.add(a, shift), vectors, n, slope)
            return []

        emit.loop(index(0), rows, 1, [], one)

    _by_activation(emit, activation, SLOPE, each_row, lambda: each_row(None))


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


@emitted(lambda memory, *_: memory.dtype)
def output_row(emit, memory, z, delta, vectors, n, targets, y, factor, activation, loss):
    """z becomes a = σ(z), delta becomes factor · ∇ₐC ⊙ σ'(z), for one row of n outputs; returns the row's cost.

    ``targets[y : y + n]`` are the row's targets; their padding is 0.
    """
    cost = emit.builder.alloca(emit.element)
    row = (memory, z, delta, vectors, n, targets, y, factor, activation, loss)
    _by_width(emit, vectors, lambda: _output_row(emit, cost, *row))
    return emit.builder.load(cost)


def _output_row(emit: Emit, cost, memory, z, delta, vectors, n, targets, y, factor, activation, loss) -> None:
    """As :func:`output_row`, with the row's cost stored at the address ``cost``."""
    builder = emit.builder
    stop, end_of_values = _row_end(emit, z, vectors), emit.add(z, n)
    scale = emit.spread(factor)
    to_delta, to_target = builder.sub(delta, z), builder.sub(y, z)

    def at(place, shift=None):
        return emit.load_lanes(memory, place if shift is None else emit.add(place, shift))

    def target(place):
        return emit.load_lanes(targets, emit.add(place, to_target))

    def set_delta(value: Lanes, place) -> None:
        value = _kept(emit, value, place, end_of_values, 0)
        emit.store_lanes(value, memory, emit.add(place, to_delta))

    def sum_terms(term: Callable) -> None:
        def add(place, total):
            return [total + _kept(emit, term(place), place, end_of_values, 0)]

        (total,) = _each(emit, z, stop, [emit.constant(0)], add)
        builder.store(total.sum(), cost)

    def softmax_cross_entropy() -> None:
        largest, total = _softmax(emit, memory, z, stop, end_of_values, to_delta)
        log_total = log(total)

        def term(place):
            value, y = at(place), target(place)
            a = at(place, to_delta) / total
            emit.store_lanes(a, memory, place)
            set_delta((a - y) * scale, place)
            return y * (log_total - (value - largest))  # −y ln a, without the logarithm of a tiny a

        sum_terms(term)

    def sigmoid_cross_entropy() -> None:
        def term(place):
            value, y = at(place), target(place)
            a = sigmoid(value)
            emit.store_lanes(a, memory, place)
            set_delta((a - y) * scale, place)
            positive = emit.constant(0).where(value < 0, value)
            return positive - value * y + log1p(exp(-value.absolute()))

        sum_terms(term)

    def by_gradient(loss: str) -> None:
        def term(place):
            terms, gradient = _loss_terms(loss, at(place), target(place))
            set_delta(gradient * scale, place)
            return terms

        activate(emit, memory, z, index(0), index(1), vectors, n, activation)
        sum_terms(term)
        pull_back(emit, memory, delta, z, index(0), index(1), vectors, n, activation)

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


@emitted(types.intp)
def first_largest(emit, memory, first, vectors, n):
    """Where the first largest of n values is; −1 if they are all NaN."""
    builder = emit.builder
    answer = builder.alloca(INT64)

    def search() -> None:
        stop, end_of_values = _row_end(emit, first, vectors), emit.add(first, n)
        largest = _maximum(emit, memory, first, stop, end_of_values)
        scalar = builder.extract_element(largest.value, index(0))

        def earlier(place, found):
            lane = emit.load_lanes(memory, place).first_equal(scalar)
            here = builder.icmp_signed("<", lane, index(emit.lanes))
            unset = builder.icmp_signed("<", found, index(0))
            position = emit.add(builder.sub(place, first), lane)
            return [builder.select(builder.and_(here, unset), position, found)]

        (found,) = _each(emit, first, stop, [index(-1)], earlier)
        builder.store(found, answer)

    _by_width(emit, vectors, search)
    return builder.load(answer)


@emitted()
def update_rows(emit, memory, w, w_row, g, g_row, slot1, slot2, rows, vectors, rule, c, c_first):
    """The optimizer's rule on rows of a parameter; g is their gradient, c[c_first:] the step's coefficients.

    The slots lie as w does; slot1 < 0 stands for SGD without momentum.
    """
    builder = emit.builder

    def coefficient(k: int) -> Lanes:
        return emit.spread(emit.load(c, emit.add(c_first, index(k))))

    def each(body) -> None:
        def row(r):
            shift = emit.multiply(r, w_row)
            to_gradient = builder.sub(emit.add(g, emit.multiply(r, g_row)), emit.add(w, shift))

            def one(place):
                gradient = emit.load_lanes(memory, emit.add(place, to_gradient))
                body(place, emit.load_lanes(memory, place), gradient)
                return []

            first = emit.add(w, shift)
            _each(emit, first, _row_end(emit, first, vectors), [], one)
            return []

        emit.loop(index(0), rows, 1, [], row)

    def slot(place, start):
        return emit.add(place, builder.sub(start, w))

    def plain_sgd() -> None:
        lr, decay = coefficient(0), coefficient(2)

        def one(place, parameter, gradient):
            emit.store_lanes(parameter - lr * (gradient + decay * parameter), memory, place)

        each(one)

    def momentum_sgd() -> None:
        lr, momentum, decay, nesterov = (coefficient(k) for k in range(4))
        ahead = nesterov > 0

        def one(place, parameter, gradient):
            direction = gradient + decay * parameter
            velocity = momentum * emit.load_lanes(memory, slot(place, slot1)) + direction
            emit.store_lanes(velocity, memory, slot(place, slot1))
            step = (direction + momentum * velocity).where(ahead, velocity)
            emit.store_lanes(parameter - lr * step, memory, place)

        each(one)

    def adam() -> None:
        rate, beta1, rest1, beta2, rest2, epsilon, correction, decay, decoupled = (
            coefficient(k) for k in range(9)
        )

        def one(place, parameter, gradient):
            gradient = gradient + decay * parameter
            first = beta1 * emit.load_lanes(memory, slot(place, slot1)) + rest1 * gradient
            second = beta2 * emit.load_lanes(memory, slot(place, slot2)) + rest2 * (gradient * gradient)
            emit.store_lanes(first, memory, slot(place, slot1))
            emit.store_lanes(second, memory, slot(place, slot2))
            step = rate * (first / (second.square_root() * correction + epsilon))
            emit.store_lanes(parameter - (step + decoupled * parameter), memory, place)

        each(one)

    def sgd() -> None:
        has_slot = builder.zext(builder.icmp_signed(">=", slot1, index(0)), INT64)
        emit.choose(has_slot, {1: momentum_sgd, 0: plain_sgd})

    emit.choose(rule, {kernels.RULES["sgd"]: sgd, kernels.RULES["adam"]: adam})
