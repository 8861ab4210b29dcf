"""One trial: a training with some settings, seed and fold, what came of it, and the data that trials share."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from gpubp import backends
from gpubp.data.dataset import Dataset, Split
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.experiments.parts import Parts, finish, fit_recipe, load_dataset, part, untrained
from gpubp.experiments.recipe import OF_DATA, Recipe, RunSettings
from gpubp.model import VALUES
from gpubp.network import Network
from gpubp.support.shared import share
from gpubp.sweeps.space import Settings, told
from gpubp.training.checkpoint import fingerprint
from gpubp.training.history import Epoch, History
from gpubp.training.progress import Progress

DONE, STOPPED, FAILED = "done", "stopped early", "failed"  # what can have become of a trial
CURVES = ("loss", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Trial:
    """A training to be done; ``point`` is the number of its settings, and ``fold`` None without folds.

    ``refused`` says of settings that cannot be why, and the recipe is then without them.
    """

    number: int
    point: int
    settings: Settings
    seed: int
    fold: int | None
    recipe: Recipe
    refused: str = ""

    def __str__(self) -> str:
        return _called(self)


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. Accuracy and loss are of the held-out samples, by the weights that the trial left.

    ``seconds`` are wall time, data and compilation included; ``weights`` is a digest of the parameters' bits, and
    ``exit_code`` what the command line ends with where the trial failed. ``again``: it may end otherwise if it is tried
    again, since what failed is not what its settings say.
    """

    number: int
    point: int
    settings: Settings
    seed: int
    fold: int | None
    state: str
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    weights: str | None = None
    error: str | None = None
    exit_code: int = 0
    again: bool = False
    plan: str = ""
    verification: str = ""
    warnings: list[str] = field(default_factory=list)
    curves: dict[str, list[float | None]] = field(default_factory=dict)

    def __str__(self) -> str:
        return _called(self)

    @property
    def score(self) -> float | None:
        return score_of(self.validation_accuracy, self.validation_loss)

    def scores(self) -> list[float | None]:
        """The score after each epoch."""
        return list(map(score_of, self.curves["validation_accuracy"], self.curves["validation_loss"]))


def score_of(accuracy: float | None, loss: float | None) -> float | None:
    """The larger the better: the accuracy, or of values the loss with its sign turned; None if there is none."""
    if accuracy is not None:
        return accuracy
    return None if loss is None else -loss


def _called(one: Trial | Outcome) -> str:
    parts = [told(one.settings), f"seed {one.seed}", f"fold {one.fold}" if one.fold else ""]
    return f"trial {one.number + 1} ({', '.join(filter(None, parts))})"


def digest(network: Network) -> str:
    """A digest of all the parameters' bits, in order."""
    found = hashlib.sha256()
    for array in (array for pair in network.parameters for array in pair):
        found.update(np.ascontiguousarray(array).tobytes())
    return f"sha256 {found.hexdigest()[:32]}"


class DataRoom:
    """Data that was read and parted once, for all trials that take it: arrays that nobody can write to.

    It is kept while a trial has it, and the last of it for the next.
    """

    def __init__(self, data_dir: str | None, quiet: bool = True) -> None:
        self._data_dir, self._quiet, self._lock = data_dir, quiet, threading.Lock()
        self._datasets: WeakValueDictionary[Any, Dataset] = WeakValueDictionary()
        self._parts: WeakValueDictionary[Any, Parts] = WeakValueDictionary()
        self._fingerprints: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()
        self._last: Parts | None = None

    def parts(self, recipe: Recipe) -> Parts:
        """The parts of the recipe's data; arrays are read-only, so that what was made of them may be kept."""
        of_set = *(getattr(recipe, name) for name in ("data", *OF_DATA, "output", "loss")), recipe.layers[-1]
        of_set = *of_set, recipe.split_seed, recipe.seed if recipe.split_seed is None else None
        held = recipe.validation_fraction, recipe.patience is not None, recipe.folds, recipe.fold
        of_parts = *of_set, *held, recipe.standardize
        with self._lock:
            parts = self._parts.get(of_parts)
            if parts is None:
                dataset = self._datasets.get(of_set)
                if dataset is None:
                    dataset = load_dataset(recipe, recipe.seed, self._data_dir, self._quiet)
                    self._datasets[of_set] = dataset
                self._parts[of_parts] = parts = part(recipe, recipe.seed, dataset)
                for split in filter(None, (parts.train, parts.watched)):
                    _share(split)
            self._last = parts
            return parts

    def fingerprint(self, recipe: Recipe) -> str:
        """What identifies the data that the recipe has to train and test on."""
        dataset = self.parts(recipe).dataset
        with self._lock:
            if dataset not in self._fingerprints:
                splits = filter(None, (dataset.train, dataset.test))
                self._fingerprints[dataset] = " and ".join(map(fingerprint, splits))
            return self._fingerprints[dataset]


