"""What a sweep varies: fields of a recipe, and the values or the range that each is to take."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.experiments.recipe import OF_DATA, SYNONYMS, Recipe, flat_fields
from gpubp.support.hints import did_you_mean

INSTEAD = {  # what a sweep does not vary, and why
    **dict.fromkeys(("data", *OF_DATA), "all trials have the same data"),
    **dict.fromkeys(("name", "title", "source", "reach"), "it changes no weight"),
    "seed": "give --seeds N",
    "splits": "give --seeds N or --folds K",
    "folds": "give --folds K",
    "fold": "give --folds K",
    "split_seed": "all trials have the same parts of the data",
    "validation_fraction": "trials can only be compared on the same samples",
    "deform_rotation_by_class": "write a recipe for each",
}
# Ends of a range that differ by this factor or more: its logarithm is what is searched evenly.
LOG_FROM = 10.0

Settings = dict[str, Any]  # by field, as in `gpubp sweep --vary`: "lr", "layers", "deform_alpha"


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; whole ones of a field that takes those.

    Positive ends that differ tenfold or more are searched by the logarithm, so that each power of ten gets as much.

    Raises:
        UsageError: an end that is no finite number, or no lower end.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for end in ("low", "high"):
            try:
                object.__setattr__(self, end, float(getattr(self, end)))
            except (TypeError, ValueError):
                raise UsageError(f"a range is of two numbers, not {getattr(self, end)!r}") from None
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"a range goes from a lower to a higher number, as 0.001..0.1, not {self}")

    @property
    def log(self) -> bool:
        return self.low > 0 and self.high >= LOG_FROM * self.low

    def draw(self, rng: np.random.Generator, *, whole: bool) -> float | int:
        """One of its numbers; of whole ones, each with the share of the numbers that are rounded to it."""
        low, high = (self.low - 0.5, self.high + 0.5) if whole else (self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        return min(max(round(drawn), round(self.low)), round(self.high)) if whole else float(drawn)

    def __str__(self) -> str:
        return f"{self.low!r}..{self.high!r}"


@dataclass(frozen=True)
class Axis:
    """A field, and the values it is to take, or a range of them; ``kind`` is the field's type."""

    field: str
    values: tuple[Any, ...] | Range
    kind: Any

    def of_number(self, number: float | int) -> Any:
        """The value that a number of the range stands for: one for all layers, where the field has one for each."""
        return (number,) if _is_list(self.kind) else number

    def number(self, value: Any) -> float | int:
        """The number that :meth:`of_number` made a value of."""
        return value[0] if _is_list(self.kind) else value

    def __str__(self) -> str:
        """As :func:`axis_of` reads it."""
        listed = self.values
        values = str(listed) if isinstance(listed, Range) else ",".join(map(written, listed))
        return f"{self.field}={values}"


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def axes_of(vary: str | Mapping[str, Any] | Sequence[str]) -> tuple[Axis, ...]:
    """The axes of ``{"lr": [0.1, 0.2], "units": Range(…)}``, or of texts such as ``"lr=0.1,0.2"``, as the command has.

    Raises:
        UsageError: no field of a recipe, one that a sweep does not vary, a value that is none of its, or a field twice.
    """
    texts = [vary] if isinstance(vary, str) else vary
    given = list(texts.items()) if isinstance(texts, Mapping) else [_halves(text) for text in texts]
    axes = tuple(axis_of(name, values) for name, values in given)
    for axis in axes:
        if sum(other.field == axis.field for other in axes) > 1:
            raise UsageError(f"{axis.field} is varied twice: give all its values at once")
    return axes


