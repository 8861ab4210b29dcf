"""Elementwise activations and update rules on rows of vectors in one memory.

Rows are padded to whole vectors. The padding of parameters and of δ is 0; that of activations is never read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gpubp import kernels
from gpubp.kernels import COEFFICIENTS, LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE
from gpubp.kernels.cpu.elementary import sigmoid, tanh
from gpubp.kernels.cpu.vector import BIT, INT64, Emit, Lanes, emitted, index

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

# An optimizer's rule: W, its gradient, its slots and the step's coefficients become the new W and slots.
Rule = Callable[[Lanes, Lanes, list[Lanes], Any], tuple[Lanes, ...]]


def sgd(w: Lanes, g: Lanes, slots: list[Lanes], c) -> tuple[Lanes, ...]:
    """W ← W − η (g + λ W)."""
    return (w - c.lr * (g + c.decay * w),)


def momentum(w: Lanes, g: Lanes, slots: list[Lanes], c) -> tuple[Lanes, ...]:
    """v ← μ v + g + λ W, W ← W − η v, or along g + λ W + μ v."""
    direction = g + c.decay * w
    velocity = c.momentum * slots[0] + direction
    step = (direction + c.momentum * velocity).where(c.nesterov > 0, velocity)
    return w - c.lr * step, velocity


def adam(w: Lanes, g: Lanes, slots: list[Lanes], c) -> tuple[Lanes, ...]:
    """g ← g + λ W, m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², W ← W − (rate m / (√v correction + ε) + ηλ W)."""
    g = g + c.decay * w
    first = c.beta1 * slots[0] + c.rest1 * g
    second = c.beta2 * slots[1] + c.rest2 * (g * g)
    step = c.rate * (first / (second.square_root() * c.correction + c.epsilon))
    return w - (step + c.decoupled * w), first, second


def _each(emit: Emit, place, vectors, body: Callable[..., None]) -> None:
    """body(place of the vector) for each vector of a row."""
    emit.loop(place, emit.add(place, emit.multiply(vectors, index(emit.lanes))), emit.lanes, [], body)


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
    emit.loop(index(0), rows, 1, [], lambda r: body(emit.multiply(r, row)))


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

    def by(rule: Rule, kind: str, *slots) -> None:
        places = (emit.add(c_first, index(k)) for k in range(len(COEFFICIENTS[kind]._fields)))
        coefficients = COEFFICIENTS[kind](*(emit.spread(emit.load(c, place)) for place in places))
        shifts = [builder.sub(slot, w) for slot in slots]

        def row(r):
            first = emit.add(w, emit.multiply(r, w_row))
            to_gradient = builder.sub(emit.add(g, emit.multiply(r, g_row)), first)

            def one(place):
                gradient = emit.load_lanes(memory, emit.add(place, to_gradient))
                emit.store_lanes(emit.constant(0), memory, emit.add(place, to_gradient))
                places = [place, *(emit.add(place, shift) for shift in shifts)]
                parameter, *old = (emit.load_lanes(memory, place) for place in places)
                for new, place in zip(rule(parameter, gradient, old, coefficients), places, strict=True):
                    emit.store_lanes(new, memory, place)

            _each(emit, first, vectors, one)

        emit.loop(index(0), rows, 1, [], row)

    def by_sgd() -> None:
        has_slot = builder.zext(builder.icmp_signed(">=", slot1, index(0)), INT64)
        emit.choose(has_slot, {1: lambda: by(momentum, "sgd", slot1), 0: lambda: by(sgd, "sgd")})

    rules = {"sgd": by_sgd, "adam": lambda: by(adam, "adam", slot1, slot2)}
    rules["adamw"] = rules["adam"]
    emit.choose(rule, {code: rules[kind] for kind, code in kernels.RULES.items()})
