"""CUDA kernels; functions.cuh has what is done to one element or one row.

The files are compiled as one text per dtype, without fast-math flags. Two things are still not as written: a·b + c may
be one rounding, and CuPy compiles with -ftz=true, so that float32's subnormals, below 1.2e-38, become 0; the host build
of the tests keeps them. NaN goes through. Every sum has a fixed order, so a run repeats bitwise.
"""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np

from gpubp import kernels

_ROWS = ("functions.cuh", "output.cuh", "rules.cuh")
OPERATIONS = (*_ROWS, "operations.cu")
_PERSISTENT = (*_ROWS, "grid.cuh", "launch.cuh", "tile.cuh")
EPOCH, UNITS = (*_PERSISTENT, "epoch.cu"), (*_PERSISTENT, "units.cu")
PERSISTENT = {"epoch": EPOCH, "units": UNITS}  # kernels that stay for whole epochs
UNITS_OF_A_BLOCK = (2, 4, 8)  # hidden units that a block of ``units`` can own; each is compiled by itself

KERNELS = ("gather", "gather_bytes", *kernels.OPERATIONS)  # of OPERATIONS

WARP = 32
SUM_ROWS = 32  # threads of weight_grad that share a column

THREADS = 256  # of a block
ROW_BLOCK = THREADS // WARP  # rows of a batch that a block takes at a time, a warp each
ROW_THREADS = (WARP, ROW_BLOCK)
# Terms of a product that are in shared memory at a time. Not measured: small batches have few panels on their way, and
# may be faster with 32 or 64.
DEPTH = 16
HEAD_BYTES = 16  # of shared memory, before all else, for the barrier's count
COEFFICIENTS = max(map(len, (c._fields for c in kernels.COEFFICIENTS.values())))  # room for those of a step
MODES = {"train": 0, "gradients": 1, "evaluate": 2, "predict": 3}
PRECISIONS = {"float32": 0, "tf32": 1, "3xtf32": 2}  # of products; float64's own counts as 0
# Columns of the table of layers; places are offsets into the memory.
LAYER = (
    "n_in",
    "n_out",
    "activation",
    "by_rows",  # whether blocks share the layer's forward and back by rows of the batch
    "forward_shape",  # rows and columns of a product that one thread sums
    "back_shape",
    "gradient_shape",
    "weights",  # W (n_out, n_in), and then b (n_out)
    "z",  # (B, n_out), of the last layer
    "a",  # (B, n_out)
    "delta",  # (B, n_out)
)

# What a launch of each persistent kernel is told, as launch.cuh and the kernels have it: "*" after what is pointed to.
_RUN = {
    "memory": "real*",
    "parameters": "index",
    "gradient": "index",
    "numbers": "real*",
    "bytes": "uint8*",
    "targets": "real*",
    "sample_weight": "real*",
    "order": "int64*",
    "samples": "index",
    "steps": "index",
    "coefficients": "real*",
    "costs": "float64*",
    "hits": "int64*",
    "arrived": "uint64*",
    "batch": "int",
    "mode": "int",
    "loss": "int",
    "rule": "int",
    "slots": "int",
    "room": "int",
}
LAUNCHES = {
    "epoch": {
        **_RUN,
        "layers": "int64*",
        "layer_count": "index",
        "row_cost": "index",
        "row_hit": "index",
        "outputs": "real*",
    },
    "units": {
        **_RUN,
        "weights1": "index",
        "weights2": "index",
        "parts": "real*",
        "n_in": "int",
        "n_hidden": "int",
        "n_out": "int",
        "activation": "int",
        "output_activation": "int",
        "more_room": "int",
    },
}

_CONSTANTS = ("LEAKY_SLOPE", "LECUN_SCALE", "LECUN_RATE", "PROBABILITY_FLOOR")
# For tools that compile one file; here the headers come first anyway.
_INCLUDE = re.compile(r'#include "\w+\.cuh"')


def source(names: tuple[str, ...] = OPERATIONS) -> str:
    """These files as one ASCII text; ``#line`` lets the compiler's messages name the file."""
    text = ""
    for name in names:
        code = files(__name__).joinpath(name).read_text(encoding="utf-8")
        text += f'#line 1 "kernels/cuda/{name}"\n' + code
    text = _INCLUDE.sub("", text)
    return re.sub(r"[^\x00-\x7f]", " ", text)  # cupy writes it to a file in the locale's encoding


def launch_record(kernel: str) -> np.dtype:
    """The launch of a persistent kernel as it lies in memory; pointers are 64 bits."""
    kinds = {"index": np.int64, "int": np.int32}
    fields = [(name, kinds.get(kind, np.uint64)) for name, kind in LAUNCHES[kernel].items()]
    return np.dtype(fields, align=True)


def definitions(
    dtype: np.dtype | type, precision: str = "float32", units: int | None = None
) -> tuple[str, ...]:
    """The compiler's -D options: the real type, the precision of products, and the codes of gpubp.kernels and here.

    ``units.cu`` is compiled for so many hidden units a block.
    """
    dtype = np.dtype(dtype)
    values: dict[str, object] = {"REAL": {"float32": "float", "float64": "double"}[dtype.name]}
    values["REAL_BITS"] = 8 * dtype.itemsize
    values["PRECISION"] = PRECISIONS[precision]
    values |= {"FLOAT32": 0, "TF32": 1, "TF32X3": 2}  # names that C++ takes
    for codes in (kernels.ACTIVATIONS, kernels.LOSSES, kernels.RULES, MODES):
        values |= {name.upper(): code for name, code in codes.items()}
    values |= {name: repr(getattr(kernels, name)) for name in _CONSTANTS}
    values |= {
        name: globals()[name]
        for name in ("WARP", "SUM_ROWS", "THREADS", "ROW_BLOCK", "DEPTH", "HEAD_BYTES", "COEFFICIENTS")
    }
    if units is not None:
        values["UNITS"] = units
    values |= {f"{name.upper()}_LAUNCH": launch_record(name).itemsize for name in LAUNCHES}
    values |= {f"LAYER_{name.upper()}": k for k, name in enumerate(LAYER)} | {"LAYER_FIELDS": len(LAYER)}
    return tuple(f"-D{name}={value}" for name, value in values.items())


def options(dtype: np.dtype | type, precision: str = "float32", units: int | None = None) -> tuple[str, ...]:
    """All that the compiler is told, but for the architecture and what CuPy adds."""
    return ("--std=c++17", *definitions(dtype, precision, units))
