"""The samples of a net: made or loaded once by the parent, written to a folder, read by every worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpubp.benchmark.nets import Net
from gpubp.errors import UsageError
from gpubp.experiments.recipe import Recipe

DENSE_SAMPLES = 60_000  # as many as MNIST has


@dataclass(frozen=True)
class Data:
    """Samples as gpubp is given them: inputs (N, n_in) uint8 or float32, labels (N,) int64."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, samples: int | None) -> Data:
        """The first ``samples`` of them; all, if None."""
        return Data(self.inputs[:samples], self.labels[:samples])

    def floats(self) -> np.ndarray:
        """The inputs as (N, n_in) float32; bytes are scaled by 1/255, to the bits that gpubp scales them to."""
        if self.inputs.dtype == np.uint8:
            return np.divide(self.inputs, np.float32(255), dtype=np.float32)
        return self.inputs

    def targets(self, net: Net) -> np.ndarray:
        """Targets of the other libraries' losses: labels (N,) int64 for cross-entropy, else (N, classes) float32."""
        return self.labels if net.classifies else np.eye(net.layers[-1], dtype=np.float32)[self.labels]


def _named(net: Net) -> Data:
    import gpubp

    train = gpubp.load_data(net.data).train
    return Data(train.inputs, train.targets)


def _iris(net: Net) -> Data:
    """Standardised, as gpubp's recipe has it."""
    data = _named(net)
    x = (data.inputs - data.inputs.mean(axis=0)) / data.inputs.std(axis=0)
    return Data(x.astype(np.float32), data.labels)


def _dense(net: Net) -> Data:
    """Uniform inputs in [0, 1), no zeros to skip and no bytes; labels that a linear function of them gives."""
    rng = np.random.default_rng(1)
    x = rng.random((DENSE_SAMPLES, net.layers[0]), dtype=np.float32)
    teacher = rng.standard_normal((net.layers[0], net.layers[-1]), dtype=np.float32)
    return Data(x, ((x - np.float32(0.5)) @ teacher).argmax(axis=1))


SOURCES = {"mnist": _named, "dense": _dense, "digits": _named, "iris": _iris}


def make(net: Net) -> Data:
    """The net's samples.

    Raises:
        UsageError: the net has another width than the data, or fewer outputs than there are classes.
        DataError: MNIST is neither here nor to be had.
    """
    return _fitting(net, SOURCES[net.data](net))


def of_recipe(
    recipe: Recipe, net: Net, data_dir: Path | None, part: str = "train", *, quiet: bool = False
) -> Data:
    """The recipe's training or "test" samples, of its first split, scaled as it says.

    Raises:
        UsageError: no labels to tell classes by, no such part, or as :func:`make`.
        DataError: the data is missing or corrupt.
    """
    from gpubp.experiments.run import load_parts

    parts = load_parts(recipe, recipe.seed, data_dir, quiet=quiet)
    split = getattr(parts.dataset, part)
    if split is None:
        raise UsageError(f"{recipe.data} has no {part} part")
    split = parts.scaled(split)
    if split.targets.ndim != 1 or split.targets.dtype.kind not in "iu":
        raise UsageError(
            f"recipe {recipe.name}: only classifiers are compared, and {recipe.data} has no labels"
        )
    inputs = split.inputs if split.inputs.dtype == np.uint8 else split.inputs.astype(np.float32)
    return _fitting(net, Data(inputs, split.targets.astype(np.int64)))


def _fitting(net: Net, data: Data) -> Data:
    n_in, classes = data.inputs.shape[1], int(data.labels.max()) + 1
    if net.layers[0] != n_in or net.layers[-1] < classes:
        raise UsageError(
            f"net {net.name}: {net.data} has {n_in} columns and {classes} classes; give sizes {n_in}-…-{classes}"
        )
    return data


def save(folder: Path, data: Data) -> None:
    """Write the samples where :func:`load` finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "inputs.npy", data.inputs)
    np.save(folder / "labels.npy", data.labels)


def load(folder: Path) -> Data:
    """The samples that :func:`save` wrote."""
    return Data(np.load(folder / "inputs.npy"), np.load(folder / "labels.npy"))


def save_parameters(path: Path, parameters: list[np.ndarray]) -> None:
    """Write [W1, b1, W2, b2, …]."""
    np.savez(path, *parameters)


def load_parameters(path: Path) -> list[np.ndarray]:
    """[W1, b1, W2, b2, …]."""
    with np.load(path) as file:
        return [file[name] for name in file.files]
