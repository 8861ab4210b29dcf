"""A recipe's data in its parts, and one training of a recipe's network on them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp import data
from gpubp.data.dataset import Dataset, Split, fold_of, hold_out
from gpubp.data.inputs import Inputs, Scaling, kind_of, size_of
from gpubp.data.targets import Targets
from gpubp.errors import UsageError
from gpubp.experiments.recipe import OF_DATA, Recipe
from gpubp.functions import ACTIVATIONS, LOSSES, lookup
from gpubp.model import VALUES, Meaning, Model, labels_of
from gpubp.network import Network
from gpubp.training.fit import fit
from gpubp.training.history import History
from gpubp.training.stopping import EarlyStopping


@dataclass(frozen=True, eq=False)
class Parts:
    """The data of one split of a recipe, all as they came: ``scaled`` is what the first layer takes.

    ``watched`` is what is evaluated after every epoch, and ``scaling`` what the recipe asks for, if anything.
    """

    dataset: Dataset
    train: Split
    watched: Split | None
    test: Split | None
    scaling: Scaling | None

    def scaled(self, split: Split) -> Split:
        """A split as the network is trained on it."""
        return split if self.scaling is None else replace(split, inputs=self.scaling.apply(split.inputs))


def load_parts(recipe: Recipe, seed: int, data_dir: str | os.PathLike | None, quiet: bool) -> Parts:
    """The recipe's data, parted for training, watching and testing, by the recipe's split_seed or else by this seed."""
    return part(recipe, seed, load_dataset(recipe, seed, data_dir, quiet))


def load_dataset(recipe: Recipe, seed: int, data_dir: str | os.PathLike | None, quiet: bool) -> Dataset:
    """The recipe's data set, parted for training and testing."""
    how = {name: value for name in OF_DATA if (value := getattr(recipe, name)) is not None}
    output, loss = lookup(ACTIVATIONS, recipe.output, "activation"), lookup(LOSSES, recipe.loss, "loss")
    targets = Targets.of(output, loss, recipe.layers[-1])
    seed = _seed_of_split(recipe, seed)
    return data.load(recipe.data, data_dir=data_dir, quiet=quiet, seed=seed, targets=targets, **how)


def part(recipe: Recipe, seed: int, dataset: Dataset) -> Parts:
    """A data set as the recipe parts it.

    Early stopping must not choose by the test data, so that it watches a part of the training data instead.
    """
    scaling = Scaling.of(dataset.train.inputs) if recipe.standardize else None
    train, watched = dataset.train, dataset.test
    by_class, seed = dataset.classes is not None, _seed_of_split(recipe, seed)
    if recipe.folds is not None and recipe.fold is not None:
        train, watched = fold_of(dataset.train, recipe.folds, recipe.fold, seed, stratify=by_class)
    elif recipe.held_out:
        train, watched = hold_out(dataset.train, recipe.held_out, seed, stratify=by_class)
    return Parts(dataset, train, watched, dataset.test, scaling)


def _seed_of_split(recipe: Recipe, seed: int) -> int:
    return seed if recipe.split_seed is None else recipe.split_seed


def untrained(recipe: Recipe, seed: int, parts: Parts) -> Network:
    """The recipe's network before training, told what its inputs are.

    Raises:
        UsageError: rotation by class where a class's number is not what it is called.
    """
    names = parts.dataset.class_names or ()
    if recipe.deform and recipe.deform.rotation_by_class and names != tuple(map(str, range(len(names)))):
        numbers = ", ".join(f"{number} is {name}" for number, name in enumerate(names[:4]))
        raise UsageError(
            "rotation_by_class goes by the numbers of classes, from 0, and those of this data are called otherwise "
            f"({numbers}{' …' if names[4:] else ''}): leave it out, or give the classes numbers from 0"
        )
    network = recipe.network(seed)
    # What is told of the inputs is of them as they came; what deforms images is told their shape.
    shape = (parts.dataset.image_shape or ()) if recipe.deform else ()
    network.inputs = Inputs(shape=shape, scaling=parts.scaling)
    return network


def fit_recipe(network: Network, recipe: Recipe, seed: int, parts: Parts, /, **settings: Any) -> History:
    """:func:`gpubp.fit` the network as the recipe says; ``settings`` are those of fit that a recipe does not have."""
    train, watched = parts.train, parts.watched
    return fit(
        network,
        train.inputs,
        train.targets,
        loss=recipe.loss,
        optimizer=recipe.build_optimizer(),
        schedule=recipe.build_schedule(),
        dropout=recipe.dropout or 0.0,
        deform=recipe.deform,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        sample_weight=train.sample_weight,
        validation=None if watched is None else (watched.inputs, watched.targets),
        early_stopping=None if recipe.patience is None else EarlyStopping(recipe.patience),
        seed=seed,
        **settings,
    )


def finish(network: Network, parts: Parts) -> None:
    """Make the network predict from inputs as they come, and the classes by their names."""
    dataset = parts.dataset
    kind = kind_of(dataset.train.inputs)
    of_training = size_of(dataset.train.inputs), parts.scaling
    network.inputs = Inputs(kind, dataset.feature_names or (), dataset.image_shape or (), *of_training)
    names, outputs = dataset.class_names or (), network.sizes[-1]
    if network.meaning != VALUES and names != tuple(map(str, range(len(names)))):
        # Outputs beyond the classes of the data have no name, but can be the largest.
        spare = (f"output {i}" for i in range(len(names), outputs))
        network.meaning = Meaning("classes", (*names, *spare))


def accuracy_of(model: Model, split: Split, outputs: np.ndarray) -> float | None:
    """The accuracy of outputs for a split by class numbers, whatever the classes are called; None for values."""
    if model.meaning == VALUES or split.targets.ndim != 1:
        return None
    return float((labels_of(outputs) == split.targets).mean())
