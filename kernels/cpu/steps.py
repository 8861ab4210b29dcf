"""steps: any number of training steps as one compiled call, by one thread of a team that meets at barriers.

A step runs through these phases, each in the cache of the core that runs it::

    gather        the batch's inputs: as floats, only those that are not 0, or those by column (by_column.py);
                  with dropout, what is kept of each layer's inputs is drawn (random.py), and that of the first's taken;
                  images are deformed before (deform.py)
    forward       z = a_prev Wᵀ + b, a = σ(z)                              for each layer
    output_delta  δ = ∇ₐC ⊙ σ'(z), cost and hits                     (BP1)
    hidden_delta  δ = (δ_next W_next) ⊙ σ'(z)                        (BP2) for each layer but the last
    weight_grad   ∂C/∂W = δᵀ a_prev, ∂C/∂b = Σ δ, a block at a time  (BP4, BP3), and each block's update;
                  SGD without momentum and decay needs no block: W − η δᵀ a_prev goes straight to W

Weights lie transposed, (n_in, n_out), so that every product runs along whole vectors of n_out, with the bias as row
n_in; rows are padded to whole vectors. δ carries the factor 1/B from the output on, so that a sum of products is the
gradient.

Threads share a layer by its rows (samples; in the gradient, rows of W), or by its units. By rows, a thread takes its
samples from gather to hidden_delta without meeting the others; by units, it alone ever touches its share of W, and
waits for the others after each layer. A layer's table entry says which.
"""

from __future__ import annotations

import numpy as np
from numba import types

from gpubp.kernels import COEFFICIENTS
from gpubp.kernels.cpu.by_column import (
    column_gradient,
    column_product,
    map_bytes,
    turn_bits,
    unfold_bytes,
    unfold_numbers,
)
from gpubp.kernels.cpu.compile import kernel, part
from gpubp.kernels.cpu.deform import copy_bytes, deform_image
from gpubp.kernels.cpu.inner import AS_WIDEST, expand_record, sparse_gradient, sparse_product, take, tiles
from gpubp.kernels.cpu.layout import (
    A_PREV,
    A_PREV_ROW,
    ACTIVATION,
    ALL,
    BITS,
    BLOCK_BYTES,
    BLOCK_ROWS,
    BLOCK_VECTORS,
    BY_UNITS,
    DELTA,
    DEPTH,
    DRAW_BYTES,
    DROPPED,
    FACTOR,
    FORWARD,
    FORWARD_MARKS,
    GATHER,
    GRADIENT,
    GRADIENTS,
    HIDDEN_DELTA,
    KEPT,
    KEPT_ROW,
    MARK,
    N_IN,
    N_OUT,
    OUTPUT_DELTA,
    PACK_ROWS,
    ROW,
    SHAREABLE,
    SLOT1,
    SLOT2,
    SPAN,
    SPARSE_BYTES,
    TILE_VECTORS,
    VECTORS,
    WEIGHT_GRAD,
    WIDEST,
    A,
    W,
    head_of,
    phase,
    words_before,
)
from gpubp.kernels.cpu.machine import BYTES
from gpubp.kernels.cpu.random import draw_kept, drop_rows, drop_unfolded
from gpubp.kernels.cpu.rowwise import activate, pull_back, update_rows
from gpubp.kernels.cpu.sync import barrier
from gpubp.kernels.cpu.turned import SOFTMAX, count_hits, output, pull_back_softmax, softmax
from gpubp.kernels.cpu.vector import (
    copy,
    get,
    get_short,
    prefetch_row,
    put,
    put_short,
    put_value,
    scale,
    transpose,
)

DECAY = COEFFICIENTS["sgd"]._fields.index("decay")

part(types.int64)(phase)
part(types.intp)(head_of)
part(types.intp)(words_before)


