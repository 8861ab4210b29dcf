"""Networks on disk and in the formats of others: a network knows none of them.

A format is a module with ``save(path, network)`` and, if gpubp reads it too, ``load(path)``; ``FORMATS`` says which
ending of a file's name means it. PyTorch's modules are no files: :mod:`gpubp.formats.torch`.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

from gpubp.errors import DataError, UsageError
from gpubp.network import Network

FORMATS = {
    ".npz": "gpubp.formats.npz",
    ".safetensors": "gpubp.formats.safetensors",
    ".onnx": "gpubp.formats.onnx",
}


def _format(ending: str) -> ModuleType:
    """The module of the format that an ending means; any other is gpubp's own, .npz."""
    return import_module(FORMATS.get(ending.lower(), FORMATS[".npz"]))


def save(
    network: Network, path: str | os.PathLike, *, ending: str | None = None, byte_inputs: bool = False
) -> None:
    """Write a network to ``path``, atomically and without pickle, in the format that the name's ending says.

    .safetensors, .onnx, or else .npz, gpubp's own. :func:`load` reads the first and the last; these keep every bit.
    ``ending`` names a format whatever the file is called; ``byte_inputs`` lets an ONNX graph take bytes and divide
    them by 255 itself.

    Raises:
        UsageError: ``byte_inputs`` for another format, or an activation that ONNX has no operators for.
        GpubpError: it cannot be written, and an old file is left as it was; a library is not installed.
    """
    module = _format(Path(path).suffix if ending is None else ending)
    if not byte_inputs:
        module.save(path, network)
    elif module.__name__ == FORMATS[".onnx"]:
        module.save(path, network, byte_inputs=True)
    else:
        raise UsageError(
            f"byte inputs are for ONNX, whose graph scales them; {path} holds the parameters alone"
        )


def load(path: str | os.PathLike, *, checkpoints: bool = True) -> Network:
    """The network of a model file or, unless ``checkpoints`` is false, of a checkpoint, whose inputs are as trained on.

    Raises:
        UsageError: a format that gpubp writes and does not read.
        DataError: no such file, none that gpubp wrote whole, or a checkpoint where that is refused.
        GpubpError: safetensors is not installed.
    """
    module = _format(Path(path).suffix)
    if not hasattr(module, "load"):
        raise UsageError(f"{path} is for other programs to read; gpubp reads .npz and .safetensors")
    network, is_checkpoint = module.load(path)
    if is_checkpoint and not checkpoints:
        raise DataError(f"{path} is a checkpoint, for --resume; give the model.npz that the run saved")
    return network
