"""Images deformed, to the bits of gpubp.randomness.deform, which says what is computed; one sample after the other.

========================  =============================================================================================
stage                     what it leaves in a thread's working memory
========================  =============================================================================================
random_stream             the sample's random bytes; as noise, int8. A counter in each 64-bit lane: the halves of a
                          product are where the next round wants them, without a shuffle
smooth_down               noise smoothed along y, in int16, x and y of the field in turn
smooth_across             smoothed along x, in int32; then as float32, x and y apart
spread_across             the field of the rows of the grid, at each pixel along x: even pixels and odd ones apart, as
                          these come from the grid in whole vectors, and as bytes join to 16 bits without a shuffle
gather_quads              for each pixel of the box that is not all 0 in the image, with it three of its neighbours: 32
                          bits, so that a place asks memory but once
pixels                    places and deformed pixels, a vector of even and one of odd pixels at a time. A place outside
                          the box is moved to its border, whose neighbours are 0
========================  =============================================================================================

Working memory is bytes; places in it and sizes of rows count bytes. Loads may reach beyond what is there, into memory
that is a thread's own; what comes of that is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpubp.kernels.cpu.compile import kernel, part
from gpubp.kernels.cpu.deforming import (
    ACROSS,
    ALL,
    ANGLES,
    BLOCK,
    BOX,
    COUNTERS,
    DOWN,
    HEAD,
    LANES,
    MAGIC,
    MAGIC_BITS,
    ONE_BITS,
    PIXELS,
    QUADS,
    RANDOM,
    TILE,
)
from gpubp.kernels.cpu.machine import BYTES, has
from gpubp.kernels.cpu.random import philox
from gpubp.kernels.cpu.vector import (
    BIT,
    INT8,
    INT16,
    INT32,
    INT64,
    Emit,
    Lanes,
    emitted,
    get,
    index,
    multiply_add,
    prefetch_row,
)

WIDE, NARROW, LONG = (ir.VectorType(kind, BYTES * 8 // kind.width) for kind in (INT32, INT16, INT64))
OCTETS = ir.VectorType(INT8, BYTES)


class Whole:
    """A vector of whole numbers in a function that is being emitted; Python's stand for vectors of them."""

    def __init__(self, emit: Emit, value) -> None:
        self.emit, self.value = emit, value

    def _value(self, other):
        if isinstance(other, Whole):
            return other.value
        kind = self.value.type
        other &= (1 << kind.element.width) - 1
        return ir.Constant(kind, [ir.Constant(kind.element, other)] * kind.count)

    def _do(self, instruction: str, other) -> Whole:
        made = getattr(self.emit.builder, instruction)(self.value, self._value(other))
        return Whole(self.emit, made)

    def __add__(self, other):
        return self._do("add", other)

    def __sub__(self, other):
        return self._do("sub", other)

    def __mul__(self, other):
        return self._do("mul", other)

    def __and__(self, other):
        return self._do("and_", other)

    def __or__(self, other):
        return self._do("or_", other)

    def __xor__(self, other):
        return self._do("xor", other)

    def __lshift__(self, bits: int):
        return self._do("shl", bits)

    def __rshift__(self, bits: int):
        """Signs come in from the left."""
        return self._do("ashr", bits)

    def down(self, bits: int):
        """Zeros come in from the left."""
        return self._do("lshr", bits)

    def below(self, other):
        """The mask of lanes that are less than those of the other."""
        return self.emit.builder.icmp_signed("<", self.value, self._value(other))

    def at_least(self, other):
        return self._chosen(">", other)

    def at_most(self, other):
        return self._chosen("<", other)

    def _chosen(self, sign: str, other):
        other = self._value(other)
        mask = self.emit.builder.icmp_signed(sign, self.value, other)
        return Whole(self.emit, self.emit.builder.select(mask, self.value, other))

    def bits_as(self, kind: ir.VectorType) -> Whole:
        return Whole(self.emit, self.emit.builder.bitcast(self.value, kind))

    def widened(self, kind: ir.Type, *, signed: bool = True) -> Whole:
        """In lanes of this kind, as many."""
        extend = self.emit.builder.sext if signed else self.emit.builder.zext
        return Whole(self.emit, extend(self.value, ir.VectorType(kind, self.value.type.count)))

    def as_floats(self) -> Lanes:
        return Lanes(self.emit, self.emit.builder.sitofp(self.value, self.emit.vector))


