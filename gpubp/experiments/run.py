"""A recipe from data to result: what ``gpubp train`` does, without the terminal."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpubp import formats
from gpubp.backends import Wanted
from gpubp.backends.backend import Backend
from gpubp.backends.work import Work
from gpubp.data.dataset import Dataset, Split
from gpubp.distributed.backend import backend_for
from gpubp.distributed.ranks import Alone, Ranks
from gpubp.errors import GpubpError, TrainingWarning, UsageError
from gpubp.experiments.folder import CHECKPOINT, MODEL, read_signals
from gpubp.experiments.parts import Parts, accuracy_of, finish, fit_recipe, load_parts, untrained
from gpubp.experiments.recipe import Recipe, RunSettings, with_whole_paths
from gpubp.functions import LOSSES, lookup
from gpubp.network import Network
from gpubp.support.machine import cores, processor, versions
from gpubp.training.checkpoint import fingerprint, read_training
from gpubp.training.history import History
from gpubp.training.progress import Progress
from gpubp.training.signals import SignalRecorder, Signals
from gpubp.verification.report import VerificationError


@dataclass(frozen=True, eq=False)
class Examples:
    """A few training images (k, h·w) that were deformed as bytes, their places in the training data, and labels."""

    images: np.ndarray
    places: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, train: Split, count: int = 6) -> Examples:
        """The first of each class, or the first there are."""
        labels = np.asarray(train.targets)
        places = (
            np.unique(labels, return_index=True)[1] if labels.dtype.kind in "iu" else np.arange(len(train))
        )
        places = np.sort(places[:count])
        return cls(train.inputs[places], places, labels[places] if labels.dtype.kind in "iu" else places * 0)


@dataclass(eq=False)
class Evidence:
    """Evidence of one split for the report, besides its history.

    ``outputs`` are those for the test part, (N, n_out); None without one, or of a run that diverged. ``inputs`` and
    ``targets`` are the test part as it came, the inputs None where they are no longer to be had, and ``tested_on`` is
    its fingerprint. ``signals`` are those of ``samples`` training samples. ``examples`` are of a run that deformed its
    images.
    """

    outputs: np.ndarray | None
    signals: Signals
    samples: int
    inputs: Any = None
    targets: np.ndarray | None = None
    tested_on: str | None = None
    examples: Examples | None = None


@dataclass(frozen=True)
class About:
    """What is to be told of a data set. ``unused`` is the number of an image's pixels that are 0 in all of training."""

    name: str
    summary: str
    source: str
    image_shape: tuple[int, int] | None
    class_names: tuple[str, ...] | None
    unused: int

    @classmethod
    def of(cls, dataset: Dataset) -> About:
        shape, inputs = dataset.image_shape, dataset.train.inputs
        unused = 0 if shape is None else int((~inputs.any(axis=0)).sum())
        return cls(dataset.name, dataset.summary(), dataset.source, shape, dataset.class_names, unused)


