"""Models, which are networks and ensembles, on disk and in the formats of others: a model knows none of them.

A format is a module with ``save(path, model)`` and, if gpubp reads it too, ``load(path)``; ``FORMATS`` says which
ending of a file's name means it. PyTorch's modules are no files: :mod:`gpubp.formats.torch`.
"""

from __future__ import annotations

import os
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gpubp.errors import DataError, UsageError
from gpubp.support.files import user_path

if TYPE_CHECKING:  # the command line reads the endings and must not wait for NumPy
    from gpubp.model import Model
    from gpubp.network import Network

FORMATS = {
    ".onnx": "gpubp.formats.onnx",
    ".safetensors": "gpubp.formats.safetensors",
    ".npz": "gpubp.formats.npz",
}


def _format(ending: str) -> ModuleType:
    """The module of the format that an ending means; any other is read as gpubp's own, .npz."""
    return import_module(FORMATS.get(ending.lower(), FORMATS[".npz"]))


def save(
    model: Model, path: str | os.PathLike, *, ending: str | None = None, byte_inputs: bool = False
) -> None:
    """Write a model to ``path``, atomically and without pickle, in the format that the name's ending says.

    It is a network or an ensemble. A name without an ending means .npz, gpubp's own, which keeps every bit, as
    .safetensors does. ``ending`` names a format whatever the file is called; ``byte_inputs`` lets an ONNX graph take
    bytes and divide them by 255 itself.

    Raises:
        UsageError: an ending that is no format's, ``byte_inputs`` for another format than ONNX, or an activation that
            ONNX has no operators for.
        GpubpError: it cannot be written, and an old file is left as it was; a library is not installed.
    """
    ending = Path(path).suffix if ending is None else ending
    if ending and ending.lower() not in FORMATS:
        raise UsageError(f"cannot write {path}: no format ends in {ending}; there are {', '.join(FORMATS)}")
    write = _format(ending).save
    if byte_inputs and "byte_inputs" not in signature(write).parameters:
        raise UsageError(
            f"byte inputs (--bytes) are for ONNX, whose graph scales them; {path} holds the parameters alone"
        )
    write(path, model, **({"byte_inputs": True} if byte_inputs else {}))


def load(path: str | os.PathLike, *, checkpoints: bool = True) -> Model:
    """The model of a model file or, unless ``checkpoints`` is false, of a checkpoint, asked as it was trained on.

    Raises:
        UsageError: a format that gpubp writes and does not read.
        DataError: no such file, none that gpubp wrote whole, or a checkpoint where that is refused.
        GpubpError: the format's library is not installed.
    """
    path = user_path(path)
    module = _format(path.suffix)
    if not hasattr(module, "load"):
        *others, last = (ending for ending in FORMATS if hasattr(_format(ending), "load"))
        raise UsageError(f"{path} is for other programs to read; gpubp reads {', '.join(others)} and {last}")
    model, is_checkpoint = module.load(path)
    if is_checkpoint and not checkpoints:
        raise DataError(f"{path} is a checkpoint, for --resume; give the model.npz that the run saved")
    return model


def load_network(path: str | os.PathLike, *, checkpoints: bool = True) -> Network:
    """The network of a model file, as :func:`load` reads it.

    Raises:
        UsageError: the file has an ensemble; and as :func:`load`.
    """
    from gpubp.network import Network

    model = load(path, checkpoints=checkpoints)
    if not isinstance(model, Network):
        raise UsageError(
            f"{path} is an ensemble of networks, and one network is wanted here: give one of its members'"
        )
    return model
