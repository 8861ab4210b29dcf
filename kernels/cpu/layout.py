"""How data lie in memory for kernels: the tables of a network and its samples, and rows that are padded or turned.

Nothing here is compiled, or needs Numba: it is what a kernel and its caller agree on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpubp.kernels.cpu.deforming import Deforming
from gpubp.kernels.cpu.machine import BYTES, LINE, REGISTERS

# The largest tile: as many sums as leave registers for the operands.
TILE_VECTORS = 3
TILE_ROWS = 8 if REGISTERS >= 32 else 4
WIDEST = 8 if REGISTERS >= 32 else 4  # vectors that the sparse loops take at a time
TILE_COLUMNS = 3  # inputs that the first layer takes at a time, where it works by column

SYNC_SIZE = 16  # words of a barrier

# Columns of the table of layers; places are offsets into the memory.
(
    N_IN,
    N_OUT,
    VECTORS,  # of a padded row of n_out
    ACTIVATION,
    SHAREABLE,  # whether threads, if there are several, share the layer's forward by units, not by samples
    BY_UNITS,  # whether they do
    A_PREV,  # (chunk, n_in)
    A_PREV_ROW,
    A,  # (chunk, n_out)
    DELTA,  # (chunk, n_out)
    ROW,  # from one row of W, A or DELTA to the next
    W,  # (n_in + 1, n_out)
    GRADIENT,  # as W
    SLOT1,  # as W, or −1
    SLOT2,
    DROPPED,  # of 65,536 random numbers, those that drop one of the layer's inputs; A_PREV has then what is left
    FACTOR,  # that is left, of the memory
    KEPT,  # (chunk, n_in) bits, of the array of these
    KEPT_ROW,
    LAYER_FIELDS,
) = range(20)

TRAIN, GRADIENTS, EVALUATE, PREDICT = range(4)  # what a call is for

# The phases of a step, by the operations' names; but for the first and the output's, each layer has its own.
GATHER, FORWARD, OUTPUT_DELTA, HIDDEN_DELTA, WEIGHT_GRAD, PHASES = range(6)
ALL = -1

BITS = 64  # of a word of a bitmap
DRAW_BYTES = 16  # of the bits of elements that random numbers are drawn for together
MARK = 64  # columns between the marks in a sparse row
SPAN = 256  # columns that a byte can tell apart: those of a mark count from the last multiple of this
PACK_ROWS = 32  # from so many rows on, a copied panel of B pays
DEPTH = 2048  # terms of a sum that are taken at a time, so that a panel stays in the second-level cache
BLOCK_ROWS, BLOCK_VECTORS = 128, 24  # of a gradient that is summed before it is used
FORWARD_MARKS = SPAN // MARK  # marks of W's rows that sparse products work on at a time
SPARSE_BYTES = 32768  # of a sparse gradient that is in work at a time, about: most of a first-level cache
# What each thread has to itself: a block of a gradient, which is 0 when it is not in use, and a copied panel of B, or
# of the widest tile's z or δ of all samples in work, if that is more.
PANEL_BYTES = DEPTH * TILE_VECTORS * BYTES
BLOCK_BYTES = max(BLOCK_ROWS * BLOCK_VECTORS * BYTES, MARK * WIDEST * BYTES, SPARSE_BYTES)


class Chance(NamedTuple):
    """What dropout and deformed images take; a network may have either. Their code is compiled with this only."""

    key: int  # of dropout's random numbers, two words of 32 bits
    kept: np.ndarray  # uint8: a bit for each input of a layer, set where dropout keeps it
    deforming: Deforming  # tables of the deformation
    limits: np.ndarray  # (N) int64: which limit of rotation each image has, if these differ
    working: np.ndarray  # uint8: each thread's working memory for it


class Net(NamedTuple):
    """Parameters and working memory. Offsets count elements of ``memory``."""

    memory: np.ndarray  # all that is of the network's dtype
    layers: np.ndarray  # (layers, LAYER_FIELDS) int64
    rows: np.ndarray  # (layers, threads + 1) int64: each thread's rows of W where it is not shared by units
    chunk: int  # samples that the working memory holds
    zero: int  # a row of zeros
    one: int  # the number 1
    table: int  # i/255 for every byte i, times the factor of dropout
    places: (
        np.ndarray
    )  # (chunk) int64, where the records of the samples in work begin; their numbers, if deformed
    unfolded: np.ndarray  # (threads · chunk · pitch) uint8: inputs as they were given, with their zeros
    maps: (
        np.ndarray
    )  # (threads · words · 64 · map_row) int64: which samples of 64 have a column that is not 0
    firsts: np.ndarray  # (threads · words) int64: the first sample of each word
    words: int  # that the samples in work take
    map_words: int  # of a sample's bitmap
    map_row: int  # from one bitmap to the next
    deformed: int  # where deformed images lie among the unfolded, (chunk · pitch); −1 if none are deformed
    chance: Chance | int  # what of training is random, or 0 if nothing is
    inputs: int  # (chunk, most) non-zero inputs
    most: int  # non-zero inputs a row may have
    targets: int  # (chunk, n_out)
    weights: int  # (chunk, and one vector) sample weights
    scratch: int  # for each thread, ``scratch_size`` elements
    scratch_size: int
    loss: int
    rule: int
    threads: int


class Data(NamedTuple):
    """Samples. Of the inputs, either the bytes or the numbers are there; the other is empty.

    Of inputs with many zeros, there is also a record for each sample, at records[starts[s] : starts[s + 1]], in as few
    cache lines as it takes. If the first layer works by column, that is a bitmap of its non-zero inputs, in words of
    64 bits, and their values. Else it is how many of its non-zero inputs lie before column 64 m, for every m up to the
    last, as 16-bit numbers; the column of each, counted from the last multiple of 256, in a byte; and their values.
    """

    bytes: np.ndarray  # (N · n_in, and one vector) uint8
    numbers: np.ndarray  # (N · n_in)
    starts: np.ndarray  # (N + 1) int64
    records: np.ndarray  # uint8
    pitch: int  # bytes of a sample's inputs with their zeros, where the first layer works by column; else 0
    most_bytes: int  # of a record, on average over a chunk, up to which it is worth it; 0 if that is known
    targets: np.ndarray  # (N · a row of the last layer)
    sample_weight: np.ndarray  # (N), or empty if all are 1


def phase(kind, layer):
    """The number of a phase; of HIDDEN_DELTA, ``layer`` is the one whose δ it computes."""
    return kind + PHASES * layer


def head_of(n_in):
    """Bytes of a record before its columns."""
    return 2 * ((n_in + MARK - 1) // MARK + 1)


def map_words(n_in):
    """Words of a sample's bitmap, 64 inputs each."""
    return (n_in + BITS - 1) // BITS


