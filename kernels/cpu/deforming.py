"""What the deforming kernel and its caller agree on: tables of a deformation, and a thread's working memory.

Nothing here is compiled, or needs Numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpubp.kernels.cpu.machine import BYTES, LINE

HEAD = 16  # bytes of a sample's stream before its noise
BLOCK, COUNTERS = 128, 8  # bytes, and the counters that they come from
ONE_BITS = 14  # of fixed point
ANGLES = 256
TILE = 4  # rows that a pass of smoothing takes at a time
LANES = BYTES // 4
# Added to a float32 below 2²² in size, it leaves that rounded to a whole number, in the low bits.
MAGIC, MAGIC_BITS = 1.5 * 2**23, 0x4B400000
STAGES = "box", "random", "down", "across", "quads", "pixels"
ALL, BOX, RANDOM, DOWN, ACROSS, QUADS, PIXELS = range(-1, len(STAGES))


class Deforming(NamedTuple):
    """A deformation of images (h, w). Places of tables count bytes of ``tables``, the others of working memory."""

    tables: np.ndarray  # uint8
    turns: int  # (limits, ANGLES, 2) int32
    weights_down: int  # (TILE, pairs_down) vectors of two weights in turn, bytes; for each row of sums some
    weights_across: int  # (pairs_across) vectors of two weights in turn, int16
    factors: int  # 2 vectors of float32: the scale, and what the nearer row counts
    h: int
    w: int
    key: int  # of random numbers, two words of 32 bits
    purpose: int  # theirs
    elastic: int  # 1 if there is a field
    spacing: int
    scaling: int  # the largest, in fixed point
    shear: int
    pairs_down: int
    pairs_across: int
    grid_h: int
    grid_w: int
    noise_w: int
    blocks: int  # of counters
    image: int  # a copy
    raw: int  # the stream
    noise: int  # int8, x and y in turn
    rows: int  # int16, smoothed down
    row: int  # bytes of one
    both: int  # float32, smoothed down and across: (grid_h, 2) rows
    pitch: int  # bytes of one
    field: int  # float32, for each row and field in turn vectors of even and of odd pixels
    field_row: int  # bytes of a row of both fields, or 0 without a field
    zero: int  # a row of it, of zeros, as working memory is at first
    quads: int  # four neighbours each, as 32 bits
    out: int  # the deformed image
    entries: int  # M, 4 int64, and after it the box of what is not 0 in the image
    size: int  # of working memory


NO_DEFORMING = Deforming(np.empty(0, np.uint8), *[0] * (len(Deforming._fields) - 1))


def layout(
    *,
    shape: tuple[int, int],
    grid: tuple[int, int],
    noise: tuple[int, int],
    spacing: int,
    blocks: int,
    key: int,
    purpose: int,
    turns: np.ndarray,
    weights: np.ndarray,
    scale: float,
    ranges: tuple[int, int],
) -> Deforming:
    """The tables, and where all lies; without a field, ``noise`` is (0, 0)."""
    h, w = shape
    elastic, taps, (grid_h, grid_w) = int(noise[0] > 0), len(weights), grid
    spacing = spacing if elastic else 1  # where there is no field, it is a row of zeros
    pairs_down, pairs_across = -(-(taps + TILE - 1) // 2), -(-taps // 2)
    down, along = np.zeros((TILE, 2 * pairs_down), np.uint8), np.zeros(2 * pairs_across, np.int16)
    for i in range(TILE):
        down[i, i : i + taps] = weights
    along[:taps] = weights
    parts = {
        "turns": np.ascontiguousarray(turns, np.int32),
        "weights_down": np.repeat(down.reshape(-1, 1, 2), BYTES // 2, axis=1),
        "weights_across": np.repeat(along.reshape(-1, 1, 2), LANES, axis=1),
        "factors": np.repeat(np.array([scale, 3 if spacing == 2 else 1], np.float32), LANES),
    }
    places, whole = {}, b""
    for name, table in parts.items():
        places[name] = len(whole)
        whole += table.tobytes()
        whole += bytes(-len(whole) % LINE)
    tables = lined(len(whole))
    tables[:] = np.frombuffer(whole, np.uint8)

    tiled = _up(grid_h, TILE)
    row = 2 * _up(2 * noise[1], BYTES) + 2 * BYTES  # of sums; what is read beside its end counts for nothing
    pitch = 4 * (_up(grid_w, 2 * LANES) + 2 * LANES)  # as well
    across = 4 * _up(w, 2 * LANES)  # bytes of a row of pixels
    sizes = {
        "image": BYTES + h * w + 2 * BYTES,
        "raw": blocks * BLOCK,
        "noise": blocks * BLOCK + 2 * noise[1] * (TILE + 1) + 2 * BYTES,
        "rows": row * tiled * elastic,
        "both": pitch * 2 * tiled * elastic,
        "field": across * 2 * grid_h * elastic,
        "zero": across,
        "quads": 4 * (h + 2) * _up(w + 2, LANES),
        "out": h * w + across // 4 + BYTES,
        "entries": 64,
    }
    size = 0
    for name, part in sizes.items():
        places[name] = size
        size += _up(part, LINE)
    places["image"] += BYTES  # there is room to read before it
    if not elastic:
        places["field"] = places["zero"]
    scaling, shear = ranges
    return Deforming(
        tables=tables,
        h=h,
        w=w,
        key=key,
        purpose=purpose,
        elastic=elastic,
        spacing=spacing,
        scaling=scaling,
        shear=shear,
        pairs_down=pairs_down,
        pairs_across=pairs_across,
        grid_h=grid_h,
        grid_w=grid_w,
        noise_w=noise[1],
        blocks=blocks,
        row=row,
        pitch=pitch,
        field_row=2 * across * elastic,
        size=size,
        **places,
    )


def lined(size: int) -> np.ndarray:
    """So many bytes, zeros, from the beginning of a cache line on."""
    whole = np.zeros(size + LINE, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + size]


def _up(count: int, to: int) -> int:
    return -(-count // to) * to
