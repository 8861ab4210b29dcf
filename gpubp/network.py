"""A multi-layer perceptron: its sizes, activation functions and parameters, on the host."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import gpubp
from gpubp import reference
from gpubp.data.dataset import Split, check_split
from gpubp.data.inputs import Inputs
from gpubp.data.samples import Prepared, Task, as_rows, prepare
from gpubp.errors import UsageError
from gpubp.functions import ACTIVATIONS, Activation, Loss, lookup
from gpubp.model import UNKNOWN, Model


@dataclass(frozen=True)
class Layer:
    """One layer: a = σ(x Wᵀ + b), W of shape (n_out, n_in)."""

    n_in: int
    n_out: int
    activation: str


Initialiser = Callable[[np.random.Generator, Layer], np.ndarray]


def _normal(deviation: Callable[[Layer], float]) -> Initialiser:
    return lambda rng, layer: rng.standard_normal((layer.n_out, layer.n_in)) * deviation(layer)


def _glorot(rng: np.random.Generator, layer: Layer) -> np.ndarray:
    limit = (6 / (layer.n_in + layer.n_out)) ** 0.5
    return rng.uniform(-limit, limit, (layer.n_out, layer.n_in))


INITIALISERS: dict[str, Initialiser] = {
    "normal": _normal(lambda layer: 1.0),  # biases are drawn too
    "normal_1_over_n": _normal(lambda layer: 1 / layer.n_in),
    "glorot": _glorot,  # Glorot and Bengio (2010), equation 16
    "he": _normal(lambda layer: (2 / layer.n_in) ** 0.5),  # He, Zhang, Ren, Sun (2015), equation 10
    "lecun": _normal(lambda layer: layer.n_in**-0.5),  # Efficient BackProp (1998), equation 16
}
_SUITED = {"relu": "he", "leaky_relu": "he", "lecun_tanh": "lecun"}  # for init="auto"; others: glorot


def tensor_names(layers: Sequence[Layer]) -> list[str]:
    """W1, b1, W2, b2, …"""
    return [f"{letter}{i}" for i in range(1, len(layers) + 1) for letter in "Wb"]


class Network(Model):
    """A multi-layer perceptron with parameters in float32 or float64.

    Args:
        sizes: [n_inputs, hidden widths …, n_outputs], two or more positive integers.
        hidden: the activation of the hidden layers, one name for all or a list of one each.
        output: the activation of the last layer. Names are those of ``gpubp.functions.ACTIVATIONS``.
        init: a name of ``INITIALISERS``, or "auto": he for the ReLUs, lecun for lecun_tanh, else glorot.
            Biases start at 0, but for "normal", which draws them as the weights.
        seed: of the one generator that draws every parameter, in float64 and layer by layer, so that a seed
            means the same network on every backend and in every dtype.
        dtype: "float32" or "float64".

    Attributes:
        layers: list of :class:`Layer`.
        parameters: list of (W, b) for each layer, (n_out, n_in) and (n_out,).
        meaning: what the outputs stand for, a :class:`Meaning`, which who trains or loads the network sets.
        inputs: what the inputs are, a :class:`gpubp.data.inputs.Inputs`, set likewise; inputs of the other kind are
            refused everywhere.

    Raises:
        UsageError: sizes, names, seed or dtype that make no network.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str | Sequence[str] = "relu",
        output: str = "softmax",
        init: str = "auto",
        seed: int = 0,
        dtype: str | np.dtype | type = "float32",
    ) -> None:
        self.layers, self.dtype = check_network(sizes, hidden, output, init, dtype), _float_dtype(dtype)
        self.meaning, self.inputs = UNKNOWN, Inputs()
        try:
            rng = np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            raise UsageError(f"seed must be an integer of 0 or more, not {seed!r}") from error
        self.parameters = [self._draw(rng, layer, init) for layer in self.layers]

    def _draw(self, rng: np.random.Generator, layer: Layer, init: str) -> tuple[np.ndarray, np.ndarray]:
        name = _SUITED.get(layer.activation, "glorot") if init == "auto" else init
        weights = INITIALISERS[name](rng, layer)
        bias = rng.standard_normal(layer.n_out) if name == "normal" else np.zeros(layer.n_out)
        return weights.astype(self.dtype), bias.astype(self.dtype)

    @property
    def sizes(self) -> list[int]:
        return [self.layers[0].n_in] + [layer.n_out for layer in self.layers]

    def task(self, loss: Loss) -> Task:
        """What it is to learn by this loss."""
        return Task(self.sizes[0], self.sizes[-1], self.dtype, self.activations[-1], loss)

    @property
    def output(self) -> str:
        return self.layers[-1].activation

    def outputs_of(self, rows: Any) -> np.ndarray:
        a = as_rows(self.inputs.scaled(rows), self.dtype)
        for (weights, bias), activation in zip(self.parameters, self.activations, strict=True):
            a = reference.forward(a, weights, bias, activation)[1]
        return a

    @property
    def activations(self) -> list[Activation]:
        return [ACTIVATIONS[layer.activation] for layer in self.layers]

    def __repr__(self) -> str:
        count = sum(w.size + b.size for w, b in self.parameters)
        names = ", ".join(layer.activation for layer in self.layers)
        return f"Network({'-'.join(map(str, self.sizes))}: {names}; {count:,} parameters, {self.dtype})"

    def split(
        self,
        inputs: Any,
        targets: Any,
        loss: Loss,
        sample_weight: Any = None,
        *,
        name: str = "data",
        like: Inputs | None = None,
        look_through_mapped: bool = True,
    ) -> Split:
        """Checked inputs, a DataFrame's columns by their names, and targets to learn by this loss.

        The inputs are to be ``like`` these; by default, like those that the network has learned from. NaN in those
        that are mapped from a file can be left for others to find.

        Raises:
            UsageError, DataError: as :func:`gpubp.data.dataset.check_split`, and for columns that are missing.
        """
        like = like or self.inputs
        inputs = like.arranged(inputs, name)
        like.check_shape(getattr(inputs, "shape", ())[1:], name)
        how: dict[str, Any] = {
            "values": self.task(loss).values,
            "look_through_mapped": look_through_mapped,
            "name": name,
        }
        return check_split(inputs, targets, sample_weight, **how)

    def prepare(
        self, split: Split, loss: Loss, name: str = "data", *, like: Inputs | None = None
    ) -> Prepared:
        """Samples to learn from by this loss, of a checked split, its inputs scaled as the network has them.

        The inputs are to be ``like`` those that :meth:`split` has; another scale is warned of.

        Raises:
            UsageError, DataError: inputs of the other kind, and as :func:`gpubp.data.samples.prepare`.
        """
        like = like or self.inputs
        like.check(split.inputs, name)
        like.say_if_of_another_scale(split.inputs, name)
        return prepare(replace(split, inputs=self.inputs.scaled(split.inputs)), self.task(loss), name)

    def to_torch(self) -> Any:
        """The network as a ``torch.nn.Sequential``: :func:`gpubp.to_torch`."""
        return gpubp.to_torch(self)

    @classmethod
    def from_torch(cls, module: Any, *, outputs: str | None = None) -> Network:
        """The network of a ``torch.nn.Sequential``: :func:`gpubp.from_torch`."""
        return gpubp.from_torch(module, outputs=outputs)