def map_row(n_in):
    """Words from one bitmap to the next: whole vectors."""
    return (map_words(n_in) * 8 + BYTES - 1) // BYTES * BYTES // 8


def pitch_of(n_in, size):
    """Bytes from one sample's row of inputs of ``size`` bytes to the next: whole bitmaps, in an odd number of lines."""
    return (map_words(n_in) * BITS * size // LINE | 1) * LINE


def words_before(samples, threads, thread):
    """Words of 64 samples that hold the shares of the threads before this one, of so many samples in work."""
    words = 0
    for t in range(thread):
        share = samples * (t + 1) // threads - samples * t // threads
        words += (share + BITS - 1) // BITS
    return words


def padded(rows_bn: np.ndarray) -> np.ndarray:
    """(B, n) with each row padded to whole vectors."""
    count, n = rows_bn.shape
    lanes = BYTES // rows_bn.itemsize
    rows = np.zeros((count, -(-n // lanes) * lanes), rows_bn.dtype)
    rows[:, :n] = rows_bn
    return rows


def turned(rows_bn: np.ndarray) -> np.ndarray:
    """(B, n) as blocks (⌈B / lanes⌉, n, lanes): as many samples as a vector has lanes, with a vector for each unit."""
    count, n = rows_bn.shape
    lanes = BYTES // rows_bn.itemsize
    rows = np.zeros((-(-count // lanes) * lanes, n), rows_bn.dtype)
    rows[:count] = rows_bn
    return np.ascontiguousarray(rows.reshape(-1, lanes, n).swapaxes(1, 2))


def turned_back(blocks: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` rows of blocks."""
    return blocks.swapaxes(1, 2).reshape(-1, blocks.shape[1])[:count]
