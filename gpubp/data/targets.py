"""Targets: classes, by whatever name they are written, or values to be fitted; loss and output say which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from gpubp.errors import DataError, UsageError
from gpubp.functions import Activation, Loss
from gpubp.support.warning import warn_caller

CLASSES, VALUES = "classes", "values"
TO_CLASSIFY = "classes take --output softmax --loss cross_entropy, with an output for each"
TO_FIT = "values take --output identity --loss quadratic, with one output"


@dataclass(frozen=True)
class Targets:
    """What targets are to be: ``CLASSES``, ``VALUES`` or, where neither loss nor output says, None.

    ``outputs`` is how many the network has, if there is one yet; ``because`` ends a sentence on why they are so.
    """

    kind: str | None = None
    outputs: int | None = None
    because: str = ""

    @classmethod
    def of(cls, output: Activation, loss: Loss, outputs: int) -> Targets:
        """The targets in one column that a network with these outputs is trained on by this loss.

        Raises:
            UsageError: softmax over one output, which is 1 whatever its input.
        """
        if outputs > 1:
            return cls(CLASSES, outputs, f"and a network with {outputs} outputs takes one column for classes")
        if output.name == "softmax":
            raise UsageError(
                "softmax over one output is 1 whatever goes in: two classes take output 'sigmoid' and loss "
                "'binary_cross_entropy', values take output 'identity' and loss 'quadratic' (--output, --loss)"
            )
        if loss.probabilities:
            return cls(CLASSES, 1, f"and the loss {loss.name} takes classes")
        if (output.lowest, output.highest) != (0, 1):
            return cls(VALUES, 1, f"but output {output.name} and loss {loss.name} fit values; {TO_CLASSIFY}")
        return cls(None, 1)


def name_labels(
    written: Sequence[str], targets: Targets, what: str
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers (N,) of labels as they are written, and the classes' names; None for 0, 1, 2, … themselves.

    Whole numbers that the network has an output for are class numbers as they are, and without a network those from 0
    on; all else are names, in the order of their numbers or of the alphabet.

    Raises:
        DataError: numbers with a fraction, nearly as many classes as rows, more classes than outputs, or two spellings
            of one number; ``what`` begins the message.
    """
    names = _in_order(set(written), what)
    _say_what_looks_alike(names, what)
    room = 2 if targets.outputs == 1 else targets.outputs
    as_numbers = all(name.isdecimal() and name == str(int(name)) for name in names)
    as_numbers = as_numbers and (
        int(names[-1]) < room if room is not None else names[0] == "0" and int(names[-1]) < len(written)
    )
    if 2 * len(names) > len(written) and not as_numbers:
        raise DataError(
            f"{what} has {len(names)} different labels in {len(written)} rows, which are hardly classes; {TO_FIT}"
        )
    if room is not None and len(names) > room:
        listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise DataError(
            f"{what} has {len(names)} classes ({listed}), too many for {_outputs(targets.outputs)}: give the network "
            f"one for each (--layers …-{len(names)} --output softmax); {TO_FIT}"
        )
    kept = None if as_numbers else tuple(names)
    return number_labels(written, kept, what), kept


def number_labels(
    written: Sequence[str], names: tuple[str, ...] | None, what: str, known: Sequence[str] | None = None
) -> np.ndarray:
    """The class numbers (N,) of labels by the names that training has for the classes, or by themselves.

    ``known`` are the labels of the training part, where these are another's; a number that is not among them is said.

    Raises:
        DataError: a label that training has not.
    """
    if names is None:
        strange = next((label for label in written if not label.isdecimal()), None)
    else:
        places = {name: place for place, name in enumerate(names)}
        strange = next((label for label in written if label not in places), None)
    if names is None and strange is None and known is not None:
        new = sorted(set(written) - set(known))
        if new:
            warn_caller(f"{what} has the label {new[0]}, of which the training part has none")
    if strange is not None:
        known = "whole numbers" if names is None else ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise DataError(f"{what} has a label {strange!r}, but the classes of the training part are {known}")
    return np.array([int(label) if names is None else places[label] for label in written], np.int64)


def _say_what_looks_alike(names: Sequence[str], what: str) -> None:
    """Warn of labels that differ in capitals, blanks or the form of letters alone."""
    seen: dict[str, str] = {}
    for name in names:
        plain = "".join(c for c in normalize("NFKC", name).casefold() if c.isprintable() and not c.isspace())
        if seen.setdefault(plain, name) != name:
            warn_caller(f"{what} has {seen[plain]!r} and {name!r}, which are taken for two classes")


def _in_order(labels: set[str], what: str) -> list[str]:
    """Labels by their numbers, if all of them are whole ones, else by the alphabet."""
    numbers = {label: x for label in sorted(labels) if (x := _number(label)) is not None}
    if len(numbers) < len(labels):
        return sorted(labels)
    fraction = next((label for label, x in numbers.items() if not (math.isfinite(x) and x == x // 1)), None)
    if fraction is not None:
        raise DataError(f"{what} has numbers such as {fraction}, which are no classes; {TO_FIT}")
    by_value: dict[float, str] = {}
    for label, x in numbers.items():
        if by_value.setdefault(x, label) != label:
            raise DataError(
                f"{what} has {by_value[x]!r} and {label!r}, which may be one number or two labels: write them alike, "
                "or as words"
            )
    return [by_value[x] for x in sorted(by_value)]


def _outputs(count: int | None) -> str:
    return "one output" if count == 1 else f"{count} outputs"


def _number(label: str) -> float | int | None:
    """A label as a number, whole ones exactly; None for anything else."""
    if label.removeprefix("-").removeprefix("+").isdecimal():
        return int(label)
    try:
        return None if "_" in label else float(label)
    except ValueError:
        return None
