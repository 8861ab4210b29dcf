"""The three innermost loops; but for those of by_column.py, all the time there is goes into them.

===============  ==============================================  ===============================================
loop             what it computes                                where
===============  ==============================================  ===============================================
tiles            C[r, :] = start[r, :] + f Σ_k A[r, k] B[k, :]   every dense product
sparse_product   C[r, :] = start[r, :] + Σ_k x[k] B[i[k], :]     forward, over a sample's non-zero inputs
sparse_gradient  C[i[k], :] += x[k] B[r, :]                      weight_grad: the same inputs times the sample's δ
===============  ==============================================  ===============================================

Each keeps its sums (or, for ``sparse_gradient``, a row of B) in registers, as many as its width needs: there is a
variant for each width, and the call chooses. Operands are offsets into a ``memory``; ``…_row`` and ``…_col`` are the
strides of rows and columns.
"""

from __future__ import annotations

from functools import partial

from llvmlite import ir

from gpubp.kernels.cpu.layout import TILE_ROWS, TILE_VECTORS, WIDEST
from gpubp.kernels.cpu.vector import INT8, INT16, INT64, Emit, Lanes, emitted, index, multiply_add

# Sums that run beside each other, so that a multiply-add need not wait for the one before it.
CHAINS = 8
AS_WIDEST = 16  # of a number of vectors, beyond it


def halves(most: int) -> list[int]:
    """most, most/2, …, 1."""
    return [most >> k for k in range(most.bit_length())]


def _place(emit: Emit, offset, stride, times):
    return emit.add(offset, emit.multiply(stride, times))


@emitted()
def tiles(
    emit, am, a, a_row, a_col, bm, b, b_row, count, sm, start, start_row, cm, c, c_row, rows, vectors, factor
):
    """C = start + factor A B, of ``count`` terms, for any number of rows and up to three vectors, each in its memory.

    8 × 3 sums fill the registers of AVX-512: 24 multiply-adds for 3 loads of B and 8 of A, so that nothing but the
    multiply-adds limits it (97% of peak as measured).
    """

    by = emit.spread(factor)

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

        carried = [_place(emit, a, a_row, first), b, *[emit.constant(0)] * (height * width)]
        _, _, *sums = emit.loop(index(0), count, 1, carried, body)
        for r, number in enumerate(numbers):
            from_, to = _place(emit, start, start_row, number), _place(emit, c, c_row, number)
            for column, value in zip(columns, sums[r * width :], strict=False):
                value = multiply_add(value, by, emit.load_lanes(sm, emit.add(from_, column)))
                emit.store_lanes(value, cm, emit.add(to, column))

    def panel(width: int) -> None:
        done = index(0)
        for height in halves(TILE_ROWS):

            def one(first, _, height=height):
                tile(first, height, width)
                return [emit.add(first, index(height))]

            (done,) = emit.loop(done, emit.add(rows, index(1 - height)), height, [done], one)

    emit.choose(vectors, {width: partial(panel, width) for width in range(TILE_VECTORS, 0, -1)})


def _listed(emit: Emit, records, at, head, m0, m1):
    """Return where the columns of marks m0 … m1 begin in a sparse row's record, how many precede them, and how many."""
    first, stop = (
        emit.builder.zext(emit.load_as(INT16, records, emit.add(at, emit.multiply(m, index(2)))), INT64)
        for m in (m0, m1)
    )
    return emit.add(emit.add(at, head), first), first, emit.builder.sub(stop, first)


def _column(emit: Emit, records, place):
    return emit.builder.zext(emit.load(records, place), INT64)


