"""Models as safetensors: the tensors W1, b1, W2, b2, … as they are, and what else makes a model as metadata.

The metadata has one key, "gpubp", with the header of an .npz model as JSON: format, sizes, activations, dtype, classes,
and what inputs and outputs are. Every bit is kept; unlike .npz, the format has no checksum, so that only damage to its
structure is noticed.
Source: the format's description at https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os

import numpy as np

from gpubp.errors import DataError
from gpubp.formats import npz
from gpubp.model import Model
from gpubp.support.files import write_bytes
from gpubp.support.optional import need

_KEY = "gpubp"


def save(path: str | os.PathLike, model: Model) -> None:
    """Write a model as safetensors, atomically."""
    library = need("safetensors.numpy", "export")
    header = {"format": npz.FORMAT, **npz.model_header(model)}
    # The library writes an array's memory as it lies, whatever its strides.
    tensors = {name: np.ascontiguousarray(a) for name, a in npz.model_arrays(model).items()}
    write_bytes(path, library.save(tensors, metadata={_KEY: json.dumps(header)}))


def load(path: str | os.PathLike) -> tuple[Model, bool]:
    """The model that :func:`save` wrote, which is never a checkpoint."""
    library = need("safetensors", "export")
    with (
        npz.reading(path, "safetensors model", library.SafetensorError),
        library.safe_open(path, framework="numpy") as file,
    ):
        metadata, names = file.metadata() or {}, sorted(file.keys())
        if _KEY not in metadata:
            shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
            raise DataError(
                f"{path} holds tensors ({shown or 'none'}) but no metadata {_KEY!r}, which tells a network's sizes "
                "and activations; gpubp did not write it: make a gpubp.Network of its sizes and set its parameters "
                "from the file"
            )
        header = json.loads(metadata[_KEY])
        arrays = {name: file.get_tensor(name).copy() for name in names}  # views of what was read
    npz.check_header(path, header, "model")
    return npz.build_model(path, header, arrays), False
