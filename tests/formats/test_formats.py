"""Models as safetensors and as ONNX, and what happens to files that are neither."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib import import_module

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

import gpubp
from gpubp import formats
from gpubp.data.inputs import Inputs, Scaling
from gpubp.data.samples import byte_table
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.formats import npz
from gpubp.formats import onnx as onnx_format
from gpubp.model import CLASSES, LOGITS, UNKNOWN, VALUES, Meaning
from gpubp.network import Network
from tests.networks import DTYPES, assert_same, bounded_outputs, spread, within

READ = [ending for ending, module in formats.FORMATS.items() if hasattr(import_module(module), "load")]


@pytest.mark.parametrize("ending", READ)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [None, (), ("über", "b"), (3, 7)])
def test_a_format_that_is_read_keeps_every_bit(tmp_path, ending, dtype, classes):
    net = Network([4, 6, 5, 2], hidden=["lecun_tanh", "leaky_relu"], init="normal", dtype=dtype, seed=3)
    net.parameters[0] = (np.asfortranarray(net.parameters[0][0]), net.parameters[0][1])
    net.parameters[1][1][:3] = -0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    net.classes = classes
    scaling = Scaling(np.array([0.1, 1 / 3, -1e-300, 1e300]), np.array([1e-9, 1.0, 2 / 3, 7.0]))
    net.inputs = Inputs("bytes", ("größe", "b", "", "d"), (2, 2), 1 / 3, scaling)
    path = tmp_path / f"m{ending}"
    net.save(path)
    loaded = gpubp.load(path)
    assert_same(loaded, net)
    assert (loaded.inputs, loaded.meaning) == (net.inputs, net.meaning)
    assert all(a.flags.writeable and a.flags.aligned for pair in loaded.parameters for a in pair)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["m.pt", "m.h5", "m.keras", "m.NPY", "m.npz.gz", "of.npz/m.pkl"])
def test_an_ending_that_is_no_formats_is_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(UsageError, match=r"m\.\S+: no format ends in \.\w+; there are \.onnx, .*\.npz"):
        Network([2, 2]).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_names_without_an_ending_and_checkpoints_are_npz_whatever_they_are_called(tmp_path):
    net = Network([2, 2])
    for name in ("model", "M.NPZ"):
        net.save(tmp_path / name)
        assert_same(gpubp.load(tmp_path / name), net)
    gpubp.fit(net, np.eye(2), [0, 1], epochs=1, backend="numpy", save_to=tmp_path / "c.pt")
    (tmp_path / "model").rename(tmp_path / "model.h5")
    assert gpubp.load(tmp_path / "c.pt").sizes == gpubp.load(tmp_path / "model.h5").sizes == [2, 2]


@pytest.mark.parametrize("ending", READ)
@pytest.mark.parametrize("meaning", [UNKNOWN, VALUES, CLASSES, LOGITS, Meaning("logits", ("a", "b"))])
def test_what_outputs_mean_is_kept(tmp_path, ending, meaning):
    net = Network([4, 2], output="identity")
    net.meaning = meaning
    net.save(tmp_path / f"m{ending}")
    assert gpubp.load(tmp_path / f"m{ending}").meaning == meaning


@pytest.mark.parametrize("ending", READ)
def test_a_truncated_file_is_refused_at_every_length(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    Network([2, 2]).save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"m{ending}"):
            gpubp.load(path)


@pytest.mark.parametrize("ending", READ)
def test_what_is_no_file_of_the_format_is_refused(tmp_path, ending):
    (tmp_path / f"folder{ending}").mkdir()
    for other in READ:
        Network([4, 3]).save(tmp_path / f"other{other}")
        (tmp_path / f"other{other}").rename(tmp_path / f"{other[1:]}{ending}")
    np.savez(tmp_path / "data.npz", X=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", header=np.array([None, 1], dtype=object))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / f"text{ending}").write_text("hello")
    names = ("absent", "folder", "text", *(other[1:] for other in READ if other != ending))
    for name in ("data.npz", "pickled.npz", "array.npy", *(name + ending for name in names)):
        with pytest.raises(DataError, match=name):
            gpubp.load(tmp_path / name)


def test_an_npz_with_a_changed_bit_is_refused(tmp_path):
    path, net = tmp_path / "m.npz", Network([4, 5, 3])
    net.save(path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(net.parameters[0][0].tobytes())] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="corrupt"):
        gpubp.load(path)


HEADER = npz.network_header(Network([4, 3]))
SCALED = {"kind": "numbers", "names": [], "shape": [], "size": 0.0, "shift": [0.0] * 4, "scale": [1.0] * 4}


@pytest.mark.parametrize("ending", READ)
@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"network": {"sizes": [4, 3]}}, "describes no network"),
        ({"network": HEADER, "format": npz.FORMAT + 1}, "newer gpubp"),
        *(({"network": HEADER, "format": version}, "its format is") for version in ("1", None, [1])),
        ({"network": {**HEADER, "dtype": "float64"}}, "W1 is missing or not a float64"),
        (
            {"network": {**HEADER, "inputs": {"kind": "images", "names": [], "shape": [], "size": 0.0}}},
            "describes no network .its inputs are",
        ),
        (
            {"network": {**HEADER, "inputs": {"kind": "bytes", "names": ["a"], "shape": [], "size": 0.0}}},
            "describes no network .its inputs are",
        ),
        ({"network": {**HEADER, "inputs": {}}}, "describes no network"),
        ({"network": {**HEADER, "inputs": SCALED | {"shift": [0.0]}}}, "scaling is of other columns"),
        ({"network": {**HEADER, "inputs": SCALED | {"scale": ["a"] * 4}}}, "describes no network"),
        ({"network": {**HEADER, "sizes": [5, 3]}}, r"W1 is .* of shape \(3, 5\)"),
    ],
)
def test_headers_that_are_wrong_are_refused(tmp_path, ending, header, says):
    path, tensors = tmp_path / f"m{ending}", npz.network_arrays(Network([4, 3]))
    text = json.dumps({"format": npz.FORMAT, **header})
    if ending == ".npz":
        npz.write(path, header, tensors)
    else:
        safetensors.numpy.save_file(tensors, path, metadata={"gpubp": text})
    with pytest.raises(DataError, match=rf"m\{ending}.*{says}"):
        gpubp.load(path)


@pytest.mark.parametrize("ending", formats.FORMATS)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, ending):
    path = tmp_path / f"m{ending}"
    Network([4, 3], seed=1).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(GpubpError, match=f"cannot write .*m{ending}: No space left"):
        Network([4, 3], seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_are_what_other_readers_find_them_to_be(tmp_path):
    net = Network([4, 3, 2], seed=1)
    net.save(tmp_path / "m.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert sorted(tensors) == ["W1", "W2", "b1", "b2"]
    np.testing.assert_array_equal(tensors["W2"], net.parameters[1][0])
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["gpubp"])["network"]["sizes"] == [4, 3, 2]


def test_safetensors_of_others_say_what_is_missing(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({f"layer{i}": np.zeros(3) for i in range(8)}, path)
    with pytest.raises(DataError, match=r"tensors \(layer0, .*layer5, …\) but no metadata 'gpubp'.*Network"):
        gpubp.load(path)


@pytest.mark.parametrize(("header", "says"), [("no JSON", "corrupt"), ("[1]", "describes no network")])
def test_safetensors_whose_metadata_is_no_header_are_refused(tmp_path, header, says):
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"W1": np.zeros(3)}, path, metadata={"gpubp": header})
    with pytest.raises(DataError, match=rf"m\.safetensors.*{says}"):
        gpubp.load(path)


def test_a_missing_extra_is_one_line_that_names_it(tmp_path, monkeypatch):
    net = Network([4, 3])
    net.save(tmp_path / "m.safetensors")
    for module in ("safetensors", "safetensors.numpy", "onnx", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "gpubp.formats.torch", raising=False)  # of another test
    for name in ("to_torch", "from_torch"):
        monkeypatch.delitem(vars(gpubp), name, raising=False)
    for call, extra in (
        (lambda: net.save(tmp_path / "n.safetensors"), "export"),
        (lambda: gpubp.load(tmp_path / "m.safetensors"), "export"),
        (lambda: net.to_onnx(tmp_path / "n.onnx"), "export"),
        (net.to_torch, "torch"),
        (lambda: Network.from_torch(None), "torch"),
    ):
        with pytest.raises(GpubpError, match=rf'^\w+ .*: python -m pip install "gpubp\[{extra}\]"$') as error:
            call()
        assert error.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def run_onnx(path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["outputs"], {"inputs": x})
    return outputs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", onnx_format._STEPS)
@pytest.mark.parametrize("hidden", [(), (17,), (40, 33), (9, 64, 5, 12)])
def test_onnxruntime_keeps_to_the_bound(tmp_path, dtype, activation, hidden, rng):
    path = tmp_path / "m.onnx"
    for output in {activation, "softmax"}:
        net = Network([23, *hidden, 6], hidden=activation, output=output, dtype=dtype, seed=4)
        spread(net, rng).to_onnx(path)
        for x in (rng.standard_normal((50, 23)), 20 * rng.standard_normal((1, 23)), np.zeros((3, 23))):
            x = x.astype(dtype)
            got = run_onnx(path, x)
            assert got.dtype == dtype
            assert within(got, bounded_outputs(net, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", onnx_format._STEPS)
def test_onnxruntime_keeps_to_the_bound_far_into_the_tails(tmp_path, dtype, activation):
    net = Network([1, 2], output=activation, dtype=dtype)
    net.parameters = [(np.array([[1], [0]], dtype), np.zeros(2, dtype))]
    net.to_onnx(tmp_path / "m.onnx")
    edge = np.log(np.finfo(dtype).max)
    x = np.concatenate([np.linspace(-1.5 * edge, 1.5 * edge, 9001), np.geomspace(1e-30, 1, 500)])
    x = x.astype(dtype)[:, None]
    got = run_onnx(tmp_path / "m.onnx", x)
    assert within(got, bounded_outputs(net, x))


def test_the_bound_would_notice_onnxs_own_sigmoid(tmp_path):
    """Why 1 / (1 + e⁻ᶻ) is written out: the operator is off in the tail. If this fails, it has become exact."""
    net = Network([1, 1], output="sigmoid")
    net.parameters = [(np.ones((1, 1), np.float32), np.zeros(1, np.float32))]
    model = onnx_format.build(net)
    del model.graph.node[1:]
    model.graph.node.append(onnx.helper.make_node("Sigmoid", [model.graph.node[0].output[0]], ["outputs"]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    x = np.linspace(-20, 0, 500, dtype=np.float32)[:, None]
    assert not within(run_onnx(tmp_path / "m.onnx", x), bounded_outputs(net, x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_scaled_to_the_very_bits_of_the_table(tmp_path, dtype, rng):
    net = Network([1, 1], output="identity", dtype=dtype)
    net.parameters = [(np.ones((1, 1), dtype), np.zeros(1, dtype))]
    net.to_onnx(tmp_path / "m.onnx", byte_inputs=True)
    got = run_onnx(tmp_path / "m.onnx", np.arange(256, dtype=np.uint8)[:, None])
    np.testing.assert_array_equal(got[:, 0], byte_table(dtype))
    deep, x = Network([23, 17, 6], dtype=dtype), rng.integers(0, 256, (50, 23), np.uint8)
    deep.to_onnx(tmp_path / "m.onnx", byte_inputs=True)
    assert within(run_onnx(tmp_path / "m.onnx", x), bounded_outputs(deep, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_inputs_are_scaled_in_the_graph(tmp_path, dtype, as_bytes, rng):
    net = Network([23, 17, 6], dtype=dtype)
    x = (
        rng.integers(0, 256, (50, 23), np.uint8)
        if as_bytes
        else (rng.standard_normal((50, 23)) + 1e5).astype(dtype)
    )
    net.inputs = Inputs("bytes" if as_bytes else "numbers", scaling=Scaling.of(x))
    net.to_onnx(tmp_path / "m.onnx", byte_inputs=as_bytes)
    assert within(run_onnx(tmp_path / "m.onnx", x), bounded_outputs(net, net.inputs.scaled(x).astype(dtype)))


@pytest.mark.parametrize(
    ("dtype", "far", "said"), [("float32", 1.7e9, True), ("float64", 1.7e9, False), ("float32", 9.0, False)]
)
def test_a_column_that_float32_cannot_hold_is_said(tmp_path, dtype, far, said, rng):
    net = Network([2, 2], dtype=dtype)
    net.inputs = Inputs("numbers", scaling=Scaling.of(rng.standard_normal((50, 2)) + far))
    with pytest.warns(UserWarning, match="so far from 0 that float32") if said else nullcontext():
        net.to_onnx(tmp_path / "m.onnx")


def test_what_an_onnx_file_says_of_itself(tmp_path):
    net = Network([5, 4, 3], hidden="sigmoid", seed=0)
    net.classes = ("a", "b", "c")
    net.to_onnx(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    assert model.producer_name == "gpubp"
    assert [n.op_type for n in model.graph.node] == ["Gemm", "Neg", "Exp", "Add", "Div", "Gemm", "Softmax"]
    assert "must be divided by 255" in model.doc_string
    metadata = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert metadata["classes"] == ["a", "b", "c"]
    assert metadata["gpubp"]["activations"] == ["sigmoid", "softmax"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [i.shape for i in session.get_inputs()] == [["N", 5]]
    assert [o.shape for o in session.get_outputs()] == [["N", 3]]


def test_a_network_too_large_for_onnx_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "LARGEST", 50)
    with pytest.raises(GpubpError, match="at most 2 GB"):
        Network([4, 3]).to_onnx(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_activation_that_onnx_has_no_operators_for_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(onnx_format._STEPS, "tanh")
    with pytest.raises(UsageError, match="to_onnx has no operators for the activation 'tanh'"):
        Network([4, 5, 3], hidden="tanh").to_onnx(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_save_writes_the_format_that_the_name_says(tmp_path):
    net = Network([4, 3])
    net.save(tmp_path / "m.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match=r"m\.onnx is for other programs to read; gpubp reads"):
        gpubp.load(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"byte inputs .* are for ONNX"):
        gpubp.save(net, tmp_path / "m.npz", byte_inputs=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
