"""sweep(): a recipe trained with many settings, seeds and folds, and the best of them."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpubp import backends, formats
from gpubp.backends.threads import counted
from gpubp.backends.work import Work
from gpubp.data.dataset import Split
from gpubp.ensemble import Ensemble
from gpubp.errors import DataError, GpubpError, TrainingWarning, UsageError
from gpubp.experiments.folder import MODEL, RECIPE, recipe_text
from gpubp.experiments.parts import Parts, accuracy_of
from gpubp.experiments.recipe import Recipe, RunSettings, with_whole_paths
from gpubp.model import Model
from gpubp.network import Network
from gpubp.support.files import user_path, write_text
from gpubp.support.hints import apart
from gpubp.support.machine import cores, processor, versions
from gpubp.sweeps import folder as kept
from gpubp.sweeps.engine import Engine
from gpubp.sweeps.plan import Plan, Vary, plan_of
from gpubp.sweeps.progress import Bar
from gpubp.sweeps.result import Sweep, better_first
from gpubp.sweeps.space import Settings
from gpubp.sweeps.stopping import EarlyStop
from gpubp.sweeps.trial import DONE, FAILED, Abandoned, DataRoom, Outcome, Trial, Watch, model_path, score_of
from gpubp.training.history import Epoch
from gpubp.training.interrupts import until_interrupted


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
    plan = plan_of(recipe, vary, seeds, search, folds, stop_early)
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs must be 1 or more, not {jobs}")
    where = user_path(folder) if folder is not None else kept.own_folder(plan.recipe.name, plan.definition())
    _, run = with_whole_paths(plan.recipe, run or RunSettings())
    running = _Running(plan, run, where, Engine.of(engine), ensemble, verify, quiet, say)
    with kept.held(where):
        return running.whole(jobs)


class _Running:
    """A sweep under way.

    Raises:
        UsageError: settings that cannot be, or an ensemble that cannot.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunSettings,
        folder: Path,
        engine: Engine,
        ensemble: int | None,
        verify: str,
        quiet: bool,
        say: Callable[[str], object],
    ) -> None:
        self.plan, self.run, self.folder, self.engine = plan, run, folder, engine
        self.ensemble, self.verify, self.quiet, self.say = ensemble, verify, quiet, say
        self.search = plan.new_search()
        self.total = self.search.count * plan.each
        if plan.stop_early is not None and not engine.here:
            raise UsageError(
                f"--stop-early watches trials as they go, in this process, which --engine {engine.kind} does not"
            )
        self.early = None if plan.stop_early is None else EarlyStop(plan.stop_early)
        self._check_ensemble()
        plan.check(self.search)
        self.room = DataRoom(run.data_dir, quiet)
        self.outcomes: dict[int, Outcome] = {}
        self.network_epochs, self.seconds = 0, 0.0

    def _check_ensemble(self) -> None:
        if self.ensemble is None:
            return
        if self.ensemble < 2:
            raise UsageError(f"an ensemble has 2 members or more, not {self.ensemble}")
        if self.ensemble > self.total:
            raise UsageError(
                f"an ensemble of {self.ensemble} needs as many trials, and there are {self.total}: give more --seeds"
            )
        for field in ("dtype", "output"):
            if any(axis.field == field for axis in self.plan.axes):
                raise UsageError(
                    f"the members of an ensemble have one {field}: do not vary it, or leave --ensemble out"
                )

    def whole(self, jobs: int | None) -> Sweep:
        """Do what is left of the sweep, and conclude it."""
        before = kept.read_sweep(self.folder)
        self._take_over(before)
        first = self._first_recipe()
        parts, fingerprint = self.room.parts(first), self.room.fingerprint(first)
        self._check_data(before, parts, fingerprint)
        self.say(f"{parts.dataset.summary()}; {self._held_out()}")
        left = self.total - len(self.outcomes)
        with self.engine.ready() as slots:
            jobs = jobs or slots or min(backends.most_threads(), max(1, left))
            why = "" if before else self._settle(first, parts)
            if self.run.backend == "cupy":
                jobs = 1  # one after the other has the whole GPU
            table = self._record(fingerprint, before)
            self.say(self._plan_in_words(left, jobs, why))
            stopped = self._train(jobs) if left else "done"
        counts = {"network_epochs": self.network_epochs, "seconds": self.seconds, "jobs": jobs}
        counts = counts if left else table.get("counts", counts)
        told = {"data": parts.dataset.summary(), "machine": table["machine"], **counts}
        result = Sweep.of(self.plan, self.run, self.folder, self.outcomes.values(), stopped, **told)
        found = dict(table.get("found", {}))
        if stopped == "done" and result.best is not None:
            self._conclude(result, found)
        table |= {"stopped": stopped, "data_read": result.data, "counts": counts, "found": found}
        kept.write_sweep(self.folder, table)
        return result

    def _first_recipe(self) -> Recipe:
        """That of the first trial, by which the data is read, and the backend chosen."""
        known = self.outcomes.get(min(self.outcomes, default=0))
        point, settings = (0, self.search.propose(0)) if known is None else (known.point, known.settings)
        try:
            return self.plan.trials_of(point, settings)[0].recipe
        except UsageError:  # a search that learns has begun with what cannot be
            return self.plan.trials_of(point, {})[0].recipe

    def _held_out(self) -> str:
        if self.plan.folds:
            return f"chosen by {self.plan.folds} folds of the training data"
        return f"chosen by {self.plan.recipe.held_out:.3g} of the training data, held out"

    def _plan_in_words(self, left: int, jobs: int, why: str) -> str:
        seeds, folds, done = self.plan.seeds, self.plan.folds, len(self.outcomes)
        counts = [_number(self.search.count, "setting")]
        counts += [f"{seeds} seeds"] if seeds > 1 else []
        counts += [f"{folds} folds"] if folds else []
        told = f"{_number(self.total, 'trial')}: {' × '.join(counts)}"
        if not left:
            return f"{told}; all of them done before, in {self.folder}"
        told += f"; {done} of them done before" if done else ""
        threads = f", {counted(self.run.threads)} each" if self.run.threads else ""
        return f"{told}; backend {self.run.backend}{why}, {jobs} at a time{threads}; in {self.folder}"

    def _take_over(self, before: dict[str, Any] | None) -> None:
        """Take over what a part of this sweep has left in the folder; what may end otherwise is to be done again."""
        if before is None:
            if kept.read_outcomes(self.folder):
                lacks = f"{self.folder} has trials, but no {kept.SWEEP} that says of what"
                raise DataError(f"{lacks}: give another --folder")
            kept.refuse_a_run(self.folder)
            return
        for name, value in self.plan.definition().items():
            if (old := before["definition"].get(name)) != value:
                other = f"its {name} is {apart(old, value)}"
                raise UsageError(f"{self.folder} has another sweep: {other}: give another --folder")
        settled, usual = RunSettings(**before["run"]), RunSettings()
        for name, value in asdict(self.run).items():
            if name != "data_dir" and value not in (getattr(usual, name), getattr(settled, name)):
                raise UsageError(
                    f"{self.folder}: this sweep has {name} {getattr(settled, name)}, not {value}, since its weights "
                    f"depend on it: leave --{name} out, or give another --folder"
                )
        self.run = replace(settled, data_dir=self.run.data_dir)
        kept.mend(self.folder)
        for outcome in kept.read_outcomes(self.folder):
            self.outcomes[outcome.number] = outcome
        for outcome in list(self.outcomes.values()):
            if outcome.again:
                del self.outcomes[outcome.number]
            elif self.early is not None:
                self.early.ended(outcome)

    def _check_data(self, before: dict[str, Any] | None, parts: Parts, fingerprint: str) -> None:
        if before is not None and before["data"] != fingerprint:
            raise DataError(
                f"{self.folder}: the data has changed since this sweep began: it was {before['data']}, and is "
                f"{fingerprint}: give another --folder"
            )
        if parts.dataset.classes is None and any(axis.field == "loss" for axis in self.plan.axes):
            raise UsageError(
                "values are compared by their loss, and not by one loss with another: do not vary it"
            )

    def _settle(self, recipe: Recipe, parts: Parts) -> str:
        """Decide what all trials are trained by, if that was left open; says why."""
        samples = len(parts.train)
        counts = (
            samples,
            min(recipe.batch_size, samples),
            recipe.epochs * self.total,
            len(parts.watched or ()),
        )
        work = Work.of(recipe.network(0), *counts, deforms=bool(recipe.deform))
        given = backends.Wanted(self.run.backend, None, self.run.plan, self.run.precision)
        backend = backends.get(given, work=work)
        on_host = backend.name != "cupy"
        if not on_host and self.run.threads is not None:
            raise UsageError("threads are for the CPU; backend 'cupy' runs elsewhere: choose numba or numpy")
        threads = self.run.threads or max(1, backends.most_threads() // self.total)
        self.run = replace(self.run, backend=backend.name, threads=threads if on_host else None)
        return "" if backend.why in ("given", "named") else f" ({backend.why})"

    def _record(self, fingerprint: str, before: dict[str, Any] | None) -> dict[str, Any]:
        """Write what the sweep is, before its first trial."""
        table = dict(before or {"machine": {"processor": processor(), "cores": cores(), **versions()}})
        run = {name: value for name, value in asdict(self.run).items() if value is not None}
        table |= {"definition": self.plan.definition(), "run": run, "data": fingerprint}
        kept.write_sweep(self.folder, table)
        return table

    def _train(self, jobs: int) -> str:
        """Do the trials that are left; "done", or "interrupted"."""
        started = time.perf_counter()
        bar = Bar.of(self.total, len(self.outcomes), quiet=self.quiet)
        ending = threading.Event()

        def watch_of(trial: Trial) -> Watch:
            return _Watching(trial, bar, ending, self.early) if self.engine.here else Watch()

        with until_interrupted() as interrupted, bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # outcomes have them
            # joblib's, of trials that are given up when it is ended
            warnings.filterwarnings("ignore", message=".*tasks (have been|which were)")
            poll = _Poll(interrupted, ending) if self.engine.here else None
            given = jobs, self.run, self.verify, self.room, watch_of
            results = self.engine.results(self._left(ending), *given)
            try:
                for trial, outcome, network in results:
                    if outcome is not None:
                        self._keep(trial, outcome, network, bar)
                    if outcome is None or interrupted():
                        ending.set()
                        if not self.engine.here:
                            results.close()
                            break
            except BrokenExecutor as error:
                ending.set()
                if not interrupted():
                    raise GpubpError(
                        "a process that trained was ended, by hand or for want of memory: trials that were over before "
                        "are safe, and the same command goes on"
                    ) from error
            except BaseException:
                ending.set()
                results.close()
                raise
            finally:
                if poll is not None:
                    poll.end()
        self.seconds = time.perf_counter() - started
        return "done" if len(self.outcomes) == self.total else "interrupted"

    def _left(self, ending: threading.Event) -> Iterator[Trial]:
        """The trials that are still to be done, point by point."""
        settings: dict[int, Settings] = {o.point: o.settings for o in self.outcomes.values()}
        for point in settings:
            if self._is_whole(point):
                self.search.learn(point, settings[point], self._score(point))
        for point in range(self.search.count):
            chosen = settings[point] if point in settings else self.search.propose(point)
            try:
                trials = self.plan.trials_of(point, chosen)
            except UsageError as error:  # of a search that learns; it is told so
                refused: dict[str, Any] = {"settings": chosen, "refused": str(error)}
                trials = [replace(trial, **refused) for trial in self.plan.trials_of(point, {})]
            for trial in trials:
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
        return [outcome for outcome in list(self.outcomes.values()) if outcome.point == point]

    def _is_whole(self, point: int) -> bool:
        return len(self._of_point(point)) == self.plan.each

    def _score(self, point: int) -> float | None:
        scores = [outcome.score for outcome in self._of_point(point) if outcome.state != FAILED]
        known = [score for score in scores if score is not None]
        return float(np.mean(known)) if len(known) == self.plan.each else None

    def _conclude(self, result: Sweep, found: dict[str, Any]) -> None:
        """Show the chosen network the test set, unless it has seen it, and keep it; then the ensemble."""
        assert result.best is not None
        trial = result.trial(result.best.number)
        result.network = self._network(trial.number)
        parts = self.room.parts(trial.recipe)
        if found.get("best") != trial.number:
            found |= {"best": trial.number, "test_accuracy": _accuracy(result.network, parts.test)}
        result.test_accuracy = found["test_accuracy"]
        formats.save(result.network, self.folder / kept.WINNER / MODEL)
        write_text(self.folder / kept.WINNER / RECIPE, recipe_text(trial.recipe, self.run))
        if self.ensemble is not None:
            try:
                self._combine(result, self.ensemble, found)
            except UsageError as error:
                result.lacking = f"no ensemble was made: {error}"

    def _combine(self, result: Sweep, count: int, found: dict[str, Any]) -> None:
        """Make the ensemble of the best trials, and hold it beside its members."""
        ended = sorted((o for o in result.trials if o.state == DONE), key=better_first)
        if len(ended) < count:
            raise UsageError(
                f"{count} members need as many trials, and {len(ended)} were trained to their end"
            )
        members = [outcome.number for outcome in ended[:count]]
        networks = [self._network(number) for number in members]
        result.ensemble, result.members = Ensemble(networks), members
        formats.save(result.ensemble, self.folder / kept.ENSEMBLE)
        if found.get("members") != members:
            parts = self.room.parts(result.trial(members[0]).recipe)
            test, watched = parts.test, None if self.plan.folds else parts.watched
            models: list[Model] = [result.ensemble, *networks]
            accuracies = [(_accuracy(model, watched), _accuracy(model, test)) for model in models]
            found |= {"members": members, "ensemble_accuracies": accuracies}
        result.ensemble_accuracies = [tuple(pair) for pair in found["ensemble_accuracies"]]

    def _network(self, number: int) -> Network:
        path = model_path(self.folder, number)
        if not path.exists():
            lines = self.folder / kept.TRIALS
            raise DataError(
                f"there is no file {path}: delete the line of number {number} in {lines} to train it again"
            )
        return formats.load_network(path)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _accuracy(model: Model, split: Split | None) -> float | None:
    return None if split is None else accuracy_of(model, split, model.without_names().forward(split.inputs))


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
        score = score_of(epoch.validation_accuracy, epoch.validation_loss)
        worth = score is None or self._early.goes_on(self._trial, epoch.epoch, score)
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
