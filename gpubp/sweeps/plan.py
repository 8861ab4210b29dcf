"""The plan of a sweep: a recipe, what to vary of it, how often, by what search, and the trials that this makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, SupportsIndex, cast

from gpubp.errors import UsageError
from gpubp.experiments.recipe import HELD_OUT, Recipe, RunSettings, load_recipe, with_whole_paths
from gpubp.support.jsontext import as_json
from gpubp.sweeps.search import Listed, Search, search_of
from gpubp.sweeps.space import (
    Axis,
    Settings,
    axes_of,
    axes_of_listed,
    list_of,
    recipe_with,
    settings_of,
)
from gpubp.sweeps.trial import Trial

LISTED = "listed"  # the search that tries settings which are given one by one
CHECKED = 2000  # settings that are looked at before the first trial, which takes a fraction of a second

Vary = str | Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do. ``vary`` are texts as the command line has them, or settings that are listed."""

    recipe: Recipe
    vary: tuple[str, ...]
    seeds: int
    search: str
    folds: int | None
    stop_early: str | None

    def definition(self) -> dict[str, Any]:
        """What makes two sweeps the same, for JSON."""
        return json.loads(as_json({**asdict(self), "recipe": self.recipe.to_dict()}))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is varied; of listed settings, all the values that a field has in them."""
        return axes_of(self.vary) if self.search != LISTED else axes_of_listed(self.vary)

    @property
    def each(self) -> int:
        """The trials of each setting."""
        return self.seeds * (self.folds or 1)

    @property
    def split_seed(self) -> int:
        """The seed of what is held out, which is the same for all trials."""
        return self.recipe.seed if self.recipe.split_seed is None else self.recipe.split_seed

    def new_search(self) -> Search:
        """The search, which has seen nothing yet."""
        if self.search == LISTED:
            return Listed([settings_of(text) for text in self.vary])
        return search_of(self.search, self.axes, self.recipe.seed)

    def trials_of(self, point: int, settings: Settings) -> list[Trial]:
        """A trial with these settings for each seed and fold.

        Raises:
            UsageError: the settings do not go together.
        """
        folds = range(1, self.folds + 1) if self.folds else (None,)
        trials: list[Trial] = []
        base = recipe_with(self.recipe, settings)
        for seed in range(self.recipe.seed, self.recipe.seed + self.seeds):
            for fold in folds:
                recipe = replace(base, seed=seed, folds=self.folds, fold=fold, split_seed=self.split_seed)
                trials.append(Trial(point * self.each + len(trials), point, settings, seed, fold, recipe))
        return trials

    def check(self, search: Search) -> None:
        """Refuse by a UsageError settings that cannot be, where they are known before the first trial."""
        if isinstance(search, Listed):
            for number in range(min(search.count, CHECKED)):
                self.trials_of(number, search.propose(number))


def plan_of(
    recipe: str | Recipe,
    vary: Vary,
    seeds: int,
    search: str,
    folds: int | None,
    stop_early: str | None,
) -> Plan:
    """The plan of what :func:`gpubp.sweep` is given.

    Raises:
        UsageError, DataError: no recipe, numbers out of range, or nothing that can be varied.
    """
    base = load_recipe(recipe) if isinstance(recipe, str) else recipe
    for name, value, least in (("seeds", seeds, 1), ("folds", folds, 2)):
        if value is not None and not (isinstance(value, SupportsIndex) and int(value) >= least):
            raise UsageError(f"{name} must be {least} or more, not {value!r}")
    changes: dict[str, Any] = {"reach": None, "splits": 1}
    if folds is not None:
        changes["validation_fraction"] = None
    elif base.folds is not None:
        raise UsageError("the recipe holds out one of its folds: give --folds in place of it")
    elif base.held_out is None:
        changes["validation_fraction"] = HELD_OUT
    base, _ = with_whole_paths(replace(base, **changes), RunSettings())  # a cluster works in another folder
    given = [vary] if isinstance(vary, str) else vary
    listed = [] if isinstance(given, Mapping) else [one for one in given if isinstance(one, Mapping)]
    if not listed:
        texts = tuple(map(str, axes_of(cast("Mapping[str, Any] | Sequence[str]", given))))
        return Plan(base, texts, seeds, search, folds, stop_early)
    if search != "grid" or len(listed) < len(given):
        raise UsageError("settings that are listed are all tried, and nothing else: leave any search out")
    return Plan(base, list_of(listed), seeds, LISTED, folds, stop_early)
