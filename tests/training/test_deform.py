"""Training on deformed images: what fit and a recipe take, what they refuse, and a run that goes on bitwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpubp
from gpubp import Deform
from gpubp.backends import get
from gpubp.errors import UsageError
from gpubp.experiments.recipe import Recipe, load_recipe
from gpubp.experiments.run import run_recipe
from gpubp.network import Network
from tests.conftest import BACKENDS, PLANS, backend_by_name

DEFORM = Deform(alpha=15, sigma=3, rotation=20, scaling=0.1, rotation_by_class={1: 5})
RECIPE = {"data": "mnist-sample", "layers": (784, 8, 10), "epochs": 1}


@pytest.fixture
def problem(rng):
    """Images of bars, upright or lying, and their labels."""
    labels = rng.integers(0, 2, 150)
    images = np.zeros((150, 9, 8), np.uint8)
    for image, label in zip(images, labels, strict=True):
        (image.T if label else image)[rng.integers(1, 7)] = rng.integers(100, 256)
    return Network([72, 12, 2], seed=1), images, labels


def weights(network):
    return [w.tobytes() for pair in network.parameters for w in pair]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_step_deforms_anew_and_every_step_is_verified(problem, backend):
    network, images, labels = problem
    options = {"batch_size": 32, "epochs": 4, "backend": backend_by_name(backend), "verify": "step"}
    history = gpubp.fit(network, images, labels, deform=DEFORM, **options)
    assert history.verification.ok
    assert history.verification.steps == 20
    assert f"deformed images: {DEFORM}" in history.plan
    whole = weights(network)
    for other in (None, Deform(alpha=15, sigma=3)):
        network = Network([72, 12, 2], seed=1)
        gpubp.fit(network, images, labels, deform=other, **options | {"verify": "off"})
        assert weights(network) != whole


@pytest.mark.parametrize("name", PLANS[1:])
def test_backends_and_plans_train_on_the_same_images(problem, name):
    _, images, labels = problem
    trained = []
    for backend in (get("numpy"), backend_by_name(name), get("numba", threads=1)):
        network = Network([72, 12, 2], seed=1, dtype="float64")
        gpubp.fit(
            network, images, labels, deform=DEFORM, batch_size=40, epochs=3, backend=backend, verify="off"
        )
        trained.append(network.parameters[0][0])
    for other in trained[1:]:
        np.testing.assert_allclose(other, trained[0], rtol=1e-9, atol=1e-12)


def test_a_run_goes_on_bitwise_and_only_with_the_same_deformation(problem, tmp_path):
    _, images, labels = problem
    networks = [Network([72, 12, 2], seed=1) for _ in range(2)]
    options = {"deform": DEFORM, "batch_size": 40, "backend": "numpy"}
    path = tmp_path / "checkpoint.npz"
    gpubp.fit(networks[0], images, labels, epochs=4, **options)
    gpubp.fit(networks[1], images, labels, epochs=2, save_to=path, **options)
    for other in (None, Deform(alpha=16, sigma=3), Deform(alpha=15, sigma=3, rotation=20, scaling=0.1)):
        with pytest.raises(UsageError, match="cannot be resumed here: its deform is"):
            gpubp.fit(networks[1], images, labels, epochs=4, resume=path, **options | {"deform": other})
    gpubp.fit(networks[1], images, labels, epochs=4, resume=path, **options)
    assert weights(networks[0]) == weights(networks[1])


def test_rows_of_pixels_need_a_network_that_knows_their_shape(problem):
    network, images, labels = problem
    rows = images.reshape(150, 72)
    with pytest.raises(UsageError, match=r"shape is not known: give inputs of shape \(N, height, width\)"):
        gpubp.fit(network, rows, labels, deform=DEFORM, epochs=1)
    gpubp.fit(network, images, labels, epochs=1)
    assert "deformed" in gpubp.fit(network, rows, labels, deform=DEFORM, epochs=1).plan


def test_what_cannot_be_deformed_is_refused(problem):
    network, images, labels = problem
    with pytest.raises(UsageError, match="only images of bytes are deformed"):
        gpubp.fit(network, images / 255, labels, deform=DEFORM)
    with pytest.raises(UsageError, match=r"deform must be gpubp.Deform\(…\), not 34"):
        gpubp.fit(network, images, labels, deform=34)
    values = Network([72, 3], output="identity")
    how = {"loss": "quadratic", "epochs": 1}
    with pytest.raises(UsageError, match="rotation_by_class goes by class labels"):
        gpubp.fit(values, images, np.random.default_rng(0).random((150, 3)), deform=DEFORM, **how)
    gpubp.fit(values, images, np.random.default_rng(0).random((150, 3)), deform=Deform(rotation=10), **how)
    with pytest.raises(UsageError, match="standardize"):
        Recipe(**RECIPE, deform=DEFORM, standardize=True)


def test_a_recipe_of_rows_of_pixels_deforms_them():
    result = run_recipe(Recipe(**RECIPE, deform=DEFORM), backend="numpy")
    assert f"deformed images: {DEFORM}" in result.histories[0].plan
    assert result.histories[0].verification.ok
    plain = run_recipe(Recipe(**RECIPE), backend="numpy")
    assert weights(plain.network) != weights(result.network)
    changed = Recipe(**RECIPE, deform=DEFORM).overridden({"deform": {"alpha": 20.0, "rotation": 0.0}})
    assert changed.deform == Deform(alpha=20, sigma=3, scaling=0.1, rotation_by_class={1: 5})


def test_classes_that_there_are_not_are_refused(problem):
    net, x, y = problem
    beyond = net.sizes[-1]
    with pytest.raises(
        gpubp.UsageError, match=f"names class {beyond}, and there are the classes 0 to {beyond - 1}"
    ):
        gpubp.fit(
            net, x, y, deform=gpubp.Deform(rotation_by_class={0: 3, beyond: 5}), epochs=1, backend="numpy"
        )


def test_classes_that_are_called_otherwise_than_by_their_numbers_are_refused(tmp_path):
    """Where 7 could be the class called so, or the eighth."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 256, (60, 16)), rng.choice([1, 7, 8], 60)])
    np.savetxt(tmp_path / "three.csv", rows, "%d", ",")
    recipe = Recipe(data=str(tmp_path / "three.csv"), pixels=True, layers=(16, 8, 3), epochs=1)
    run_recipe(recipe.overridden({"deform": {"rotation": 30.0}}), backend="numpy", quiet=True)
    with pytest.raises(gpubp.UsageError, match="0 is 1, 1 is 7, 2 is 8"):
        run_recipe(recipe.overridden({"deform": {"rotation_by_class": {7: 30}}}), backend="numpy", quiet=True)


def test_classes_of_other_data_are_left_out_with_a_word():
    with pytest.warns(UserWarning, match="rotation_by_class told of classes of its own data"):
        changed = load_recipe("mnist-simard").overridden({"data": "fashion-mnist"})
    assert changed.deform == replace(load_recipe("mnist-simard").deform, rotation_by_class=())
