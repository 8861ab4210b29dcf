"""Elementwise activations and update rules on rows of vectors in one memory.

Rows are padded to whole vectors. The padding of parameters and of δ is 0; that of activations is never read.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from gpubp import kernels
from gpubp.kernels.cpu.elementary import sigmoid, tanh
from gpubp.kernels.cpu.vector import BIT, INT64, Emit, Lanes, emitted, index

LEAKY_SLOPE, LECUN_SCALE, LECUN_RATE = kernels.LEAKY_SLOPE, kernels.LECUN_SCALE, kernels.LECUN_RATE

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


def _each(emit: Emit, place, vectors, body: Callable[..., None]) -> None:
    """body(place of the vector) for each vector of a row."""

    def one(place):
        body(place)
        return []

    emit.loop(place, emit.add(place, emit.multiply(vectors, index(emit.lanes))), emit.lanes, [], one)


def _without_gaps(emit: Emit, rows, vectors, *distances):
    """(rows, vectors) of the same numbers: one row of them all, if none of the distances between rows leaves a gap."""
    builder, whole = emit.builder, emit.multiply(vectors, index(emit.lanes))
    together = ir.Constant(BIT, 1)
    for distance in distances:
        together = builder.and_(together, builder.icmp_signed("==", distance, whole))
    all_vectors = builder.select(together, emit.multiply(rows, vectors), vectors)
    return builder.select(together, index(1), rows), all_vectors


def _each_row(emit: Emit, rows, row, body: Callable[..., None]) -> None:
    """body(shift) for each of ``rows`` rows, ``row`` apart."""

    def one(r):
        body(emit.multiply(r, row))
        return []

    emit.loop(index(0), rows, 1, [], one)


def _by_activation(emit: Emit, activation, functions: dict, emit_for: Callable) -> None:
    """emit_for(function) for each of the ``functions``; nothing at all for another activation, the identity."""
    cases = {kernels.ACTIVATIONS[name]: lambda f=f: emit_for(f) for name, f in functions.items()}
    emit.choose(activation, {**cases, -1: lambda: None})


@emitted()
def activate(emit, memory, place, row, rows, vectors, activation):
    """z becomes a = σ(z), for ``rows`` rows of ``vectors`` vectors."""
    rows, vectors = _without_gaps(emit, rows, vectors, row)

    def apply_to_all(apply) -> None:
        def one(place):
            emit.store_lanes(apply(emit.load_lanes(memory, place)), memory, place)

        _each_row(emit, rows, row, lambda shift: _each(emit, emit.add(place, shift), vectors, one))

    _by_activation(emit, activation, APPLY, apply_to_all)


@emitted()
def pull_back(emit, memory, delta, a, row, rows, vectors, activation):
    """∂C/∂a becomes ∂C/∂z: times σ'(z) as a function of a."""
    rows, vectors = _without_gaps(emit, rows, vectors, row)
    to_a = emit.builder.sub(a, delta)

    def multiply_all(slope) -> None:
        def one(place):
            value, a = emit.load_lanes(memory, place), emit.load_lanes(memory, emit.add(place, to_a))
            emit.store_lanes(value * slope(a), memory, place)

        _each_row(emit, rows, row, lambda shift: _each(emit, emit.add(delta, shift), vectors, one))

    _by_activation(emit, activation, SLOPE, multiply_all)


@emitted()
def update_rows(emit, memory, w, w_row, g, g_row, slot1, slot2, rows, vectors, rule, c, c_first):
    """The optimizer's rule on rows of a parameter; g is their gradient, c[c_first:] the step's coefficients.

    The slots lie as w does; slot1 < 0 stands for SGD without momentum. g becomes 0, which the next sums start from.
    """
    builder = emit.builder
    rows, vectors = _without_gaps(emit, rows, vectors, w_row, g_row)

    def coefficient(k: int) -> Lanes:
        return emit.spread(emit.load(c, emit.add(c_first, index(k))))

    def each(body) -> None:
        def row(r):
            first = emit.add(w, emit.multiply(r, w_row))
            to_gradient = builder.sub(emit.add(g, emit.multiply(r, g_row)), first)

            def one(place):
                of_gradient = emit.add(place, to_gradient)
                gradient = emit.load_lanes(memory, of_gradient)
                emit.store_lanes(emit.constant(0), memory, of_gradient)
                body(place, emit.load_lanes(memory, place), gradient)

            _each(emit, first, vectors, one)
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

    rules = {"sgd": sgd, "adam": adam, "adamw": adam}  # of which none may be missing
    emit.choose(rule, {code: rules[kind] for kind, code in kernels.RULES.items()})
