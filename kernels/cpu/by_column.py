"""The first layer by column: a few neighbouring inputs of all the batch's samples at a time.

Neighbouring pixels are alike: most samples in which one is not 0 have the next one as well. So a tile of some columns
of W, or of its gradient, goes over the samples in which any of them is not 0, and touches memory at its ends only::

                 samples b of the batch ─────────────▶
    x[:, k]      ·  ·  ▪  ▪  ·  ▪  ·  ▪        bit b of bitmap k says that x[b, k] is not 0;
    x[:, k+1]    ·  ·  ▪  ▪  ·  ▪  ·  ·        the tile goes over the bits that are set in
    x[:, k+2]    ·  ▪  ▪  ·  ·  ▪  ·  ·        any of its bitmaps, and there takes x as it is
                    │
                    ▼
    gradient: g[k : k+3, v : v+8] += x[b, k : k+3]ᵀ δ[b, v : v+8]      g, 3 × 8 vectors, stays in registers
    forward:  z[b, v : v+8]       += x[b, k : k+3] W[k : k+3, v : v+8]  W, 3 × 8 vectors, stays in registers

A sample comes as a record: its bitmap, then its values that are not 0. :func:`unfold_bytes` and
:func:`unfold_numbers` make a whole row of them; :func:`turn_bits` makes bitmaps of columns of those of 64 samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llvmlite import ir
from numba.core import cgutils

from gpubp.kernels.cpu.inner import halves
from gpubp.kernels.cpu.layout import BITS, TILE_COLUMNS, WIDEST
from gpubp.kernels.cpu.machine import BYTES, has
from gpubp.kernels.cpu.vector import BIT, INT8, INT64, Emit, Lanes, emitted, index, multiply_add


def _unfold(emit: Emit, kind: ir.Type, size: int, records, record, words, rows, row, maps, map_) -> None:
    """A record of values of this ``kind``, of ``size`` bytes, becomes a row with its zeros, and a row of bitmaps."""
    some = _expanded if has("avx512vbmi2" if size == 1 else "avx512f") and BYTES == 64 else _one_by_one

    def word(w, values):
        mask = emit.load_as(INT64, records, emit.add(record, emit.multiply(w, index(8))))
        emit.store_as(mask, maps, emit.add(map_, w), 8)
        return some(
            emit, kind, size, mask, records, values, rows, emit.add(row, emit.multiply(w, index(BITS * size)))
        )

    emit.loop(index(0), words, 1, [emit.add(record, emit.multiply(words, index(8)))], word)


def _expanded(emit: Emit, kind: ir.Type, size: int, mask, records, values, rows, row) -> list:
    """The next values of a record where the mask's bits are, in 64 that are written; returns where it goes on.

    AVX-512 has an instruction for as many as a vector holds; 68 cycles an image of MNIST in place of 251.
    """
    builder, lanes = emit.builder, BYTES // size
    vector, inside = ir.VectorType(kind, lanes), ir.VectorType(BIT, lanes)
    name = f"llvm.x86.avx512.mask.expand.v{lanes}{'i8' if size == 1 else f'f{8 * size}'}"
    kinds = ir.FunctionType(vector, [vector, vector, inside])
    expand = cgutils.get_or_insert_function(builder.module, kinds, name)
    for part in range(0, BITS, lanes):
        bits = builder.lshr(mask, index(part))
        bits = builder.trunc(bits, ir.IntType(lanes)) if lanes < BITS else bits
        given, zeros = emit.load_as(vector, records, values), ir.Constant(vector, None)
        spread = builder.call(expand, [given, zeros, builder.bitcast(bits, inside)])
        emit.store_as(spread, rows, emit.add(row, index(part * size)))
        count = builder.ctpop(bits)
        count = builder.zext(count, INT64) if lanes < BITS else count
        values = emit.add(values, emit.multiply(count, index(size)))
    return [values]


def _one_by_one(emit: Emit, kind: ir.Type, size: int, mask, records, values, rows, row) -> list:
    """As :func:`_expanded`, on any machine."""
    zeros = ir.Constant(ir.VectorType(kind, BYTES // size), None)
    for part in range(0, BITS * size, BYTES):
        emit.store_as(zeros, rows, emit.add(row, index(part)))

    def one(bit, values):
        value = emit.load_as(kind, records, values)
        emit.store_as(value, rows, emit.add(row, emit.multiply(bit, index(size))))
        return [emit.add(values, index(size))]

    return emit.each_bit(mask, [values], one)


@emitted()
def unfold_bytes(emit, records, record, words, rows, row, maps, map_):
    """The record at ``record`` becomes rows[row : row + 64 words], and its bitmap maps[map_ : map_ + words]."""
    _unfold(emit, INT8, 1, records, record, words, rows, row, maps, map_)


@emitted()
def unfold_numbers(emit, memory, records, record, words, rows, row, maps, map_):
    """As :func:`unfold_bytes`, for numbers as ``memory`` has them; ``rows`` and ``row`` count bytes."""
    _unfold(emit, emit.element, emit.bits // 8, records, record, words, rows, row, maps, map_)


@emitted()
def map_bytes(emit, rows, row, words, maps, map_):
    """The bitmap maps[map_ : map_ + words] of rows[row : row + 64 words], bytes: set where one is not 0."""
    builder, lanes = emit.builder, min(BYTES, BITS)
    zeros = ir.Constant(ir.VectorType(INT8, lanes), None)

    def word(w):
        bits, first = index(0), emit.add(row, emit.multiply(w, index(BITS)))
        for part in range(0, BITS, lanes):
            mask = builder.icmp_unsigned(
                "!=", emit.load_as(zeros.type, rows, emit.add(first, index(part))), zeros
            )
            some = builder.bitcast(mask, ir.IntType(lanes))
            some = builder.zext(some, INT64) if lanes < BITS else some
            bits = builder.or_(bits, builder.shl(some, index(part)))
        emit.store_as(bits, maps, emit.add(map_, w), 8)

    emit.loop(index(0), words, 1, [], word)


@emitted()
def turn_bits(emit, maps, place, words):
    """Of 64 rows of bitmaps, ``words`` a row, bit b of word w in row r becomes bit r of word w in row b.

    All words of a row lie beside each other in vectors; squares of 32, 16, … bits change places with those beside
    them (Warren, Hacker's Delight, section 7-3).
    """
    builder, lanes = emit.builder, BYTES // 8
    kind = ir.VectorType(INT64, lanes)

    def constant(value: int) -> ir.Constant:
        return ir.Constant(kind, [value] * lanes)

    def turn(first):
        for distance in (32, 16, 8, 4, 2, 1):
            low = sum(1 << bit for bit in range(BITS) if not bit & distance)

            def pair(t, distance=distance, low=low):
                below = builder.and_(t, index(distance - 1))
                row = builder.add(builder.shl(builder.sub(t, below), index(1)), below)
                here = emit.add(first, emit.multiply(row, words))
                there = emit.add(here, emit.multiply(index(distance), words))
                a, b = (emit.load_as(kind, maps, p, 8) for p in (here, there))
                change = builder.xor(builder.lshr(a, constant(distance)), b)
                change = builder.and_(change, constant(low))
                emit.store_as(builder.xor(b, change), maps, there, 8)
                emit.store_as(builder.xor(a, builder.shl(change, constant(distance))), maps, here, 8)

            emit.loop(index(0), index(BITS // 2), 1, [], pair)

    emit.loop(place, emit.add(place, words), lanes, [], turn)


class _Batch:
    """The inputs of the samples in work, as instructions that are being written."""

    def __init__(
        self, emit: Emit, memory, table, rows, at, pitch, maps, words, firsts, j0, j1, of_bytes: bool
    ):
        self.emit, self.memory, self.table = emit, memory, table
        self.rows, self.at, self.pitch, self.maps, self.words = rows, at, pitch, maps, words
        self.firsts, self.j0, self.j1, self.of_bytes = firsts, j0, j1, of_bytes

    def each_sample(self, k, height: int, carried: list, body: Callable) -> list:
        """body(b, numbers, *carried) for each sample b of which any of the inputs k … k + height is not 0.

        ``numbers`` are these inputs, each in all lanes of a vector.
        """
        emit, builder = self.emit, self.emit.builder
        columns = [emit.add(k, index(c)) for c in range(height)]
        places = [
            emit.add(
                emit.multiply(builder.and_(column, index(BITS - 1)), self.words),
                builder.lshr(column, index(BITS.bit_length() - 1)),
            )
            for column in columns
        ]
        size = 1 if self.of_bytes else emit.bits // 8

        def word(j, *carried):
            block = emit.multiply(j, emit.multiply(self.words, index(BITS)))
            mask = index(0)
            for place in places:
                mask = builder.or_(mask, emit.load(self.maps, emit.add(block, place)))
            first = emit.load(self.firsts, j)
            row = emit.add(emit.multiply(first, self.pitch), emit.multiply(k, index(size)))
            row = emit.add(row, self.at)

            def sample(bit, *carried):
                here = emit.add(row, emit.multiply(bit, self.pitch))
                numbers = [self._number(emit.add(here, index(c * size))) for c in range(height)]
                return body(emit.add(first, bit), numbers, *carried)

            return emit.each_bit(mask, carried, sample)

        return emit.loop(self.j0, self.j1, 1, carried, word)

    def _number(self, place) -> Lanes:
        emit = self.emit
        if not self.of_bytes:
            return emit.spread(emit.load_as(emit.element, self.rows, place))
        byte = emit.builder.zext(emit.load(self.rows, place), INT64)
        return emit.spread(emit.load(self.memory, emit.add(self.table, byte)))


def _by_shape(emit: Emit, of_bytes, vectors, k0, k1, tile: Callable[..., None]) -> None:
    """tile(k, its height, its vectors, whether inputs are bytes) for the columns k0 … k1; the rest one by one."""

    def columns(first, by: int, width: int, bytes_: bool):
        def one(k, _):
            tile(k, by, width, bytes_)
            return [emit.add(k, index(by))]

        return emit.loop(first, emit.add(k1, index(1 - by)), by, [first], one)[0]

    def all_columns(width: int, bytes_: bool) -> None:
        done = columns(k0, TILE_COLUMNS, width, bytes_)
        columns(done, 1, width, bytes_)

    def any_width(bytes_: bool) -> None:
        emit.choose(vectors, {width: partial(all_columns, width, bytes_) for width in halves(WIDEST)})

    emit.choose(of_bytes, {1: partial(any_width, True), 0: partial(any_width, False)})


@emitted()
def column_product(
    emit, memory, table, rows, at, pitch, of_bytes, maps, words, firsts, j0, j1, k0, k1, b, b_row, c, c_row, vectors
):  # fmt: skip
    """C[r, :] += Σ_k x[r, k] B[k, :] over the columns k0 … k1, for the samples r of the words j0 … j1.

    For 8, 4, 2 or 1 vectors.
    """

    def tile(k, height: int, width: int, bytes_: bool) -> None:
        batch = _Batch(emit, memory, table, rows, at, pitch, maps, words, firsts, j0, j1, bytes_)
        offsets = [index(v * emit.lanes) for v in range(width)]
        places = [emit.add(b, emit.multiply(emit.add(k, index(r)), b_row)) for r in range(height)]
        held = [[emit.load_lanes(memory, emit.add(place, o)) for place in places] for o in offsets]

        def sample(r, numbers):
            row = emit.add(c, emit.multiply(r, c_row))
            for offset, column in zip(offsets, held, strict=True):
                place = emit.add(row, offset)
                total = emit.load_lanes(memory, place)
                for number, weight in zip(numbers, column, strict=True):
                    total = multiply_add(number, weight, total)
                emit.store_lanes(total, memory, place)

        batch.each_sample(k, height, [], sample)

    _by_shape(emit, of_bytes, vectors, k0, k1, tile)


@emitted()
def column_gradient(
    emit, memory, table, rows, at, pitch, of_bytes, maps, words, firsts, j0, j1, k0, k1, b, b_row, c, c_row, vectors,
    rate,
):  # fmt: skip
    """C[k − k0, :] += rate Σ_r x[r, k] B[r, :] for the columns k0 … k1, over the samples r of the words j0 … j1.

    For 8, 4, 2 or 1 vectors; the sums are whole before they are added.
    """
    rate = emit.spread(rate)

    def tile(k, height: int, width: int, bytes_: bool) -> None:
        batch = _Batch(emit, memory, table, rows, at, pitch, maps, words, firsts, j0, j1, bytes_)
        offsets = [index(v * emit.lanes) for v in range(width)]

        def sample(r, numbers, *sums):
            row, new = emit.add(b, emit.multiply(r, b_row)), list(sums)
            for v, offset in enumerate(offsets):
                value = emit.load_lanes(memory, emit.add(row, offset))
                for h, number in enumerate(numbers):
                    new[h * width + v] = multiply_add(number, value, sums[h * width + v])
            return new

        sums = batch.each_sample(k, height, [emit.constant(0)] * (height * width), sample)
        line = emit.add(c, emit.multiply(emit.builder.sub(k, k0), c_row))
        for h in range(height):
            for offset, total in zip(offsets, sums[h * width :], strict=False):
                place = emit.add(line, offset)
                emit.store_lanes(multiply_add(total, rate, emit.load_lanes(memory, place)), memory, place)
            line = emit.add(line, c_row)

    _by_shape(emit, of_bytes, vectors, k0, k1, tile)