def _halves(text: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not equals:
        raise UsageError(f"--vary takes FIELD=a,b,c or FIELD=low..high, not {text!r}")
    return name.strip(), values


def axis_of(name: str, values: Any) -> Axis:
    """The axis of a field and its values: a list of them, a :class:`Range`, or text as the command takes it."""
    field = str(name).replace("-", "_").replace(".", "_")
    kinds = fields_of_recipe()
    if field in INSTEAD:
        raise UsageError(f"{name} is not varied: {INSTEAD[field]}")
    if field not in kinds:
        offered = [known for known in kinds if known not in INSTEAD]
        meant = SYNONYMS.get(field.lower())
        hint = (
            did_you_mean(meant, offered) if meant in offered else did_you_mean(field, offered, at_least=0.6)
        )
        raise UsageError(f"there is no field {name!r} to vary: {hint}There are {', '.join(offered)}")
    kind = kinds[field]
    ranged = isinstance(values, Range) or (isinstance(values, str) and ".." in values)
    if ranged and kind not in (int, float, tuple[float, ...]):
        raise UsageError(f"{name} takes no range: list its values, {name}=a,b,c")
    if isinstance(values, str):
        values = _range_of(name, values) if ranged else values.split(",")
    if isinstance(values, Range):
        if kind is int and (values.low, values.high) != (round(values.low), round(values.high)):
            raise UsageError(f"{name} takes whole numbers: {values} has ends between them")
        return Axis(field, values, kind)
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        values = [values]
    listed = tuple(_checked(name, kind, value) for value in values)
    if not listed:
        raise UsageError(f"{name} has no value to take")
    if len(set(listed)) < len(listed):
        raise UsageError(f"{name} is given a value twice: {', '.join(map(written, listed))}")
    return Axis(field, listed, kind)


def _range_of(name: str, text: str) -> Range:
    low, high = text.split("..", 1)
    if "," in text:
        raise UsageError(
            f"a range stands alone: {name}={low}..{high.partition(',')[0]}, or list values, {name}=a,b,c"
        )
    return Range(_read(name, float, low.strip()), _read(name, float, high.strip()))


def list_of(listed: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Settings as texts, one each, which :func:`settings_of` reads: "lr=0.1 epochs=9".

    Raises:
        UsageError: as :func:`axis_of`; settings of unlike fields, or the same twice.
    """
    texts = [" ".join(str(axis_of(field, [value])) for field, value in one.items()) for one in listed]
    if len({tuple(settings_of(text)) for text in texts}) > 1:
        raise UsageError("settings that are listed have all the same fields, in the same order")
    if len(set(texts)) < len(texts):
        raise UsageError("the same settings are listed twice")
    return tuple(texts)


def settings_of(text: str) -> Settings:
    """Settings that :func:`list_of` wrote."""
    return {axis.field: axis.values[0] for axis in axes_of(text.split()) if isinstance(axis.values, tuple)}


def axes_of_listed(texts: Sequence[str]) -> tuple[Axis, ...]:
    """The fields of listed settings, each with all its values in their order."""
    listed = [settings_of(text) for text in texts]
    return tuple(axis_of(field, list(dict.fromkeys(one[field] for one in listed))) for field in listed[0])


def fields_of_recipe() -> dict[str, Any]:
    """The type of every field of a recipe that can be named; those with settings of their own by these."""
    return {name: kind for name, (_, _, kind) in flat_fields(Recipe).items()}


def _read(name: str, kind: Any, text: str) -> Any:
    """A value as the command line has it: sizes 784-32-10, lists with a plus, 0.2+0.5, as commas part the values."""
    try:
        if _is_list(kind):
            element = typing.get_args(kind)[0]
            return tuple(_read(name, element, part) for part in text.split("-" if element is int else "+"))
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is str and (not text or set(text) & set(" ,+=")):
            raise ValueError
        return kind(text)
    except (ValueError, KeyError, UsageError):
        raise UsageError(f"{name} takes {_called(name, kind)}, not {text!r}") from None


def _called(name: str, kind: Any) -> str:
    if _is_list(kind):
        element = typing.get_args(kind)[0]
        return {int: "sizes such as 784-32-10", float: "numbers such as 0.2 or 0.2+0.5"}.get(element, "names")
    return {int: "whole numbers", float: "numbers", bool: "true or false", str: "names"}.get(
        kind, "other values"
    )


def _checked(name: str, kind: Any, value: Any) -> Any:
    """A value given in Python, or as the command line has it, of the field's type."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, str):
        return _read(name, kind, value.strip())
    if _is_list(kind):
        element = typing.get_args(kind)[0]
        one = [value] if element is float and type(value) in (int, float) else value
        if isinstance(one, list | tuple) and len(one):
            values = tuple(float(v) if element is float and type(v) is int else v for v in one)
            if all(type(v) is element for v in values):
                return values
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    raise UsageError(f"{name} takes {_called(name, kind)}, not {value!r}")


def written(value: Any) -> str:
    """A value as the command line has it, with all its digits."""
    if isinstance(value, tuple | list):
        return ("-" if all(type(part) is int for part in value) else "+").join(map(written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(value: Any) -> str:
    """A value as :func:`written`, but with six digits at most: numbers that were drawn have more."""
    return f"{value:.6g}" if isinstance(value, float) else written(value)


def told(settings: Settings) -> str:
    """Settings in a line: "lr 0.1, layers 784-32-10"."""
    return ", ".join(f"{field.replace('_', ' ')} {shown(value)}" for field, value in settings.items())


def recipe_with(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with these settings, its own result no longer to be reached.

    Raises:
        UsageError: they do not go together.
    """
    changes: dict[str, Any] = {}
    places = flat_fields(Recipe)
    for name, value in settings.items():
        field, setting, _ = places[name]
        if setting is None:
            changes[name] = value
        else:
            changes.setdefault(field.name, {})[setting.name] = value
    try:
        changed = recipe.overridden(changes)
        changed.check_network()
        return changed
    except UsageError as error:
        raise UsageError(f"a trial with {told(settings)} cannot be: {error}") from error
