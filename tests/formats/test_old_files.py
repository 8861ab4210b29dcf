"""Files that versions before this one wrote, in ``old/``, are read and mean what they meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.errors import DataError

OLD = Path(__file__).with_name("old")


def assert_alike(ours, theirs, rtol) -> None:
    for pair, other in zip(gpubp.load(ours).parameters, gpubp.load(theirs).parameters, strict=True):
        for a, b in zip(pair, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_model_of_classes(suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net = gpubp.load(OLD / f"iris-model{suffix}")
    assert repr(net) == "Network(4-5-3: sigmoid, softmax; 43 parameters, float32)"
    assert net.classes == ("setosa", "versicolor", "virginica")
    inputs = gpubp.load_data("iris", seed=0, test_fraction=0.3).test.inputs[:2]
    expected = [[0.1560411, 0.6758396, 0.1681193], [0.1976188, 0.5360305, 0.2663506]]
    np.testing.assert_allclose(net.forward(inputs), expected, rtol=1e-5)


def test_a_model_of_values():
    net = gpubp.load(OLD / "values.npz")
    assert net.classes == ()
    np.testing.assert_allclose(net.predict([[0.0, 0.1], [0.2, 0.3]]), [[0.59166109], [0.71602661]], rtol=1e-7)


QUIETLY = ("--backend", "numpy", "--no-report", "--folder")


def test_a_checkpoint_is_gone_on_from_as_if_never_stopped(ok):
    """From its third epoch to the fifth, as five epochs at once; of another machine, so that bits may differ."""
    ok("train", "--resume", OLD / "parity-checkpoint.npz", "--epochs", 5, *QUIETLY, "resumed")
    ok("train", "parity", "--epochs", 5, *QUIETLY, "whole")
    assert_alike("resumed/model.npz", "whole/model.npz", rtol=1e-3)


def test_a_checkpoint_with_slots_a_schedule_and_the_best_epoch(ok):
    out = ok("train", "--resume", OLD / "iris-checkpoint.npz", "--epochs", 3, *QUIETLY, "resumed")
    assert "stopped" not in out


def test_a_checkpoint_of_fit():
    x = np.arange(12.0).reshape(6, 2) / 10
    y = x.sum(axis=1)
    net = gpubp.Network([2, 3, 1], output="identity", hidden="tanh", seed=0, dtype="float64")
    run = {"loss": "quadratic", "batch_size": 4, "early_stopping": 5, "schedule": gpubp.Schedule("cosine")}
    resumed = {"validation": (x, y), "resume": OLD / "values-checkpoint.npz", "backend": "numpy"}
    history = gpubp.fit(net, x, y, epochs=3, **run, **resumed)
    assert (len(history), history.resumed_epochs) == (3, 2)


def test_a_checkpoint_is_no_model(run):
    code, _, err = run("predict", OLD / "parity-checkpoint.npz", OLD / "values.npz")
    assert (code, "is a checkpoint, for --resume" in err) == (DataError.exit_code, True)


def test_a_recipe_with_its_run(ok):
    assert "on 1 thread" in ok("train", OLD / "iris-recipe.toml", "--folder", "again", "--no-report")
    inputs = gpubp.load_data("iris", seed=0, test_fraction=0.3).test.inputs
    # The old one has the scaling of its inputs in its first weights.
    ours, old = gpubp.load("again/model.npz"), gpubp.load(OLD / "iris-model.npz")
    np.testing.assert_allclose(ours.forward(inputs), old.forward(inputs), rtol=1e-3, atol=1e-5)
