"""sweep(): a recipe trained with many settings, seeds and folds, and the best of them."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from gpubp import backends, formats
from gpubp.backends.threads import counted
from gpubp.backends.work import Work
from gpubp.data.dataset import Split
from gpubp.ensemble import Ensemble
from gpubp.errors import DataError, TrainingWarning, UsageError
from gpubp.experiments.folder import MODEL, RECIPE, recipe_text
from gpubp.experiments.parts import accuracy_of
from gpubp.experiments.recipe import Recipe, RunSettings, load_recipe, with_whole_paths
from gpubp.formats import npz
from gpubp.model import Model
from gpubp.network import Network
from gpubp.support.files import user_path, write_text
from gpubp.support.jsontext import as_json
from gpubp.support.machine import cores, processor, versions
from gpubp.sweeps import folder as kept
from gpubp.sweeps.engine import Engine
from gpubp.sweeps.progress import Bar
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
from gpubp.sweeps.stopping import EarlyStop
from gpubp.sweeps.trial import DONE, FAILED, Abandoned, DataRoom, Outcome, Trial, Watch, model_path
from gpubp.training.history import Epoch
from gpubp.training.interrupts import until_interrupted

LISTED = "listed"  # the search that tries settings which are given one by one
Vary = Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any]]
HELD_OUT = 0.1  # of the training data, where neither recipe nor folds say what is


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do: a recipe, what to vary of it, how often, and by what search."""

    recipe: Recipe
    vary: tuple[str, ...]
    seeds: int
    search: str
    folds: int | None
    stop_early: str | None

    def definition(self) -> dict[str, Any]:
        """What makes two sweeps the same, for JSON."""
        recipe, _ = with_whole_paths(self.recipe, RunSettings())
        return json.loads(as_json({**asdict(self), "recipe": recipe.to_dict()}))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is varied; of listed settings, all the values that a field has in them."""
        return axes_of(self.vary) if self.search != LISTED else axes_of_listed(self.vary)

    def search_again(self) -> Search:
        """The search, which has seen nothing yet."""
        if self.search == LISTED:
            return Listed([settings_of(text) for text in self.vary])
        return search_of(self.search, self.axes, self.recipe.seed)

    def trials_of(self, point: int, settings: Settings) -> list[Trial]:
        """A trial with these settings for each seed and fold."""
        folds = range(1, self.folds + 1) if self.folds else (None,)
        trials: list[Trial] = []
        base = recipe_with(self.recipe, settings)
        for seed in range(self.recipe.seed, self.recipe.seed + self.seeds):
            for fold in folds:
                number = point * self.seeds * len(folds) + len(trials)
                recipe = replace(base, seed=seed, folds=self.folds, fold=fold, split_seed=self.split_seed)
                trials.append(Trial(number, point, settings, seed, fold, recipe))
        return trials

    @property
    def split_seed(self) -> int:
        return self.recipe.seed if self.recipe.split_seed is None else self.recipe.split_seed


@dataclass(frozen=True)
class Point:
    """All trials with the same settings, by their scores: the larger, the better."""

    number: int
    settings: Settings
    trials: list[Outcome]
    whole: bool  # whether each of its seeds and folds was trained to its end

    @property
    def scores(self) -> list[float]:
        return [outcome.score for outcome in self.trials if outcome.score is not None]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores)) if self.scores else -np.inf

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds and folds; None of a single one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    @property
    def loss(self) -> float:
        """The mean validation loss, which tells settings apart that have the same accuracy."""
        losses = [o.validation_loss for o in self.trials if o.validation_loss is not None]
        return float(np.mean(losses)) if losses else np.inf


@dataclass
class Sweep:
    """What came of a sweep.

    Attributes:
        trials: an outcome of each, in the order of their numbers.
        points: the settings, best first.
        best: the best of all trials with the best settings; None if none was trained to its end.
        network: the network of ``best``, and ``test_accuracy`` what it gets right of the test set, which no other
            trial has met; None without one, and of values.
        ensemble: the best trials as one model, if asked for; ``members`` are their numbers, and
            ``ensemble_accuracies`` those of the ensemble and of each member, a pair (held-out, test), None for none.
        stopped: "done" or "interrupted".
        network_epochs: trained by the last call, in ``seconds``, ``jobs`` trials at a time.
        machine: what it ran on, and versions; ``data`` says what was read.
    """

    plan: Plan
    run: RunSettings
    folder: Path
    trials: list[Outcome]
    points: list[Point]
    best: Outcome | None
    stopped: str
    network_epochs: int = 0
    seconds: float = 0.0
    jobs: int = 1
    data: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    network: Network | None = None
    test_accuracy: float | None = None
    ensemble: Ensemble | None = None
    members: list[int] = field(default_factory=list)
    ensemble_accuracies: list[tuple[float | None, float | None]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        plan: Plan,
        run: RunSettings,
        folder: Path,
        outcomes: Iterable[Outcome],
        stopped: str,
        **others: Any,
    ) -> Sweep:
        """The sweep that these trials make."""
        trials = sorted(outcomes, key=lambda outcome: outcome.number)
        each = plan.seeds * (plan.folds or 1)
        points = []
        for number in dict.fromkeys(outcome.point for outcome in trials):
            own = [outcome for outcome in trials if outcome.point == number]
            whole = len(own) == each and all(outcome.state == DONE for outcome in own)
            points.append(Point(number, own[0].settings, own, whole))
        points.sort(key=lambda point: (not point.whole, -point.mean, point.loss, point.number))
        best = min(points[0].trials, key=_better_first) if points and points[0].whole else None
        return cls(plan, run, folder, trials, points, best, stopped, **others)

    @property
    def rate(self) -> float:
        """Network-epochs a second."""
        return self.network_epochs / self.seconds if self.seconds else 0.0

    @property
    def measure(self) -> str:
        """What trials are compared by."""
        known = any(outcome.validation_accuracy is not None for outcome in self.trials)
        return "validation accuracy" if known else "validation loss"

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.trials if outcome.state == FAILED]

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        outcome = next(outcome for outcome in self.trials if outcome.number == number)
        return next(
            trial
            for trial in self.plan.trials_of(outcome.point, outcome.settings)
            if trial.number == outcome.number
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.plan.definition(),
            "stopped": self.stopped,
            "trials": [vars(outcome) for outcome in self.trials],
            "points": [
                {
                    "settings": point.settings,
                    "mean": point.mean if point.scores else None,
                    "deviation": point.deviation,
                    "trials": [outcome.number for outcome in point.trials],
                    "whole": point.whole,
                }
                for point in self.points
            ],
            "best": None if self.best is None else vars(self.best),
            "test_accuracy": self.test_accuracy,
            "ensemble": {"members": self.members, "accuracies": self.ensemble_accuracies}
            if self.members
            else None,
            "network_epochs": self.network_epochs,
            "seconds": self.seconds,
            "network_epochs_per_second": self.rate,
            "jobs": self.jobs,
            "backend": self.run.backend,
            "folder": str(self.folder),
        }


def sweep(
    recipe: str | Recipe,
    vary: Vary = (),
    *,
    seeds: int = 1,
    search: str = "grid",
    folds: int | None = None,
    stop_early: str | None = None,
    ensemble: int | None = None,
    jobs: int | None = None,
    engine: str = "threads",
    run: RunSettings | None = None,
    verify: str = "epoch",
    folder: str | os.PathLike | None = None,
    quiet: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Sweep:
    """Train a recipe with many settings, and choose by samples held out of the training data.

    Every trial is the run that :func:`gpubp.fit` and ``gpubp train`` make of its settings, to the bit, whatever is
    trained beside it, and is verified as any run. The test set is met by the chosen network alone, and by the members
    of an ensemble, once all is chosen.

    Args:
        recipe: a recipe's name, its file, or a :class:`~gpubp.experiments.recipe.Recipe`.
        vary: what to vary: ``{"lr": [0.1, 0.2], "batch_size": Range(16, 256)}``, or texts as the command line has
            them, "lr=0.1,0.2" and "batch_size=16..256"; or a list of settings that are all tried and no others,
            ``[{"lr": 0.1, "epochs": 9}, {"lr": 0.2, "epochs": 5}]``.
        seeds: of each setting: the recipe's and those that follow it. All have the same samples held out.
        search: "grid", "random:N" or "optuna:N", with N how many settings to try.
        folds: hold out each of so many folds in turn, in place of one part of the training data.
        stop_early: "halving" or "median": end trials early where others did better.
        ensemble: keep so many of the best trials as one model that averages probabilities.
        jobs: trials at a time; by default one a core, or what a cluster has.
        engine: "threads", "processes" or "dask:ADDRESS".
        run: backend, threads of each trial (1 by default, if there are enough trials), plan, precision and data_dir.
        folder: where to keep trials; by default one that is the same for the same sweep. A sweep that is found there
            goes on.
        quiet: no progress bar.

    Raises:
        UsageError, DataError, BackendUnavailable: before the first trial begins. A trial that fails later does not end
            the sweep: its outcome says why.
        GpubpError: the folder cannot be written.
    """
    plan = _planned(recipe, vary, seeds, search, folds, stop_early)
    if ensemble is not None and ensemble < 2:
        raise UsageError(f"an ensemble has 2 members or more, not {ensemble}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs must be 1 or more, not {jobs}")
    where = user_path(folder) if folder is not None else kept.own_folder(plan.recipe.name, plan.definition())
    _, run = with_whole_paths(plan.recipe, run or RunSettings())
    with kept.held(where):
        return _Running(plan, run, where, Engine.of(engine), verify, quiet, say).whole(jobs, ensemble)


def read(folder: Path) -> Sweep:
    """The sweep that has left ``folder``, as far as it has got; its models are not read.

    Raises:
        DataError: there is none, or a file of it is damaged.
    """
    table = kept.read_sweep(folder)
    if table is None:
        raise DataError(f"there is no {kept.SWEEP} in {folder}")
    with npz.reading(folder / kept.SWEEP, "record of a gpubp sweep"):
        told_of = dict(table["definition"])
        recipe = Recipe.from_dict(told_of.pop("recipe"), str(folder / kept.SWEEP))
        plan = Plan(recipe, tuple(told_of.pop("vary")), **told_of)
        found, counts = table.get("found", {}), table.get("counts", {})
        result = Sweep.of(
            *(plan, RunSettings(**table["run"]), folder, kept.read_outcomes(folder)),
            table.get("stopped", "interrupted"),
            **counts,
            data=table.get("data_read", ""),
            machine=table["machine"],
        )
    result.test_accuracy = found.get("test_accuracy")
    result.members = found.get("members", [])
    result.ensemble_accuracies = [tuple(pair) for pair in found.get("ensemble_accuracies", [])]
    return result


def _planned(
    recipe: str | Recipe,
    vary: Vary,
    seeds: int,
    search: str,
    folds: int | None,
    stop_early: str | None,
) -> Plan:
    base = load_recipe(recipe) if isinstance(recipe, str) else recipe
    if seeds < 1:
        raise UsageError(f"seeds must be 1 or more, not {seeds}")
    if folds is not None and folds < 2:
        raise UsageError(f"folds must be 2 or more, not {folds}")
    changes: dict[str, Any] = {"reach": None, "splits": 1}
    if folds is not None:
        changes["validation_fraction"] = None
    elif base.folds is not None:
        raise UsageError("the recipe holds out one of its folds: give --folds in place of it")
    elif base.validation_fraction is None and base.patience is None:
        changes["validation_fraction"] = HELD_OUT
    base = replace(base, **changes)
    listed = [] if isinstance(vary, Mapping) else [one for one in vary if isinstance(one, Mapping)]
    if listed and (search != "grid" or len(listed) < len(vary)):
        raise UsageError("settings that are listed are all tried, and nothing else: leave any search out")
    if listed:
        return Plan(base, list_of(listed), seeds, LISTED, folds, stop_early)
    texts = tuple(map(str, axes_of(cast("Mapping[str, Any] | Sequence[str]", vary))))
    return Plan(base, texts, seeds, search, folds, stop_early)


class _Running:
    """A sweep under way."""

    def __init__(
        self,
        plan: Plan,
        run: RunSettings,
        folder: Path,
        engine: Engine,
        verify: str,
        quiet: bool,
        say: Callable[[str], object],
    ) -> None:
        self.plan, self.run, self.folder, self.engine = plan, run, folder, engine
        self.verify, self.quiet, self.say = verify, quiet, say
        self.search = plan.search_again()
        self.each = plan.seeds * (plan.folds or 1)  # trials of each point
        if plan.stop_early is not None and not engine.here:
            raise UsageError(
                f"--stop-early watches trials as they go, in this process, which --engine {engine.kind} does not"
            )
        self.early = None if plan.stop_early is None else EarlyStop(plan.stop_early)
        if isinstance(self.search, Listed):  # what cannot be is refused before the first trial
            for number in range(self.search.count):
                plan.trials_of(number, self.search.propose(number))
        self.room = DataRoom(run.data_dir, quiet)
        self.outcomes: dict[int, Outcome] = {}
        self.network_epochs, self.seconds = 0, 0.0

    def whole(self, jobs: int | None, ensemble: int | None) -> Sweep:
        first = self._first_recipe()
        parts = self.room.parts(first)
        fingerprint = self.room.fingerprint(first)
        before = kept.read_sweep(self.folder)
        self._go_on(before, fingerprint)
        total = self.search.count * self.each
        self.say(f"{parts.dataset.summary()}; {self._held_out()}")
        with self.engine.ready() as slots:
            jobs = jobs or slots or min(backends.most_threads(), max(1, total - len(self.outcomes)))
            why = "" if before else self._settle(first, len(parts.train), parts.watched, total)
            if self.run.backend == "cupy":
                jobs = 1  # one after the other has the whole GPU
            self._record(fingerprint, before)
            left = total - len(self.outcomes)
            done = f", {len(self.outcomes)} of them done before" if self.outcomes else ""
            done = done if left else ", all of them done before"
            threads = f", {counted(self.run.threads)} each" if self.run.threads else ""
            self.say(
                f"{total} trials{done}: {self._counted()}; backend {self.run.backend}{why}, {jobs} at a time{threads}; "
                f"in {self.folder}"
            )
            stopped = self._train(jobs, fingerprint) if left else "done"
        table = kept.read_sweep(self.folder) or {}
        result = Sweep.of(
            *(self.plan, self.run, self.folder, self.outcomes.values(), stopped),
            **(self._counts(jobs) if left else table.get("counts", {})),
            data=parts.dataset.summary(),
            machine=table["machine"],
        )
        found = dict(table.get("found", {}))
        if stopped == "done":
            self._conclude(result, ensemble, found)
        counts = {"network_epochs": result.network_epochs, "seconds": result.seconds, "jobs": result.jobs}
        ended = {"stopped": stopped, "data_read": result.data, "counts": counts, "found": found}
        kept.write_sweep(self.folder, table | ended)
        return result

    def _counts(self, jobs: int) -> dict[str, Any]:
        return {"network_epochs": self.network_epochs, "seconds": self.seconds, "jobs": jobs}

    def _first_recipe(self) -> Recipe:
        """That of any trial: all have the same data."""
        recipe = replace(self.plan.recipe, split_seed=self.plan.split_seed)
        return recipe if self.plan.folds is None else replace(recipe, folds=self.plan.folds, fold=1)

    def _held_out(self) -> str:
        if self.plan.folds:
            return f"chosen by {self.plan.folds} folds of the training data"
        fraction = self.plan.recipe.validation_fraction or HELD_OUT
        return f"chosen by {fraction:.3g} of the training data, held out"

    def _counted(self) -> str:
        seeds, folds = self.plan.seeds, self.plan.folds
        counts = [f"{self.search.count} setting{'s' if self.search.count > 1 else ''}"]
        counts += [f"{seeds} seeds"] if seeds > 1 else []
        counts += [f"{folds} folds"] if folds else []
        return " × ".join(counts)

    def _go_on(self, before: dict[str, Any] | None, fingerprint: str) -> None:
        """Take over what a part of this sweep has left in the folder."""
        if before is None:
            if kept.read_outcomes(self.folder):
                lacks = f"{self.folder} has trials, but no {kept.SWEEP} that says of what"
                raise DataError(f"{lacks}: give another --folder")
            return
        definition = self.plan.definition()
        for name, value in definition.items():
            if before["definition"].get(name) != value:
                told_before, told_now = before["definition"].get(name), value
                if name == "recipe":
                    keys = [k for k in {**told_before, **value} if told_before.get(k) != value.get(k)]
                    told_before, told_now = ({k: t.get(k) for k in keys} for t in (told_before, value))
                other = f"its {name} is {told_before}, not {told_now}"
                raise UsageError(f"{self.folder} has another sweep: {other}: give another --folder")
        if before["data"] != fingerprint:
            raise DataError(
                f"{self.folder}: the data has changed since this sweep began: it was {before['data']}, and is "
                f"{fingerprint}: give another --folder"
            )
        settled = RunSettings(**before["run"])
        for name, value in asdict(self.run).items():
            if (
                name != "data_dir"
                and value != getattr(RunSettings(), name)
                and value != getattr(settled, name)
            ):
                raise UsageError(
                    f"{self.folder}: this sweep has {name} {getattr(settled, name)}, not {value}, since its weights "
                    f"depend on it: leave --{name} out, or give another --folder"
                )
        self.run = replace(settled, data_dir=self.run.data_dir)
        for outcome in kept.read_outcomes(self.folder):
            self.outcomes[outcome.number] = outcome
            if self.early is not None:
                self.early.ended(outcome)

    def _settle(self, recipe: Recipe, samples: int, watched: Any, total: int) -> str:
        """Decide what all trials are trained by, if that was left open; says why."""
        size = min(recipe.batch_size, samples)
        work = Work.of(
            recipe.network(0), samples, size, recipe.epochs * total, len(watched), deforms=bool(recipe.deform)
        )
        threads = self.run.threads or max(1, backends.most_threads() // total)
        given = backends.Wanted(self.run.backend, None, self.run.plan, self.run.precision)
        backend = backends.get(given, work=work)
        on_host = backend.name != "cupy"
        if not on_host and self.run.threads is not None:
            raise UsageError("threads are for the CPU; backend 'cupy' runs elsewhere: choose numba or numpy")
        self.run = replace(self.run, backend=backend.name, threads=threads if on_host else None)
        return "" if backend.why in ("given", "named") else f" ({backend.why})"

    def _record(self, fingerprint: str, before: dict[str, Any] | None) -> None:
        table = before or {}
        table |= {
            "definition": self.plan.definition(),
            "run": {k: v for k, v in asdict(self.run).items() if v is not None},
            "data": fingerprint,
        }
        table.setdefault("machine", {"processor": processor(), "cores": cores(), **versions()})
        kept.write_sweep(self.folder, table)

    def _train(self, jobs: int, fingerprint: str) -> str:
        """Do the trials that are left; "done", or "interrupted"."""
        started = time.perf_counter()
        bar = Bar.of(self.search.count * self.each, self.outcomes.values(), quiet=self.quiet)
        ending = threading.Event()
        trials = self._left(ending)

        def watch_of(trial: Trial) -> Watch:
            if not self.engine.here:
                return Watch()
            return _Watching(trial, bar, ending, self.early)

        with until_interrupted() as interrupted, bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # outcomes have them
            warnings.filterwarnings("ignore", message=".*tasks have been successfully executed")  # of joblib
            poll = _Poll(interrupted, ending) if self.engine.here else None
            given = jobs, self.run, self.verify, self.room, fingerprint, watch_of
            results = self.engine.results(trials, *given)
            try:
                for trial, outcome, network in results:
                    if outcome is not None:
                        self._keep(trial, outcome, network, bar)
                    if interrupted():
                        ending.set()
                        if not self.engine.here:
                            results.close()
                            break
            except BaseException:
                ending.set()
                results.close()
                raise
            finally:
                if poll is not None:
                    poll.end()
            self.seconds = time.perf_counter() - started
            return "interrupted" if ending.is_set() else "done"

    def _left(self, ending: threading.Event) -> Iterator[Trial]:
        """The trials that are still to be done, point by point."""
        settings = {outcome.point: outcome.settings for outcome in self.outcomes.values()}
        for point in list(settings):
            if self._is_whole(point):
                self.search.learn(point, settings[point], self._score(point))
        for point in range(self.search.count):
            chosen = settings[point] if point in settings else self.search.propose(point)
            for trial in self.plan.trials_of(point, chosen):
                if ending.is_set():
                    return
                if trial.number not in self.outcomes:
                    yield trial

    def _keep(self, trial: Trial, outcome: Outcome, network: Network | None, bar: Bar) -> None:
        """A trial is over: its network first, then the line that says so."""
        if network is not None:
            formats.save(network, model_path(self.folder, trial.number))
        kept.add_outcome(self.folder, outcome)
        self.outcomes[trial.number] = outcome
        self.network_epochs += outcome.epochs
        if self.early is not None:
            self.early.ended(outcome)
        if self._is_whole(trial.point):
            self.search.learn(trial.point, trial.settings, self._score(trial.point))
        bar.trial(trial, outcome)

    def _of_point(self, point: int) -> list[Outcome]:
        return [o for number, o in sorted(self.outcomes.items()) if o.point == point]

    def _is_whole(self, point: int) -> bool:
        return len(self._of_point(point)) == self.each

    def _score(self, point: int) -> float | None:
        outcomes = self._of_point(point)
        scores = [o.score for o in outcomes if o.score is not None]
        return float(np.mean(scores)) if len(scores) == self.each else None

    def _conclude(self, result: Sweep, ensemble: int | None, found: dict[str, Any]) -> None:
        """Show the chosen network the test set, unless it has seen it, and keep it; then the ensemble."""
        if result.best is None:
            return
        trial = result.trial(result.best.number)
        result.network = self._network(trial.number)
        parts = self.room.parts(trial.recipe)
        if found.get("best") != trial.number:
            found |= {"best": trial.number, "test_accuracy": _accuracy(result.network, parts.test)}
        result.test_accuracy = found["test_accuracy"]
        formats.save(result.network, self.folder / kept.WINNER / MODEL)
        write_text(self.folder / kept.WINNER / RECIPE, recipe_text(trial.recipe, self.run))
        if ensemble is not None:
            self._combine(result, ensemble, found)

    def _combine(self, result: Sweep, count: int, found: dict[str, Any]) -> None:
        """Make the ensemble of the best trials, and hold it beside its members."""
        ended = sorted((o for o in result.trials if o.state == DONE), key=_better_first)
        if len(ended) < count:
            raise UsageError(
                f"an ensemble of {count} needs as many trials, and {len(ended)} were trained to their end"
            )
        result.members = [outcome.number for outcome in ended[:count]]
        networks = [self._network(number) for number in result.members]
        result.ensemble = Ensemble(networks)
        formats.save(result.ensemble, self.folder / kept.ENSEMBLE)
        if found.get("members") == result.members:
            result.ensemble_accuracies = [tuple(pair) for pair in found["ensemble_accuracies"]]
            return
        parts = self.room.parts(result.trial(result.members[0]).recipe)
        test, watched = parts.test, None if self.plan.folds else parts.watched
        result.ensemble_accuracies = [
            (_accuracy(model, watched), _accuracy(model, test)) for model in (result.ensemble, *networks)
        ]
        found |= {"members": result.members, "ensemble_accuracies": result.ensemble_accuracies}

    def _network(self, number: int) -> Network:
        return formats.load_network(model_path(self.folder, number))


def _accuracy(model: Model, split: Split | None) -> float | None:
    return None if split is None else accuracy_of(model, split, model.without_names().forward(split.inputs))


def _better_first(outcome: Outcome) -> tuple[float, float, int]:
    score = -np.inf if outcome.score is None else outcome.score
    return -score, np.inf if outcome.validation_loss is None else outcome.validation_loss, outcome.number


class _Watching(Watch):
    """A trial of this process: the bar sees its epochs, and it ends where others did better or the sweep is to end."""

    def __init__(self, trial: Trial, bar: Bar, ending: threading.Event, early: EarlyStop | None) -> None:
        self._trial, self._bar, self._ending, self._early = trial, bar, ending, early

    def __enter__(self) -> Watch:
        if self._early is not None:
            self._early.begins(self._trial)
        return self

    def check(self) -> None:
        if self._ending.is_set():
            raise Abandoned

    def epoch(self, epoch: Epoch) -> None:
        self._bar.epoch(self._trial)

    def goes_on(self, epoch: Epoch) -> bool:
        if self._early is None:
            return True
        score = epoch.validation_accuracy
        if score is None:
            score = -epoch.validation_loss if epoch.validation_loss is not None else 0.0
        worth = self._early.goes_on(self._trial, epoch.epoch, score)
        return worth or epoch.epoch == self._trial.recipe.epochs  # nothing is left to be spared


class _Poll:
    """Lets Ctrl-C end trials under way, in other threads, while the main one waits for them."""

    def __init__(self, interrupted: Callable[[], bool], ending: threading.Event) -> None:
        self._over = threading.Event()

        def look() -> None:
            while not self._over.wait(0.1):
                if interrupted():
                    ending.set()

        threading.Thread(target=look, daemon=True, name="gpubp-sweep").start()

    def end(self) -> None:
        self._over.set()