def _spread(emit: Emit, scalar, kind: ir.VectorType = WIDE) -> Whole:
    """A 64-bit number, or what of it there is room for, in every lane."""
    builder = emit.builder
    if kind.element != INT64:
        scalar = builder.trunc(scalar, kind.element)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    lanes = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
    return Whole(emit, builder.shuffle_vector(first, undefined, lanes))


def _numbers(emit: Emit, numbers: Sequence[int], kind: ir.VectorType = WIDE) -> Whole:
    return Whole(emit, ir.Constant(kind, [ir.Constant(kind.element, n) for n in numbers]))


def _floats(emit: Emit, memory, place) -> Lanes:
    return Lanes(emit, emit.load_as(emit.vector, memory, place, 4))


def _after(emit: Emit, place, *terms: tuple):
    """``place`` + Σ count · bytes, of pairs that are numbers of the kernel's or Python's."""
    for count, size in terms:
        count, size = (index(x) if isinstance(x, int) else x for x in (count, size))
        place = emit.add(place, emit.multiply(count, size))
    return place


@emitted()
def random_stream(emit, memory, key, purpose, sample, step, blocks, raw, noise):
    """So many blocks of the stream of ``sample`` to ``raw``, and as noise u, int8, to ``noise``."""
    lanes = LONG.count
    keys = [_spread(emit, word, LONG).value for word in (key, emit.builder.lshr(key, index(32)))]
    fixed = [_spread(emit, word, LONG).value for word in (sample, step, purpose)]

    def block(b):
        for first in range(0, COUNTERS, lanes):
            start = _after(emit, index(first), (b, COUNTERS))
            counters = _spread(emit, start, LONG) + _numbers(emit, range(lanes), LONG)
            words = [Whole(emit, word) for word in philox(emit, [counters.value, *fixed], keys)]
            for pair, (low, high) in enumerate((words[:2], words[2:])):
                both = (low & 0xFFFFFFFF) | (high << 32)
                place = _after(emit, index(pair * BLOCK // 2 + first * 8), (b, BLOCK))
                emit.store_as(both.value, memory, emit.add(raw, place))
                u = (both.bits_as(OCTETS) | 1) ^ 0x80
                emit.store_as(u.value, memory, emit.add(noise, place))

    emit.loop(index(0), blocks, 1, [], block)


def _interleaved(emit: Emit, a, b) -> list:
    """Lanes of two vectors in turn, in the order of x86: the lower halves of each 16 bytes, and then the upper ones."""
    count = a.type.count
    per = 16 * 8 // a.type.element.width
    kind = ir.VectorType(INT32, count)
    made = []
    for start in (0, per // 2):
        order = [x + k for part in range(0, count, per) for k in range(part + start, part + start + per // 2)
                 for x in (0, count)]  # fmt: skip
        made.append(emit.builder.shuffle_vector(a, b, ir.Constant(kind, order)))
    return made


def _x86(emit: Emit, names: dict[int, tuple[str, str]], result: ir.Type, *arguments):
    """An instruction of x86 for vectors of this machine's size, by size its feature and name; None without it."""
    feature, name = names.get(BYTES, ("", ""))
    if not feature or not has(feature):
        return None
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(emit.builder.module, kind, f"llvm.x86.{name}")
    return emit.builder.call(function, arguments)


def _byte_products(emit: Emit, weights, numbers) -> Whole:
    """Sums of two products beside each other, of unsigned bytes and signed ones; they fit into int16."""
    names = {64: ("avx512bw", "avx512.pmaddubs.w.512"), 32: ("avx2", "avx2.pmadd.ub.sw")}
    made = _x86(emit, names, NARROW, weights, numbers)
    if made is not None:
        return Whole(emit, made)
    w, n = Whole(emit, weights).bits_as(NARROW), Whole(emit, numbers).bits_as(NARROW)
    return (w & 255) * ((n << 8) >> 8) + w.down(8) * (n >> 8)


def _short_products(emit: Emit, a, b) -> Whole:
    """Sums of two products beside each other, of int16."""
    names = {64: ("avx512bw", "avx512.pmaddw.d.512"), 32: ("avx2", "avx2.pmadd.wd")}
    made = _x86(emit, names, WIDE, a, b)
    if made is not None:
        return Whole(emit, made)
    a, b = Whole(emit, a).bits_as(WIDE), Whole(emit, b).bits_as(WIDE)
    return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16)


@emitted()
def smooth_down(emit, memory, tables, weights, pairs, noise, width, count, rows, row):
    """Sums of rows of noise, ``width`` bytes each, times weights: ``count`` rows of int16.

    Two rows of noise at a time, ``pairs`` times, for ``TILE`` rows of sums; for each of these there is a row of
    ``pairs`` vectors of two weights, 0 where noise is not of its sum.
    """
    builder = emit.builder

    def tile(r):
        def columns(c):
            def two(p, *sums):
                first = _after(emit, noise, (emit.add(r, emit.multiply(p, index(2))), width), (c, 1))
                values = [emit.load_as(OCTETS, memory, place) for place in (first, emit.add(first, width))]
                values = _interleaved(emit, *values)
                new = []
                for k, total in enumerate(sums):
                    place = _after(emit, weights, (emit.add(p, emit.multiply(pairs, index(k // 2))), BYTES))
                    weight = emit.load_as(OCTETS, tables, place, BYTES)
                    new.append((Whole(emit, total) + _byte_products(emit, weight, values[k % 2])).value)
                return new

            sums = emit.loop(index(0), pairs, 1, [ir.Constant(NARROW, None)] * (2 * TILE), two)
            for i in range(TILE):
                for half, values in enumerate(_in_order(emit, *sums[2 * i : 2 * i + 2])):
                    place = _after(emit, rows, (emit.add(r, index(i)), row), (c, 2), (half, BYTES))
                    emit.store_as(values, memory, place, 2)

        emit.loop(index(0), width, BYTES, [], columns)

    def _in_order(emit, low, high):
        """Vectors as they were before :func:`_interleaved`, each pair now one number."""
        lanes, part = NARROW.count, 8
        order = [x + k for q in range(0, lanes, part) for x in (0, lanes) for k in range(q, q + part)]
        kind = ir.VectorType(INT32, lanes)
        return [
            builder.shuffle_vector(low, high, ir.Constant(kind, order[h : h + lanes])) for h in (0, lanes)
        ]

    emit.loop(index(0), count, TILE, [], tile)


@emitted()
def smooth_across(emit, memory, tables, weights, pairs, rows, row, count, columns, both, pitch):
    """Sums of neighbours in rows of int16, x and y in turn, times weights: rows of float32, of x and of y in turn.

    Two neighbours at a time, ``pairs`` times, each with a vector of two weights.
    """
    builder = emit.builder
    kind = ir.VectorType(INT32, LANES)
    evens = [[4 * q + k + part * LANES for q in range(LANES // 4) for part in (0, 1) for k in (f, f + 2)]
             for f in (0, 1)]  # fmt: skip

    def tile(r):
        def vector(c):
            start = _after(emit, rows, (r, row), (c, 4))

            def two(p, *sums):
                weight = emit.load_as(NARROW, tables, _after(emit, weights, (p, BYTES)), BYTES)
                new = []
                for i in range(TILE):
                    place = _after(emit, start, (i, row), (p, 8))
                    values = [
                        emit.load_as(NARROW, memory, at, 4) for at in (place, emit.add(place, index(4)))
                    ]
                    for total, value in zip(
                        sums[2 * i : 2 * i + 2], _interleaved(emit, *values), strict=True
                    ):
                        new.append((Whole(emit, total) + _short_products(emit, value, weight)).value)
                return new

            sums = emit.loop(index(0), pairs, 1, [ir.Constant(WIDE, None)] * (2 * TILE), two)
            for i in range(TILE):
                for field, order in enumerate(evens):
                    total = builder.shuffle_vector(*sums[2 * i : 2 * i + 2], ir.Constant(kind, order))
                    at = _after(emit, index(field), (emit.add(r, index(i)), 2))
                    floats = Whole(emit, total).as_floats()
                    emit.store_as(floats.value, memory, _after(emit, both, (at, pitch), (c, 4)), 4)

        emit.loop(index(0), columns, LANES, [], vector)

    emit.loop(index(0), count, TILE, [], tile)


@emitted()
def spread_across(emit, memory, spacing, both, pitch, count, vectors, field):
    """Rows of the grid at each pixel, in pairs of vectors, of even and of odd ones.

    Where the grid has every second pixel, it is 3 parts of the nearer number and one of the next.
    """

    def between(source):
        before, here, after = (_floats(emit, memory, _after(emit, source, (k, 4))) for k in range(3))
        return [multiply_add(here, emit.constant(3), other) for other in (before, after)]

    def parted(source):
        low, high = (_floats(emit, memory, _after(emit, source, (k, BYTES))).value for k in (0, 1))
        masks = [[2 * k + parity for k in range(emit.lanes)] for parity in (0, 1)]
        kind = ir.VectorType(INT32, emit.lanes)
        return [
            Lanes(emit, emit.builder.shuffle_vector(low, high, ir.Constant(kind, mask))) for mask in masks
        ]

    def rows(step: int, two: Callable) -> None:
        def row(r):
            def vector(v):
                pair = two(_after(emit, both, (r, pitch), (v, step)))
                target = _after(emit, field, (emit.add(emit.multiply(r, vectors), v), 2 * BYTES))
                for parity, values in enumerate(pair):
                    emit.store_as(values.value, memory, _after(emit, target, (parity, BYTES)), BYTES)

            emit.loop(index(0), vectors, 1, [], vector)

        emit.loop(index(0), count, 1, [], row)

    emit.choose(spacing, {2: lambda: rows(BYTES, between), 1: lambda: rows(2 * BYTES, parted)})


@emitted()
def copy_bytes(emit, source, first, memory, target, size):
    """memory[target : target + size] = source[first : first + size], and nothing beyond is read or written."""
    builder = emit.builder

    def one(i):
        emit.store_as(emit.load(source, emit.add(first, i)), memory, emit.add(target, i))

    def vector(i):
        emit.store_as(emit.load_as(OCTETS, source, emit.add(first, i)), memory, emit.add(target, i))

    last = builder.sub(size, index(BYTES))
    with builder.if_else(builder.icmp_signed("<", last, index(0))) as (short, long):
        with short:
            emit.loop(index(0), size, 1, [], one)
        with long:
            emit.loop(index(0), last, BYTES, [], vector)
            vector(last)


@emitted(inline=True)
def put_box(emit, memory, image, h, w, box):
    """The first and last column and row that are not all 0, four int64 at ``box``; of a black image, last < first."""
    builder, zero = emit.builder, ir.Constant(OCTETS, None)

    def least(a, b, sign="<"):
        return builder.select(builder.icmp_signed(sign, a, b), a, b)

    def columns(x, left, right, top, bottom):
        numbers = _numbers(emit, range(BYTES), ir.VectorType(INT16, BYTES))
        inside = numbers.below(_spread(emit, builder.sub(w, x), numbers.value.type))

        def row(y, some, top, bottom):
            pixels = emit.load_as(OCTETS, memory, _after(emit, emit.add(image, x), (y, w)))
            pixels = builder.select(inside, pixels, zero)
            any_ = builder.icmp_unsigned("!=", _mask(emit, pixels), ir.Constant(ir.IntType(BYTES), 0))
            return [
                builder.or_(some, pixels),
                builder.select(any_, least(top, y), top),
                builder.select(any_, least(y, bottom, ">"), bottom),
            ]

        some, top, bottom = emit.loop(index(0), h, 1, [zero, top, bottom], row)
        mask = _mask(emit, some)
        mask = builder.zext(mask, INT64) if BYTES < 64 else mask
        any_ = builder.icmp_unsigned("!=", mask, index(0))
        known = ir.Constant(BIT, 0)
        first = emit.add(x, builder.cttz(mask, known))
        last = emit.add(x, builder.sub(index(63), builder.ctlz(mask, known)))
        return [
            builder.select(any_, least(first, left), left),
            builder.select(any_, least(last, right, ">"), right),
            top,
            bottom,
        ]

    found = emit.loop(index(0), w, BYTES, [w, index(-1), h, index(-1)], columns)
    for k, value in enumerate(found):
        emit.store_as(value, memory, _after(emit, box, (k, 8)))


def _mask(emit: Emit, octets):
    """A bit for each byte that is not 0."""
    builder = emit.builder
    return builder.bitcast(builder.icmp_unsigned("!=", octets, ir.Constant(OCTETS, None)), ir.IntType(BYTES))


@emitted()
def gather_quads(emit, memory, image, w, left, right, top, bottom, quads, pitch):
    """Pixels (y, x), (y, x + 1), (y + 1, x) and (y + 1, x + 1) as four bytes, from (top − 1, left − 1) on.

    Rows of ``pitch`` bytes, down to ``bottom`` + 1 and on to ``right`` + 1. What is outside the box is 0.
    """
    builder, lanes = emit.builder, LANES
    octets, zero = ir.VectorType(INT8, lanes), ir.Constant(ir.VectorType(INT8, lanes), None)
    columns = builder.sub(builder.add(right, index(1)), left)
    shorts = ir.VectorType(INT16, lanes)

    def vector(c):
        numbers = _numbers(emit, range(lanes), shorts) + _spread(emit, c, shorts)
        beyond = _spread(emit, columns, shorts)
        within = numbers.below(beyond)  # the box, of the pixel to the right
        begun = _numbers(emit, [0] * lanes, shorts).below(numbers)
        own = builder.and_(begun, numbers.below(beyond + 1))

        def row(y, above):
            place = _after(emit, emit.add(image, emit.add(left, c)), (y, w))
            here = emit.load_as(octets, memory, emit.add(place, index(-1)))
            next_ = emit.load_as(octets, memory, place)
            pair = [
                Whole(emit, builder.select(mask, pixels, zero)).widened(INT32, signed=False)
                for mask, pixels in ((own, here), (within, next_))
            ]
            below = pair[0] | (pair[1] << 8)
            store(y, above, below)
            return [below.value]

        def store(y, above, below):
            target = _after(emit, quads, (builder.sub(y, top), pitch), (c, 4))
            emit.store_as((Whole(emit, above) | (below << 16)).value, memory, target)

        (last,) = emit.loop(top, builder.add(bottom, index(1)), 1, [ir.Constant(WIDE, None)], row)
        for beyond, above in ((1, last), (2, ir.Constant(WIDE, None))):
            store(builder.add(bottom, index(beyond)), above, Whole(emit, ir.Constant(WIDE, None)))

    emit.loop(index(0), builder.add(columns, index(2)), lanes, [], vector)


def _looked_up(emit: Emit, memory, base, places: Whole) -> Whole:
    """The 32 bits at each of these places, of 32 bits, from ``base`` on."""
    builder = emit.builder
    address = builder.gep(memory, [base])
    pointer = INT8.as_pointer()
    if BYTES == 64 and has("avx512f"):
        bits = ir.VectorType(BIT, LANES)
        kind = ir.FunctionType(WIDE, [WIDE, pointer, WIDE, bits, INT32])
        gather = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.mask.gather.dpi.512")
        all_, four = ir.Constant(bits, [1] * LANES), ir.Constant(INT32, 4)
        return Whole(emit, builder.call(gather, [ir.Constant(WIDE, None), address, places.value, all_, four]))
    made = ir.Constant(WIDE, ir.Undefined)
    for k in range(LANES):
        lane = ir.Constant(INT32, k)
        place = builder.sext(builder.extract_element(places.value, lane), INT64)
        value = emit.load_as(INT32, address, emit.multiply(place, index(4)))
        made = builder.insert_element(made, value, lane)
    return Whole(emit, made)


@emitted()
def put_pixels(
    emit, memory, tables, factors, spacing, field, field_row, zero, h, w, vectors, entries, box, quads, pitch, out,
):  # fmt: skip
    """The deformed image at ``out``, rows of w bytes; what is written beside them is overwritten by the next row.

    ``entries`` are M, four int64; ``field`` is at each row of the grid that of x, then that of y, of ``field_row``
    bytes both together. The box is of the first and last column and row that are not all 0; it is not empty.
    """
    builder = emit.builder
    xx, xy, yx, yy = (emit.load_as(INT64, memory, _after(emit, entries, (k, 8))) for k in range(4))
    left, right, top, bottom = (emit.load_as(INT64, memory, _after(emit, box, (k, 8))) for k in range(4))
    scale, near_part = (_floats(emit, tables, _after(emit, factors, (k, BYTES))) for k in (0, 1))
    magic = emit.constant(MAGIC)
    half_row = builder.lshr(field_row, index(1))
    sparse = builder.icmp_signed("==", spacing, index(2))
    far_half = builder.select(sparse, half_row, index(0))
    lanes = range(LANES)
    x_slope, y_slope = (_numbers(emit, [4 * k for k in lanes]) * _spread(emit, entry) for entry in (xx, yx))

    def start(side, first):
        """The middle of a side, from the box's border on, in 1/32768 pixel; and the half for rounding."""
        middle = emit.multiply(builder.sub(side, index(1)), index(1 << 14))
        return builder.add(
            builder.sub(middle, emit.multiply(builder.sub(first, index(1)), index(1 << 15))), index(64)
        )

    def most(first, last):
        """The far border of the box, from the near one on, as the bits of a float that ``MAGIC`` was added to."""
        size = emit.multiply(builder.add(builder.sub(last, first), index(2)), index(256))
        return _spread(emit, builder.add(size, index(MAGIC_BITS)))

    x_start, y_start, x_most, y_most = start(w, left), start(h, top), most(left, right), most(top, bottom)
    quads_row = builder.lshr(pitch, index(2))
    # What the bits of MAGIC come to in a place.
    beyond = builder.add(emit.multiply(quads_row, index(MAGIC_BITS >> 8)), index(MAGIC_BITS >> 8))
    row_of_quads, beyond = _spread(emit, quads_row), _spread(emit, beyond)

    def column(j):
        firsts = [builder.sub(_after(emit, index(2 * parity + 1), (j, 4 * LANES)), w) for parity in (0, 1)]
        slopes = [
            [
                slope + _spread(emit, emit.multiply(entry, first))
                for slope, entry in ((x_slope, xx), (y_slope, yx))
            ]
            for first in firsts
        ]
        beside = emit.multiply(j, index(2 * BYTES))

        def row(y):
            v = builder.sub(builder.add(emit.multiply(y, index(2)), index(1)), h)
            starts = [
                _spread(emit, builder.add(begin, emit.multiply(entry, v)))
                for begin, entry in ((x_start, xy), (y_start, yy))
            ]
            odd, halved = builder.and_(y, index(1)), builder.lshr(y, index(1))
            near = builder.select(sparse, builder.add(halved, index(1)), y)
            near_at = emit.add(emit.add(field, beside), emit.multiply(near, field_row))
            far_row = builder.add(halved, emit.multiply(odd, index(2)))
            far_at = builder.select(sparse, emit.add(field, emit.multiply(far_row, field_row)), zero)
            far_at = emit.add(far_at, beside)
            places = []
            for parity in (0, 1):
                of_pixels = []
                for way, most_ in enumerate((x_most, y_most)):
                    near_place = _after(emit, near_at, (parity, BYTES), (half_row, way))
                    far_place = _after(emit, far_at, (parity, BYTES), (far_half, way))
                    near_value, far_value = (
                        _floats(emit, memory, place) for place in (near_place, far_place)
                    )
                    moved = multiply_add(multiply_add(near_value, near_part, far_value), scale, magic)
                    bits = Whole(emit, builder.bitcast(moved.value, WIDE))
                    place = ((slopes[parity][way] + starts[way]) >> 7) + bits
                    of_pixels.append(place.at_least(MAGIC_BITS).at_most(most_))
                places.append(of_pixels)
            inside = [
                builder.and_(_spread(emit, index(MAGIC_BITS)).below(down), down.below(y_most))
                for _, down in places
            ]
            bits = builder.bitcast(builder.or_(*inside), ir.IntType(LANES))
            before = builder.basic_block
            shorts = ir.VectorType(INT16, LANES)
            with builder.if_then(builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))):
                pixels = []
                for across, down in places:
                    at = (down >> 8) * row_of_quads + (across >> 8) - beyond
                    pixels.append(_between(emit, _looked_up(emit, memory, quads, at), across, down))
                both = pixels[0] | (pixels[1] << 8)
                narrow = builder.trunc(both.value, shorts)
                then = builder.basic_block
            found = builder.phi(shorts)
            found.add_incoming(ir.Constant(shorts, None), before)
            found.add_incoming(narrow, then)
            emit.store_as(found, memory, _after(emit, out, (y, w), (j, 2 * LANES)))

        emit.loop(index(0), h, 1, [], row)

    # From the right, so that what is written beyond a row's end is overwritten.
    emit.loop(index(0), vectors, 1, [], lambda j: column(builder.sub(builder.sub(vectors, index(1)), j)))


def _between(emit: Emit, quads: Whole, x: Whole, y: Whole) -> Whole:
    """Between four pixels each, at the last 8 bits of x and y to the right and down, rounded."""
    pairs = quads.bits_as(NARROW)
    change = pairs.down(8) - (pairs & 255)
    # As int16 from −32768 on, since products of int16 are signed; the weights, which sum to 256, take it back.
    across = ((pairs << 8) + change * _twice(emit, x)) ^ 0x8000
    down = (_twice(emit, y) ^ _numbers(emit, [0xFFFF, 0] * LANES, NARROW)) + _numbers(
        emit, [257, 0] * LANES, NARROW
    )
    total = _short_products(emit, across.value, down.value)
    return (total + (32768 * 256 + 32768)).down(16)


def _twice(emit: Emit, numbers: Whole) -> Whole:
    """The lowest byte of each number, twice as int16."""
    octets = numbers.bits_as(OCTETS).value
    zero = BYTES  # the first of a second vector, of zeros
    order = [place for k in range(0, BYTES, 4) for place in (k, zero, k, zero)]
    kind = ir.VectorType(INT32, BYTES)
    made = emit.builder.shuffle_vector(octets, ir.Constant(OCTETS, None), ir.Constant(kind, order))
    return Whole(emit, made).bits_as(NARROW)


@emitted(inline=True)
def put_matrix(emit, memory, raw, tables, turns, limit, scaling, shear, entries):
    """M of a sample whose stream is at ``raw``, four int64 at ``entries``."""
    builder = emit.builder

    def shifted(value, bits: int):
        half = index(1 << (bits - 1))
        return builder.ashr(builder.add(value, half), index(bits))

    words = [builder.zext(emit.load_as(INT32, memory, emit.add(raw, index(4 * k))), INT64) for k in range(4)]
    place = _after(emit, turns, (limit, 8 * ANGLES), (builder.lshr(words[0], index(24)), 8))
    cosine, sine = (
        builder.sext(emit.load_as(INT32, tables, emit.add(place, index(k))), INT64) for k in (0, 4)
    )
    odd = [
        builder.sub(emit.multiply(builder.lshr(word, index(16)), index(2)), index(65535))
        for word in words[1:]
    ]
    x, y, s = (
        shifted(emit.multiply(number, most), 16)
        for number, most in zip(odd, (scaling, scaling, shear), strict=True)
    )
    one = index(1 << ONE_BITS)
    x, y = builder.add(x, one), builder.add(y, one)
    sums = (
        emit.multiply(cosine, x),
        builder.sub(emit.multiply(cosine, s), emit.multiply(sine, y)),
        emit.multiply(sine, x),
        builder.add(emit.multiply(sine, s), emit.multiply(cosine, y)),
    )
    for k, total in enumerate(sums):
        emit.store_as(shifted(total, ONE_BITS), memory, _after(emit, entries, (k, 8)))


@emitted(inline=True)
def clear(emit, memory, place, size):
    """Zeros, in whole vectors."""

    def one(i):
        emit.store_as(ir.Constant(OCTETS, None), memory, emit.add(place, i))

    emit.loop(index(0), size, BYTES, [], one)


@emitted(types.intp, inline=True)
def get_long(emit, bytes_, offset):
    """The 64-bit number at ``offset`` of an array of bytes."""
    return emit.load_as(INT64, bytes_, offset)


@part()
def deform_image(d, sample, step, limit, memory, base, stage):
    """The image at ``d.image`` of the working memory deformed, to ``d.out``: that of ``sample`` at a step.

    ``limit`` says which of the limits of rotation it has. The working memory begins at ``base``, on a cache line, and
    is zeros at first. ``stage`` is one of :data:`.deforming.STAGES` by its number, on what the ones before have left,
    or ``ALL``.
    """
    image, raw, out = base + d.image, base + d.raw, base + d.out
    entries = base + d.entries
    box = entries + 32
    if stage in (ALL, BOX):
        put_box(memory, image, d.h, d.w, box)
    left, right = get_long(memory, box), get_long(memory, box + 8)
    top, bottom = get_long(memory, box + 16), get_long(memory, box + 24)
    if right < left:
        clear(memory, out, d.h * d.w)
        return
    if stage in (ALL, RANDOM):
        random_stream(memory, d.key, d.purpose, sample, step, d.blocks, raw, base + d.noise)
        put_matrix(memory, raw, d.tables, d.turns, limit, d.scaling, d.shear, entries)
    vectors = (d.w + 2 * LANES - 1) // (2 * LANES)
    if d.elastic and stage in (ALL, DOWN):
        smooth_down(
            memory, d.tables, d.weights_down, d.pairs_down, base + d.noise + HEAD, 2 * d.noise_w, d.grid_h,
            base + d.rows, d.row,
        )  # fmt: skip
    if d.elastic and stage in (ALL, ACROSS):
        smooth_across(
            memory, d.tables, d.weights_across, d.pairs_across, base + d.rows, d.row, d.grid_h, d.grid_w,
            base + d.both, d.pitch,
        )  # fmt: skip
        spread_across(memory, d.spacing, base + d.both, d.pitch, 2 * d.grid_h, vectors, base + d.field)
    pitch = 4 * ((right - left + 3 + LANES - 1) // LANES * LANES)
    if stage in (ALL, QUADS):
        gather_quads(memory, image, d.w, left, right, top, bottom, base + d.quads, pitch)
    if stage in (ALL, PIXELS):
        put_pixels(
            memory, d.tables, d.factors, d.spacing, base + d.field, d.field_row, base + d.zero, d.h, d.w, vectors,
            entries, box, base + d.quads, pitch, out,
        )  # fmt: skip


@kernel
def deform_rows(d, source, order, limits, step, out, memory, base, first, stop):
    """out[b] = the deformed image of source[order[b]], rows of bytes, for rows first … stop.

    ``limits`` says of each row which limit of rotation it has, or is empty. Working memory begins at ``base``.
    """
    n = d.h * d.w
    for b in range(first, stop):
        sample = get(order, b)
        limit = get(limits, b) if len(limits) > 0 else 0
        if b + 1 < stop:
            following = get(order, b + 1) * n
            prefetch_row(source, following, following + n)
        copy_bytes(source, sample * n, memory, base + d.image, n)
        deform_image(d, sample, step, limit, memory, base, ALL)
        copy_bytes(memory, base + d.out, out, b * n, n)


@kernel
def deform_stage(d, memory, stage, count):
    """One stage, ``count`` times, on what the ones before have left: for what it costs."""
    for sample in range(count):
        deform_image(d, sample, 0, 0, memory, 0, stage)
