"""A multi-layer perceptron: its sizes, activation functions and parameters, on the host."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import gpubp
from gpubp import reference
from gpubp.data.dataset import Split, check_inputs, check_split, rows_of
from gpubp.data.inputs import Inputs, columns_at, names_of
from gpubp.data.samples import Prepared, Task, as_rows, prepare
from gpubp.data.sparse import is_sparse
from gpubp.errors import DataError, UsageError
from gpubp.functions import ACTIVATIONS, Activation, Loss, lookup

CHUNK = 4096  # rows a prediction takes at a time, which bounds its memory; fewer in wide networks, by
CHUNK_NUMBERS = 1 << 23  # the most that one layer may have of them


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


def labels_of(outputs: np.ndarray) -> np.ndarray:
    """The classes (N,) that outputs (N, n_out) stand for, counted from 0.

    The class is that of the largest output, or, with a single output, whether it exceeds ½.
    """
    return outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5).astype(np.int64)


@dataclass(frozen=True)
class Meaning:
    """The meaning of a network's outputs.

    ``kind`` is "classes", "values", "logits" of classes, or "unknown" where nobody has said. ``names`` are those of
    classes, if they have any: one for each output, or two for a single one.
    """

    kind: str = "unknown"
    names: tuple = ()


UNKNOWN, CLASSES, VALUES, LOGITS = map(Meaning, ("unknown", "classes", "values", "logits"))


class Network:
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
        self.dtype = _float_dtype(dtype)
        self.layers = _layers(sizes, hidden, output)
        if init != "auto":
            lookup(INITIALISERS, init, "initialisation")
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
    def classes(self) -> tuple | None:
        """The labels that outputs stand for; None if they have no names, and () for values."""
        return () if self.meaning == VALUES else self.meaning.names or None

    @classes.setter
    def classes(self, names: Sequence | None) -> None:
        self.meaning = (
            UNKNOWN if names is None else Meaning("classes", tuple(names)) if len(names) else VALUES
        )

    @property
    def sizes(self) -> list[int]:
        return [self.layers[0].n_in] + [layer.n_out for layer in self.layers]

    def task(self, loss: Loss) -> Task:
        """What it is to learn by this loss."""
        return Task(self.sizes[0], self.sizes[-1], self.dtype, self.activations[-1], loss)

    @property
    def activations(self) -> list[Activation]:
        return [ACTIVATIONS[layer.activation] for layer in self.layers]

    def __repr__(self) -> str:
        count = sum(w.size + b.size for w, b in self.parameters)
        names = ", ".join(layer.activation for layer in self.layers)
        return f"Network({'-'.join(map(str, self.sizes))}: {names}; {count:,} parameters, {self.dtype})"

    def chunk(self, *, sparse: bool = False) -> int:
        """Return how many rows a prediction takes at a time; those of sparse inputs are not the widest."""
        return max(1, min(CHUNK, CHUNK_NUMBERS // max(self.sizes[sparse:])))

    def forward(self, inputs: Any) -> np.ndarray:
        """The outputs a^L, (N, n_out), for inputs (N, n_in), dense or sparse; uint8 ones are scaled by 1/255.

        Computed by the NumPy reference, in chunks, so that data larger than memory can be a memory map, of any
        dtype and order, or an iterator of arrays; :meth:`stream` does not hold the outputs either.

        Raises:
            DataError: inputs of another width or kind than the network learned from, or other than finite numbers in
                one or more rows.
        """
        return self._whole(inputs, "forward")

    def without_names(self) -> Network:
        """This network, its parameters shared, but for the names of columns: for inputs that are in their order."""
        network = copy(self)
        network.inputs = replace(self.inputs, names=())
        return network

    def split(
        self,
        inputs: Any,
        targets: Any,
        loss: Loss,
        sample_weight: Any = None,
        *,
        name: str = "data",
        like: Inputs | None = None,
    ) -> Split:
        """Checked inputs, a DataFrame's columns by their names, and targets to learn by this loss.

        The inputs are to be ``like`` these; by default, like those that the network has learned from.

        Raises:
            UsageError, DataError: as :func:`gpubp.data.dataset.check_split`, and for columns that are missing.
        """
        like = like or self.inputs
        inputs = like.arranged(inputs, name)
        like.check_shape(getattr(inputs, "shape", ())[1:], name)
        return check_split(inputs, targets, sample_weight, values=self.task(loss).values, name=name)

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

    def stream(self, inputs: Any, method: str = "predict", *, name: str = "data") -> Iterator[np.ndarray]:
        """Yield what ``method`` ("forward", "predict" or "predict_proba") gives, a few thousand rows at a time.

        Neither inputs nor outputs need to fit into memory: inputs are an array, such as a memory map, or an iterator
        of arrays, whose rows follow each other; messages call them ``name``. Whatever is wrong with a row is raised
        when its turn has come.

        Raises:
            UsageError, DataError: as that method does.
        """
        logits = self.meaning.kind == "logits"
        if (
            method == "predict_proba"
            and self.layers[-1].activation not in ("softmax", "sigmoid")
            and not logits
        ):
            raise UsageError(
                f"predict_proba needs a softmax or sigmoid output layer, but this one is "
                f"{self.layers[-1].activation}; forward() gives its raw outputs"
            )
        of_logits = self._probabilities if logits else None
        finish = lookup(
            {"forward": None, "predict": self._labelled, "predict_proba": of_logits}, method, "method"
        )
        outputs = self._outputs(inputs, name)
        return map(finish, outputs) if finish else outputs

    def _outputs(self, inputs: Any, name: str) -> Iterator[np.ndarray]:
        first_row, scale_told, names, places = 0, False, None, None
        for part in inputs if isinstance(inputs, Iterator) else [inputs]:
            if names_of(part) != names:  # a word on them is for all parts that have the same
                names = names_of(part)
                places = self.inputs.order_of(names, name)
            rows = rows_of(columns_at(places, part), name)
            self.inputs.check(rows, name)
            self.inputs.check_shape(rows.shape[1:], name)
            width, n_in = math.prod(rows.shape[1:]), self.layers[0].n_in
            if width != n_in:
                raise DataError(
                    f"{name}: inputs have shape {(rows.shape[0], width)}, but this network takes rows of {n_in} numbers"
                )
            chunk = self.chunk(sparse=is_sparse(rows))
            for start in range(0, rows.shape[0], chunk):
                a = check_inputs(rows[start : start + chunk], name, first_row=first_row + start)
                scale_told = scale_told or self.inputs.say_if_of_another_scale(a, name)
                a = as_rows(self.inputs.scaled(a), self.dtype)
                for (weights, bias), activation in zip(self.parameters, self.activations, strict=True):
                    a = reference.forward(a, weights, bias, activation)[1]
                yield a
            first_row += rows.shape[0]

    def _whole(self, inputs: Any, method: str) -> np.ndarray:
        if isinstance(inputs, Iterator):
            parts = list(self.stream(inputs, method))
            if not parts:
                raise DataError("data: no data, the iterator of inputs is empty")
            return np.concatenate(parts)
        start, count = 0, len(inputs) if hasattr(inputs, "columns") else rows_of(inputs).shape[0]
        for part in self.stream(inputs, method):
            if not start:  # outputs of many rows are not held twice
                whole = np.empty((count, *part.shape[1:]), part.dtype)
            whole[start : start + len(part)] = part
            start += len(part)
        return whole

    def predict(self, inputs: Any) -> np.ndarray:
        """The predicted labels (N,) of inputs (N, n_in); for regression, the outputs (N, n_out).

        Labels are :func:`labels_of` the outputs, by the names in ``classes`` if there are any.

        Raises:
            DataError: as :meth:`forward` does.
        """
        return self._whole(inputs, "predict")

    def _labelled(self, outputs: np.ndarray) -> np.ndarray:
        if self.meaning == VALUES or (self.meaning == UNKNOWN and self.layers[-1].activation == "identity"):
            return outputs
        label = labels_of(self._probabilities(outputs) if self.meaning.kind == "logits" else outputs)
        return np.asarray(self.meaning.names)[label] if self.meaning.names else label

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return ACTIVATIONS["softmax" if logits.shape[1] > 1 else "sigmoid"].apply(logits)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """The outputs (N, n_out) as probabilities; of logits, their softmax, or of a single one its sigmoid.

        Raises:
            UsageError: the output activation is neither softmax nor sigmoid, and outputs are no logits.
            DataError: as :meth:`forward` does.
        """
        return self._whole(inputs, "predict_proba")

    # The doors to gpubp.formats, which knows networks; a network knows no format.

    def save(self, path: str | os.PathLike) -> None:
        """Write the network to ``path``: :func:`gpubp.save`."""
        gpubp.save(self, path)

    def to_onnx(self, path: str | os.PathLike, *, byte_inputs: bool = False) -> None:
        """Write the network to ``path`` as ONNX: :func:`gpubp.save`."""
        gpubp.save(self, path, ending=".onnx", byte_inputs=byte_inputs)

    def to_torch(self) -> Any:
        """The network as a ``torch.nn.Sequential``: :func:`gpubp.to_torch`."""
        return gpubp.to_torch(self)

    @classmethod
    def from_torch(cls, module: Any, *, outputs: str | None = None) -> Network:
        """The network of a ``torch.nn.Sequential``: :func:`gpubp.from_torch`."""
        return gpubp.from_torch(module, outputs=outputs)


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