def check_network(
    sizes: Sequence[int], hidden: str | Sequence[str], output: str, init: str, dtype: str | np.dtype | type
) -> list[Layer]:
    """The layers of a network that :class:`Network` would make.

    Raises:
        UsageError: sizes, names or dtype that make none.
    """
    _float_dtype(dtype)
    if init != "auto":
        lookup(INITIALISERS, init, "initialisation")
    return _layers(sizes, hidden, output)


def _float_dtype(dtype: str | np.dtype | type) -> np.dtype:
    try:
        resolved = None if dtype is None else np.dtype(dtype)  # NumPy takes None for float64
    except TypeError:
        resolved = None
    if resolved not in (np.float32, np.float64):
        raise UsageError(f"dtype must be float32 or float64, not {dtype!r}")
    return resolved


def _layers(sizes: Sequence[int], hidden: str | Sequence[str], output: str) -> list[Layer]:
    try:
        sizes = [operator.index(n) for n in sizes]
    except TypeError as error:
        raise UsageError(f"sizes must be a list of integers such as [784, 128, 10], not {sizes!r}") from error
    if len(sizes) < 2 or min(sizes) < 1:
        raise UsageError(
            f"a network needs two or more positive sizes, inputs first and outputs last, not {sizes}"
        )
    names = [hidden] * (len(sizes) - 2) if isinstance(hidden, str) else list(hidden)
    if len(names) != len(sizes) - 2:
        raise UsageError(f"{len(sizes) - 2} hidden layers but {len(names)} hidden activations: {names}")
    for name in (*names, output, *([hidden] if isinstance(hidden, str) else [])):
        lookup(ACTIVATIONS, name, "activation")
    return [Layer(i, o, name) for i, o, name in zip(sizes, sizes[1:], [*names, output], strict=False)]
