"""Recipes: named, reproducible runs, each a TOML file with the result it must reach and where that comes from.

Every field of :class:`Recipe` is a key of the file and an option of ``gpubp train``; there is no other list. One that
has settings of its own, ``deform``, is a table of the file, and each of these is an option.
"""

from __future__ import annotations

import tomllib
import typing
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from gpubp.errors import DataError, UsageError
from gpubp.randomness.settings import Deform
from gpubp.support.files import user_path
from gpubp.support.hints import did_you_mean
from gpubp.support.optional import need
from gpubp.support.warning import warn_caller

if TYPE_CHECKING:  # the command line reads the fields of a recipe and must not wait for NumPy
    from gpubp.network import Network
    from gpubp.optimizers import Optimizer, Schedule
    from gpubp.randomness.dropout import Dropout

FORMAT = 1  # raised when an older gpubp could no longer run what a recipe says

HELD_OUT = 0.1  # of the training data, where some is and nobody says how much

PATHS = ("data", "test_data")  # fields of a recipe that may be files
OF_DATA = (
    "test_data",
    "test_fraction",
    "target",
    "delimiter",
    "decimal",
    "header",
    "pixels",
)  # how data is read
SYNONYMS = {  # of the keys of a recipe, as other libraries call them
    "learning_rate": "lr", "learning_rate_init": "lr", "eta": "lr", "batch": "batch_size", "minibatch": "batch_size",
    "activation": "hidden", "activations": "hidden", "architecture": "layers", "sizes": "layers",
    "hidden_layer_sizes": "layers", "max_iter": "epochs", "alpha": "weight_decay", "l2": "weight_decay",
    "early_stopping": "patience", "dropout_rate": "dropout", "dropouts": "dropout", "random_state": "seed",
    "solver": "optimizer", "dataset": "data",
}  # fmt: skip
_OF_SCHEDULES = {"factor": ("step", "exponential"), "every": ("step",), "final": ("cosine",)}


