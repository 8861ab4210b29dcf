"""Several networks that answer as one: the mean of their outputs, which are probabilities or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.model import CLASSES, LOGITS, Model
from gpubp.network import Network


class Ensemble(Model):
    """Networks of the same inputs and outputs, whatever is between: a model whose outputs are the mean of theirs.

    Members that give logits count by the probabilities these stand for. Each scales its inputs as it was trained to.

    Args:
        members: two networks or more.

    Attributes:
        members: the networks.

    Raises:
        UsageError: fewer than two, something else than networks, or networks that differ in their inputs, or in the
            number or meaning of outputs.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        self.members = list(members) if isinstance(members, Sequence) else [members]
        for number, member in enumerate(self.members, start=1):
            if not isinstance(member, Network):
                raise UsageError(
                    f"members of an ensemble are networks, and number {number} is {member!r:.60}"
                )
        if len(self.members) < 2:
            raise UsageError(f"an ensemble has 2 members or more, not {len(self.members)}")
        first, *others = self.members
        for number, other in enumerate(others, start=2):
            for what, one, another in (
                ("inputs", first.sizes[0], other.sizes[0]),
                ("outputs", first.sizes[-1], other.sizes[-1]),
                ("dtype", first.dtype, other.dtype),
                ("what the outputs mean", first.meaning, other.meaning),
                ("the kind of inputs", first.inputs.kind, other.inputs.kind),
                ("the names of inputs", first.inputs.names, other.inputs.names),
                (
                    "whether outputs are probabilities",
                    _gives_probabilities(first),
                    _gives_probabilities(other),
                ),
            ):
                if one != another:
                    raise UsageError(
                        f"members 1 and {number} of an ensemble differ in {what}: {one} and {another}"
                    )
        # What it is told of a scale is told by its members, each of which has its own.
        self.inputs = replace(first.inputs, scaling=None)
        self.meaning = replace(first.meaning, kind=CLASSES.kind) if self._of_logits else first.meaning
        self.dtype = first.dtype

    @property
    def _of_logits(self) -> bool:
        return self.members[0].meaning.kind == LOGITS.kind

    @property
    def sizes(self) -> list[int]:
        """The widths of the inputs, of the widest hidden layer if there is one, and of the outputs."""
        hidden = [width for member in self.members for width in member.sizes[1:-1]]
        return [self.members[0].sizes[0], *([max(hidden)] if hidden else []), self.members[0].sizes[-1]]

    @property
    def output(self) -> str:
        """The activation of the members' outputs; of logits, the one that makes probabilities of them."""
        if self._of_logits:
            return "softmax" if self.sizes[-1] > 1 else "sigmoid"
        return self.members[0].output

    def outputs_of(self, rows: Any) -> np.ndarray:
        total = np.zeros(
            (rows.shape[0], self.sizes[-1]), np.float64
        )  # so that the order of members tells nothing
        for member in self.members:
            outputs = member.outputs_of(rows)
            total += member.probabilities(outputs) if self._of_logits else outputs
        return (total / len(self.members)).astype(self.dtype)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self.members)}: {'; '.join(map(repr, self.members))}"


def _gives_probabilities(network: Network) -> bool:
    return network.meaning.kind == LOGITS.kind or network.output in ("softmax", "sigmoid")
