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
OPERATIONS = (*_ROWS, "random.cuh", "deform.cu", "operations.cu")
_PERSISTENT = (*_ROWS, "grid.cuh", "launch.cuh")
EPOCH = (*_PERSISTENT, "async.cuh", "vectors.cuh", "product.cuh", "profile.cuh", "random.cuh", "epoch.cu")
UNITS = (*_PERSISTENT, "async.cuh", "vectors.cuh", "cluster.cuh", "profile.cuh", "random.cuh", "units.cu")
PERSISTENT = {"epoch": EPOCH, "units": UNITS}  # kernels that stay for whole epochs
# Of ``units``, each compiled by itself: hidden units that a cluster can own, and its blocks; 8 is the most that every
# GPU with clusters has.
UNITS_OF_A_CLUSTER = (4, 8, 16)
CLUSTERS = (1, 8)

DEFORMING = ("deform_draw", "deform_down", "deform_across", "deform_pixels")
KERNELS = ("gather", "gather_bytes", *DEFORMING, "drop", *kernels.OPERATIONS)  # of OPERATIONS

WARP = 32
SUM_ROWS = 32  # threads of weight_grad that share a column

THREADS = 256  # of a block
ROW_BLOCK = THREADS // WARP  # rows of a batch that a block takes at a time, a warp each
ROW_THREADS = (WARP, ROW_BLOCK)
HEAD_BYTES = 32  # of shared memory, before all else, for the barrier's count, and what step it is
# Of shared memory, for a tile of ``epoch``. A block has 64 KiB on any GPU that NVRTC compiles for.
PRODUCT_BYTES = 62 << 10
COUNTER_DISTANCE = 16  # from a barrier's counter to another's, of 8 bytes: in lines of their own
MOST_POLLS = 1 << 27  # of a barrier, about a minute, after which it stops the kernel; 0: as many as it takes
COEFFICIENTS = max(map(len, (c._fields for c in kernels.COEFFICIENTS.values())))  # room for those of a step
MODES = {"train": 0, "gradients": 1, "evaluate": 2, "predict": 3}
PRECISIONS = {"float32": 0, "tf32": 1, "3xtf32": 2}  # of products; float64's own counts as 0
# Columns of the table of layers; places are offsets into the memory.
LAYER = (
    "n_in",
    "n_out",
    "pitch",  # of a, z and delta: n_out, and up to a multiple of four
    "activation",
    "by_rows",  # whether blocks share the layer's forward and back by rows of the batch
    "splits",  # parts that forward's terms are shared in
    "forward_shape",  # the code of a product's tiles
    "back_shape",
    "gradient_shape",
    "weights",  # W (n_out, n_in), and then b (n_out)
    "z",  # (splits, B, pitch), of layers whose z is added up by rows
    "a",  # (B, pitch)
    "delta",  # (B, pitch)
)
# Further ones with dropout.
DROPPED_LAYER = (
    "taken",  # (B, taken_pitch), what goes into the layer; of the first layer two of them
    "taken_pitch",
    "dropped",  # of 65,536 random numbers, how many drop one of the layer's inputs
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
_LAUNCHES = {
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
        **dict.fromkeys(
            (
                *("n_in", "n_hidden", "n_out", "activation", "output_activation"),
                *("slice", "share_log2", "input_parts_log2", "x_pitch", "buffers", "as_bytes"),
                *("own", "copy", "x", "raw", "z1", "a1", "delta1", "delta2", "y", "z2", "a2"),
                *(
                    "row_weight",
                    "row_costs",
                    "row_hits",
                    "gradient2",
                    "scores",
                    "step_coefficients",
                    "orders",
                    "more_room",
                ),
            ),
            "int",
        ),
    },
}

# And of dropout, where it is compiled for that.
_DROPPED = {"key": "uint64", "step": "index", "factors": "real*"}
_DROPOUT = {
    "epoch": _DROPPED,
    "units": {**_DROPPED, **dict.fromkeys(("dropped1", "mask1", "pull1", "last_room"), "int")},
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


def output_lanes(cluster: int) -> int:
    """Lanes of ``units`` to a row of outputs; blocks of a cluster share a batch's rows, and have threads for more."""
    return 16 if cluster > 1 else 2


def launch_fields(kernel: str, dropout: bool = False) -> dict[str, str]:
    """What a launch of a persistent kernel is told, with or without dropout: names and kinds."""
    return _LAUNCHES[kernel] | (_DROPOUT[kernel] if dropout else {})


def launch_record(kernel: str, dropout: bool = False) -> np.dtype:
    """The launch of a persistent kernel as it lies in memory; pointers are 64 bits."""
    kinds = {"index": np.int64, "int": np.int32}
    fields = [(name, kinds.get(kind, np.uint64)) for name, kind in launch_fields(kernel, dropout).items()]
    return np.dtype(fields, align=True)


def layer_fields(dropout: bool = False) -> tuple[str, ...]:
    """The columns of the table of layers."""
    return LAYER + (DROPPED_LAYER if dropout else ())


def layer_bytes(dropout: bool = False) -> int:
    """What ``epoch`` has of each layer in shared memory."""
    return 88 if dropout else 72


def definitions(
    dtype: np.dtype | type,
    precision: str = "float32",
    units: tuple[int, int] | None = None,
    dropout: bool = False,
) -> tuple[str, ...]:
    """The compiler's -D options: the real type, the precision of products, and the codes of gpubp.kernels and here.

    ``units.cu`` is compiled for so many hidden units of a cluster of so many blocks, and kernels that stay for whole
    epochs with dropout or without.
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
        for name in (
            "WARP",
            "SUM_ROWS",
            "THREADS",
            "ROW_BLOCK",
            "HEAD_BYTES",
            "COUNTER_DISTANCE",
            "MOST_POLLS",
            "PRODUCT_BYTES",
            "COEFFICIENTS",
        )
    }
    if units is not None:
        values["UNITS"], values["CLUSTER"] = units
        values["OUTPUT_LANES"] = output_lanes(units[1])
    if dropout:
        values["DROPOUT"] = 1
    values |= {f"{name.upper()}_LAUNCH": launch_record(name, dropout).itemsize for name in _LAUNCHES}
    columns = layer_fields(dropout)
    values |= {f"LAYER_{name.upper()}": k for k, name in enumerate(columns)}
    values |= {"LAYER_FIELDS": len(columns), "LAYER_BYTES": layer_bytes(dropout)}
    return tuple(f"-D{name}={value}" for name, value in values.items())


def options(
    dtype: np.dtype | type,
    precision: str = "float32",
    units: tuple[int, int] | None = None,
    dropout: bool = False,
) -> tuple[str, ...]:
    """All that the compiler is told, but for the architecture and what CuPy adds."""
    return ("--std=c++17", *definitions(dtype, precision, units, dropout))
