"""Update rules and learning-rate schedules.

An optimizer's :meth:`rule` is the formula, in NumPy; its :meth:`coefficients` are the few numbers of one step,
computed once on the host in float64, so that every backend steps with the same ones. Weight decay acts on
weights, never on biases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpubp.errors import UsageError
from gpubp.kernels import AdamCoefficients, SGDCoefficients

Array = np.ndarray
Slots = Sequence[Array]


def _require(condition: bool, message: str) -> None:
    if not condition:  # written so that NaN fails
        raise UsageError(message)


def _rows(count: int, row: Sequence[float]) -> np.ndarray:
    """``row`` again and again, (count, len(row)) float64; np.tile takes three times as long."""
    table = np.empty((count, len(row)))
    table[:] = row
    return table


@dataclass(frozen=True)
class Optimizer:
    """A rule that moves a parameter along its gradient; ``slots`` names the arrays it remembers per parameter."""

    lr: float

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        _require(0 < self.lr < math.inf, f"learning rate must be positive and finite, not {self.lr}")

    @property
    def slots(self) -> tuple[str, ...]:
        return ()

    @property
    def formula(self) -> str:
        """The rule as its settings leave it, in words for people: g is the gradient, of W or of a bias."""
        raise NotImplementedError

    def coefficients(self, lr: float, step: int, *, decay: bool) -> tuple[float, ...]:
        """The numbers of step ``step`` (counted from 1) at learning rate ``lr``; no weight decay unless ``decay``."""
        raise NotImplementedError

    def coefficients_of(self, rates: np.ndarray, step: int, *, decay: bool) -> np.ndarray:
        """The coefficients of steps ``step``, ``step`` + 1, … at these learning rates, (S, coefficients) float64."""
        return np.array([self.coefficients(lr, step + s, decay=decay) for s, lr in enumerate(rates.tolist())])

    def rule(self, parameter: Array, gradient: Array, slots: Slots, c: Any) -> tuple[Array, Slots]:
        """The new parameter and slots, same shapes as the old; ``c`` is what ``coefficients`` gave for the step."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: v ← μ v + g, W ← W − η v; Nesterov's form steps along g + μ v.

    With ``weight_decay`` λ, g ← g + λ W. The defaults (μ = λ = 0) are plain gradient descent, W ← W − η g.
    Source: Sutskever, Martens, Dahl, Hinton (2013), in the form with η outside the velocity.
    """

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    kind: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.momentum < 1, f"momentum must be in [0, 1), not {self.momentum}")
        _require(
            0 <= self.weight_decay < math.inf, f"weight_decay must be 0 or more, not {self.weight_decay}"
        )
        _require(not self.nesterov or self.momentum > 0, "nesterov needs a momentum above 0")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    @property
    def formula(self) -> str:
        if not self.momentum:
            return "W ← W − η g, plain gradient descent"
        along = f"(g + {self.momentum:g} v)" if self.nesterov else "v"
        return f"v ← {self.momentum:g} v + g, then W ← W − η {along}"

    def coefficients(self, lr: float, step: int, *, decay: bool) -> SGDCoefficients:
        # by position: names would take half as long again, and this is called twice a step
        return SGDCoefficients(lr, self.momentum, self.weight_decay if decay else 0.0, float(self.nesterov))

    def coefficients_of(self, rates: np.ndarray, step: int, *, decay: bool) -> np.ndarray:
        table = _rows(len(rates), self.coefficients(0.0, step, decay=decay))
        table[:, SGDCoefficients._fields.index("lr")] = rates
        return table

    def rule(self, parameter: Array, gradient: Array, slots: Slots, c: Any) -> tuple[Array, Slots]:
        direction = gradient + c.decay * parameter if c.decay else gradient
        if not c.momentum:
            return parameter - c.lr * direction, ()
        velocity = c.momentum * slots[0] + direction
        if c.nesterov:
            return parameter - c.lr * (direction + c.momentum * velocity), (velocity,)
        return parameter - c.lr * velocity, (velocity,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², W ← W − η m̂ / (√v̂ + ε), with m̂, v̂ the bias-corrected moments.

    ``weight_decay`` λ adds λ W to g. Source: Kingma and Ba (2015), algorithm 1.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    kind: ClassVar[str] = "adam"
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), not {getattr(self, name)}")
        _require(0 < self.epsilon < math.inf, f"epsilon must be positive, not {self.epsilon}")
        _require(
            0 <= self.weight_decay < math.inf, f"weight_decay must be 0 or more, not {self.weight_decay}"
        )

    @property
    def slots(self) -> tuple[str, ...]:
        return "first_moment", "second_moment"

    @property
    def formula(self) -> str:
        return (
            f"m ← {self.beta1:g} m + {1 - self.beta1:g} g and v ← {self.beta2:g} v + {1 - self.beta2:g} g², "
            "then W ← W − η m̂ / (√v̂ + ε)"
        )

    def coefficients(self, lr: float, step: int, *, decay: bool) -> AdamCoefficients:
        decay_rate = self.weight_decay if decay else 0.0
        return AdamCoefficients(
            rate=self._rate(lr, step),
            beta1=self.beta1,
            rest1=1 - self.beta1,
            beta2=self.beta2,
            rest2=1 - self.beta2,
            epsilon=self.epsilon,
            correction=self._correction(step),
            decay=0.0 if self.decoupled else decay_rate,
            decoupled=lr * decay_rate if self.decoupled else 0.0,
        )

    def coefficients_of(self, rates: np.ndarray, step: int, *, decay: bool) -> np.ndarray:
        if len(rates) == 1:  # an epoch of one step has them made for each call
            return super().coefficients_of(rates, step, decay=decay)
        table = _rows(len(rates), self.coefficients(1.0, step, decay=decay))
        columns = AdamCoefficients(*table.T)
        columns.rate[...] = [self._rate(lr, step + s) for s, lr in enumerate(rates.tolist())]
        columns.correction[...] = [self._correction(step + s) for s in range(len(rates))]
        columns.decoupled[...] *= rates  # of a learning rate of 1 so far
        return table

    def _rate(self, lr: float, step: int) -> float:
        return lr / (1 - self.beta1**step)

    def _correction(self, step: int) -> float:
        return 1 / math.sqrt(1 - self.beta2**step)

    def rule(self, parameter: Array, gradient: Array, slots: Slots, c: Any) -> tuple[Array, Slots]:
        gradient = gradient + c.decay * parameter if c.decay else gradient
        first = c.beta1 * slots[0] + c.rest1 * gradient
        second = c.beta2 * slots[1] + c.rest2 * (gradient * gradient)
        step = c.rate * (first / (np.sqrt(second) * c.correction + c.epsilon))
        if c.decoupled:
            step = step + c.decoupled * parameter
        return parameter - step, (first, second)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with the weight decay taken out of the gradient: W ← W − η (m̂ / (√v̂ + ε) + λ W).

    Source: Loshchilov and Hutter (2019), algorithm 2.
    """

    weight_decay: float = 0.01

    kind: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True