def _share(split: Split) -> None:
    for array in (split.inputs, split.targets, split.sample_weight):
        if isinstance(array, np.ndarray):
            share(array)


@lru_cache(maxsize=1)
def room_of_process(data_dir: str | None) -> DataRoom:
    """The data of this process, where trials come one by one from another."""
    return DataRoom(data_dir)


class Abandoned(Exception):
    """The sweep is to end, and this trial with it."""


class Watch(Progress):
    """Is told how a trial goes. This one says nothing, and lets it go on; it can be sent to another process."""

    def check(self) -> None:
        """Raise :class:`Abandoned` if the trial is not to go on."""

    def goes_on(self, epoch: Epoch) -> bool:
        """Whether the trial is worth going on with, after this epoch."""
        return True

    def advance(self, samples: int) -> None:
        self.check()


def train(
    trial: Trial, run: RunSettings, verify: str, watch: Watch, room: DataRoom | None, expected: str | None
) -> tuple[Outcome, Network | None]:
    """Do a trial: its outcome, and the network unless it failed; the outcome of a failure says why.

    ``room`` is that of this process; in another one it is None, and ``expected`` is the fingerprint that the data has
    in the process that asks.

    Raises:
        Abandoned: as ``watch`` says, or Ctrl-C reached the training itself.
    """
    started = time.perf_counter()
    about = trial.number, trial.point, trial.settings, trial.seed, trial.fold
    history, recipe = History(), trial.recipe
    try:
        if trial.refused:
            raise UsageError(trial.refused)
        room = room or room_of_process(run.data_dir)
        parts = room.parts(recipe)
        if expected is not None and (found := room.fingerprint(recipe)) != expected:
            raise DataError(f"the data read here is {found}, and {expected} where the sweep was started")
        network = untrained(recipe, trial.seed, parts)
        backend = backends.get(run.backend, run.threads, run.plan, run.precision)
        settings: dict[str, Any] = {"backend": backend, "verify": verify, "progress": watch}
        history = fit_recipe(network, recipe, trial.seed, parts, callbacks=[_stopper(watch)], **settings)
    except Abandoned:
        raise
    except Exception as error:  # whatever it is, the other trials go on
        known = isinstance(error, GpubpError)
        history = history if getattr(error, "history", None) is None else error.history  # type: ignore[attr-defined]
        return Outcome(
            *about,
            FAILED,
            epochs=len(history),
            seconds=time.perf_counter() - started,
            error=str(error) if known else f"{type(error).__name__}: {error}",
            exit_code=error.exit_code if isinstance(error, GpubpError) else 1,
            again=not isinstance(error, UsageError) and getattr(error, "history", None) is None,
        ), None
    if history.stopped == "interrupted":  # where it has the main thread, it is the first to hear of Ctrl-C
        raise Abandoned
    finish(network, parts)
    last = _last(history)
    outcome = Outcome(
        *about,
        STOPPED if history.stopped == "callback" else DONE,
        None if network.meaning == VALUES else last.validation_accuracy,
        last.validation_loss,
        epochs=len(history),
        seconds=time.perf_counter() - started,
        weights=digest(network),
        plan=history.plan,
        verification=history.verification.summary(),
        warnings=history.warnings,
        curves={name: history[name] for name in CURVES},
    )
    return outcome, network


def _last(history: History) -> Epoch:
    """The epoch whose weights the network has."""
    return history.epochs[-1 if history.best_epoch is None else history.best_epoch - 1]


def _stopper(watch: Watch) -> Callable[[Epoch, Network], bool]:
    def stop(epoch: Epoch, network: Network) -> bool:
        return not watch.goes_on(epoch)

    stop.reads_network = False  # type: ignore[attr-defined]
    return stop


def model_path(folder: Path, number: int) -> Path:
    """Where the network of a trial is kept."""
    return folder / "trials" / f"{number + 1:04}.npz"
