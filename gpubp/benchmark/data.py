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
    return _labelled(net, rng.random((DENSE_SAMPLES, net.layers[0]), dtype=np.float32), rng)


def _smooth(net: Net) -> Data:
    """Grey images of 28 × 28 bytes, smooth, of which half is not 0, as it is in Fashion-MNIST's."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.standard_normal((DENSE_SAMPLES, 28, 28), dtype=np.float32), (0, 2, 2))
    x = np.clip(field / field.std() * 128, 0, 255).astype(np.uint8).reshape(DENSE_SAMPLES, -1)
    return _labelled(net, x, rng)


def _onehot(net: Net) -> Data:
    """A table of 20 categories, each in as many columns as it has values, one of which is 1."""
    rng = np.random.default_rng(1)
    values = net.layers[0] // 20
    chosen = np.minimum(rng.geometric(0.1, (DENSE_SAMPLES, 20)) - 1, values - 1)  # a few are common
    x = np.zeros((DENSE_SAMPLES, 20, values), np.float32)
    np.put_along_axis(x, chosen[:, :, None], 1, axis=2)
    return _labelled(net, x.reshape(DENSE_SAMPLES, -1), rng)


def _words(net: Net) -> Data:
    """Bags of words: about 80 words a text, as frequent as Zipf's law has it, and 1 + ln of how often each occurs."""
    rng, texts, length = np.random.default_rng(1), 20_000, 100
    chance = 1 / np.arange(1, net.layers[0] + 1)
    place = rng.permutation(net.layers[0])  # frequent words stand anywhere
    words = place[rng.choice(net.layers[0], (texts, length), p=chance / chance.sum())]
    x = np.zeros((texts, net.layers[0]), np.float32)
    np.add.at(x, (np.arange(texts)[:, None], words), 1)
    there = x > 0
    x[there] = 1 + np.log(x[there])
    return _labelled(net, x, rng)


def _labelled(net: Net, x: np.ndarray, rng: np.random.Generator) -> Data:
    """Labels that a linear function of the inputs gives."""
    teacher = rng.standard_normal((net.layers[0], net.layers[-1]), dtype=np.float32)
    sums = x.astype(np.float32) @ teacher
    return Data(x, (sums - sums.mean(axis=0)).argmax(axis=1))


SOURCES = {
    "mnist": _named, "fashion-mnist": _named, "mnist-sample": _named, "digits": _named, "iris": _iris,
    "dense": _dense, "smooth": _smooth, "onehot": _onehot, "words": _words,
}  # fmt: skip


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
    from gpubp.experiments.parts import load_parts

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
