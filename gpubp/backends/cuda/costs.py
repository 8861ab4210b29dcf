"""The numbers that plans and tiles are chosen by, from costs.toml.

There each has its unit, and ``how`` it is known: counted in the machine code for sm_90, or measured, with the device
and the date. ``python -m bench.gpu.adopt`` writes what a run of bench.gpu measured.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from gpubp.kernels import cuda

Entry = dict[str, Any]

FILE = "costs.toml"
HALF_RATE = 64  # float32 multiply-adds of a multiprocessor in a cycle, at half of what it can do
# The tiles of products that there are in epoch.cu, by kind and code there: their rows and columns by 16. The larger
# ones would not fit the registers in float64.
_SHAPES = {
    "float32": {5: (1, 1), 6: (2, 2), 7: (4, 4), 8: (8, 4)},
    "float64": {5: (1, 1), 6: (2, 2), 7: (4, 2)},
    "tensor cores": {5: (1, 4), 6: (2, 2), 7: (4, 4)},
}


def read() -> dict[str, Any]:
    """The file's content."""
    return tomllib.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))


def entries(content: dict[str, Any], before: str = "") -> Iterator[tuple[str, Entry]]:
    """Each number's name, as tiles.float32.32x32, and its entry."""
    for name, found in content.items():
        if isinstance(found, dict) and "value" in found:
            yield before + name, found
        elif isinstance(found, dict):
            yield from entries(found, f"{before}{name}.")


VALUES: dict[str, float] = {name: entry["value"] for name, entry in entries(read())}

# Multiply-adds of a step's forward products, up to which the fused plan is chosen. Counted, 3 × 2 × 2e9 operations take
# some 0.3 ms, beside which a step's launches do not count.
COMPOSED_WORK = int(VALUES["composed_work"])
# Blocks or clusters whose parts of z are added up, beyond which each owns more units; where these are too few, the plan
# must be asked for.
MOST_PARTS = int(VALUES["most_parts"])
# Inputs up to which one block takes all of them, and beyond which only clusters are faster than the fused plan.
# Counted, a pass over 64 of them by one block is some 400 cycles longer than by eight, and a step's two passes so cost
# no more than the barriers of a cluster.
UNSHARED_INPUTS = int(VALUES["unshared_inputs"])
# Up to so many weights, a block takes its rows of the batch through a layer alone: reading all weights for ROW_BLOCK
# rows is then cheaper than a barrier of the grid.
ROW_WEIGHTS = int(VALUES["barrier"] * HALF_RATE / cuda.ROW_BLOCK)
# The tiles' rows, columns and cycles for one term; and a tile's cycles beside its terms, until its first panel is there
# and from its last on. Counted, these are rounds of eight warps on a simulated multiprocessor. Of equals the first is
# taken, the smaller, which has fewer sums to write.
BARRIER_CYCLES, TILE_CYCLES = int(VALUES["barrier"]), int(VALUES["tile"])
TILES: dict[str, dict[int, tuple[int, int, float]]] = {
    kind: {
        code: (rows, columns, VALUES[f"tiles.{kind}.{16 * rows}x{16 * columns}"])
        for code, (rows, columns) in shapes.items()
    }
    for kind, shapes in _SHAPES.items()
}
