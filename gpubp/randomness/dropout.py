"""Dropout: of what goes into a layer, a part that is drawn anew in each step is 0, and the rest larger for it.

Inverted, as in Srivastava et al. (Dropout: a simple way to prevent neural networks from overfitting, 2014, section
10): what is kept is multiplied by 1/(1 − p), so that evaluation and saved networks need to know nothing of it::

    forward    z = (a_prev ⊙ m) Wᵀ + b           m is 0 with probability p, and else 1/(1 − p)
    back       δ = ((δ_next W_next) ⊙ m) ⊙ σ'(z)
    gradient   ∂C/∂W = δᵀ (a_prev ⊙ m) / B

The mask m is a function of the seed, the layer, the step, the sample and the element
(:mod:`gpubp.randomness.philox`), and so the same on every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.randomness import philox

RANGE = 1 << 16  # that random numbers lie below


@dataclass(frozen=True)
class Mask:
    """What one layer's inputs are multiplied by in one step, as a rule.

    ``key`` and ``purpose`` are those of its random numbers, of which those below ``dropped`` drop an input.
    """

    key: tuple[int, int]
    purpose: int
    step: int
    dropped: int

    @property
    def factor(self) -> float:
        """What is kept is multiplied by this: 1/(1 − p)."""
        return _factor(self.dropped)

    def of(self, samples: np.ndarray, width: int, dtype: np.dtype | type) -> np.ndarray:
        """The mask (B, width) for these samples (B,) of the training data: 0 or the factor, rounded to ``dtype``."""
        drawn = philox.numbers(self.key, self.purpose, self.step, samples, width)
        return np.where(drawn < self.dropped, 0, np.asarray(self.factor, dtype))


@dataclass(frozen=True)
class Dropout:
    """Dropout of a network of L layers.

    ``dropped`` has, for the inputs of each layer (L), how many of 65,536 random numbers drop one: the network's own
    inputs, then the hidden layers' activations. ``key`` is the seed.
    """

    dropped: tuple[int, ...]
    key: tuple[int, int]

    @classmethod
    def of(cls, rates: Any, layers: int, seed: int) -> Dropout | None:
        """Dropout by these rates, in a network of so many layers; None if all are 0.

        Args:
            rates: one for all hidden layers, or one for each of them, or one more than that: the first is then that
                of the inputs, and the only one where no layer is hidden. They are rounded to 1/65,536.

        Raises:
            UsageError: rates that are not from 0 up to below 1, or another number of them.
        """
        hidden = layers - 1
        if isinstance(rates, str) or not np.iterable(rates):
            one = rates.item() if isinstance(rates, np.ndarray) else rates
            if _dropped(one) and not hidden:
                raise UsageError(
                    f"dropout is of hidden layers, and there are none: give [{one}] to drop inputs"
                )
            rates = [one] * hidden
        dropped = tuple(map(_dropped, rates))
        if len(dropped) == 1 < hidden:
            dropped *= hidden
        if len(dropped) == hidden:
            dropped = (0, *dropped)
        if len(dropped) != layers:
            raise UsageError(
                f"dropout has {len(dropped)} rates for {hidden} hidden layers: give one for all, one each, or "
                f"{hidden + 1}, of which the first is for the inputs"
            )
        return cls(dropped, philox.key_of(seed)) if any(dropped) else None

    @property
    def rates(self) -> tuple[float, ...]:
        """p for the inputs of each layer (L)."""
        return tuple(count / RANGE for count in self.dropped)

    @property
    def factors(self) -> tuple[float, ...]:
        """1/(1 − p) for the inputs of each layer (L)."""
        return tuple(map(_factor, self.dropped))

    def mask(self, layer: int, step: int) -> Mask | None:
        """That of what goes into a layer, counted from 0, after ``step`` updates; None if all is kept."""
        return Mask(self.key, layer, step, self.dropped[layer]) if self.dropped[layer] else None

    def masks(
        self, step: int, samples: np.ndarray, sizes: Sequence[int], dtype: np.dtype | type
    ) -> list[np.ndarray | None]:
        """Of a step, what the inputs of each layer, of these sizes (L), are multiplied by; None where all is kept."""
        masks = [self.mask(layer, step) for layer in range(len(self.dropped))]
        both = zip(masks, sizes, strict=True)
        return [None if mask is None else mask.of(samples, size, dtype) for mask, size in both]

    def __str__(self) -> str:
        return f"dropout {', '.join(f'{rate:.3g}' for rate in self.rates)}"


def _factor(dropped: int) -> float:
    return RANGE / (RANGE - dropped)


def _dropped(rate: Any) -> int:
    if isinstance(rate, bool) or not isinstance(rate, float | int | np.number) or not 0 <= rate < 1:
        raise UsageError(f"a rate of dropout is from 0 up to below 1, not {rate!r}")
    dropped = round(float(rate) * RANGE)
    if (rate and not dropped) or dropped == RANGE:
        raise UsageError(f"a rate of dropout is rounded to 1/65,536, which leaves nothing of {rate!r}")
    return dropped
