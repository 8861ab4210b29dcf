"""Models and checkpoints on disk: one .npz of plain arrays and a JSON header, written atomically, no pickle.

A model holds a network, or the networks of an ensemble, whose arrays are called 1.W1, 1.b1, … 2.W1. A checkpoint
holds a network and, in addition, all that training changes: optimizer slots, step count, the generator's state,
history and recipe (:mod:`gpubp.training.checkpoint`).
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.data.inputs import KINDS, Inputs, Scaling
from gpubp.ensemble import Ensemble
from gpubp.errors import DataError, UsageError
from gpubp.model import Meaning, Model
from gpubp.network import Network, tensor_names
from gpubp.support.files import user_path, write_atomically

FORMAT = 1  # raised when an older gpubp could no longer read what is written


def write(path: str | os.PathLike, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write atomically: a reader sees the old file or the whole new one, whatever happens in between.

    Raises:
        GpubpError: no name for a file, or the folder cannot be written or is full; an old file is left as it was.
    """
    text = np.frombuffer(json.dumps({"format": FORMAT, **header}).encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))  # type: ignore[arg-type]


def read(path: str | os.PathLike, kind: str = "model") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file that :func:`write` wrote.

    Raises:
        DataError: no such file, truncated, not gpubp's, of another kind or of a newer format.
    """
    path = user_path(path)
    # NumPy takes what is no zip file for an array or a pickle; ZipFile refuses it.
    with (
        reading(path, f"gpubp {kind}", zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError),
        zipfile.ZipFile(path),
        np.load(path, allow_pickle=False) as file,
    ):
        arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
    check_header(path, header, kind)
    return header, arrays


@contextmanager
def reading(path: str | os.PathLike, kind: str, *damage: type[Exception]) -> Iterator[None]:
    """Tell of a file that cannot be read, or raises one of ``damage``, by a DataError that names it."""
    corrupt: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, AttributeError, *damage)
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except DataError:
        raise
    except corrupt as error:
        raise DataError(f"{path} is not a {kind}, or it is truncated or corrupt ({error})") from error


def check_header(path: str | os.PathLike, header: Any, kind: str) -> None:
    """Refuse by a DataError what is no header, or one of a newer format."""
    if not isinstance(header, dict) or not {"network", "networks"} & set(header):
        raise DataError(f"{path} is not a gpubp {kind}: its header describes no network")
    version = header.get("format")
    if not isinstance(version, int):
        raise DataError(f"{path} is not a gpubp {kind}: its format is {version!r}, not a number")
    if version > FORMAT:
        raise DataError(f"{path} was written by a newer gpubp (format {version}); upgrade gpubp")


def network_header(network: Network) -> dict[str, Any]:
    """The header's description of a network, besides its arrays."""
    return {
        "sizes": network.sizes,
        "activations": [layer.activation for layer in network.layers],
        "dtype": str(network.dtype),
        "classes": None if network.classes is None else list(map(_plain, network.classes)),
        "inputs": _inputs_header(network.inputs),
        "outputs": network.meaning.kind,
    }


def _plain(label: Any) -> Any:
    """A label as JSON has it; dates and the like as they are written."""
    return label if isinstance(label, str | int | float | None) else str(label)


def _inputs_header(inputs: Inputs) -> dict[str, Any]:
    header: dict[str, Any] = {"kind": inputs.kind, "names": list(inputs.names), "shape": list(inputs.shape)}
    header["size"] = inputs.size if math.isfinite(inputs.size) else 0.0
    if inputs.scaling is not None:  # JSON keeps every bit of a float64
        header |= {"shift": inputs.scaling.shift.tolist(), "scale": inputs.scaling.scale.tolist()}
    return header


def _inputs_of(header: dict[str, Any], n_in: int) -> Inputs:
    """What :func:`_inputs_header` described.

    Raises:
        KeyError, TypeError, ValueError: it describes nothing of the kind.
    """
    scaling = None
    if "shift" in header:
        scaling = Scaling(*(np.array(header[name], np.float64) for name in ("shift", "scale")))
        if {scaling.shift.shape, scaling.scale.shape} != {(n_in,)}:
            raise ValueError("its scaling is of other columns")
    inputs = Inputs(
        header["kind"], tuple(header["names"]), tuple(header["shape"]), float(header["size"]), scaling
    )
    if (
        inputs.kind not in KINDS
        or len(inputs.names) not in (0, n_in)
        or math.prod(inputs.shape) not in (1, n_in)
    ):
        raise ValueError(f"its inputs are {inputs.kind!r}, with {len(inputs.names)} names")
    return inputs


def network_arrays(network: Network) -> dict[str, np.ndarray]:
    """W1, b1, W2, b2, …: the parameters by name."""
    arrays = [array for pair in network.parameters for array in pair]
    return dict(zip(tensor_names(network.layers), arrays, strict=True))


def model_header(model: Model) -> dict[str, Any]:
    """The header of a file with a network, or with an ensemble."""
    if isinstance(model, Ensemble):
        return {"networks": [network_header(member) for member in model.members]}
    assert isinstance(model, Network)
    return {"network": network_header(model)}


def model_arrays(model: Model) -> dict[str, np.ndarray]:
    """The parameters by name, those of an ensemble's members by their numbers from 1 before."""
    if isinstance(model, Ensemble):
        return {
            f"{number}.{name}": array
            for number, member in enumerate(model.members, start=1)
            for name, array in network_arrays(member).items()
        }
    assert isinstance(model, Network)
    return network_arrays(model)


def save(path: str | os.PathLike, model: Model) -> None:
    """Write a model file, as :func:`write` does."""
    write(path, model_header(model), model_arrays(model))


def load(path: str | os.PathLike) -> tuple[Model, bool]:
    """The model of a model or checkpoint file, and whether it is a checkpoint."""
    header, arrays = read(path)
    return build_model(path, header, arrays), "training" in header


def build_model(path: str | os.PathLike, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Model:
    """The network or ensemble that a header and its arrays describe, with every shape checked."""
    if "network" in header:
        return build_network(path, header, arrays)
    members = []
    with reading(path, "gpubp ensemble"):
        for number, spec in enumerate(header["networks"], start=1):
            mark = f"{number}."
            own = {name.removeprefix(mark): a for name, a in arrays.items() if name.startswith(mark)}
            members.append(build_network(path, {"network": spec}, own))
        try:
            return Ensemble(members)
        except UsageError as error:
            raise DataError(f"{path}: its networks make no ensemble: {error}") from error


def build_network(path: str | os.PathLike, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Network:
    """The network that a header and its arrays describe, with every shape checked."""
    try:
        spec = header["network"]
        *hidden, output = spec["activations"]
        network = Network(spec["sizes"], hidden=hidden, output=output, dtype=spec["dtype"])
        network.classes = spec["classes"]
        if "inputs" in spec:  # files that were written before do not say
            network.inputs = _inputs_of(spec["inputs"], network.sizes[0])
            network.meaning = Meaning(spec["outputs"], network.meaning.names)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its header describes no network ({error})") from error
    own = network_arrays(network)
    for name, like in own.items():
        array = arrays.get(name)
        if array is None or array.shape != like.shape or array.dtype != like.dtype:
            raise DataError(f"{path}: {name} is missing or not a {like.dtype} array of shape {like.shape}")
    found = [arrays[name] for name in own]
    network.parameters = list(zip(found[::2], found[1::2], strict=True))
    return network
