"""Which inputs of a layer dropout keeps: bits, drawn by Philox 4×32-10 as gpubp/randomness/philox.py has it.

A bit an element is all that is kept of a mask: 64 bytes a sample for a layer of 512. They are drawn once a step, when a
sample is gathered; forward and back then take whole vectors where a few bits say so.
"""

from __future__ import annotations

from llvmlite import ir

from gpubp.kernels.cpu.layout import DRAW_BYTES
from gpubp.kernels.cpu.machine import BYTES
from gpubp.kernels.cpu.vector import BIT, INT8, INT32, INT64, Emit, Lanes, emitted, index

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key from round to round
ROUNDS = 10
TOGETHER = 8  # counters, whose numbers fill bytes
LANES = BYTES // 8  # a word in each 64 bits, of which the upper half is whatever it is
LOW, SHORT = (1 << 32) - 1, (1 << 16) - 1

_words = ir.VectorType(INT64, LANES)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_words, [value] * LANES)


@emitted()
def draw_kept(emit, kept, place, blocks, dropped, key, step, sample, purpose):
    """kept[place :] become the bits of ``blocks`` · 128 elements: set where their number is not below ``dropped``.

    Numbers are those of the sample, step and purpose, under a key of two words of 32 bits.
    """
    builder = emit.builder

    def spread(value):
        return emit._spread(value, _words)

    keys = [spread(key), spread(builder.lshr(key, index(32)))]
    fixed = [spread(value) for value in (sample, step, purpose)]
    low = spread(builder.sub(dropped, index(1)))
    high = spread(builder.sub(builder.shl(dropped, index(16)), index(1)))
    count = emit.multiply(blocks, index(DRAW_BYTES // TOGETHER))

    def eight(group):
        """Eight counters: of each number that they have, a byte of bits, two bytes apart."""
        first = emit.multiply(group, index(TOGETHER))
        sets = []
        for begin in range(0, TOGETHER, LANES):
            lanes = ir.Constant(_words, list(range(begin, begin + LANES)))
            counters = builder.add(spread(first), lanes)
            sets.append(philox(emit, [counters, *fixed], keys))
        block, half = builder.lshr(group, index(1)), builder.and_(group, index(1))
        target = emit.add(place, emit.add(emit.multiply(block, index(DRAW_BYTES)), half))
        for word in range(4):
            for number, (bits, bound) in enumerate(((SHORT, low), (SHORT << 16, high))):
                parts = [builder.and_(words[word], _constant(bits)) for words in sets]
                byte = _byte(emit, [builder.icmp_signed(">", part, bound) for part in parts])
                emit.store_as(byte, kept, emit.add(target, index(2 * (2 * word + number))))

    emit.loop(index(0), count, 1, [], eight)


def philox(emit: Emit, counter: list, key: list) -> list:
    """Four random words of each lane's counter, each in the lower half of its 64 bits, as the counter's and key's are.

    LLVM sees that only the lower halves of factors count.
    """
    builder, (c0, c1, c2, c3), (k0, k1) = emit.builder, counter, key
    for number in range(ROUNDS):
        if number:
            k0, k1 = (builder.add(k, _constant(weyl)) for k, weyl in zip((k0, k1), WEYL, strict=True))
        first, second = (
            builder.mul(builder.and_(c, _constant(LOW)), _constant(m))
            for c, m in zip((c0, c2), MULTIPLIERS, strict=True)
        )
        upper = [builder.lshr(product, _constant(32)) for product in (second, first)]
        c0 = builder.xor(builder.xor(upper[0], c1), k0)
        c2 = builder.xor(builder.xor(upper[1], c3), k1)
        c1, c3 = second, first
    return [c0, c1, c2, c3]


def _byte(emit: Emit, masks: list):
    """Masks of eight lanes in all as the bits of a byte."""
    while len(masks) > 1:
        pairs = zip(masks[::2], masks[1::2], strict=True)
        count = 2 * masks[0].type.count
        order = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
        masks = [emit.builder.shuffle_vector(*pair, order) for pair in pairs]
    return emit.builder.bitcast(masks[0], INT8)


def _kept_lanes(emit: Emit, kept, place, bit, lanes: int):
    """The mask of so many lanes, from bit number ``bit`` on, a multiple of them, counted from a byte."""
    builder, at = emit.builder, emit.add(place, emit.builder.lshr(bit, index(3)))
    bits = ir.IntType(lanes)
    if lanes >= 8:
        mask = emit.load_as(bits, kept, at)
    else:
        byte = builder.zext(emit.load(kept, at), INT64)
        mask = builder.trunc(builder.lshr(byte, builder.and_(bit, index(7))), bits)
    return builder.bitcast(mask, ir.VectorType(BIT, lanes))


@emitted()
def drop_rows(emit, memory, source, target, row, rows, bit, vectors, kept, place, kept_row, factor):
    """target[r, :] = factor source[r, :] where its elements are kept, else 0; for rows of whole vectors.

    The first element's bit is number ``bit`` of kept[place + r kept_row :]; source and target may be one.
    """
    by, last = emit.spread(factor), emit.multiply(vectors, index(emit.lanes))

    def one_row(r, source, target, place):
        def one(i):
            mask = _kept_lanes(emit, kept, place, emit.add(bit, i), emit.lanes)
            value = emit.load_lanes(memory, emit.add(source, i)) * by
            emit.store_lanes(value.where(mask, 0), memory, emit.add(target, i))

        emit.loop(index(0), last, emit.lanes, [], one)
        return [emit.add(source, row), emit.add(target, row), emit.add(place, kept_row)]

    emit.loop(index(0), rows, 1, [source, target, place], one_row)


@emitted()
def drop_unfolded(emit, memory, of_bytes, rows, row, words, maps, map_, kept, place, factor):
    """Of a sample's row of 64 ``words`` inputs with its zeros, and of its bitmap, what is dropped becomes 0.

    Numbers are multiplied by the factor; bytes are as they are, for a table that has it. ``rows`` counts bytes.
    """
    builder, by = emit.builder, emit.spread(factor)

    def all_words(kind: ir.Type, size: int) -> None:
        lanes = min(BYTES // size, 64)
        zeros = ir.Constant(ir.VectorType(kind, lanes), None)

        def word(w):
            bits, here = emit.multiply(w, index(64)), emit.add(map_, w)
            keep = emit.load_as(INT64, kept, emit.add(place, emit.multiply(w, index(8))))
            emit.store_as(builder.and_(emit.load_as(INT64, maps, here, 8), keep), maps, here, 8)
            for part in range(0, 64, lanes):
                at = emit.add(row, emit.multiply(emit.add(bits, index(part)), index(size)))
                mask = _kept_lanes(emit, kept, place, emit.add(bits, index(part)), lanes)
                value = emit.load_as(zeros.type, rows, at)
                if kind != INT8:
                    value = (Lanes(emit, value) * by).value
                emit.store_as(builder.select(mask, value, zeros), rows, at)

        emit.loop(index(0), words, 1, [], word)

    emit.choose(of_bytes, {1: lambda: all_words(INT8, 1), 0: lambda: all_words(emit.element, emit.bits // 8)})