@dataclass
class Result:
    """The outcome of a recipe: a history, a test accuracy and evidence for each of its splits.

    ``network`` and ``data`` are the last split's; ``failure`` is the message of the error that ended the run, if
    one did. ``versions``, ``processor`` and ``cores`` are those it ran on; ``lacking`` says of a result that was read
    back what it is without, and why.
    """

    recipe: Recipe
    network: Network
    histories: list[History]
    accuracies: list[float | None]
    seconds: float
    evidence: list[Evidence] = field(default_factory=list)
    data: About | None = None
    failure: str | None = None
    versions: dict[str, str] = field(default_factory=versions)
    processor: str = field(default_factory=processor)
    cores: int = field(default_factory=cores)
    lacking: str = ""

    @property
    def accuracy(self) -> float | None:
        """The mean test accuracy over the splits; None for regression or without test data."""
        known = [a for a in self.accuracies if a is not None]
        return float(np.mean(known)) if len(known) == len(self.accuracies) else None

    @property
    def stopped(self) -> str:
        return "failed" if self.failure else self.histories[-1].stopped

    @property
    def warnings(self) -> list[str]:
        """What the histories warn of, and of which split where there are several."""
        several = len(self.histories) > 1
        said = [(split, w) for split, history in enumerate(self.histories, start=1) for w in history.warnings]
        return [f"split {split}: {text}" if several else text for split, text in said]

    @property
    def reached(self) -> bool | None:
        """True if the test accuracy is what the recipe must reach; None where it names none."""
        if self.recipe.reach is None or self.accuracy is None:
            return None
        return self.accuracy >= self.recipe.reach

    def to_dict(self) -> dict[str, Any]:
        first = self.histories[0]
        return {
            "recipe": self.recipe.to_dict(),
            "backend": first.backend,
            "device": first.device,
            "plan": first.plan,
            "test_accuracy": self.accuracy,
            "must_reach": self.recipe.reach,
            "reached": self.reached,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "compile_seconds": sum(h.compile_seconds for h in self.histories),
            "verification": [h.verification.to_dict() for h in self.histories],
            "splits": [
                {"test_accuracy": accuracy, **history.to_dict()}
                for accuracy, history in zip(self.accuracies, self.histories, strict=True)
            ],
            "seed": self.recipe.seed,
            "versions": self.versions,
        }


def run_recipe(
    recipe: Recipe,
    *,
    data_dir: str | os.PathLike | None = None,
    backend: str | Wanted | Backend = "auto",
    verify: str = "epoch",
    progress: Callable[[], Progress] = Progress,
    folder: Path | None = None,
    resume: Path | None = None,
    quiet: bool = False,
    say: Callable[[str], object] = lambda line: None,
    ranks: Ranks | None = None,
    parts: int | None = None,
) -> Result:
    """Train as the recipe says, once a split, and test.

    Args:
        data_dir: the folder with the files of mnist or fashion-mnist.
        backend: as :func:`gpubp.fit` takes it; "auto" is one for all splits, by the work of all.
        progress: makes what shows one training run.
        folder: where to save the trained network, also after Ctrl-C or a failed verification, and, of a recipe with
            one split, the checkpoint that a later run can resume.
        say: is told in a line what was read, and in another which backend trains, and why.
        ranks: those of a run by several processes, each of which calls this; only rank 0 needs a folder.
        parts: as :func:`gpubp.fit` takes them.
        resume: a checkpoint to go on from; what signals.csv beside it has of the epochs before is kept.

    Raises:
        VerificationError: the backend computed something else than the equations say; names the saved files.
        GpubpError: of the data, the recipe's values, the backend, or the training; where that had begun, ``result``
            of the error is what there is of it. Before, nothing is written into the folder.
    """
    if resume is not None and recipe.splits > 1:
        raise UsageError(f"{resume} is of one split: it cannot be resumed with --splits {recipe.splits}")
    started, together = time.perf_counter(), ranks or Alone()
    result = Result(recipe, recipe.network(recipe.seed), [], [], 0.0)
    checkpoint = folder / CHECKPOINT if folder is not None and recipe.splits == 1 else None
    whole, run = with_whole_paths(recipe, RunSettings(data_dir=None if data_dir is None else str(data_dir)))
    kept = whole.to_dict() | {"data_dir": run.data_dir, "parts": parts}
    settings: dict[str, Any] = {"verify": verify, "save_to": checkpoint, "resume": resume}
    settings |= {"distributed": together, "parts": parts}
    signals = {} if resume is None else read_signals(resume.parent, len(recipe.layers) - 1)
    for seed in range(recipe.seed, recipe.seed + recipe.splits):
        try:
            # Rank 0 first, who may have to download it.
            data = together.on_first(partial(load_parts, recipe, seed, data_dir, quiet))
            data = data or load_parts(recipe, seed, data_dir, quiet)
            tested_on = None if data.test is None else fingerprint(data.test)
            if not result.histories:
                say(data.dataset.summary())
                before = {} if resume is None else read_training(resume)[0]
                _refuse_other_test_data(resume, before, tested_on)
                of_run: dict[str, Any] = {"work": _work(result, data), "before": before.get("backend")}
                chosen = backend_for(together, backend, parts, **of_run)
                why = "" if chosen.why in ("given", "named") else f" ({chosen.why})"
                say(f"backend {chosen.name}{why}")
            settings |= {"progress": progress(), "recipe": kept | {"tested_on": tested_on}}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TrainingWarning)  # the result has them
                failure = _train(result, data, seed, chosen, signals, tested_on, **settings)
        except GpubpError as error:
            if result.histories:  # those of the splits before
                result.failure, error.result = str(error), result
            raise
        result.seconds = time.perf_counter() - started
        if folder is not None and (failure is None or isinstance(failure, VerificationError)):
            formats.save(result.network, folder / MODEL)
        if isinstance(failure, VerificationError) and folder is not None:
            state = f", its training state in {checkpoint}" if checkpoint else ""
            failure = VerificationError(failure.report, f"\nThe model was saved in {folder / MODEL}{state}.")
        if failure is not None:
            result.failure, failure.result = str(failure), result
            raise failure
        if result.stopped == "interrupted":
            break
    return result


