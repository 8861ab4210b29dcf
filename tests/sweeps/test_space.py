"""What can be varied, how it is written, and which settings a search makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpubp.errors import UsageError
from gpubp.experiments.recipe import load_recipe
from gpubp.sweeps.search import Listed, Optuna, search_of
from gpubp.sweeps.space import (
    Range,
    axes_of,
    axes_of_listed,
    axis_of,
    list_of,
    recipe_with,
    settings_of,
    told,
)


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("lr=0.1,1e-3", "lr", (0.1, 0.001)),
        ("layers=784-32-10,784-10", "layers", ((784, 32, 10), (784, 10))),
        ("hidden=relu,tanh+relu", "hidden", (("relu",), ("tanh", "relu"))),
        ("dropout=0,0.2+0.5", "dropout", ((0.0,), (0.2, 0.5))),
        ("batch-size=16, 32", "batch_size", (16, 32)),
        ("nesterov=true,false", "nesterov", (True, False)),
        ("optimizer=sgd,adam", "optimizer", ("sgd", "adam")),
        ("deform-alpha=0,8", "deform_alpha", (0.0, 8.0)),
        ("deform.alpha=4", "deform_alpha", (4.0,)),
        ("lr=1e-3..1e-1", "lr", Range(1e-3, 0.1)),
        ("batch_size=16..256", "batch_size", Range(16, 256)),
        ("dropout=0..0.5", "dropout", Range(0, 0.5)),
    ],
)
def test_what_is_varied_is_read_and_written(text, field, values):
    (axis,) = axes_of([text])
    assert (axis.field, axis.values) == (field, values)
    assert axes_of([str(axis)]) == (axis,)


def test_values_may_be_given_in_python():
    given = {
        "lr": np.array([0.1, 0.2]),
        "layers": [(4, 3), (4, 5, 3)],
        "dropout": [0, 0.5],
        "epochs": Range(1, 9),
    }
    axes = axes_of(given)
    assert [axis.values for axis in axes] == [(0.1, 0.2), ((4, 3), (4, 5, 3)), ((0.0,), (0.5,)), Range(1, 9)]
    assert axes[3].kind is int


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr", "FIELD=a,b,c"),
        ("lrr=1", "did you mean 'lr'"),
        ("seed=1,2", "seed is not varied: give --seeds N"),
        ("data=mnist,iris", "the same data"),
        ("validation_fraction=0.1", "same samples"),
        ("fold=1,2", "--folds K"),
        ("reach=0.9", "changes no weight"),
        ("deform-rotation-by-class=1:7", "write a recipe for each"),
        ("lr=0.1,a", "lr takes numbers, not 'a'"),
        ("epochs=1.5", "epochs takes whole numbers, not '1.5'"),
        ("layers=784", "layers=784 … is a network, and that is refused where the recipe is made"),
        ("layers=784-a", "sizes such as 784-32-10"),
        ("nesterov=yes", "true or false"),
        ("lr=0.1,0.1", "a value twice: 0.1, 0.1"),
        ("lr=0.1..0.01", "from a lower to a higher"),
        ("lr=0.1..inf", "from a lower to a higher"),
        ("optimizer=sgd..adam", "takes no range"),
        ("hidden=a..b", "takes no range"),
        ("lr=0.1..1,2", "a range stands alone"),
        ("learning_rate=1", "did you mean 'lr'"),
        ("hidden=relu,", "hidden takes names, not ''"),
        ("batch_size=1,", "whole numbers, not ''"),
        ("layers=1..2", "layers takes no range"),
        ("batch_size=1.5..9", "whole numbers"),
    ],
)
def test_what_cannot_be_varied_is_refused(text, says):
    if "refused where" in says:
        with pytest.raises(UsageError, match="two or more positive sizes"):
            recipe_with(load_recipe("mnist-sample"), {"layers": (784,)}).network(0)
        return
    with pytest.raises(UsageError, match=says):
        axes_of([text])


def test_a_field_is_varied_once():
    with pytest.raises(UsageError, match="lr is varied twice"):
        axes_of(["lr=0.1", "lr=0.2"])


def test_more_ways_to_say_the_same_in_python():
    assert axes_of("lr=0.1,0.2") == axes_of({"lr": [0.1, 0.2]}) == axes_of({"lr": "0.1,0.2"})
    assert axes_of({"lr": 0.1}) == axes_of({"lr": [0.1]})
    assert axes_of({"layers": ["4-5-3", np.array([4, 3])]}) == axes_of({"layers": [(4, 5, 3), (4, 3)]})
    assert axes_of({"lr": Range(np.float64(0.01), 1)}) == axes_of(["lr=0.01..1"])


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ({"layers": [4, 8, 3]}, "layers takes sizes such as 784-32-10, not 4"),
        ({"dropout": [(), 0.1]}, r"dropout takes numbers such as .*, not \(\)"),
        ({"dropout": [None]}, "dropout takes numbers such as .*, not None"),
        ({"hidden": ["re lu"]}, "hidden takes names, not 're lu'"),
        ({"lr": []}, "no value to take"),
    ],
)
def test_what_python_cannot_say_is_refused(vary, says):
    with pytest.raises(UsageError, match=says):
        axes_of(vary)


@pytest.mark.parametrize("ends", [("a", 1), (None, 1), (1, float("nan"))])
def test_a_range_is_of_two_numbers(ends):
    with pytest.raises(UsageError, match="a range"):
        Range(*ends)


@pytest.mark.parametrize("value", [True, "a", None, (0.1, "b")])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(UsageError, match="lr takes numbers, not"):
        axis_of("lr", [value])


def test_settings_become_a_recipe():
    recipe = load_recipe("mnist-sample")
    changed = recipe_with(recipe, {"lr": 0.5, "deform_alpha": 8.0, "deform_sigma": 5.0})
    assert (changed.lr, changed.deform.alpha, changed.deform.sigma, changed.reach) == (0.5, 8.0, 5.0, None)
    with pytest.raises(
        UsageError, match=r"a trial with optimizer adam, momentum 0\.9 cannot be: momentum belongs"
    ):
        recipe_with(recipe, {"optimizer": "adam", "momentum": 0.9})


def test_a_grid_has_every_combination_once():
    search = search_of("grid", axes_of(["lr=1,2", "epochs=3,4,5"]), 0)
    found = [search.propose(number) for number in range(search.count)]
    assert found == [{"lr": lr, "epochs": n} for lr in (1.0, 2.0) for n in (3, 4, 5)]
    assert search_of("grid", (), 0).propose(0) == {}
    with pytest.raises(UsageError, match=r"a grid needs the values of lr, and lr=0\.1\.\.1\.0 is a range"):
        search_of("grid", axes_of(["lr=0.1..1"]), 0)


def test_random_settings_differ_lie_within_and_do_not_depend_on_how_many():
    axes = axes_of(["lr=1e-4..1", "batch_size=1..4", "optimizer=sgd,adam", "momentum=0..0.9"])
    many, few = (search_of(f"random:{n}", axes, 7) for n in (400, 5))
    found = [many.propose(number) for number in range(400)]
    assert found[:5] == [few.propose(number) for number in range(5)]
    assert len({told(settings) for settings in found}) == 400
    assert [search_of("random:5", axes, 8).propose(0)] != found[:1]
    rates = np.log10([settings["lr"] for settings in found])
    assert -4 <= rates.min() <= rates.max() <= 0
    # By the logarithm each power of ten has a quarter of 400: 100 ± 8.7 by the binomial deviation, five of them here.
    assert all(abs(count - 100) < 44 for count in np.histogram(rates, 4, (-4, 0))[0])
    assert all(type(settings["batch_size"]) is int for settings in found)
    counts = np.bincount([settings["batch_size"] for settings in found], minlength=5)
    assert counts[0] == 0
    assert all(abs(count - 100) < 44 for count in counts[1:])  # 4 < 10 × 1: evenly, by the number itself
    momenta = [settings["momentum"] for settings in found]
    assert abs(np.mean(momenta) - 0.45) < 5 * 0.9 / math.sqrt(12 * 400)


def test_more_settings_than_there_are_is_refused():
    with pytest.raises(UsageError, match="no 9 different settings to draw, but 4"):
        search_of("random:9", axes_of(["lr=1,2", "epochs=3,4"]), 0)


@pytest.mark.parametrize("kind", ["grid:3", "random", "random:0", "optuna", "optuna:x", "bayes:3", ""])
def test_another_search_is_refused(kind):
    with pytest.raises(UsageError, match="--search is grid, random:N or optuna:N"):
        search_of(kind, axes_of(["lr=1,2"]), 0)


def test_a_search_of_nothing_is_refused():
    with pytest.raises(UsageError, match="nothing to choose from"):
        search_of("random:3", (), 0)


def test_optuna_learns_where_the_best_is():
    axes = axes_of(["lr=1e-4..1", "batch_size=1..64", "optimizer=sgd,adam"])
    search = search_of("optuna:60", axes, 3)
    assert isinstance(search, Optuna)
    found = []
    for number in range(search.count):
        settings = search.propose(number)
        assert settings["optimizer"] in ("sgd", "adam")
        assert type(settings["batch_size"]) is int
        found.append(math.log10(settings["lr"]))
        search.learn(number, settings, -abs(found[-1] + 2))  # best at 0.01
    early, late = np.abs(np.array(found[:15]) + 2), np.abs(np.array(found[-15:]) + 2)
    assert np.median(late) < np.median(early)


def test_optuna_takes_over_what_was_tried_before():
    axes = axes_of(["lr=1e-4..1", "optimizer=sgd,adam"])
    search = search_of("optuna:40", axes, 3)
    for number, exponent in enumerate(np.linspace(-4, 0, 30)):
        search.learn(number, {"lr": 10.0**exponent, "optimizer": "adam"}, -abs(exponent + 3))
    search.learn(30, {"lr": 0.5, "optimizer": "sgd"}, None)  # it failed
    proposed = [math.log10(search.propose(number)["lr"]) for number in range(31, 40)]
    assert abs(np.median(proposed) + 3) < 1


def test_a_listed_search_learns_nothing():
    search = Listed([{"lr": 1.0}])
    search.learn(0, {"lr": 1.0}, 0.5)
    assert search.propose(0) == {"lr": 1.0}


def test_listed_settings_are_all_that_is_tried():
    texts = list_of([{"lr": 0.1, "layers": (4, 3)}, {"lr": 0.2, "layers": (4, 3)}])
    assert texts == ("lr=0.1 layers=4-3", "lr=0.2 layers=4-3")
    assert [settings_of(text) for text in texts] == [{"lr": lr, "layers": (4, 3)} for lr in (0.1, 0.2)]
    assert axes_of_listed(texts) == axes_of({"lr": [0.1, 0.2], "layers": [(4, 3)]})


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ([{"lr": 0.1}, {"epochs": 3}], "all the same fields"),
        ([{"lr": 0.1}, {"lr": 0.1}], "listed twice"),
        ([{"lr": (0.1,)}], "lr takes numbers, not"),
        ([{"seed": 1}], "give --seeds N"),
    ],
)
def test_settings_that_cannot_be_listed_are_refused(listed, says):
    with pytest.raises(UsageError, match=says):
        list_of(listed)
