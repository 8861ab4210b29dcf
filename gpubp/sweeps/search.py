"""Which settings a sweep tries: all of a grid, some drawn at random, or what Optuna proposes from what it has seen."""

from __future__ import annotations

import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.support.optional import need
from gpubp.sweeps.space import Axis, Range, Settings, written

KINDS = "grid, random:N or optuna:N"


class Search(ABC):
    """Proposes settings one after the other, ``count`` of them in all."""

    count: int

    @abstractmethod
    def propose(self, number: int) -> Settings:
        """The settings of that number, from 0; asked in order, and of any search but a learning one at any time."""

    def learn(self, number: int, settings: Settings, score: float | None) -> None:
        """Take in what came of settings: the larger the score, the better; None if there is none."""
        return  # most have nothing to learn


class Listed(Search):
    """Settings that are known before the first is tried."""

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._settings, self.count = settings, len(settings)

    def propose(self, number: int) -> Settings:
        return self._settings[number]


class Optuna(Search):
    """What the tree-structured Parzen estimator proposes (Bergstra and others 2011; Optuna's TPESampler).

    Each proposal is drawn by a generator of its own number, so that a search that goes on does not begin anew.
    """

    def __init__(self, axes: Sequence[Axis], count: int, seed: int) -> None:
        self._optuna = quiet_optuna()
        self._study = self._optuna.create_study(direction="maximize")
        self.count, self._seed = count, seed
        self._asked: dict[int, tuple[Any, Settings]] = {}
        self._axes = {axis.field: axis for axis in axes}
        self._distributions = {axis.field: self._distribution(axis) for axis in axes}

    def _distribution(self, axis: Axis) -> Any:
        kinds = self._optuna.distributions
        if not isinstance(axis.values, Range):  # a study knows texts; what they mean is looked up
            return kinds.CategoricalDistribution([written(value) for value in axis.values])
        low, high, log = axis.values.low, axis.values.high, axis.values.log
        if axis.kind is int:
            return kinds.IntDistribution(int(low), int(high), log=log)
        return kinds.FloatDistribution(low, high, log=log)

    def propose(self, number: int) -> Settings:
        if number not in self._asked:
            self._study.sampler = self._sampler(number)
            trial = self._study.ask(self._distributions)
            settings = {field: self._meant(field, value) for field, value in trial.params.items()}
            self._asked[number] = trial, settings
        return self._asked[number][1]

    def _sampler(self, number: int) -> Any:
        seed = int(np.random.default_rng([self._seed, number]).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            # Several are tried at once, and those under way are not to be tried again.
            return self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _meant(self, field: str, value: Any) -> Any:
        axis = self._axes[field]
        if isinstance(axis.values, Range):
            return axis.of_number(value)
        return next(v for v in axis.values if written(v) == value)

    def _told(self, field: str, value: Any) -> Any:
        axis = self._axes[field]
        return axis.number(value) if isinstance(axis.values, Range) else written(value)

    def learn(self, number: int, settings: Settings, score: float | None) -> None:
        states = self._optuna.trial.TrialState
        ended = (states.FAIL, None) if score is None or not math.isfinite(score) else (states.COMPLETE, score)
        if number in self._asked:
            self._study.tell(self._asked.pop(number)[0], values=ended[1], state=ended[0])
            return
        told = {field: self._told(field, value) for field, value in settings.items()}
        made = self._optuna.trial.create_trial(
            params=told, distributions=self._distributions, state=ended[0], value=ended[1]
        )
        self._study.add_trial(made)


def search_of(kind: str, axes: Sequence[Axis], seed: int) -> Search:
    """The search that ``kind`` means, "grid", "random:N" or "optuna:N", over these axes.

    Raises:
        UsageError: another kind, a grid over a range, or a search of nothing.
        GpubpError: Optuna is not installed.
    """
    name, colon, count = kind.partition(":")
    if name == "grid" and not colon:
        return Listed(list(_grid(axes)))
    if name not in ("random", "optuna") or not count.isdecimal() or int(count) < 1:
        raise UsageError(f"--search is {KINDS}, with N how many settings to try, not {kind!r}")
    if not axes:
        raise UsageError(
            f"--search {kind} has nothing to choose from: give --vary FIELD=a,b,c or FIELD=low..high"
        )
    if name == "optuna":
        return Optuna(axes, int(count), seed)
    return Listed(_drawn(axes, int(count), seed))


def _grid(axes: Sequence[Axis]) -> Iterator[Settings]:
    listed: list[tuple[Any, ...]] = []
    for axis in axes:
        if isinstance(axis.values, Range):
            raise UsageError(
                f"a grid needs the values of {axis.field}, and {axis} is a range: list them, or give --search random:N"
            )
        listed.append(axis.values)
    for values in itertools.product(*listed):
        yield {axis.field: value for axis, value in zip(axes, values, strict=True)}


def _drawn(axes: Sequence[Axis], count: int, seed: int) -> list[Settings]:
    """Settings drawn at random, no two the same; the first are the same however many are drawn."""
    rng, drawn = np.random.default_rng([seed, 0x73776570]), []
    seen: set[str] = set()
    for _ in range(1000 * count):
        settings = {axis.field: _draw(rng, axis) for axis in axes}
        if (known := repr(settings)) not in seen:
            seen.add(known)
            drawn.append(settings)
        if len(drawn) == count:
            return drawn
    raise UsageError(
        f"there are no {count} different settings to draw, but {len(drawn)}: search the grid instead"
    )


def _draw(rng: np.random.Generator, axis: Axis) -> Any:
    if isinstance(axis.values, Range):
        return axis.of_number(axis.values.draw(rng, whole=axis.kind is int))
    return axis.values[int(rng.integers(len(axis.values)))]


def quiet_optuna() -> Any:
    """Optuna, without its lines on every trial.

    Raises:
        GpubpError: it is not installed.
    """
    optuna = need("optuna", "sweep")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