def _refuse_other_test_data(resume: Path | None, training: dict[str, Any], tested_on: str | None) -> None:
    """Hold the test data to what a checkpoint says of it. One of an older gpubp says nothing."""
    recipe = training.get("recipe") or {}
    if "tested_on" in recipe and recipe["tested_on"] != tested_on:
        raise UsageError(
            f"{resume} cannot be resumed here: its test data is {recipe['tested_on']!r}, not {tested_on!r}"
        )


def _work(result: Result, parts: Parts) -> Work:
    """The work of all splits."""
    recipe, samples = result.recipe, len(parts.train)
    watched = 0 if parts.watched is None else len(parts.watched)
    size = min(recipe.batch_size, samples)
    counts = samples, size, recipe.epochs * recipe.splits, watched
    dropout = recipe.build_dropout(recipe.seed)
    return Work.of(result.network, *counts, dropout, deforms=bool(recipe.deform))


def _train(
    result: Result,
    parts: Parts,
    seed: int,
    backend: Backend,
    signals: Signals,
    tested_on: str | None,
    /,
    **settings: Any,
) -> GpubpError | None:
    """Train on one split and add what came of it to the result; gives the error that ended the training, if one did."""
    recipe, test = result.recipe, parts.test
    network, train = untrained(recipe, seed, parts), parts.train
    recorder = SignalRecorder(train, lookup(LOSSES, recipe.loss, "loss"), signals)
    if settings["resume"] is None:
        with backend.limits():
            recorder.measure(0, network)
    failure = None
    try:
        history = fit_recipe(network, recipe, seed, parts, callbacks=[recorder], backend=backend, **settings)
    except GpubpError as error:
        if error.history is None:
            raise
        history, failure = error.history, error
    result.data, result.network = About.of(parts.dataset), network
    with backend.limits():
        outputs = _outputs(network, parts, failure)
    result.histories.append(history)
    result.accuracies.append(None if test is None or outputs is None else accuracy_of(network, test, outputs))
    measured = Evidence(outputs, recorder.signals, recorder.samples)
    if test is not None:
        measured.inputs, measured.targets, measured.tested_on = test.inputs, test.targets, tested_on
    if recipe.deform:
        measured.examples = Examples.of(train)
    result.evidence.append(measured)
    finish(network, parts)
    return failure


def _outputs(network: Network, parts: Parts, failure: GpubpError | None) -> np.ndarray | None:
    """The outputs for the test part, unless a run that diverged left none that are numbers."""
    if parts.test is None:
        return None
    with np.errstate(all="ignore" if failure else None):
        outputs = network.forward(parts.test.inputs)
    return outputs if failure is None or np.isfinite(outputs).all() else None
