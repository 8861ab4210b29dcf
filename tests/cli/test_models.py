"""gpubp export, and gpubp predict with models and predictions in files of several kinds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import gpubp
from gpubp.cli.export import ENDINGS
from gpubp.data.inputs import Inputs
from gpubp.network import Network
from tests.networks import assert_same


@pytest.fixture
def net(run):
    """A network, saved in m.npz beside its checkpoint, its inputs x.npy and two that it cannot take."""
    net, test = Network([64, 12, 10], seed=1), gpubp.load_data("digits").test
    gpubp.fit(net, test.inputs, test.targets, epochs=1, backend="numpy", save_to="run/checkpoint.npz")
    net.save("m.npz")
    np.save("x.npy", test.inputs)
    np.save("narrow.npy", np.zeros((3, 5)))
    bad = np.zeros((6000, 64))
    bad[5000, 1] = np.nan
    np.save("bad.npy", bad)
    return net


def test_export_writes_every_kind_and_reads_back_what_gpubp_reads(ok, net):
    assert ok("export", "m.npz", "m.safetensors") == f"{net!r} written to m.safetensors\n"
    ok("export", "m.safetensors", "n.npz")
    assert_same(gpubp.load("m.safetensors"), net)
    assert_same(gpubp.load("n.npz"), net)
    out = ok("export", "m.npz", "m.onnx")
    assert out.endswith("m.onnx; it takes float32 rows of 64\n")
    for kind in ("bytes", "unknown"):
        net.inputs = Inputs(kind)
        net.save("images.npz")
        assert "must be divided by 255 first; --bytes" in ok("export", "images.npz", "i.onnx")
    assert ok("export", "images.npz", "b.onnx", "--bytes").endswith("b.onnx; it takes uint8 rows of 64\n")
    net.inputs = Inputs("numbers")
    x = np.load("x.npy")
    assert [int(line) for line in ok("predict", "m.safetensors", "x.npy").split()] == net.predict(x).tolist()
    got = onnxruntime.InferenceSession("m.onnx").run(None, {"inputs": x.astype(np.float32)})[0]
    np.testing.assert_allclose(got, net.forward(x), atol=1e-5)
    assert onnxruntime.InferenceSession("b.onnx").get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("m.npz", "m.pt"), 2, f"m.pt: export writes {ENDINGS}"),
        (("m.npz", "m.safetensors", "--bytes"), 2, "(--bytes) are for ONNX"),
        (("m.npz", "m.onnx", "--bytes"), 2, "learned from numbers as they are"),
        (("absent.npz", "m.onnx"), 5, "there is no file absent.npz"),
        (("absent.safetensors", "m.onnx"), 5, "there is no file absent.safetensors"),
        (("x.npy", "m.onnx"), 5, "x.npy is not a gpubp model"),
        (("run/checkpoint.npz", "m.onnx"), 5, "run/checkpoint.npz is a checkpoint"),
        (("m.npz", "x.npy/m.onnx"), 1, "cannot write x.npy/m.onnx"),
        (("m.npz", "/proc/no/m.safetensors"), 1, "cannot write /proc/no/m.safetensors"),
    ],
)
@pytest.mark.usefixtures("net")
def test_export_refuses_with_one_line_and_writes_nothing(run, args, code, says):
    before = sorted(Path().rglob("*"))
    got, out, err = run("export", *args)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_predictions_go_to_a_file_instead(ok, net):
    x = np.load("x.npy")
    out = ok("predict", "m.npz", "x.npy", "--out", "p.npy", "--json", "p.json")
    assert out == f"{len(x)} predictions written to p.npy\n"
    np.testing.assert_array_equal(np.load("p.npy"), net.predict(x))
    assert json.loads(Path("p.json").read_text())["predictions"] == net.predict(x).tolist()
    ok("predict", "m.npz", "x.npy", "--proba", "--out", "p.csv")
    header, *rows = csv.reader(Path("p.csv").read_text().splitlines())
    assert header == [str(i) for i in range(10)]
    np.testing.assert_array_equal(np.array(rows).astype(np.float32), net.forward(x))


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("m.npz", "x.npy", "--out", "p.txt"), 2, "p.txt: predictions are written as .npy or .csv"),
        (("m.npz", "x.npy", "--out", "x.npy/p.npy"), 1, "cannot write x.npy/p.npy"),
        (("m.npz", "narrow.npy", "--out", "p.npy"), 5, "narrow.npy: inputs have shape (3, 5), but this"),
        (("m.npz", "bad.npy", "--out", "p.npy"), 5, "bad.npy: the input in row 5000, column 1 is nan"),
    ],
)
@pytest.mark.usefixtures("net")
def test_predictions_that_cannot_be_made_leave_no_file(run, args, code, says):
    before = sorted(Path().rglob("*"))
    got, out, err = run("predict", *args)
    assert (got, out) == (code, "")
    assert says in err
    assert sorted(Path().rglob("*")) == before


def test_rows_before_a_bad_one_are_predicted(run, net):
    code, out, err = run("predict", "m.npz", "bad.npy")
    assert (code, "row 5000" in err) == (5, True)
    assert len(out.splitlines()) == net.chunk() == 4096


def test_classes_that_are_words_are_named_in_the_header(ok):
    net = Network([2, 3])
    net.classes = ("setosa", "with, comma", "übrig")
    net.save("m.npz")
    Path("x.csv").write_text("a,b\n1,2\n3,4\n")
    ok("predict", "m.npz", "x.csv", "--proba", "--out", "p.csv")
    assert next(csv.reader(Path("p.csv").read_text(encoding="utf-8").splitlines())) == list(net.classes)
    ok("predict", "m.npz", "x.csv", "--out", "p.npy")
    assert np.load("p.npy").tolist() == net.predict([[1, 2], [3, 4]]).tolist()
