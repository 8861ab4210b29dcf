"""Ensembles: the mean of their members in every format, and what makes none."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp import Ensemble, Network
from gpubp.data.inputs import Inputs, Scaling
from gpubp.errors import DataError, UsageError
from gpubp.formats import npz
from gpubp.model import CLASSES, LOGITS, VALUES, Meaning
from tests.conftest import small_data


def members(output="softmax", n_out=4, dtype="float64", meaning=CLASSES, scaled=True):
    """Three networks of unlike widths, depths and activations, each with a scale of its own."""
    rng, found = np.random.default_rng(3), []
    for seed, (hidden, activation) in enumerate([((9,), "tanh"), ((7, 5), "relu"), ((), "relu")]):
        network = Network([12, *hidden, n_out], hidden=activation, output=output, seed=seed, dtype=dtype)
        scaling = Scaling(rng.standard_normal(12), rng.uniform(0.5, 2, 12)) if scaled else None
        network.inputs = Inputs("numbers", scaling=scaling)
        network.meaning = meaning
        found.append(network)
    return found


CASES = [
    ("softmax", 4, CLASSES),
    ("softmax", 3, Meaning("classes", ("a", "b", "c"))),
    ("sigmoid", 1, Meaning("classes", ("no", "yes"))),
    ("sigmoid", 4, CLASSES),
    ("identity", 2, VALUES),
    ("identity", 4, LOGITS),
    ("identity", 1, LOGITS),
]


@pytest.mark.parametrize(("output", "n_out", "meaning"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_the_mean_of_the_members(rng, output, n_out, meaning, dtype):
    networks = members(output, n_out, dtype, meaning)
    ensemble, x = Ensemble(networks), small_data(rng)[0]
    each = [n.predict_proba(x) if meaning.kind == "logits" else n.forward(x) for n in networks]
    # A mean of three is within a rounding of the exact one, of numbers up to the largest.
    atol = 2 * np.finfo(dtype).eps * max(np.abs(part).max() for part in each)
    assert np.allclose(ensemble.forward(x), np.mean(np.float64(each), axis=0), rtol=0, atol=atol)
    assert ensemble.forward(x).dtype == dtype
    assert ensemble.sizes == [12, 9, n_out]
    if meaning == VALUES:
        assert np.array_equal(ensemble.predict(x), ensemble.forward(x))
    else:
        place = np.argmax(ensemble.forward(x), axis=1) if n_out > 1 else ensemble.forward(x)[:, 0] > 0.5
        names = np.array(meaning.names or range(max(2, n_out)))
        assert ensemble.predict(x).tolist() == names[place.astype(int)].tolist()
        assert np.array_equal(ensemble.predict_proba(x), ensemble.forward(x))
    reversed_ = Ensemble(networks[::-1]).forward(x)
    assert np.allclose(reversed_, ensemble.forward(x), rtol=0, atol=atol)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize(("output", "n_out", "meaning"), CASES)
def test_every_bit_survives_a_file(rng, tmp_path, ending, output, n_out, meaning):
    ensemble, x = Ensemble(members(output, n_out, "float32", meaning)), small_data(rng)[0]
    ensemble.save(tmp_path / f"m{ending}")
    loaded = gpubp.load(tmp_path / f"m{ending}")
    assert isinstance(loaded, Ensemble)
    assert repr(loaded) == repr(ensemble)
    assert (loaded.meaning, loaded.inputs.kind) == (ensemble.meaning, "numbers")
    assert np.array_equal(loaded.forward(x), ensemble.forward(x))
    assert np.array_equal(loaded.predict(x), ensemble.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("output", "n_out", "meaning"), CASES)
def test_onnx_computes_the_same(rng, tmp_path, output, n_out, meaning, dtype):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    ensemble, x = Ensemble(members(output, n_out, dtype, meaning)), small_data(rng)[0].astype(dtype)
    ensemble.to_onnx(tmp_path / "m.onnx")
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"inputs": x})
    expected = ensemble.forward(x)
    unit = np.finfo(dtype).eps
    # Each member's outputs are within a few hundred roundings of theirs: at most three layers of twelve products.
    assert np.allclose(found, expected, rtol=300 * unit, atol=300 * unit * max(1, np.abs(expected).max()))


def test_images_as_bytes_are_scaled_once(rng, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    networks = members(dtype="float32", scaled=False)
    for network in networks:
        network.inputs = Inputs("bytes")
    ensemble, x = Ensemble(networks), rng.integers(0, 256, (9, 12), dtype=np.uint8)
    assert np.allclose(ensemble.forward(x), np.mean([n.forward(x) for n in networks], axis=0), atol=1e-6)
    ensemble.to_onnx(tmp_path / "m.onnx", byte_inputs=True)
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"inputs": x})[0], ensemble.forward(x), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n: n[:1], "2 members or more, not 1"),
        (lambda n: [n[0], Network([11, 4])], "differ in inputs: 12 and 11"),
        (lambda n: [n[0], Network([12, 3])], "differ in outputs: 4 and 3"),
        (lambda n: [n[0], Network([12, 4], dtype="float32")], "differ in dtype: float64 and float32"),
        (
            lambda n: [n[0], members("softmax", meaning=Meaning("classes", tuple("abcd")))[1]],
            "what the outputs mean",
        ),
        (lambda n: [n[0], members("identity")[1]], "whether outputs are probabilities: True and False"),
    ],
)
def test_what_makes_no_ensemble_is_refused(change, says):
    with pytest.raises(UsageError, match=says):
        Ensemble(change(members()))


def test_a_file_whose_networks_make_none_is_refused(tmp_path):
    ensemble = Ensemble(members())
    header, arrays = npz.model_header(ensemble), npz.model_arrays(ensemble)
    header["networks"] = header["networks"][:1]
    npz.write(tmp_path / "one.npz", header, arrays)
    with pytest.raises(DataError, match="its networks make no ensemble: an ensemble has 2 members"):
        gpubp.load(tmp_path / "one.npz")
    header = npz.model_header(ensemble)
    del arrays["2.W1"]
    npz.write(tmp_path / "gap.npz", header, arrays)
    with pytest.raises(DataError, match="W1 is missing"):
        gpubp.load(tmp_path / "gap.npz")