def _setting(help_text: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run: data, network, loss, optimizer, schedule, and what must come of it.

    Raises:
        UsageError: a value out of range, or a setting of another optimizer or schedule than the recipe's.
    """

    name: str = _setting("Name of the run", "")
    title: str = _setting("What the run is, in a line", "")
    source: str = _setting("Where the run comes from", "")
    reach: float | None = _setting("Test accuracy that the run must reach")

    data: str = _setting("Data set by name, or a file or folder of your own", "mnist-sample")
    test_data: str | None = _setting("A second table, to test on")
    test_fraction: float | None = _setting("Part of the data held out for the test")
    target: str | None = _setting("A table's column of targets, by name or number, counted from 1")
    delimiter: str | None = _setting("What separates a table's cells: , or ; or tab")
    decimal: str | None = _setting("What a table's numbers have before their fraction: . or ,")
    header: bool | None = _setting(
        "Whether a table's first row names its columns; by default told from its cells"
    )
    pixels: bool | None = _setting("A table's inputs are bytes, 0 to 255, scaled by 1/255 as images are")
    standardize: bool | None = _setting("Shift and scale each column of the inputs to mean 0, deviation 1")
    splits: int = _setting("Train on this many different splits, and average", 1)

    layers: tuple[int, ...] = _setting("Sizes, inputs first and outputs last: 784-128-10", (784, 128, 10))
    hidden: tuple[str, ...] = _setting("Activation of the hidden layers, one for all or one each", ("relu",))
    output: str = _setting("Activation of the output layer", "softmax")
    init: str = _setting("How weights start: auto, normal, normal_1_over_n, glorot, he, lecun", "auto")
    dtype: str = _setting("float32 or float64", "float32")

    loss: str = _setting("quadratic, squared_error, cross_entropy or binary_cross_entropy", "cross_entropy")
    optimizer: str = _setting("sgd, adam or adamw", "sgd")
    lr: float | None = _setting("Learning rate η; by default the optimizer's own")
    momentum: float | None = _setting("SGD's momentum μ")
    nesterov: bool | None = _setting("Nesterov's momentum")
    weight_decay: float | None = _setting("Weight decay λ")
    beta1: float | None = _setting("Adam's β₁")
    beta2: float | None = _setting("Adam's β₂")
    epsilon: float | None = _setting("Adam's ε")
    schedule: str = _setting("Learning rate over time: constant, step, exponential or cosine", "constant")
    factor: float | None = _setting("Factor of the step and exponential schedules")
    every: float | None = _setting("Epochs between the steps of the step schedule")
    final: float | None = _setting("Factor that the cosine schedule ends at")
    warmup: float | None = _setting("Epochs over which the learning rate rises at the start")

    dropout: tuple[float, ...] = _setting(
        "Part of each hidden layer dropped in a step, one for all or one each; with one more, the inputs' first",
        (),
    )
    deform: Deform | None = field(
        default=None, metadata={"help": "How each step of training deforms its images"}
    )
    batch_size: int = _setting("Samples in a mini-batch", 128)
    epochs: int = _setting("Passes over the training data", 10)
    patience: int | None = _setting("Stop after this many epochs without a better validation loss")
    validation_fraction: float | None = _setting(
        "Part of the training data held out to watch; 0.1 with patience"
    )
    folds: int | None = _setting("Parts of the training data, of which one is held out to watch")
    fold: int | None = _setting("Which of the folds is held out, counted from 1")
    split_seed: int | None = _setting("Seeds what is held out, to watch and for the test; by default as seed")
    seed: int = _setting("Seeds initial weights, shuffling and splits", 0)

    def __post_init__(self) -> None:
        from gpubp.optimizers import OPTIMIZERS

        if self.name in (".", "..") or {"/", "\\"} & set(self.name):
            raise UsageError(f"name becomes part of a folder's, and cannot be {self.name!r}")
        for name, least in (("splits", 1), ("seed", 0), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("test_fraction", "validation_fraction"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} must lie between 0 and 1, not {value}")
        self._check_held_out()
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(_unknown("optimizer", self.optimizer, OPTIMIZERS))
        for role, settings in (("optimizer", _of_optimizers()), ("schedule", _OF_SCHEDULES)):
            chosen = getattr(self, role)
            for name, owners in settings.items():
                if getattr(self, name) is not None and chosen not in owners:
                    raise UsageError(f"{name} belongs to {role} {' and '.join(owners)}, not to {chosen}")
        self.build_optimizer()  # which check their own values
        self.build_schedule()
        self.build_dropout(self.seed)
        if self.deform and self.standardize:
            raise UsageError(
                "deform takes images of bytes, and standardize makes numbers of them: leave one out"
            )

    def _check_held_out(self) -> None:
        if (self.folds is None) != (self.fold is None):
            raise UsageError("folds and fold belong together: folds 5, fold 1 holds out the first of five")
        if self.folds is not None and self.fold is not None:
            if self.folds < 2 or not 1 <= self.fold <= self.folds:
                raise UsageError(
                    f"folds must be 2 or more, and fold one of them, not {self.fold} of {self.folds}"
                )
            if self.validation_fraction is not None:
                raise UsageError("folds and validation_fraction both say what is held out: give one")
        if self.split_seed is not None:
            if self.split_seed < 0:
                raise UsageError(f"split_seed must be 0 or more, not {self.split_seed}")
            if self.splits > 1:
                raise UsageError(
                    f"split_seed is of one split, and the recipe has {self.splits}: give splits 1 too"
                )

    @property
    def heading(self) -> str:
        return f"{self.name}: {self.title}" if self.title else self.name

    def network(self, seed: int) -> Network:
        from gpubp.network import Network

        return Network(self.layers, **self._of_network(), seed=seed)

    def _of_network(self) -> dict[str, Any]:
        """How its layers are made."""
        hidden = self.hidden[0] if len(self.hidden) == 1 else list(self.hidden)
        return {"hidden": hidden, "output": self.output, "init": self.init, "dtype": self.dtype}

    @property
    def held_out(self) -> float | None:
        """The part of the training data that is held out to watch; None without one, and where it is a fold."""
        return self.validation_fraction or (None if self.patience is None else HELD_OUT)

    def check_network(self) -> None:
        """Refuse by a UsageError what makes no network, without making one."""
        from gpubp.network import check_network

        check_network(self.layers, **self._of_network())

    def build_optimizer(self) -> Optimizer:
        """The optimizer, with those of the recipe's settings that it has."""
        from gpubp.optimizers import OPTIMIZERS

        return OPTIMIZERS[self.optimizer](**self._given(OPTIMIZERS[self.optimizer]))

    def build_schedule(self) -> Schedule:
        from gpubp.optimizers import Schedule

        return Schedule(kind=self.schedule, **self._given(Schedule))

    def build_dropout(self, seed: int) -> Dropout | None:
        from gpubp.randomness.dropout import Dropout

        return Dropout.of(self.dropout or 0.0, max(1, len(self.layers) - 1), seed)

    def _given(self, kind: type) -> dict[str, Any]:
        """The settings of a dataclass that the recipe has, and has set."""
        values = {f.name: getattr(self, f.name, None) for f in fields(kind)}
        return {name: value for name, value in values.items() if value is not None}

    def overridden(self, changes: dict[str, Any]) -> Recipe:
        """The recipe with some fields changed. It need no longer reach the result that it did.

        What described the data, the optimizer or the schedule before does not outlive a change of it.
        """
        changes = {key: value for key, value in changes.items() if value is not None}
        if not changes:
            return self
        if isinstance(deform := changes.get("deform"), dict):  # some of its settings
            changes["deform"] = replace(self.deform or Deform(), **deform)
        follow: dict[str, Any] = {}
        if not set(changes) <= {"reach", "seed"}:
            title = f"{self.title.partition('; but ')[0]}; but {', '.join(changes)} changed"
            follow = {"reach": None, "title": title if self.title else ""}
        if changes.get("optimizer", self.optimizer) != self.optimizer:
            follow |= dict.fromkeys(_of_optimizers())
        if changes.get("schedule", self.schedule) != self.schedule:
            follow |= dict.fromkeys(_OF_SCHEDULES)
        if "data" in changes and _whole(changes["data"]) != _whole(self.data):
            follow |= {"name": user_path(changes["data"]).resolve().stem, "title": "", "source": ""}
            follow |= dict.fromkeys(OF_DATA)
            self._say_what_is_left_out(changes)
            if "deform" not in changes and self.deform and self.deform.rotation_by_class:
                follow["deform"] = replace(self.deform, rotation_by_class=())
                warn_caller(
                    "the recipe's rotation_by_class told of classes of its own data, and is left out with --data: give "
                    f"--deform-rotation-by-class if meant for {changes['data']} too"
                )
        return replace(self, **{**follow, **changes})

    def _say_what_is_left_out(self, changes: dict[str, Any]) -> None:
        """Warn of fields that told of the data which another one has taken the place of."""
        gone = [name for name in OF_DATA if getattr(self, name) is not None and name not in changes]
        if gone:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in gone)
            warn_caller(
                f"the recipe's {', '.join(gone)} told of its own data, and {'are' if gone[1:] else 'is'} left out "
                f"with --data: give {options} if meant for {changes['data']} too"
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields that say something."""
        table = {**asdict(self), "deform": self.deform.to_dict() if self.deform else None}
        return {key: value for key, value in table.items() if value not in (None, "", ())}

    @classmethod
    def from_dict(cls, table: dict[str, Any], where: str) -> Recipe:
        """The recipe of a plain dictionary, every key and type checked.

        Raises:
            UsageError: an unknown key (names the nearest), a value of the wrong type or out of range, or no data or
                layers: their defaults are those of one recipe, and seldom what another one means.
        """
        values = _fields_of(cls, table, where)
        for key in ("data", "layers"):
            if key not in values:
                raise UsageError(f"{where}: {key} is missing")
        try:
            return cls(**values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


def _of_optimizers() -> dict[str, tuple[str, ...]]:
    """The recipe's fields that are settings of optimizers, and the kinds that have each."""
    from gpubp.optimizers import OPTIMIZERS

    settings = {kind: {f.name for f in fields(cls)} for kind, cls in OPTIMIZERS.items()}
    of_each = {f.name: tuple(kind for kind in settings if f.name in settings[kind]) for f in fields(Recipe)}
    return {name: kinds for name, kinds in of_each.items() if kinds}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run that a recipe does not have: the options of ``gpubp train`` that weights depend on.

    A recipe file has them in a table ``[run]``, and ``gpubp train`` takes them from there unless told otherwise.
    """

    backend: str = "auto"
    threads: int | None = None
    plan: str = "auto"
    precision: str = "float32"
    data_dir: str | None = None
    parts: int | None = None


def to_toml(recipe: Recipe, run: RunSettings | None = None) -> str:
    """A recipe file that :func:`load_with_run` reads back as it was given here."""
    table: dict[str, Any] = {"format": FORMAT, **recipe.to_dict()}
    if run is not None:
        usual = RunSettings()
        table["run"] = {key: value for key, value in asdict(run).items() if value != getattr(usual, key)}
    return need("tomli_w").dumps(table)


def with_whole_paths(recipe: Recipe, run: RunSettings) -> tuple[Recipe, RunSettings]:
    """The same from any folder: paths in them are whole, from the root."""
    paths = {key: path for key in PATHS if (path := getattr(recipe, key)) is not None}
    if run.data_dir is not None:
        run = replace(run, data_dir=str(user_path(run.data_dir).resolve()))
    whole: dict[str, Any] = {key: _whole(path) for key, path in paths.items()}
    return replace(recipe, **whole), run


def _whole(data: str) -> str:
    """Data by its whole path; a set's name as it is."""
    from gpubp.data import names

    return data if data in names() else str(user_path(data).resolve())


def recipe_names() -> list[str]:
    names = [file.name for file in files("gpubp.experiments.recipes").iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """The recipe of that name, or in that TOML file, with the changes that :meth:`Recipe.overridden` makes.

    A relative path in a file is one from the file's folder or, where nothing is there, from the working folder.

    Raises:
        UsageError: no such recipe (names the nearest), or one that :func:`parse_recipe` refuses.
        DataError: no such file, none that is TOML, or no file where it says that its data is.
    """
    return load_with_run(name, changes)[0]


def load_with_run(name: str, changes: dict[str, Any] | None = None) -> tuple[Recipe, RunSettings]:
    """The recipe as :func:`load_recipe` gives it, and how the file's table ``[run]`` says to run it."""
    changes = changes or {}
    if name in recipe_names():
        text = files("gpubp.experiments.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        recipe, run = parse_recipe(text, name, f"recipe {name}")
        return recipe.overridden(changes), run
    path = user_path(name)
    if path.suffix in (".csv", ".npz") or path.is_dir():
        raise UsageError(f"{name} is data, not a recipe: gpubp train --data {name} --layers …")
    if path.suffix != ".toml" and not path.exists():
        raise UsageError(_unknown("recipe", name, recipe_names()) + ", or give a .toml file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"recipe {path} is not a text file, or not in UTF-8") from error
    recipe, run = parse_recipe(text, path.stem, str(path))
    named: dict[str, Any] = {key: data for key in PATHS if (data := getattr(recipe, key)) is not None}
    own: dict[str, Any] = {key: _placed(data, path) for key, data in named.items()}
    changed = replace(recipe, **own).overridden(changes)
    for key in own:
        if changes.get(key) is None and getattr(changed, key) is not None:
            _require(named[key], own[key], path)
    if run.data_dir is not None and (beside := path.parent / user_path(run.data_dir)).exists():
        run = replace(run, data_dir=str(beside))
    return changed, run


def _placed(data: str, recipe: Path) -> str:
    """The data that a recipe's file names: a set's name as it is, a relative path as it leads there from here."""
    from gpubp.data import names

    beside = recipe.parent / user_path(data)  # a whole path stays what it is
    return str(beside) if data not in names() and beside.exists() else data


def _require(data: str, placed: str, recipe: Path) -> None:
    """Refuse a relative path that leads to nothing, neither from the recipe's folder nor from the working folder."""
    path = user_path(placed)
    if path.exists() or path.is_absolute() or not (path.suffix or path.name != data):
        return  # a name may have a slip
    raise DataError(
        f"{recipe}: there is no {data}, neither beside the recipe, in {recipe.parent.resolve()}, nor in the "
        f"working folder, {Path.cwd()}"
    )


def parse_recipe(text: str, name: str, where: str) -> tuple[Recipe, RunSettings]:
    """The recipe that TOML text describes, and how to run it.

    Raises:
        UsageError: written for a newer gpubp, or as :meth:`Recipe.from_dict`.
        DataError: no TOML.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where} is not valid TOML: {error}") from error
    if _converted("format", table.pop("format", FORMAT), int, where) > FORMAT:
        raise UsageError(f"{where} was written for a newer gpubp; upgrade gpubp")
    run = _converted("run", table.pop("run", {}), dict, where)
    settings = RunSettings(**_fields_of(RunSettings, run, f"{where}: run"))
    return Recipe.from_dict({"name": name, **table}, where), settings


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, those that may be None without it; not to be changed."""
    hints = typing.get_type_hints(kind)
    return {
        name: next((k for k in typing.get_args(hint) if NoneType in typing.get_args(hint)), hint)
        for name, hint in hints.items()
    }


def flat_fields(kind: type) -> dict[str, tuple[Field, Field | None, Any]]:
    """Every field of a dataclass by name, with None and its type; one with settings of its own by these instead.

    The settings are called as options call them, "deform_alpha" (its field, the setting, the setting's type).
    """
    flat: dict[str, tuple[Field, Field | None, Any]] = {}
    kinds = field_types(kind)
    for outer in fields(kind):
        of_outer = kinds[outer.name]
        if is_dataclass(of_outer) and isinstance(of_outer, type):
            inner_kinds = field_types(of_outer)
            for inner in fields(of_outer):
                flat[f"{outer.name}_{inner.name}"] = outer, inner, inner_kinds[inner.name]
        else:
            flat[outer.name] = outer, None, of_outer
    return flat


def _fields_of(kind: type, table: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a dataclass's fields, every key and type checked."""
    kinds = field_types(kind)
    for key in table:
        if key not in kinds:
            meant = SYNONYMS.get(key.lower().replace("-", "_"))
            raise UsageError(f"{where}: {_unknown('key', key, kinds, meant)}")
    return {key: _converted(key, value, kinds[key], where) for key, value in table.items()}


def _converted(key: str, value: Any, wanted: Any, where: str) -> Any:
    if typing.get_origin(wanted) is tuple:
        element = typing.get_args(wanted)[0]
        values = value if isinstance(value, list | tuple) else [value]
        if element is float:
            values = [float(v) if type(v) is int else v for v in values]
        if all(type(v) is element for v in values):
            return tuple(values)
        raise UsageError(f"{where}: {key} must be a list of {element.__name__}, not {value!r}")
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is Any:
        return value
    if is_dataclass(wanted) and isinstance(wanted, type) and type(value) is dict:
        settings = _fields_of(wanted, value, f"{where}: {key}")
        try:
            return wanted(**settings)
        except UsageError as error:
            raise UsageError(f"{where}: {key}: {error}") from error
    if type(value) is not wanted:
        name = "a table" if is_dataclass(wanted) else wanted.__name__
        raise UsageError(f"{where}: {key} must be {name}, not {value!r}")
    return value


def _unknown(what: str, name: str, known: Any, meant: str | None = None) -> str:
    """The message, with ``meant`` for a hint, if that is known, or else the name that is spelt most alike."""
    hint = did_you_mean(meant, known) if meant in known else did_you_mean(name, known, at_least=0.6)
    return f"unknown {what} {name!r}: {hint}There are {', '.join(known)}"
