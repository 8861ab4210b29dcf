"""What is said of deformed images in a recipe or a call of ``fit``; free of NumPy, as a recipe is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

from gpubp.errors import UsageError

SIGMA = 1.0, 16.0  # of the smoothing, in pixels
LIMITS = {"rotation": (0, 180.0), "scaling": (0, 0.5), "shear": (0, 1.0)}


def _setting(help_text: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class Deform:
    """How each step of training deforms images anew: elastically, and turned, scaled and sheared about the middle.

    Attributes:
        alpha: how strong the elastic part is: a field of uniform numbers in [−1, 1] is smoothed and multiplied by
            this, in pixels (Simard, Steinkraus, Platt 2003); 0 for none.
        sigma: standard deviation of the Gaussian that smooths it, 1 to 16 pixels.
        rotation: the largest angle, in degrees, up to 180; each angle up to it, to either side, is as likely.
        scaling: the largest part by which places move towards the middle or away from it, along x and by itself along
            y: with 0.15 an image is drawn between 1/1.15 and 1/0.85 times as wide; up to 0.5.
        shear: the largest sideways shift of a row, as a part of its distance from the middle; up to 1.
        rotation_by_class: the largest angle of some classes, by their numbers from 0: {1: 7.5, 7: 7.5} (Cireşan and
            others 2010).

    Raises:
        UsageError: a value out of range.
    """

    alpha: float = _setting("How strong images are deformed elastically: α, in pixels", 0.0)
    sigma: float = _setting("How smoothly, σ in pixels", 4.0)
    rotation: float = _setting("Largest angle that images are turned by, in degrees", 0.0)
    scaling: float = _setting("Largest part by which width and height change: 0.15", 0.0)
    shear: float = _setting("Largest sideways shift of a row, as a part of its distance from the middle", 0.0)
    # A mapping, pairs, or text such as 1:7.5,7:7.5 when given; kept as pairs (label, degrees) in order.
    rotation_by_class: Any = field(
        default=(), metadata={"help": "Largest angle of some classes: 1:7.5,7:7.5"}
    )

    def __post_init__(self) -> None:
        for name, (least, largest) in {"alpha": (0, math.inf), "sigma": SIGMA, **LIMITS}.items():
            object.__setattr__(self, name, _within(name, getattr(self, name), least, largest))
        if not self.alpha and self.sigma != Deform.sigma:
            raise UsageError("sigma smooths what alpha is the strength of, and alpha is 0: give alpha too")
        object.__setattr__(self, "rotation_by_class", _by_class(self.rotation_by_class))

    def __bool__(self) -> bool:
        """Whether anything is deformed."""
        turned = self.rotation, self.scaling, self.shear, *(limit for _, limit in self.rotation_by_class)
        return any((self.alpha, *turned))

    def to_dict(self) -> dict[str, Any]:
        """For JSON and TOML: the settings that say something."""
        table = {key: value for key, value in asdict(self).items() if value and key != "rotation_by_class"}
        if not self.alpha:
            del table["sigma"]
        if self.rotation_by_class:
            table["rotation_by_class"] = {str(label): limit for label, limit in self.rotation_by_class}
        return table

    def __str__(self) -> str:
        said = [f"elastic α {self.alpha:g} σ {self.sigma:g}"] if self.alpha else []
        others = ", ".join(f"±{limit:g}° for class {label}" for label, limit in self.rotation_by_class)
        if self.rotation or others:
            said.append(f"rotation ±{self.rotation:g}°" + (f" ({others})" if others else ""))
        said += [f"scaling ±{100 * self.scaling:g}%"] if self.scaling else []
        said += [f"shear ±{100 * self.shear:g}%"] if self.shear else []
        return ", ".join(said) or "none"


def _within(name: str, value: Any, least: float, largest: float) -> float:
    """The number, of whatever kind, if it lies between these."""
    number = isinstance(value, Real) and not isinstance(
        value, bool
    )  # NumPy's are registered as real, but its bool
    if not (number and least <= value <= largest and math.isfinite(value)):
        most = "" if largest == math.inf else f" to {largest:g}"
        raise UsageError(
            f"{name} of a deformation is a number of {least:g}{most or ' or more'}, not {value!r}"
        )
    return float(value)


def _by_class(given: Any) -> tuple[tuple[int, float], ...]:
    """Pairs (label, degrees) in order, from a mapping, pairs or text; labels may be text, as TOML has them."""
    items: Any = given.items() if isinstance(given, Mapping) else given
    try:
        if isinstance(given, str):
            items = [
                (label, float(limit))
                for label, limit in (pair.split(":") for pair in given.split(",") if pair)
            ]
        pairs = [(int(str(label)), limit) for label, limit in items]
    except (TypeError, ValueError):
        raise UsageError(
            f"rotation_by_class takes degrees by label, such as {{1: 7.5}} or 1:7.5,7:7.5, not {given!r}"
        ) from None
    for label, limit in pairs:
        _within(f"rotation for class {label}", limit, *LIMITS["rotation"])
        if not 0 <= label <= 255:
            raise UsageError(f"rotation_by_class takes labels from 0 to 255, not {label}")
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"rotation_by_class has a label twice: {given!r}")
    return tuple(sorted((label, float(limit)) for label, limit in pairs))