@kernel
def steps(net, data, order, batch, coefficients, updates, mode, only, thread, sync, costs, hits, outputs):
    """Run the mini-batches of ``order``, ``batch`` samples each, one after the other, as ``thread`` of the team.

    coefficients are the optimizer's of each step, first the weights' and then the biases'; costs and hits (threads,
    steps) get this thread's part of each step's sums, and outputs (samples, n_out), where asked for, the predictions.
    ``updates`` are those made before: dropout draws its numbers by that. Gradients are of one step, and ``batch`` may
    be larger than it: costs are then divided by that, and the samples are a part of such a batch.
    Where ``only`` is a :func:`phase` and not ALL, no other is run, on what the ones before it left in the memory.
    """
    samples = len(order)
    count = costs.shape[1]
    width = len(coefficients) // max(2 * count, 1)
    first = 0
    for s in range(count):
        stop = min(first + batch, samples)
        costs[thread, s], hits[thread, s] = 0.0, 0
        for begin in range(first, stop, net.chunk):
            end = min(begin + net.chunk, stop)
            sparse = (net.deformed >= 0 and data.pitch > 0) or is_sparse(data, order, begin, end)
            b0 = begin + (end - begin) * thread // net.threads
            b1 = begin + (end - begin) * (thread + 1) // net.threads
            if runs(only, GATHER, 0):
                draw(net.chance, net, order, begin, b0, b1, updates + s)
                deform(net.chance, net, data, order, begin, b0, b1, updates + s, thread)
                gather_inputs(
                    net, data, order, begin, end, b0, b1, min(batch, net.chunk), sparse, thread, sync
                )
            forward_all(net, data, order, begin, end, b0, b1, sparse, only, thread, sync)
            if runs(only, OUTPUT_DELTA, 0):
                whole = batch if mode == GRADIENTS else stop - first
                cost, hit = output_all(net, begin, b0, b1, whole, thread, outputs)
                costs[thread, s] += cost
                hits[thread, s] += hit
            if mode <= GRADIENTS:
                back_all(net, begin, end, b0, b1, only, thread, sync)
                barrier(sync, net.threads)
                to_memory = mode == GRADIENTS or end < stop
                c = 2 * s * width
                for i in range(len(net.layers)):
                    if runs(only, WEIGHT_GRAD, i):
                        gradient(
                            net, data, order, i, begin, end, sparse and i == 0, thread,
                            begin > first, to_memory, coefficients, c, width,
                        )  # fmt: skip
            barrier(sync, net.threads)
        first = stop


@part(types.boolean)
def runs(only, kind, layer):
    """Return True if this phase is run."""
    return only == ALL or only == phase(kind, layer)


@part(types.boolean)
def is_sparse(data, order, begin, end):
    """Return True if the chunk's inputs are taken without their zeros."""
    if len(data.records) == 0 or data.most_bytes == 0:
        return len(data.records) > 0
    total = 0
    for b in range(begin, end):
        s = get(order, b)
        total += get(data.starts, s + 1) - get(data.starts, s)
    return total <= data.most_bytes * (end - begin)


@part(optional=True)
def draw(chance, net, order, begin, b0, b1, step):
    """What dropout keeps of the inputs of each layer that has it, for samples b0 … b1."""
    for i in range(len(net.layers)):
        layer = net.layers[i]
        if layer[DROPPED] > 0:
            blocks, place = layer[KEPT_ROW] // DRAW_BYTES, layer[KEPT] + (b0 - begin) * layer[KEPT_ROW]
            for b in range(b0, b1):
                draw_kept(
                    chance.kept, place, blocks, layer[DROPPED], chance.key, step, get(order, b), np.int64(i)
                )
                place += layer[KEPT_ROW]


@part(optional=True)
def deform(chance, net, data, order, begin, b0, b1, step, thread):
    """Images b0 … b1 as they are deformed in this step, with their zeros; what dropout takes of them is 0 then."""
    if net.deformed < 0:
        return
    d, n, pitch = chance.deforming, net.layers[0, N_IN], deformed_pitch(net, data)
    base = thread * d.size
    for b in range(b0, b1):
        sample = get(order, b)
        limit = get(chance.limits, sample) if len(chance.limits) > 0 else np.int64(0)
        if b + 1 < b1:
            following = get(order, b + 1) * n
            prefetch_row(data.bytes, following, following + n)
        copy_bytes(data.bytes, sample * n, chance.working, base + d.image, n)
        deform_image(d, sample, step, limit, chance.working, base, ALL)
        place = net.deformed + (b - begin) * pitch
        copy_bytes(chance.working, base + d.out, net.unfolded, place, n)
        if data.pitch > 0 and net.layers[0, DROPPED] > 0:
            scratch = thread * net.words * BITS * net.map_row  # of bitmaps, which are made of what is left
            drop_by_column(chance, net, data, b - begin, place, scratch)


