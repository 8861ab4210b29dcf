"""CUDA kernels, one operation a .cu file; functions.cuh has what is done to one element or one row.

The files are compiled as one text per dtype, without fast-math flags: a·b + c may be one rounding, nothing
else is changed, and NaN goes through. Every sum has a fixed order, so a run repeats bitwise.
"""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np

from gpubp import kernels

FILES = (
    "functions.cuh",
    "gather.cu",
    "forward.cu",
    "output_delta.cu",
    "hidden_delta.cu",
    "weight_grad.cu",
    "update.cu",
)

KERNELS = (
    "gather",
    "gather_bytes",
    "forward",
    "output_delta",
    "hidden_delta",
    "weight_grad",
    "sgd",
    "sgd_momentum",
    "adam",
)

WARP = 32
SUM_ROWS = 32  # threads of weight_grad.cu that share a column

_CONSTANTS = ("LEAKY_SLOPE", "LECUN_SCALE", "LECUN_RATE", "PROBABILITY_FLOOR")
_INCLUDE = '#include "functions.cuh"'  # for tools that compile one file; here the header comes first anyway


def source() -> str:
    """All kernels as one ASCII text; ``#line`` lets the compiler's messages name the file."""
    text = ""
    for name in FILES:
        text += f'#line 1 "kernels/cuda/{name}"\n' + files(__name__).joinpath(name).read_text(
            encoding="utf-8"
        )
    text = text.replace(_INCLUDE, "")
    return re.sub(r"[^\x00-\x7f]", " ", text)  # cupy writes it to a file in the locale's encoding


def definitions(dtype: np.dtype | type) -> tuple[str, ...]:
    """The compiler's -D options: the real type, and the codes and constants of gpubp.kernels."""
    values = {"REAL": {"float32": "float", "float64": "double"}[np.dtype(dtype).name]}
    values |= {name.upper(): str(code) for name, code in (kernels.ACTIVATIONS | kernels.LOSSES).items()}
    values |= {name: repr(getattr(kernels, name)) for name in _CONSTANTS}
    values |= {"WARP": str(WARP), "SUM_ROWS": str(SUM_ROWS)}
    return tuple(f"-D{name}={value}" for name, value in values.items())