@emitted()
def sparse_product(
    emit, memory, records, places, rows, head, m0, m1, x, x_row, b, b_row, start, start_row, c, c_row, vectors
):
    """C[r, :] = start[r, :] + Σ_k x[r, k] B[column of k, :], over row r's non-zero inputs in marks m0 … m1.

    ``places[r]`` is where the row's record begins in ``records``. For 8, 4, 2 or 1 vectors; and ``AS_WIDEST`` more for
    sums in the order that the widest have, whatever is taken of a layer at a time.
    """

    def variant(width: int, chains: int) -> None:
        offsets = [index(v * emit.lanes) for v in range(width)]

        def one_row(r):
            columns, before, count = _listed(emit, records, emit.load(places, r), head, m0, m1)
            x_r = emit.add(_place(emit, x, x_row, r), before)

            def add_term(k, *sums):
                row = _place(emit, b, b_row, _column(emit, records, emit.add(columns, k)))
                factor = emit.spread(emit.load(memory, emit.add(x_r, k)))
                terms = [emit.load_lanes(memory, emit.add(row, offset)) for offset in offsets]
                return [multiply_add(factor, term, s) for term, s in zip(terms, sums, strict=True)]

            def add_terms(k, *sums):
                mine = (sums[chain * width : (chain + 1) * width] for chain in range(chains))
                return [
                    s for chain, own in enumerate(mine) for s in add_term(emit.add(k, index(chain)), *own)
                ]

            from_, to = _place(emit, start, start_row, r), _place(emit, c, c_row, r)
            sums = [emit.load_lanes(memory, emit.add(from_, offset)) for offset in offsets]
            sums += [emit.constant(0)] * (width * (chains - 1))
            whole = emit.builder.and_(count, index(-chains))
            sums = emit.loop(index(0), whole, chains, sums, add_terms)
            while len(sums) > width:
                half = len(sums) // 2
                sums = [s + t for s, t in zip(sums[:half], sums[half:], strict=True)]
            if chains > 1:
                sums = emit.loop(whole, count, 1, sums, add_term)
            for value, offset in zip(sums, offsets, strict=True):
                emit.store_lanes(value, memory, emit.add(to, offset))

        emit.loop(index(0), rows, 1, [], one_row)

    variants = {width: partial(variant, width, max(1, CHAINS // width)) for width in halves(WIDEST)}
    of_widest = max(1, CHAINS // WIDEST)
    variants |= {AS_WIDEST + width: partial(variant, width, of_widest) for width in halves(WIDEST // 2)}
    emit.choose(vectors, variants)


@emitted()
def sparse_gradient(emit, memory, records, places, rows, head, m0, m1, x, x_row, b, b_row, c, c_row, vectors):
    """C[column of k, :] += x[r, k] B[r, :], for all rows r and their non-zero inputs in marks m0 … m1.

    As :func:`sparse_product`, whose transpose it is.
    """

    def variant(width: int) -> None:
        offsets = [index(v * emit.lanes) for v in range(width)]

        def one_row(r):
            columns, before, count = _listed(emit, records, emit.load(places, r), head, m0, m1)
            x_r, b_r = emit.add(_place(emit, x, x_row, r), before), _place(emit, b, b_row, r)
            b_values = [emit.load_lanes(memory, emit.add(b_r, offset)) for offset in offsets]

            def one_term(k):
                row = _place(emit, c, c_row, _column(emit, records, emit.add(columns, k)))
                factor = emit.spread(emit.load(memory, emit.add(x_r, k)))
                for b_value, offset in zip(b_values, offsets, strict=True):
                    place = emit.add(row, offset)
                    total = multiply_add(factor, b_value, emit.load_lanes(memory, place))
                    emit.store_lanes(total, memory, place)

            emit.loop(index(0), count, 1, [], one_term)

        emit.loop(index(0), rows, 1, [], one_row)

    emit.choose(vectors, {width: partial(variant, width) for width in halves(WIDEST)})


def _number(emit: Emit, source, place) -> Lanes:
    """The vector of numbers at ``place`` of an array of bytes, or of numbers; bytes are divided by 255."""
    if source.type.pointee != INT8:
        return emit.load_lanes(source, place)
    bytes_ = emit.load_as(ir.VectorType(INT8, emit.lanes), source, place)
    i = Lanes(emit, emit.builder.uitofp(bytes_, emit.vector))
    # i/255 rounded correctly, without the slow division: the remainder of a first quotient mends it.
    quotient = i * (1 / 255)
    return multiply_add(multiply_add(-quotient, emit.constant(255), i), emit.constant(1 / 255), quotient)


@emitted()
def expand(emit, memory, target, source, place, count):
    """memory[target : target + count] = source[place : …] as numbers; bytes i become i/255, rounded correctly."""
    builder = emit.builder
    whole = builder.and_(count, index(-emit.lanes))

    def some(i):
        emit.store_lanes(_number(emit, source, emit.add(place, i)), memory, emit.add(target, i))

    def one(i):
        value = emit.load(source, emit.add(place, i))
        if source.type.pointee == INT8:
            value = builder.fdiv(builder.uitofp(value, emit.element), ir.Constant(emit.element, 255))
        builder.store(value, builder.gep(memory, [emit.add(target, i)]))

    emit.loop(index(0), whole, emit.lanes, [], some)
    emit.loop(whole, count, 1, [], one)


@emitted()
def take(emit, memory, target, target_row, source, source_row, order, first, stop):
    """Rows of ``source``, whose numbers are order[first:stop], become rows of ``memory``, as by :func:`expand`."""

    def one(k, target):
        expand(emit, memory, target, source, emit.multiply(emit.load(order, k), source_row), source_row)
        return [emit.add(target, target_row)]

    emit.loop(first, stop, 1, [target], one)


@emitted()
def expand_record(emit, memory, target, records, place, count, of_bytes):
    """As :func:`expand`, for values that lie in a sparse row's record; whole vectors are read and written."""

    def bytes_(i):
        emit.store_lanes(_number(emit, records, emit.add(place, i)), memory, emit.add(target, i))

    def numbers(i):
        value = emit.load_as(emit.vector, records, emit.add(place, emit.multiply(i, index(emit.bits // 8))))
        emit.store_lanes(Lanes(emit, value), memory, emit.add(target, i))

    def all_of(some):
        return lambda: emit.loop(index(0), count, emit.lanes, [], some)

    emit.choose(of_bytes, {1: all_of(bytes_), 0: all_of(numbers)})