@part(types.intp)
def deformed_pitch(net, data):
    """Bytes from one deformed image to the next."""
    return data.pitch if data.pitch > 0 else net.layers[0, N_IN]


@part()
def gather_inputs(net, data, order, begin, end, b0, b1, ahead, sparse, thread, sync):
    """Samples b0 … b1: targets, weights, and inputs as numbers, (rows, n_in), or only those that are not 0.

    What the samples ``ahead`` places further on will need, the next batch's, is asked for meanwhile.
    """
    memory, first = net.memory, net.layers[0]
    n_in, n_out = first[N_IN], net.layers[len(net.layers) - 1, ROW]
    head = head_of(n_in)
    for b in range(b0 + ahead, min(b1 + ahead, len(order))):
        soon = get(order, b)
        prefetch_row(data.targets, soon * n_out, soon * n_out + n_out)
        if net.deformed >= 0:
            continue
        if sparse:
            prefetch_row(data.records, get(data.starts, soon), get(data.starts, soon + 1))
        elif len(data.bytes) > 0:
            prefetch_row(data.bytes, soon * n_in, soon * n_in + n_in)
        else:
            prefetch_row(data.numbers, soon * n_in, soon * n_in + n_in)
    take(memory, net.targets + (b0 - begin) * n_out, n_out, data.targets, n_out, order, b0, b1)
    for b in range(b0, b1):
        weight = (
            get(data.sample_weight, get(order, b)) if len(data.sample_weight) > 0 else get(memory, net.one)
        )
        put(memory, net.weights + b - begin, weight)
    place, row = first[A_PREV] + (b0 - begin) * first[A_PREV_ROW], first[A_PREV_ROW]
    if sparse and data.pitch > 0:
        if first[DROPPED] > 0 or net.deformed >= 0:  # by bits, or of images, that other threads have made
            barrier(sync, net.threads)
        unfold(net, data, order, begin, end, thread)
    elif sparse:
        for b in range(b0, b1):
            record = get(data.starts, get(order, b))
            put(net.places, b - begin, record)
            count = get_short(data.records, record + head - 2)
            place = net.inputs + (b - begin) * net.most
            expand_record(memory, place, data.records, record + head + count, count, len(data.bytes) > 0)
            if first[DROPPED] > 0:
                drop_listed(net.chance, net, data, b - begin, record)
    elif net.deformed >= 0:
        take(memory, place, row, net.unfolded[net.deformed :], n_in, net.places, b0 - begin, b1 - begin)
    elif len(data.bytes) > 0:
        take(memory, place, row, data.bytes, n_in, order, b0, b1)
    else:
        take(memory, place, row, data.numbers, n_in, order, b0, b1)
    if first[DROPPED] > 0 and not sparse:
        lanes = BYTES // memory.itemsize
        drop(net.chance, net, first, place, place, row, b0 - begin, b1 - b0, 0, (n_in + lanes - 1) // lanes)


@part(optional=True)
def drop_listed(chance, net, data, b, record):
    """Of the listed inputs of sample b of the chunk, what is dropped becomes 0, and the rest is multiplied."""
    memory, first = net.memory, net.layers[0]
    head, place = head_of(first[N_IN]), net.inputs + b * net.most
    bits, factor = first[KEPT] + b * first[KEPT_ROW], get(memory, first[FACTOR])
    for m in range(head // 2 - 1):
        for k in range(get_short(data.records, record + 2 * m), get_short(data.records, record + 2 * m + 2)):
            column = m * MARK // SPAN * SPAN + get(data.records, record + head + k)
            stays = get(chance.kept, bits + column // 8) >> (column % 8) & 1
            put(memory, place + k, get(memory, place + k) * factor if stays else get(memory, net.zero))


@part(optional=True)
def drop_by_column(chance, net, data, b, place, bitmap):
    """The same of a sample's unfolded inputs and its bitmap."""
    first = net.layers[0]
    drop_unfolded(
        net.memory, len(data.bytes) > 0, net.unfolded, place, net.map_words, net.maps, bitmap, chance.kept,
        first[KEPT] + b * first[KEPT_ROW], get(net.memory, first[FACTOR]),
    )  # fmt: skip


@part()
def unfold(net, data, order, begin, end, thread):
    """The inputs of the samples in work from their records, with their zeros, and bitmaps of each input's samples.

    Every thread has all of them to itself: it makes them sooner than it gets them from another core's cache. Deformed
    images take longer to make, and threads have them in common. The samples of each thread begin a word of bitmaps.
    """
    row, place, first = net.map_row, unfolded_at(net, data, thread), net.layers[0]
    word = thread * net.words
    for t in range(net.threads):
        b0 = begin + (end - begin) * t // net.threads
        b1 = begin + (end - begin) * (t + 1) // net.threads
        for b in range(b0, b1):
            bitmap = (word * BITS + b - b0) * row
            if net.deformed >= 0:
                map_bytes(net.unfolded, place, net.map_words, net.maps, bitmap)
                place += data.pitch
                continue
            record = get(data.starts, get(order, b))
            if len(data.bytes) > 0:
                unfold_bytes(data.records, record, net.map_words, net.unfolded, place, net.maps, bitmap)
            else:
                unfold_numbers(
                    net.memory, data.records, record, net.map_words, net.unfolded, place, net.maps, bitmap
                )
            if first[DROPPED] > 0:
                drop_by_column(net.chance, net, data, b - begin, place, bitmap)
            place += data.pitch
        for b in range(b0, b1, BITS):
            bitmap = word * BITS * row
            for zero in range(
                bitmap + (b1 - b) * row, bitmap + BITS * row
            ):  # where the last word is not full
                put(net.maps, zero, 0)
            turn_bits(net.maps, bitmap, row)
            put(net.firsts, word, b - begin)
            word += 1


@part(types.intp)
def unfolded_at(net, data, thread):
    """Return where the inputs of the samples in work lie, which this thread takes by column."""
    return net.deformed if net.deformed >= 0 else thread * net.chunk * data.pitch


@part(types.UniTuple(types.intp, 2))
def units_of(layer, thread, threads):
    """A thread's share of a layer's units, in vectors: all of them, unless the layer is shared by its units."""
    vectors = layer[VECTORS]
    if layer[BY_UNITS]:
        return vectors * thread // threads, vectors * (thread + 1) // threads
    return np.intp(0), vectors


@part()
def forward_all(net, data, order, begin, end, b0, b1, sparse, only, thread, sync):
    """All layers' z, and a = σ(z) of all but the last, whose z the cost asks for."""
    no, one = np.int64(0), np.int64(1)  # literals would have what they are passed to compiled once for each
    by_units = False  # of the layer before: whether threads shared its units, and not its samples
    last = len(net.layers) - 1
    for i in range(last + 1):
        if not runs(only, FORWARD, i):
            continue
        layer = net.layers[i]
        if by_units or layer[BY_UNITS]:
            barrier(sync, net.threads)
        by_units = layer[BY_UNITS] != 0
        first, stop = (begin, end) if by_units else (b0, b1)
        v0, v1 = units_of(layer, thread, net.threads)
        lanes = BYTES // net.memory.itemsize
        place = layer[A] + (first - begin) * layer[ROW] + v0 * lanes
        if sparse and i == 0 and data.pitch > 0:
            forward_by_column(net, data, begin, end, first, stop, v0, v1, thread)
        elif sparse and i == 0:
            forward_sparse(net, data, begin, first, stop, v0, v1)
        else:
            a_prev = layer[A_PREV] + (first - begin) * layer[A_PREV_ROW]
            w = layer[W] + v0 * lanes
            dense_product(
                net.memory, a_prev, layer[A_PREV_ROW], one, w, layer[ROW], layer[N_IN],
                w + layer[N_IN] * layer[ROW], no, place, layer[ROW], stop - first, v1 - v0,
                panel_of(net, thread), net.zero, no, get(net.memory, net.one),
            )  # fmt: skip
        if i < last and layer[ACTIVATION] == SOFTMAX:
            softmax_rows(net, i, first - begin, stop - begin, thread)
        elif i < last:
            activate(net.memory, place, layer[ROW], stop - first, v1 - v0, layer[ACTIVATION])
        if i < last and net.layers[i + 1, DROPPED] > 0:
            above = net.layers[i + 1]
            target = above[A_PREV] + place - layer[A]
            drop(net.chance, net, above, place, target, layer[ROW], first - begin, stop - first, v0, v1)
    if by_units:
        barrier(sync, net.threads)


@part(optional=True)
def drop(chance, net, layer, source, target, row, first, rows, v0, v1):
    """Vectors v0 … v1 of what a layer takes of its inputs, or of ∂C/∂a, ``rows`` of them from sample ``first`` on."""
    lanes = BYTES // net.memory.itemsize
    drop_rows(
        net.memory, source, target, row, rows, v0 * lanes, v1 - v0, chance.kept,
        layer[KEPT] + first * layer[KEPT_ROW], layer[KEPT_ROW], get(net.memory, layer[FACTOR]),
    )  # fmt: skip


@part()
def forward_sparse(net, data, begin, first, stop, v0, v1):
    """z of the first layer, from the non-zero inputs: a block of W's rows at a time, for all samples."""
    layer = net.layers[0]
    lanes = BYTES // net.memory.itemsize
    marks = (layer[N_IN] + MARK - 1) // MARK
    places = net.places[first - begin :]
    v = v0
    while v < v1:
        wide = widest(v1 - v)
        # Where threads take their part of the units, all sum in one order, and so does one thread alone.
        kind = wide + AS_WIDEST if layer[SHAREABLE] and wide < WIDEST else wide
        w = layer[W] + v * lanes
        z = layer[A] + (first - begin) * layer[ROW] + v * lanes
        for m in range(0, marks, FORWARD_MARKS):
            start, start_row = (z, layer[ROW]) if m > 0 else (w + layer[N_IN] * layer[ROW], 0)
            sparse_product(
                net.memory, data.records, places, stop - first, head_of(layer[N_IN]), m,
                min(m + FORWARD_MARKS, marks), net.inputs + (first - begin) * net.most, net.most,
                w + m * MARK * layer[ROW], layer[ROW], start, start_row, z, layer[ROW], kind,
            )  # fmt: skip
        v += wide


@part()
def forward_by_column(net, data, begin, end, first, stop, v0, v1, thread):
    """z of the first layer, a few inputs at a time: of a thread's samples, or of all where units are shared.

    It is summed beside each other, where no other thread's z lies between.
    """
    layer, memory, panel = net.layers[0], net.memory, panel_of(net, thread)
    n_in, row, lanes = layer[N_IN], layer[ROW], BYTES // memory.itemsize
    t0, t1 = (0, net.threads) if layer[BY_UNITS] else (thread, thread + 1)
    j0 = thread * net.words + words_before(end - begin, net.threads, t0)
    j1 = thread * net.words + words_before(end - begin, net.threads, t1)
    before, count = first - begin, stop - first
    v = v0
    while v < v1:
        wide = widest(v1 - v)
        w, room = layer[W] + v * lanes, wide * lanes
        copy(memory, w + n_in * row, 0, panel, room, count, wide)
        column_product(
            memory, net.table, net.unfolded, unfolded_at(net, data, thread), data.pitch, len(data.bytes) > 0,
            net.maps, net.map_row, net.firsts, j0, j1, 0, n_in, w, row, panel - before * room, room, wide,
        )  # fmt: skip
        copy(memory, panel, room, layer[A] + before * row + v * lanes, row, count, wide)
        v += wide


@part()
def turn(net, place, layer, rows, block):
    """The block of a layer's first ``rows`` rows from place on, as many as a vector has lanes or less."""
    lanes = BYTES // net.memory.itemsize
    for v in range(layer[VECTORS]):
        transpose(
            net.memory, place + v * lanes, layer[ROW], rows, net.zero, block + v * lanes * lanes, lanes, lanes, block
        )  # fmt: skip


@part()
def turn_back(net, block, place, layer, rows):
    """Write as many rows of a layer from their block; their padding becomes 0."""
    lanes = BYTES // net.memory.itemsize
    spare = block + layer[VECTORS] * lanes * lanes
    for v in range(layer[VECTORS]):
        transpose(
            net.memory, block + v * lanes * lanes, lanes, layer[N_OUT] - v * lanes, net.zero,
            place + v * lanes, layer[ROW], rows, spare,
        )  # fmt: skip


@part(types.int64)
def panel_of(net, thread):
    """Return where the thread's scratch memory holds a copied panel of B, after the block of a gradient."""
    return net.scratch + thread * net.scratch_size + BLOCK_BYTES // net.memory.itemsize


@part(types.UniTuple(types.int64, 3))
def blocks_of(net, layer, thread):
    """Return where the panel leaves room for three blocks of a layer's rows, each with a vector to spare."""
    lanes = BYTES // net.memory.itemsize
    size = (layer[VECTORS] * lanes + 1) * lanes
    first = panel_of(net, thread)
    return first, first + size, first + 2 * size


@part()
def softmax_rows(net, i, r0, r1, thread):
    """a = softmax(z) of a hidden layer, rows r0 … r1 of the chunk."""
    layer, lanes = net.layers[i], BYTES // net.memory.itemsize
    block, _, _ = blocks_of(net, layer, thread)
    for r in range(r0, r1, lanes):
        rows, place = min(lanes, r1 - r), layer[A] + r * layer[ROW]
        turn(net, place, layer, rows, block)
        softmax(net.memory, block, layer[N_OUT])
        turn_back(net, block, place, layer, rows)


@part()
def pull_back_softmax_rows(net, i, r0, r1, thread):
    """∂C/∂a of a hidden layer of softmax becomes δ, rows r0 … r1 of the chunk."""
    layer, lanes = net.layers[i], BYTES // net.memory.itemsize
    delta, a, _ = blocks_of(net, layer, thread)
    for r in range(r0, r1, lanes):
        rows, shift = min(lanes, r1 - r), r * layer[ROW]
        turn(net, layer[DELTA] + shift, layer, rows, delta)
        turn(net, layer[A] + shift, layer, rows, a)
        pull_back_softmax(net.memory, delta, a, layer[N_OUT])
        turn_back(net, delta, layer[DELTA] + shift, layer, rows)


@part(types.Tuple((types.float64, types.int64)))
def output_all(net, begin, b0, b1, batch, thread, outputs):
    """δ of the output layer for samples b0 … b1, and their predictions if asked for; returns their cost and hits."""
    layer, lanes = net.layers[len(net.layers) - 1], BYTES // net.memory.itemsize
    n = layer[N_OUT]
    z, y, delta = blocks_of(net, layer, thread)
    cost, hits = 0.0, 0
    for r in range(b0 - begin, b1 - begin, lanes):
        rows, shift = min(lanes, b1 - begin - r), r * layer[ROW]
        turn(net, layer[A] + shift, layer, rows, z)
        turn(net, net.targets + shift, layer, rows, y)
        cost += output(net.memory, z, y, delta, n, net.weights + r, rows, batch, layer[ACTIVATION], net.loss)
        hits += count_hits(net.memory, z, y, n, rows)
        turn_back(net, delta, layer[DELTA] + shift, layer, rows)
        if len(outputs) > 0:
            for b in range(rows):
                for j in range(n):
                    outputs[begin + r + b, j] = get(net.memory, z + j * lanes + b)
    return cost, hits


@part()
def back_all(net, begin, end, b0, b1, only, thread, sync):
    """δ of every hidden layer, from the last to the first."""
    no, one = np.int64(0), np.int64(1)
    by_units = False
    lanes = BYTES // net.memory.itemsize
    for i in range(len(net.layers) - 1, 0, -1):
        if not runs(only, HIDDEN_DELTA, i - 1):
            continue
        layer, below = net.layers[i], net.layers[i - 1]
        if by_units or below[BY_UNITS]:
            barrier(sync, net.threads)
        by_units = below[BY_UNITS] != 0
        first, stop = (begin, end) if by_units else (b0, b1)
        v0, v1 = units_of(below, thread, net.threads)
        shift = (first - begin) * below[ROW] + v0 * lanes
        dense_product(
            net.memory, layer[DELTA] + (first - begin) * layer[ROW], layer[ROW], one,
            layer[W] + v0 * lanes * layer[ROW], layer[ROW], layer[N_OUT], net.zero, no,
            below[DELTA] + shift, below[ROW], stop - first, v1 - v0,
            panel_of(net, thread), net.zero, below[N_OUT] - v0 * lanes, get(net.memory, net.one),
        )  # fmt: skip
        if layer[DROPPED] > 0:
            arriving = below[DELTA] + shift
            drop(net.chance, net, layer, arriving, arriving, below[ROW], first - begin, stop - first, v0, v1)
        if below[ACTIVATION] == SOFTMAX:
            pull_back_softmax_rows(net, i - 1, first - begin, stop - begin, thread)
        else:
            pull_back(
                net.memory, below[DELTA] + shift, below[A] + shift, below[ROW], stop - first, v1 - v0,
                below[ACTIVATION],
            )  # fmt: skip


@part()
def gradient(net, data, order, i, begin, end, sparse, thread, go_on, to_memory, coefficients, c, width):
    """∂C/∂W and ∂C/∂b of this thread's share of layer i: into memory, or used for the update block by block.

    ``go_on`` adds to what earlier chunks of the batch left in memory.
    """
    memory, layer = net.memory, net.layers[i]
    lanes = BYTES // memory.itemsize
    n_in, row = layer[N_IN], layer[ROW]
    k0, k1 = net.rows[i, thread], net.rows[i, thread + 1]
    if layer[BY_UNITS]:
        k0, k1 = 0, n_in
    # with the biases, whose row is the last
    stop = k1 + 1 if layer[BY_UNITS] or thread == net.threads - 1 else k1
    v0, v1 = units_of(layer, thread, net.threads)
    scratch = net.scratch + thread * net.scratch_size
    panel = panel_of(net, thread)
    # SGD without momentum and decay takes no gradient but W − η ∂C/∂W: then sums go straight to the weights.
    straight, rate = False, get(memory, net.one)
    if layer[SLOT1] < 0 and not to_memory and not go_on and get(coefficients, c + DECAY) == 0:
        straight, rate = True, -get(coefficients, c)
    v = v0
    while v < v1:
        wide = widest(v1 - v) if sparse else min(v1 - v, BLOCK_VECTORS)
        shift = v * lanes
        block = sparse_rows(wide) if sparse else BLOCK_ROWS
        delta, delta_row = layer[DELTA] + shift, row
        if sparse and straight:
            block = n_in if data.pitch > 0 else SPAN
            if data.pitch == 0:
                scale(memory, delta, row, panel, wide * lanes, end - begin, wide, rate)
                delta, delta_row = panel, wide * lanes
        k = k0
        while k < stop:
            # blocks of listed columns lie in one span
            rows = min(block - k % block, k1 - k) if k < n_in else 1
            at = k * row + shift
            start, start_row = (layer[GRADIENT] + at, row) if go_on else (net.zero, 0)
            g, g_row = (layer[GRADIENT] + at, row) if to_memory else (scratch, wide * lanes)
            if straight:
                start, start_row, g, g_row = layer[W] + at, row, layer[W] + at, row
            elif sparse and k < n_in and (to_memory or go_on):
                copy(memory, start, start_row, g, g_row, rows, wide)
            if sparse and k < n_in and data.pitch > 0:
                column_gradient(
                    memory, net.table, net.unfolded, unfolded_at(net, data, thread), data.pitch,
                    len(data.bytes) > 0, net.maps, net.map_row, net.firsts, thread * net.words,
                    thread * net.words + words_before(end - begin, net.threads, net.threads), k, k + rows,
                    delta, row, g, g_row, wide, rate,
                )  # fmt: skip
            elif sparse and k < n_in:
                sparse_gradient(
                    memory, data.records, net.places, end - begin, head_of(n_in), k // MARK,
                    (k + rows + MARK - 1) // MARK, net.inputs, net.most, delta, delta_row,
                    g - (k % SPAN) * g_row, g_row, wide,
                )  # fmt: skip
            else:
                a, a_row, a_col = (layer[A_PREV] + k, 1, layer[A_PREV_ROW]) if k < n_in else (net.one, 0, 0)
                dense_product(
                    memory, a, a_row, a_col, layer[DELTA] + shift, row, end - begin, start, start_row, g, g_row,
                    rows, wide, panel, net.zero, 0, rate,
                )  # fmt: skip
            if not (to_memory or straight):
                update_rows(
                    memory, layer[W] + at, row, g, g_row, slot(layer[SLOT1], at), slot(layer[SLOT2], at),
                    rows, wide, net.rule, coefficients, c if k < n_in else c + width,
                )  # fmt: skip
            k += rows
        v += wide


@part(types.int64)
def sparse_rows(wide):
    """Rows of a gradient block ``wide`` vectors wide: some marks, and at most a span."""
    rows = SPAN
    while rows > MARK and rows * wide * BYTES > SPARSE_BYTES:
        rows //= 2
    return rows


@part(types.int64)
def slot(place, shift):
    """Return where a slot's block lies, or −1 if there is no such slot."""
    return place + shift if place >= 0 else place


@part(types.int64)
def widest(vectors):
    """Return how many of ``vectors`` vectors the sparse loops take next: a power of two."""
    wide = WIDEST
    while wide > vectors:
        wide //= 2
    return wide


@part()
def dense_product(
    memory, a, a_row, a_col, b, b_row, count, start, start_row, c, c_row, rows, vectors, panel, zero, turned, factor
):  # fmt: skip
    """C = start + factor A B, of ``count`` terms, in panels of up to three vectors and tiles of up to eight rows.

    ``turned``, if not 0, says that B is given as its transpose, and how many rows of that there are.
    """
    lanes = BYTES // memory.itemsize
    panels = (vectors + TILE_VECTORS - 1) // TILE_VECTORS
    for k in range(0, count, DEPTH):
        terms = min(DEPTH, count - k)
        for p in range(panels):
            v0, v1 = vectors * p // panels, vectors * (p + 1) // panels
            wide, shift = v1 - v0, v0 * lanes
            source, source_row = b + k * b_row + shift, b_row
            if turned != 0:
                source, source_row = panel, wide * lanes
                for j in range(wide):
                    first = shift + j * lanes
                    for o in range(0, terms, lanes):
                        transpose(
                            memory, b + first * b_row + k + o, b_row, turned - first, zero,
                            panel + o * source_row + j * lanes, source_row, lanes, zero,
                        )  # fmt: skip
            elif rows >= PACK_ROWS and b_row > 8 * lanes:
                source, source_row = panel, wide * lanes
                copy(memory, b + k * b_row + shift, b_row, panel, source_row, terms, wide)
            onto, onto_row = (c, c_row) if k > 0 else (start, start_row)
            tiles(
                memory, a + k * a_col, a_row, a_col, memory, source, source_row, terms,
                memory, onto + shift, onto_row, memory, c + shift, c_row, rows, wide, factor,
            )  # fmt: skip


@kernel
def count_inputs(inputs, n_in, first, stop, counts):
    """counts[s] = the inputs of sample s that are not 0, for samples first … stop of (N · n_in) inputs."""
    for s in range(first, stop):
        count = 0
        for i in range(n_in):
            count += get(inputs, s * n_in + i) != 0
        put(counts, s, count)


@kernel
def write_records(inputs, n_in, starts, records, words, value_bytes, first, stop):
    """The records of :class:`Data`, for samples first … stop; with bitmaps of so many words, if any."""
    head = head_of(n_in)
    for s in range(first, stop):
        record = get(starts, s)
        if words > 0:
            place = record + 8 * words
            for w in range(words):
                word = np.int64(0)
                for i in range(BITS * w, min(BITS * (w + 1), n_in)):
                    word |= np.int64(get(inputs, s * n_in + i) != 0) << (i % BITS)
                put_value(records, record + 8 * w, word)
        else:
            count = 0
            for i in range(n_in):
                if i % MARK == 0:
                    put_short(records, record + 2 * (i // MARK), count)
                if get(inputs, s * n_in + i) != 0:
                    put(records, record + head + count, i % SPAN)
                    count += 1
            put_short(records, record + head - 2, count)
            place = record + head + count
        for i in range(n_in):
            value = get(inputs, s * n_in + i)
            if value != 0:
                put_value(records, place, value)
                place += value_bytes


@kernel
def write_sparse_records(indptr, columns, values, n_in, starts, records, words, first, stop):
    """As :func:`write_records`, from rows whose non-zero inputs, with their columns, are indptr[s] … indptr[s + 1]."""
    head, value_bytes = head_of(n_in), values.itemsize
    for s in range(first, stop):
        record, begin, end = get(starts, s), get(indptr, s), get(indptr, s + 1)
        if words > 0:
            place, k = record + 8 * words, begin
            for w in range(words):
                word = np.int64(0)
                while k < end and get(columns, k) < BITS * (w + 1):
                    word |= np.int64(1) << (get(columns, k) % BITS)
                    k += 1
                put_value(records, record + 8 * w, word)
        else:
            place, mark = record + head + end - begin, 0
            for k in range(begin, end):
                column = get(columns, k)
                while mark * MARK <= column:
                    put_short(records, record + 2 * mark, k - begin)
                    mark += 1
                put(records, record + head + k - begin, column % SPAN)
            while 2 * mark < head:
                put_short(records, record + 2 * mark, end - begin)
                mark += 1
        for k in range(begin, end):
            put_value(records, place + (k - begin) * value_bytes, get(values, k))