OPTIMIZERS: dict[str, type[Optimizer]] = {cls.kind: cls for cls in (SGD, Adam, AdamW)}


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate as a function of training time, after a linear warm-up.

    ``kind`` is one of: constant; step (× ``factor`` every ``every`` epochs); exponential (× ``factor`` each
    epoch, continuously); cosine (from 1 down to ``final`` at the last epoch; Loshchilov and Hutter 2017).
    ``warmup`` epochs at the start rise linearly from 0 to the full rate.
    """

    kind: str = "constant"
    factor: float = 0.5
    every: float = 10.0
    final: float = 0.0
    warmup: float = 0.0

    KINDS: ClassVar[tuple[str, ...]] = ("constant", "step", "exponential", "cosine")

    def __post_init__(self) -> None:
        _require(
            self.kind in self.KINDS, f"unknown schedule {self.kind!r}: choose from {', '.join(self.KINDS)}"
        )
        _require(0 < self.factor <= 1, f"schedule factor must be in (0, 1], not {self.factor}")
        _require(self.every > 0, f"schedule every must be positive, not {self.every}")
        _require(0 <= self.final <= 1, f"schedule final must be in [0, 1], not {self.final}")
        _require(0 <= self.warmup < math.inf, f"schedule warmup must be 0 or more epochs, not {self.warmup}")

    def factors(self, first_step: int, steps: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The factors (steps,) float64 of steps ``first_step`` … of the whole run."""
        if self.kind == "constant" and not self.warmup:
            return np.ones(steps)
        step = np.arange(first_step, first_step + steps, dtype=np.float64)
        epoch = step / steps_per_epoch
        if self.kind == "step":
            factor = self.factor ** np.floor(epoch / self.every)
        elif self.kind == "exponential":
            factor = self.factor**epoch
        elif self.kind == "cosine":
            last = max(epochs - self.warmup, 1 / steps_per_epoch)
            progress = np.clip((epoch - self.warmup) / last, 0, 1)
            factor = self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * progress))
        else:
            factor = np.ones(steps)
        if self.warmup:
            # The first step already moves: its factor is 1/(warm-up steps), not 0.
            factor = factor * np.minimum(1, (step + 1) / (self.warmup * steps_per_epoch))
        return factor
