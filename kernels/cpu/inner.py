"""The three innermost loops; all the time there is goes into them.

========  ==========================================  ==================================================
loop      what it computes                            where
========  ==========================================  ==================================================
tiles     C[r, :] = start[r, :] + Σ_k A[r, k] B[k, :]  every dense product
gather    c[:] = start[:] + Σ_k x[k] B[i[k], :]        forward: a sample's non-zero inputs
scatter   C[i[k], :] += x[k] b[:]                      weight_grad: the same inputs times the sample's δ
========  ==========================================  ==================================================

Each keeps its sums (or, for ``scatter``, b) in registers, as many as its width needs: there is a variant for each
width, and the call chooses. Operands are offsets into a ``memory``; ``…_row`` and ``…_col`` are the strides of rows and
columns.
"""

from __future__ import annotations

from functools import partial

from gpubp.kernels.cpu.vector import INT64, REGISTERS, Emit, emitted, index, multiply_add

# Sums that run beside each other, so that a multiply-add need not wait for the one before it.
CHAINS = 8
# The largest tile: as many sums as leave registers for the operands.
TILE_VECTORS = 3
TILE_ROWS = 8 if REGISTERS >= 32 else 4
WIDEST = 8 if REGISTERS >= 32 else 4  # vectors that gather and scatter take at a time


def _halves(most: int) -> list[int]:
    """most, most/2, …, 1."""
    return [most >> k for k in range(most.bit_length())]


def _place(emit: Emit, offset, stride, times):
    return emit.add(offset, emit.multiply(stride, times))


@emitted()
def tiles(emit, am, a, a_row, a_col, bm, b, b_row, count, sm, start, start_row, cm, c, c_row, rows, vectors):
    """C = start + A B over ``count`` terms, for any number of rows and up to three vectors; each in a memory of its own.

    8 × 3 sums fill the registers of AVX-512: 24 multiply-adds for 3 loads of B and 8 of A, so that nothing but the
    multiply-adds limits it (97% of peak as measured).
    """

    def tile(first, height: int, width: int) -> None:
        """Rows first … first + height of C."""
        columns = [index(v * emit.lanes) for v in range(width)]
        numbers = [emit.add(first, index(r)) for r in range(height)]
        a_places = [emit.multiply(a_row, index(r)) for r in range(height)]

        def body(k, a_k, b_k, *sums):
            b_values = [emit.load_lanes(bm, emit.add(b_k, column)) for column in columns]
            new = []
            for r, a_place in enumerate(a_places):
                a_value = emit.spread(emit.load(am, emit.add(a_k, a_place)))
                for v, b_value in enumerate(b_values):
                    new.append(multiply_add(a_value, b_value, sums[r * width + v]))
            return [emit.add(a_k, a_col), emit.add(b_k, b_row), *new]

        starts = [_place(emit, start, start_row, r) for r in numbers]
        sums = [emit.load_lanes(sm, emit.add(place, column)) for place in starts for column in columns]
        carried = [_place(emit, a, a_row, first), b, *sums]
        _, _, *sums = emit.loop(index(0), count, 1, carried, body)
        for i, value in enumerate(sums):
            place = _place(emit, c, c_row, numbers[i // width])
            emit.store_lanes(value, cm, emit.add(place, columns[i % width]))

    def panel(width: int) -> None:
        done = index(0)
        for height in _halves(TILE_ROWS):

            def one(first, _, height=height):
                tile(first, height, width)
                return [emit.add(first, index(height))]

            (done,) = emit.loop(done, emit.add(rows, index(1 - height)), height, [done], one)

    emit.choose(vectors, {width: partial(panel, width) for width in range(TILE_VECTORS, 0, -1)})


@emitted()
def gather(emit, memory, columns, vectors, first, x, count, b, b_row, start, c):
    """c = start + Σ_k memory[x + k] B[columns[first + k], :], k < count, for 8, 4, 2 or 1 vectors."""

    def variant(width: int) -> None:
        offsets = [index(v * emit.lanes) for v in range(width)]
        chains = max(1, CHAINS // width)

        def add_term(k, *sums):
            i = emit.builder.zext(emit.load(columns, emit.add(first, k)), INT64)
            row = _place(emit, b, b_row, i)
            factor = emit.spread(emit.load(memory, emit.add(x, k)))
            terms = [emit.load_lanes(memory, emit.add(row, offset)) for offset in offsets]
            return [multiply_add(factor, term, s) for term, s in zip(terms, sums, strict=True)]

        def add_terms(k, *sums):
            new = []
            for chain in range(chains):
                mine = sums[chain * width : (chain + 1) * width]
                new += add_term(emit.add(k, index(chain)), *mine)
            return new

        sums = [emit.load_lanes(memory, emit.add(start, offset)) for offset in offsets]
        sums += [emit.constant(0)] * (width * (chains - 1))
        whole = emit.builder.and_(count, index(-chains))
        sums = emit.loop(index(0), whole, chains, sums, add_terms)
        while len(sums) > width:
            half = len(sums) // 2
            sums = [s + t for s, t in zip(sums[:half], sums[half:], strict=True)]
        if chains > 1:
            sums = emit.loop(whole, count, 1, sums, add_term)
        for value, offset in zip(sums, offsets, strict=True):
            emit.store_lanes(value, memory, emit.add(c, offset))

    emit.choose(vectors, {width: partial(variant, width) for width in _halves(WIDEST)})


@emitted()
def scatter(emit, memory, columns, vectors, first, x, count, b, c, c_row):
    """C[columns[first + k], :] += memory[x + k] b, k < count, for 8, 4, 2 or 1 vectors."""

    def variant(width: int) -> None:
        offsets = [index(v * emit.lanes) for v in range(width)]
        b_values = [emit.load_lanes(memory, emit.add(b, offset)) for offset in offsets]

        def body(k):
            i = emit.builder.zext(emit.load(columns, emit.add(first, k)), INT64)
            row = _place(emit, c, c_row, i)
            factor = emit.spread(emit.load(memory, emit.add(x, k)))
            for b_value, offset in zip(b_values, offsets, strict=True):
                place = emit.add(row, offset)
                emit.store_lanes(multiply_add(factor, b_value, emit.load_lanes(memory, place)), memory, place)
            return []

        emit.loop(index(0), count, 1, [], body)

    emit.choose(vectors, {width: partial(variant, width) for width in _halves(WIDEST)})
