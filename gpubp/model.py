"""What predicts: inputs checked and outputs given a meaning, of a network or of several that answer as one."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

import gpubp
from gpubp.data.dataset import check_inputs, rows_of
from gpubp.data.inputs import Inputs, columns_at, names_of
from gpubp.data.sparse import is_sparse
from gpubp.errors import DataError, UsageError
from gpubp.functions import ACTIVATIONS, lookup

CHUNK = 4096  # rows a prediction takes at a time, which bounds its memory; fewer in wide networks, by
CHUNK_NUMBERS = 1 << 23  # the most that one layer may have of them


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


class Model(ABC):
    """The base of what predicts.

    Attributes:
        sizes: the widths of the inputs and of each layer.
        dtype: of its outputs.
        meaning: what the outputs stand for, a :class:`Meaning`.
        inputs: what the inputs are, a :class:`gpubp.data.inputs.Inputs`; inputs of the other kind are refused.
    """

    dtype: np.dtype
    meaning: Meaning
    inputs: Inputs

    @property
    @abstractmethod
    def sizes(self) -> list[int]: ...

    @property
    @abstractmethod
    def output(self) -> str:
        """The activation that gives the outputs."""

    @abstractmethod
    def outputs_of(self, rows: Any) -> np.ndarray:
        """The outputs (N, n_out) for a few checked rows (N, n_in) of inputs as they come, bytes or numbers."""

    @property
    def classes(self) -> tuple | None:
        """The labels that outputs stand for; None if they have no names, and () for values."""
        return () if self.meaning == VALUES else self.meaning.names or None

    @classes.setter
    def classes(self, names: Sequence | None) -> None:
        self.meaning = (
            UNKNOWN if names is None else Meaning("classes", tuple(names)) if len(names) else VALUES
        )

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

    def without_names(self) -> Self:
        """This model, its parameters shared, but for the names of columns: for inputs that are in their order."""
        model = copy(self)
        model.inputs = replace(self.inputs, names=())
        return model

    def stream(self, inputs: Any, method: str = "predict", *, name: str = "data") -> Iterator[np.ndarray]:
        """Yield what ``method`` ("forward", "predict" or "predict_proba") gives, a few thousand rows at a time.

        Neither inputs nor outputs need to fit into memory: inputs are an array, such as a memory map, or an iterator
        of arrays, whose rows follow each other; messages call them ``name``. Whatever is wrong with a row is raised
        when its turn has come.

        Raises:
            UsageError, DataError: as that method does.
        """
        logits = self.meaning.kind == "logits"
        if method == "predict_proba" and self.output not in ("softmax", "sigmoid") and not logits:
            raise UsageError(
                f"predict_proba needs a softmax or sigmoid output layer, but this one is "
                f"{self.output}; forward() gives its raw outputs"
            )
        of_logits = self.probabilities if logits else None
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
            width, n_in = math.prod(rows.shape[1:]), self.sizes[0]
            if width != n_in:
                raise DataError(
                    f"{name}: inputs have shape {(rows.shape[0], width)}, but this network takes rows of {n_in} numbers"
                )
            chunk = self.chunk(sparse=is_sparse(rows))
            for start in range(0, rows.shape[0], chunk):
                a = check_inputs(rows[start : start + chunk], name, first_row=first_row + start)
                scale_told = scale_told or self.inputs.say_if_of_another_scale(a, name)
                yield self.outputs_of(a)
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
        if self.meaning == VALUES or (self.meaning == UNKNOWN and self.output == "identity"):
            return outputs
        label = labels_of(self.probabilities(outputs) if self.meaning.kind == "logits" else outputs)
        return np.asarray(self.meaning.names)[label] if self.meaning.names else label

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return ACTIVATIONS["softmax" if logits.shape[1] > 1 else "sigmoid"].apply(logits)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """The outputs (N, n_out) as probabilities; of logits, their softmax, or of a single one its sigmoid.

        Raises:
            UsageError: the output activation is neither softmax nor sigmoid, and outputs are no logits.
            DataError: as :meth:`forward` does.
        """
        return self._whole(inputs, "predict_proba")

    # The doors to gpubp.formats, which knows models; a model knows no format.

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to ``path``: :func:`gpubp.save`."""
        gpubp.save(self, path)

    def to_onnx(self, path: str | os.PathLike, *, byte_inputs: bool = False) -> None:
        """Write the model to ``path`` as ONNX: :func:`gpubp.save`."""
        gpubp.save(self, path, ending=".onnx", byte_inputs=byte_inputs)
