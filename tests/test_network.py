"""Networks: construction, initialisation, prediction, files."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

import gpubp
from gpubp.data.inputs import Inputs, Scaling
from gpubp.errors import DataError, UsageError
from gpubp.network import INITIALISERS, Network


@pytest.mark.parametrize("init", INITIALISERS)
def test_one_seed_is_one_network_in_both_precisions(init):
    a, b = (Network([30, 20, 5], init=init, seed=7, dtype=d) for d in ("float64", "float32"))
    c = Network([30, 20, 5], init=init, seed=8)
    for (wa, ba), (wb, bb), (wc, _) in zip(a.parameters, b.parameters, c.parameters, strict=True):
        np.testing.assert_array_equal(wa.astype(np.float32), wb)
        np.testing.assert_array_equal(ba.astype(np.float32), bb)
        assert (wb != wc).any()


@pytest.mark.parametrize(
    ("init", "variance"),
    [("normal", 1), ("normal_1_over_n", 400**-2), ("glorot", 2 / 700), ("he", 2 / 400), ("lecun", 1 / 400)],
)
def test_initialisations_have_their_variance(init, variance):
    w, b = Network([400, 300], init=init, dtype="float64").parameters[0]
    # 120,000 draws: the sample variance is within 1/√120000 · √2 ≈ 0.4% of its mean; allow five times that.
    assert w.var() == pytest.approx(variance, rel=0.02)
    assert b.any() == (init == "normal")


def test_auto_suits_the_activation():
    auto = Network([9, 8, 7, 6], hidden=["relu", "lecun_tanh"], output="softmax", seed=3)
    names = ["he", "lecun", "glorot"]
    rng = np.random.default_rng(3)
    for (w, _), layer, name in zip(auto.parameters, auto.layers, names, strict=True):
        np.testing.assert_array_equal(w, INITIALISERS[name](rng, layer).astype(np.float32))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Network([5]), "two or more"),
        (lambda: Network([5, 0, 2]), "positive"),
        (lambda: Network([5, 4, 2], hidden="rleu"), "'relu'"),
        (lambda: Network([5, 4, 2], hidden=["relu", "relu"]), "1 hidden layers but 2"),
        (lambda: Network([5, 2], output="sofmax"), "'softmax'"),
        (lambda: Network([5, 2], init="xavier"), "initialisation 'xavier'"),
        *((lambda d=d: Network([5, 2], dtype=d), "float32 or float64") for d in ("float16", "number", None)),
        *((lambda sizes=sizes: Network(sizes), "list of integers") for sizes in ("784", 784, [4, 2.7, 3])),
        *((lambda seed=seed: Network([5, 2], seed=seed), "seed must be") for seed in (-1, 0.5)),
    ],
)
def test_networks_that_cannot_be_are_refused_with_a_hint(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_predictions_and_probabilities(rng):
    net, x = Network([6, 5, 3], seed=1), rng.standard_normal((5000, 6))
    p = net.predict_proba(x)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(net.predict(x), p.argmax(axis=1))
    one = Network([6, 1], output="sigmoid")
    np.testing.assert_array_equal(one.predict(x), one.predict_proba(x)[:, 0] > 0.5)
    line = Network([6, 2], output="identity")
    np.testing.assert_array_equal(line.predict(x), line.forward(x))
    with pytest.raises(UsageError, match="softmax or sigmoid"):
        line.predict_proba(x)


def test_bytes_are_images_and_scaled(rng):
    net = Network([6, 3])
    x = rng.integers(0, 256, (10, 6)).astype(np.uint8)
    scaled = x.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(net.forward(x), net.forward(scaled))
    np.testing.assert_array_equal(net.forward(x.reshape(10, 2, 3)), net.forward(x))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([["a", "b"], ["c", "d"]], "not numbers"),
        ([[1.0, 2.0], [3.0]], "cannot be made an array"),
        (np.ones((3, 2), complex), "not numbers"),
        ([[0.0, 1.0], [np.nan, 0.0]], "row 1, column 0 is nan"),
        ([0.0, 1.0], "two dimensions"),
        ([], "two dimensions"),
        (np.empty((0, 2)), "no data"),
        (np.zeros((4, 5)), r"\(4, 5\).*2"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "forward"])
def test_inputs_that_are_no_rows_of_numbers_are_refused(method, inputs, says):
    with pytest.raises(DataError, match=says):
        getattr(Network([2, 3]), method)(inputs)


@pytest.mark.parametrize("far", [0, 1.7e9])
def test_a_network_scales_what_it_is_asked(rng, far):
    """Also a column as far from 0 as seconds since 1970, whose deviation is below what float32 tells apart there."""
    net = Network([4, 5, 3])
    x = rng.standard_normal((200, 4)) * 9 + far
    before, images = net.forward((x - x.mean(axis=0)) / x.std(axis=0)), rng.integers(0, 256, (9, 4), np.uint8)
    net.inputs = Inputs("numbers", scaling=Scaling.of(x))
    assert net.forward(x).tobytes() == before.tobytes()
    net.inputs = Inputs("bytes", scaling=Scaling.of(images))
    expected = Network([4, 5, 3]).forward(Scaling.of(images / 255).apply(images / 255))
    np.testing.assert_allclose(net.forward(images), expected, rtol=1e-6)
    np.testing.assert_array_equal(net.forward(csr_array(images)), net.forward(images))


@pytest.mark.parametrize("name", ["file/m.npz", "x" * 300, ".", "", "/"])
def test_a_path_that_cannot_be_written_is_one_clean_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(gpubp.GpubpError, match="cannot write"):
        Network([4, 3]).save(name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
