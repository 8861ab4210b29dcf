"""Recipes: read, refused, changed, written, and run to their figures."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from gpubp.data.dataset import fold_of
from gpubp.errors import DataError, UsageError
from gpubp.experiments.parts import load_parts
from gpubp.experiments.recipe import (
    Recipe,
    RunSettings,
    load_recipe,
    load_with_run,
    parse_recipe,
    recipe_names,
    to_toml,
)
from gpubp.experiments.run import run_recipe
from gpubp.randomness.settings import Deform
from tests import param

# Every field off its default at least once.
EVERY_FIELD = (
    Recipe(
        name="all", title='quotes " and\nlines', source="nowhere", reach=0.5,
        data="iris", test_data="t.csv", test_fraction=0.25, target="species", delimiter=";", decimal=",", header=True,
        pixels=True, standardize=True, splits=3,
        layers=(4, 5, 6, 3), hidden=("relu", "tanh"), output="sigmoid", init="he", dtype="float64", loss="quadratic",
        optimizer="adamw", lr=1 / 3, beta1=0.8, beta2=0.9, epsilon=1e-7, weight_decay=1e-9,
        schedule="step", factor=0.1, every=2.5, warmup=1.0,
        dropout=(0.2, 0.5, 0.25), batch_size=7, epochs=9, patience=3, validation_fraction=0.2, seed=7,
    ),
    Recipe(
        name="cosine", momentum=0.9, nesterov=True, schedule="cosine", final=0.1, folds=5, fold=2, split_seed=3,
        deform=Deform(alpha=34, sigma=5, rotation=15, scaling=0.15, shear=0.1, rotation_by_class={1: 7.5, 7: 5}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("recipe", EVERY_FIELD, ids=lambda recipe: recipe.optimizer)
def test_every_field_survives_toml(recipe):
    assert parse_recipe(to_toml(recipe), "x", "x") == (recipe, RunSettings())
    assert Recipe.from_dict(recipe.to_dict(), "x") == recipe


def test_every_field_is_tested():
    for field in fields(Recipe):
        assert field.metadata["help"]
        assert any(getattr(recipe, field.name) != field.default for recipe in EVERY_FIELD), (
            f"EVERY_FIELD in tests/experiments/test_recipe.py has no recipe whose {field.name} is not the default"
        )


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_is_whole_and_survives_toml(name, tmp_path):
    recipe, settings = load_recipe(name), RunSettings(backend="numba", threads=2, data_dir="/data/here")
    assert recipe.title
    assert recipe.source
    assert recipe.network(0).sizes == list(recipe.layers)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe, settings), encoding="utf-8")
    assert path.read_text().startswith("format = 1\n")
    assert load_with_run(str(path)) == (recipe, settings)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[run]\nbackends = 'numpy'", "did you mean 'backend'"),
        ("[run]\nthreads = 'two'", "x.toml: run: threads must be int"),
        ("run = 3", "run must be dict"),
    ],
)
def test_a_wrong_run_table_is_named(tmp_path, table, says):
    path = tmp_path / "x.toml"
    path.write_text('data = "iris"\nlayers = [4, 3]\n' + table)
    with pytest.raises(UsageError, match=says):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("lerning_rate = 1", UsageError, "unknown key 'lerning_rate'"),
        ("epoch = 3", UsageError, "did you mean 'epochs'"),
        ("learning_rate = 0.1", UsageError, "did you mean 'lr'"),
        ("Learning-Rate = 0.1", UsageError, "did you mean 'lr'"),
        ("batch = 32", UsageError, "did you mean 'batch_size'"),
        ("batchsize = 32", UsageError, "did you mean 'batch_size'"),
        ("alpha = 0.1", UsageError, "did you mean 'weight_decay'"),
        ("augment = 0.5", UsageError, "unknown key 'augment': There are"),
        ("dropout_rate = 0.5", UsageError, "did you mean 'dropout'"),
        ('dropout = ["0.5"]', UsageError, "dropout must be a list of float"),
        ("run = {batch = 3}", UsageError, "unknown key 'batch': There are backend"),
        ("deform = 0.5", UsageError, "deform must be a table, not 0.5"),
        ("deform = {aplha = 34}", UsageError, "mine: deform: unknown key 'aplha': did you mean 'alpha'"),
        ("deform = {alpha = '34'}", UsageError, "mine: deform: alpha must be float"),
        (
            "deform = {sigma = 0.1}",
            UsageError,
            "mine: deform: sigma of a deformation is a number of 1 to 16, not 0.1",
        ),
        ('epochs = "3"', UsageError, "epochs must be int"),
        ("epochs = true", UsageError, "epochs must be int"),
        ("layers = [1.5, 2]", UsageError, "list of int"),
        ("format = 99", UsageError, "newer gpubp"),
        ("epochs = ", DataError, "not valid TOML"),
    ],
)
def test_a_recipe_that_is_wrong_names_the_key(text, error, says):
    with pytest.raises(error, match=says):
        parse_recipe(text, "mine", "mine")


NAMED = 'data = "iris"\nlayers = [4, 3]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('data = "iris"', "mine: layers is missing"),
        ("layers = [4, 3]", "mine: data is missing"),
        (NAMED + 'format = "1"', "format must be int"),
        (NAMED + "splits = 0", "mine: splits must be 1 or more"),
        (NAMED + "seed = -1", "seed must be 0 or more"),
        (NAMED + "test_fraction = 0", "test_fraction must lie between 0 and 1"),
        (NAMED + "test_fraction = nan", "test_fraction must lie between 0 and 1"),
        (NAMED + "validation_fraction = 1.0", "validation_fraction must lie between 0 and 1"),
        (NAMED + "folds = 5", "folds and fold belong together"),
        (NAMED + "fold = 1", "folds and fold belong together"),
        (NAMED + "folds = 1\nfold = 1", "not 1 of 1"),
        (NAMED + "folds = 5\nfold = 6", "not 6 of 5"),
        (NAMED + "folds = 5\nfold = 1\nvalidation_fraction = 0.1", "both say what is held out"),
        (NAMED + "split_seed = -1", "split_seed must be 0 or more"),
        (NAMED + "split_seed = 1\nsplits = 2", "split_seed is of one split"),
        (NAMED + 'name = "a/b"', "name .* cannot be 'a/b'"),
        (NAMED + "name = 'a\\b'", "name .* cannot be"),
        (NAMED + 'name = ".."', "name .* cannot be '..'"),
        (NAMED + "beta1 = 0.9", "beta1 belongs to optimizer adam and adamw, not to sgd"),
        (NAMED + 'optimizer = "adam"\nmomentum = 0.9', "momentum belongs to optimizer sgd, not to adam"),
        (NAMED + "lr = -1", "learning rate must be positive"),
        (NAMED + "dropout = 1", "a rate of dropout is from 0 up to below 1, not 1"),
        (NAMED + "dropout = [0.1, 0.2]", "2 rates for 0 hidden layers"),
        (NAMED + f"dropout = 0.5\nseed = {2**64}", "64 bits"),
        (NAMED + "factor = 0.5", "factor belongs to schedule step and exponential, not to constant"),
        (NAMED + 'schedule = "exponential"\nevery = 2', "every belongs to schedule step, not to exponential"),
        (NAMED + 'schedule = "step"\nfinal = 0.1', "final belongs to schedule cosine, not to step"),
        (NAMED + 'schedule = "stepp"', "unknown schedule 'stepp'"),
    ],
)
def test_a_recipe_that_cannot_be_run_says_why(text, says):
    with pytest.raises(UsageError, match=says):
        parse_recipe(text, "mine", "mine")


def test_settings_go_with_their_optimizer_and_schedule():
    old = Recipe(momentum=0.9, weight_decay=0.1, schedule="step", factor=0.5, every=2.0, warmup=1.0)
    new = old.overridden({"optimizer": "adam", "beta1": 0.8, "schedule": "exponential", "factor": 0.7})
    assert (new.lr, new.momentum, new.weight_decay, new.beta1) == (None, None, None, 0.8)
    assert (new.factor, new.every, new.warmup) == (0.7, None, 1.0)
    same = old.overridden({"optimizer": "sgd", "schedule": "step", "lr": 0.2})
    assert (same.momentum, same.weight_decay, same.factor, same.every) == (0.9, 0.1, 0.5, 2.0)


def test_a_change_of_the_data_drops_how_it_was_parted():
    old = Recipe(
        data="iris.csv", test_fraction=0.3, target="species", delimiter=";", title="Iris", source="Fisher"
    )
    with pytest.warns(
        UserWarning, match="the recipe's test_fraction, target, delimiter told of its own data"
    ) as w:
        new = old.overridden({"data": "~/mine.csv"})
    assert str(w[0].message).endswith(
        "are left out with --data: give --test-fraction, --target, --delimiter if meant for ~/mine.csv too"
    )
    assert new == replace(Recipe(), data="~/mine.csv", name="mine")
    given = {"data": "digits", "test_fraction": 0.4, "target": "y", "delimiter": ","}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out that is given
        assert old.overridden(given).test_fraction == 0.4
    assert old.overridden({"data": "iris.csv", "epochs": 2}).test_fraction == 0.3


MINE = 'data = "{}"\nlayers = [4, 3]\n'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path, mark):
    (tmp_path / "é.toml").write_text(mark + MINE.format("iris") + 'title = "δ"', encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "é.toml"))
    assert (recipe.name, recipe.data, recipe.title) == ("é", "iris", "δ")


def test_a_recipe_that_is_not_in_utf8_says_so(tmp_path):
    (tmp_path / "x.toml").write_text(MINE.format("iris"), encoding="utf-16")
    with pytest.raises(DataError, match=r"x\.toml is not a text file, or not in UTF-8"):
        load_recipe(str(tmp_path / "x.toml"))


def test_data_is_looked_for_beside_the_recipe_then_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of").mkdir()
    (tmp_path / "of/my.toml").write_text(
        MINE.format("sub/x.csv") + "[run]\ndata_dir = 'sub'", encoding="utf-8"
    )
    with pytest.raises(DataError) as told:
        load_recipe("of/my.toml")
    assert (
        f"no sub/x.csv, neither beside the recipe, in {tmp_path}/of, nor in the working folder, {tmp_path}"
        in str(told.value)
    )
    assert load_recipe("of/my.toml", {"data": "iris"}).data == "iris"
    for folder, expected in (("", "sub"), ("of", "of/sub")):
        (tmp_path / folder / "sub").mkdir()
        (tmp_path / folder / "sub/x.csv").touch()
        recipe, run = load_with_run("of/my.toml")
        assert (recipe.data, run.data_dir) == (f"{expected}/x.csv", expected)
    (tmp_path / "of/two.toml").write_text(
        MINE.format("sub/x.csv") + "test_data = 'sub/y.csv'", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"there is no sub/y\.csv, neither beside the recipe"):
        load_recipe("of/two.toml")
    with pytest.warns(UserWarning, match="the recipe's test_data told of its own data, and is left out"):
        assert load_recipe("of/two.toml", {"data": "iris"}).test_data is None
    (tmp_path / "of/sub/y.csv").touch()
    assert load_recipe("of/two.toml").test_data == "of/sub/y.csv"
    for data in ("iris", "irsi", str(tmp_path / "absent.csv"), "~/absent.csv"):
        (tmp_path / "of/other.toml").write_text(MINE.format(data), encoding="utf-8")
        assert load_recipe("of/other.toml").data == data


OF_DATA = {
    "test_data": "te.csv",
    "target": "y",
    "delimiter": ";",
    "decimal": ",",
    "header": False,
    "pixels": True,
}


@pytest.mark.parametrize("here", [False, True])  # files of these names in the working folder
def test_options_lead_from_the_working_folder_and_a_recipes_own_paths_from_its_own(
    tmp_path, monkeypatch, here
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of").mkdir()
    for folder in ("of", ".") if here else ("of",):
        for name in ("tr.csv", "te.csv"):
            (tmp_path / folder / name).touch()
    recipe = Recipe(data="tr.csv", layers=(2, 2), name="my", **OF_DATA)
    (tmp_path / "of/my.toml").write_text(to_toml(recipe), encoding="utf-8")

    def loaded(**changes):
        return load_recipe("of/my.toml", changes)

    own = replace(recipe, data="of/tr.csv", test_data="of/te.csv")
    assert loaded() == own
    assert loaded(test_data="te.csv") == replace(own, test_data="te.csv")
    for same in ("of/tr.csv", str(tmp_path / "of/tr.csv")):  # the same file is no other data
        assert loaded(data=same) == replace(own, data=same)
    for other in ("tr.csv", "other.csv", "iris"):
        with pytest.warns(
            UserWarning, match="the recipe's test_data, target, delimiter, decimal, header, pixels told"
        ):
            assert loaded(data=other) == Recipe(data=other, layers=(2, 2), name=Path(other).stem)
        with pytest.warns(UserWarning, match="the recipe's target, delimiter, decimal, header, pixels told"):
            assert loaded(data=other, test_data="te.csv").test_data == "te.csv"


QUICK = {("digits", "numba"), ("mnist-sample", "numba")}  # the others take longer


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        param(name, backend, always=(name, backend) in QUICK)
        for name in ("mnist-sample", "digits", "parity", "iris", "mnist", "mnist-dropout")
        for backend in ("numpy", "numba")
    ]
    + [param("mnist-simard", "numba", always=False)],
)
def test_a_recipe_reaches_its_figure(name, backend):
    if name in ("mnist", "mnist-dropout", "mnist-simard") and "GPUBP_DATA_DIR" not in os.environ:
        pytest.skip("MNIST's files: set GPUBP_DATA_DIR to their folder")
    result = run_recipe(load_recipe(name), backend=backend)
    assert result.reached, result.accuracy
    assert result.warnings == []


def test_a_recipe_trains_with_its_dropout_and_without():
    """A whole number, one rate and a list mean what they say, and what is said of the run tells it."""
    plain = load_recipe("iris").overridden({"epochs": 2, "splits": 1})
    assert plain.dropout == ()
    assert "dropout" not in plain.to_dict()
    for text, told in (
        ("0.5", "0, 0.5, 0.5, 0.5"),
        ("[0, 0.5, 0.5, 0.5]", "0, 0.5, 0.5, 0.5"),
        ("[0.1, 0, 0]", "0, 0.1, 0, 0"),
    ):
        recipe, _ = parse_recipe(to_toml(plain) + f"dropout = {text}\n", "x", "x")
        result = run_recipe(recipe, backend="numpy", quiet=True)
        assert result.histories[0].plan.partition("; dropout ")[2] == told
    assert "dropout" not in run_recipe(plain, backend="numpy", quiet=True).histories[0].plan


def test_the_split_goes_by_its_own_seed_if_there_is_one():
    base = replace(load_recipe("iris"), splits=1, validation_fraction=0.2)
    parts = {
        (seed, split_seed): load_parts(replace(base, split_seed=split_seed), seed, None, True)
        for seed in (0, 1)
        for split_seed in (None, 1)
    }
    told = {key: tuple(s.inputs.tobytes() for s in (p.train, p.watched, p.test)) for key, p in parts.items()}
    assert told[0, 1] == told[1, 1] == told[1, None] != told[0, None]
    assert not np.array_equal(base.network(0).parameters[0][0], base.network(1).parameters[0][0])


def test_a_fold_is_what_is_watched():
    recipe = replace(load_recipe("iris"), splits=1, folds=3, fold=2)
    parts = load_parts(recipe, 0, None, True)
    train, held = fold_of(parts.dataset.train, 3, 2, 0, stratify=True)
    assert np.array_equal(parts.train.inputs, train.inputs)
    assert np.array_equal(parts.watched.inputs, held.inputs)
