"""The command line from outside: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.backends.cpu.backend import NumbaBackend
from gpubp.cli import train
from gpubp.data.idx import write_idx
from gpubp.data.inputs import Scaling
from gpubp.experiments.recipe import Recipe, load_recipe
from gpubp.formats import npz
from gpubp.kernels.cpu import compile, kept
from gpubp.training.progress import PlainProgress
from tests import ROOT
from tests.conftest import backend_by_name
from tests.faults import FAULTS, plant

QUIET = ("--backend", "numpy", "--threads", 1, "-q", "--no-report")


def test_train_reaches_and_saves_and_predicts(run, ok):
    code, out, err = run("train", "digits", "--backend", "numpy", "--threads", 1, "--json", "result.json")
    assert code == 0
    result = json.loads(Path("result.json").read_text())
    epochs = result["splits"][0]["epochs"]
    assert f"reached {result['must_reach']}" in out
    assert "verification ok" in out
    assert f"epoch {len(epochs)}/{len(epochs)}" in err
    assert re.search(r"  accuracy 0.\d+  validation loss \d.\d+  validation accuracy 0.\d+  ", err)
    assert result["recipe"]["name"] == "digits"
    assert result["backend"] == "numpy"
    assert result["test_accuracy"] >= result["must_reach"]
    assert result["reached"] is True
    assert len(epochs) == result["recipe"]["epochs"]
    assert {"loss", "accuracy", "validation_accuracy", "seconds"} <= set(epochs[0])
    assert {"device", "compile_seconds", "verification", "versions", "seed"} <= set(result)
    test = gpubp.load_data("digits").test
    np.save("inputs.npy", test.inputs[:7])
    saved = "gpubp-runs/digits-1/model.npz"
    model = gpubp.load(saved)
    labels = [int(line) for line in ok("predict", saved, "inputs.npy").split()]
    assert labels == model.predict(test.inputs[:7]).tolist()
    assert model.classes is None  # they are their numbers
    found = json.loads(ok("predict", saved, "inputs.npy", "--proba", "--json", "-"))
    assert np.allclose(np.sum(found["predictions"], axis=1), 1)


def test_every_field_of_a_recipe_is_an_option(ok):
    text = " ".join(ok("train", "--help").replace("│", " ").split())
    for field in Recipe.__dataclass_fields__:
        assert f"--{field.replace('_', '-')}" in text


def test_options_override_a_recipe(ok):
    out = ok(
        *("train", "parity", "--layers", "10-4-5-2", "--hidden", "tanh,relu", "--output", "softmax"),
        *("--loss", "cross_entropy", "--optimizer", "adam", "--epochs", 2, "--batch-size", 50),
        *("--dtype", "float64", "--schedule", "cosine", "--warmup", 0.5, "--seed", 3, "--json", "-"),
        *("--verify", "step", "--dropout", "0.1,0.25,0.5", *QUIET),
    )
    result = json.loads(out)
    assert result["device"].endswith(", 1 thread")
    recipe = result["recipe"]
    assert recipe["dropout"] == [0.1, 0.25, 0.5]
    assert recipe["layers"] == [10, 4, 5, 2]
    assert recipe["hidden"] == ["tanh", "relu"]
    assert "lr" not in recipe  # adam's own, not what sgd had
    assert result["must_reach"] is None
    assert result["splits"][0]["verification"]["steps"] == 28
    assert result["splits"][0]["epochs"][-1]["learning_rate"] < 1e-4


def test_a_standardised_model_predicts_from_raw_inputs(ok):
    found = json.loads(ok("train", "iris", "--epochs", 40, "--splits", 1, *QUIET, "--json", "-"))
    accuracy = found["test_accuracy"]
    data = gpubp.load_data("iris", seed=0)
    predicted = gpubp.load("gpubp-runs/iris-1/model.npz").predict(data.test.inputs)
    species = np.array(data.class_names)[data.test.targets]
    assert (predicted == species).mean() == pytest.approx(accuracy)
    assert accuracy > 0.8


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_classes_that_are_words_are_predicted_as_words(ok, rng, outputs):
    x = rng.standard_normal((200, 2))
    words = np.where(x[:, 0] > 0, "yes", "no")
    np.savetxt("words.csv", np.column_stack([x, words]), "%s", ",")
    np.save("x.npy", x)
    layers = ("--layers", f"2-8-{outputs}", "--output", "sigmoid", "--loss", "binary_cross_entropy")
    out = ok("train", "--data", "words.csv", *layers, "--folder", "run", *QUIET, "--json", "-")
    assert json.loads(out)["test_accuracy"] > 0.9
    assert gpubp.load("run/model.npz").classes == ("no", "yes", "output 2")[: max(outputs, 2)]
    assert np.mean(np.array(ok("predict", "run/model.npz", "x.npy").split()) == words) > 0.9


def test_letters_from_1_on_are_told_by_as_many_outputs_and_by_one_more(ok, rng):
    labels = np.tile(np.arange(1, 5, dtype=np.uint8), 50)
    images = np.zeros((200, 2, 2), np.uint8)
    images.reshape(200, 4)[np.arange(200), labels - 1] = 255
    Path("letters").mkdir()
    for part, n in (("train", 200), ("test", 40)):
        write_idx(Path(f"letters/emnist-letters-{part}-images-idx3-ubyte.gz"), images[:n])
        write_idx(Path(f"letters/emnist-letters-{part}-labels-idx1-ubyte.gz"), labels[:n])
    np.save("x.npy", images[:4].reshape(4, 4))
    for outputs, names in (
        (4, tuple("1234")),
        (5, None),
    ):  # with one output more, labels are numbers of outputs
        options = (
            "--layers",
            f"4-8-{outputs}",
            "--epochs",
            30,
            "--batch-size",
            10,
            "--folder",
            f"run{outputs}",
        )
        found = json.loads(ok("train", "--data", "letters", *options, *QUIET, "--json", "-"))
        assert found["test_accuracy"] == 1
        assert gpubp.load(f"run{outputs}/model.npz").classes == names
        assert ok("predict", f"run{outputs}/model.npz", "x.npy").split() == list("1234")


def test_seconds_are_those_of_this_run(tmp_path):
    from gpubp.experiments.run import Result
    from gpubp.training.history import Epoch, History

    epochs = [Epoch(i, 1.0, None, None, None, 0.1, seconds) for i, seconds in enumerate((100.0, 2.0, 3.0))]
    history = History(epochs=epochs, resumed_epochs=1)
    said: list[str] = []
    recipe = load_recipe("parity")
    train._conclude(Result(recipe, recipe.network(0), [history], [None], 6.0), tmp_path, said.append)
    assert any(line.startswith("training 5.00 s") for line in said)


def test_data_of_ones_own_gives_the_run_its_name(ok, rng):
    Path("mine.csv").write_text("".join(f"{a},{b},{int(a > b)}\n" for a, b in rng.random((60, 2))))
    options = ("--layers", "2-4-2", "--epochs", 1, "--backend", "numpy", "--no-report")
    for _ in range(2):
        assert ok("train", "--data", "mine.csv", *options).startswith("mine\n")
    assert sorted(os.listdir("gpubp-runs")) == ["mine-1", "mine-2"]
    named = ("--name", "first", "--title", "a try")
    assert ok("train", "--data", "mine.csv", *named, *options).startswith("first: a try\n")


@pytest.mark.parametrize("folder", ["file", "file/run", "/proc/no", "x" * 300])
def test_a_folder_that_cannot_be_written_is_told_before_training(run, monkeypatch, folder):
    monkeypatch.setattr("gpubp.experiments.run.run_recipe", lambda *_, **__: pytest.fail("it has trained"))
    Path("file").touch()
    code, _, err = run("train", "--folder", folder, "--backend", "numpy")
    assert code == 1
    assert err.startswith(f"error: cannot write into folder {folder}: ")


@pytest.mark.parametrize("path", ["absent/result.json", "file/result.json", ".", "", "x" * 300])
@pytest.mark.parametrize("command", ["train", "verify", "predict", "doctor"])
def test_json_that_cannot_be_written_is_told_before_the_work(run, monkeypatch, command, path):
    for work in ("experiments.run.run_recipe", "experiments.parts.load_parts", "cli.doctor.examine"):
        monkeypatch.setattr(f"gpubp.{work}", lambda *_, **__: pytest.fail("it has worked"))
    Path("file").touch()
    args = {"train": ("--backend", "numpy"), "predict": ("absent.npz", "absent.npy")}.get(command, ())
    code, _, err = run(command, *args, "--json", path)
    assert code == 1
    assert "cannot write" in err
    assert list(Path("gpubp-runs").glob("*")) == []


def test_json_leaves_nothing_behind_where_the_run_fails(run):
    code, _, _ = run("train", "--data", "absent.csv", "--backend", "numpy", "--json", "result.json")
    assert code == 5
    assert [str(p) for p in Path().rglob("*")] == ["gpubp-runs"]


CASES = [
    (("train", "mnist-sampel"), 2, "'mnist-sample'"),
    (("train", "--backend", "cupyy"), 2, "'cupy'"),
    (("train", "--layers", "784-x"), 2, "784-128-10"),
    (("train", "--dropout", "half"), 2, "numbers such as 0.2,0.5"),
    (("train", "--dropout", "0.1,0.2,0.3"), 2, "3 rates for 1 hidden layers"),
    (("train", "--dropout", "1.5"), 2, "from 0 up to below 1"),
    (("train", "--optimizer", "adamm"), 2, "'adamw'|'adam'"),
    (("train", "--verify", "often"), 2, "off, first, epoch, step"),
    (("train", "--epochs", "many"), 2, "--epochs"),
    (("train", "--epoch-count", "3"), 2, "--epoch"),
    (("trian",), 2, "train"),
    (("train", "--layers", "100-10"), 5, "784 columns"),
    (("train", "--data", "absent.csv"), 5, r"absent\.csv"),
    (("train", "mnist", "--data-dir", "nowhere"), 5, "nowhere"),
    (("train", "absent.toml"), 5, r"absent\.toml"),
    (("train", "--resume", "absent.npz"), 5, r"absent\.npz"),
    (("predict", "absent.npz", "x.npy"), 5, r"absent\.npz"),
    (("report", "absent"), 5, "there is no folder absent"),
    (("report",), 2, "FOLDER"),
    (("train", "--beta1", "0.9"), 2, "beta1 belongs to"),
    (("train", "--splits", "0"), 2, "splits must be"),
    (("warmup", "--dtype", "float16"), 2, "--dtype must be float32, float64 or all, not 'float16'"),
]


@pytest.mark.parametrize(("args", "code", "says"), CASES, ids=[" ".join(c[0]) for c in CASES])
def test_errors_have_one_message_and_their_exit_code(run, args, code, says):
    got, _, err = run(*args)
    assert got == code
    assert re.search(says, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("predict", "run/checkpoint.npz", "x.npy"), 5, "for --resume; give the model.npz that the run"),
        (("explain", "--model", "run/checkpoint.npz"), 5, "run/checkpoint.npz is a checkpoint"),
        (("explain", "digits", "--model", "run/model.npz"), 2, "takes 10 inputs, but digits has 64"),
        (("train", "parity", "--folder", "run"), 2, "run has a run in it"),
        (("train", "--resume", "run/checkpoint.npz"), 2, "all 1 epochs of run/checkpoint.npz are done"),
        (("train", "--resume", "run/model.npz"), 5, "run/model.npz is a model without training state"),
        (("train", "digits", "--resume", "run/checkpoint.npz", "--epochs", 2), 2, "'parity', not 'digits'"),
    ],
)
def test_what_a_run_left_is_taken_only_for_what_it_is(run, args, code, says):
    run("train", "parity", "--epochs", 1, "--folder", "run", *QUIET)
    before = Path("run/model.npz").read_bytes()
    got, _, err = run(*args)
    assert (got, err.count("\n")) == (code, 1)
    assert says in err
    assert Path("run/model.npz").read_bytes() == before


def test_a_backend_that_is_not_there_says_why_and_exits_4(run, monkeypatch):
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: "no driver; install one")
    code, _, err = run("train", "--backend", "cupy")
    assert (code, err) == (4, "error: backend 'cupy' cannot run here: no driver; install one\n")


@pytest.fixture
def faulty_backend(monkeypatch):
    faulty = plant(backend_by_name("numpy, composed"), "hidden_delta", FAULTS["hidden_delta", "dropped row"])
    monkeypatch.setattr("gpubp.backends.get", lambda name, **_: faulty)


@pytest.mark.usefixtures("faulty_backend")
@pytest.mark.parametrize(("command", "name"), [("train", "digits"), ("train", "iris"), ("verify", "digits")])
def test_a_wrong_backend_exits_3_with_the_model_saved(run, command, name):
    options = ("--folder", "run", "--no-report") if command == "train" else ()
    code, out, err = run(command, name, *options, "--json", "result.json")
    assert code == 3
    assert "FAIL" in out + err
    result = json.loads(Path("result.json").read_text())
    assert result["ok"] is False
    if command == "train":
        assert err.endswith(f"error: {result['error']}\n")
        assert "The model was saved in run/model.npz" in err
        assert ("its training state in run/checkpoint.npz" in err) == (name == "digits")
        assert os.path.exists("run/checkpoint.npz") == (name == "digits")
        assert gpubp.load("run/model.npz").sizes == list(load_recipe(name).layers)
        result = result["verification"]
    assert result["ok"] is False
    assert any("∂C/∂W1" in check["name"] and not check["ok"] for check in result["tensors"])


@pytest.mark.usefixtures("faulty_backend")
def test_a_model_saved_on_failure_predicts_from_raw_inputs(run):
    assert run("train", "iris", "--splits", 1, "--folder", "run", "--no-report")[0] == 3
    data = gpubp.load_data("iris", seed=0, test_fraction=0.3)
    model, checkpoint = gpubp.load("run/model.npz"), gpubp.load("run/checkpoint.npz")
    np.testing.assert_array_equal(model.forward(data.test.inputs), checkpoint.forward(data.test.inputs))
    np.testing.assert_array_equal(model.inputs.scaling.shift, Scaling.of(data.train.inputs).shift)
    assert model.classes == data.class_names


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_verify_reports_every_operation(ok, backend):
    out = ok("verify", "parity", "--backend", backend, "--threads", 1, "--json", "report.json")
    for operation in ("gather", "forward", "output_delta", "hidden_delta", "weight_grad", "update"):
        assert operation in out
    report = json.loads(Path("report.json").read_text())
    assert report["ok"] is True
    assert report["backend"] == backend
    assert report["device"].endswith(", 1 thread")


@pytest.mark.parametrize(
    ("backend", "threads", "says"),
    [
        ("numpy", 0, "threads must be 1 or more, not 0"),
        ("numba", -1, "threads must be 1 or more, not -1"),
        ("numba", 9999, "NUMBA_NUM_THREADS=9999 in the environment"),
    ],
)
@pytest.mark.parametrize("command", ["train", "verify"])
def test_wrong_threads_are_refused_before_anything_is_done(run, command, backend, threads, says):
    code, _, err = run(command, "parity", "--backend", backend, "--threads", threads)
    assert code == 2
    assert says in err
    assert not os.path.exists("gpubp-runs/parity-1")


def test_after_a_warm_up_training_compiles_nothing(ok, monkeypatch):
    *lines, last = ok("warmup").splitlines()
    compiled = [line.split(" s  float32 network")[1] for line in lines]
    assert compiled == [", uint8 inputs", ", float32 inputs", ", dropout and deformed images"]
    assert last == f"kept in {kept.folder()}"
    assert list(kept.folder().glob("steps-*.kernel"))
    monkeypatch.setattr(compile, "machine_code", None)
    for recipe in ("mnist-sample", "digits"):
        deformed = ("--deform-rotation", 5) if recipe == "mnist-sample" else ()
        for more in ((), ("--dropout", "0.1,0.5"), deformed):
            ok("train", recipe, "--epochs", 1, "--backend", "numba", "-q", "--no-report", *more)


def test_warmup_compiles_for_every_dtype_and_a_gpu_that_answers(ok, monkeypatch):
    class Gpu:
        def warm_up(self, dtype):
            yield f"{dtype} network on the GPU, fused plan", 1.5

    asked = []
    monkeypatch.setattr(NumbaBackend, "warm_up", lambda self, dtype: asked.append(dtype) or [])
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: None)
    monkeypatch.setattr("gpubp.backends.cuda.backend.CupyBackend", Gpu)
    out = ok("warmup", "--dtype", "all")
    assert asked == ["float32", "float64"]
    assert out.splitlines()[1:] == [
        *(f"  1.50 s  {dtype} network on the GPU, fused plan" for dtype in asked),
        "kept by CuPy, in CUPY_CACHE_DIR or ~/.cupy/kernel_cache",
    ]
    assert ok("warmup", "--quiet") == ""


def test_warmup_says_why_it_cannot(run, monkeypatch):
    monkeypatch.setattr("gpubp.backends.cpu.backend.why_unavailable", lambda: "no LLVM")
    code, _, err = run("warmup")
    assert code == 4
    assert "backend 'numba' cannot run here: no LLVM" in err


def test_doctor_lists_backends_versions_threads_and_blas(ok):
    assert "NumPy" in ok("doctor")
    found = json.loads(ok("doctor", "--json", "-"))
    assert set(found["backends"]) == {"numpy", "numba", "cupy"}
    for backend in found["backends"].values():
        assert backend["available"] == (backend["reason"] is None)
    assert found["blas"]
    assert found["numba"]["threads"] >= 1


def test_predict_reads_a_png(run, ok):
    from PIL import Image

    test, model = gpubp.load_data("mnist-sample").test, gpubp.Network([784, 10])
    model.save("model.npz")
    Image.fromarray(test.inputs[5].reshape(28, 28)).save("digit.png")
    assert int(ok("predict", "model.npz", "digit.png")) == model.predict(test.inputs[5:6])[0]
    Image.fromarray(np.zeros((20, 20), np.uint8)).save("small.png")
    code, _, err = run("predict", "model.npz", "small.png")
    assert (code, "784" in err) == (5, True)


def test_recipes_are_listed(ok):
    out = ok("recipes")
    for name in (
        "mnist-sample",
        "mnist",
        "mnist-dropout",
        "mnist-simard",
        "mnist-ciresan-2",
        "mnist-ciresan-3",
        "fashion-mnist",
        "mnist-mlp32",
        "mnist-nielsen",
        "parity",
        "iris",
        "digits",
    ):
        assert name in out


FIT = "n = Network([1, 2]); gpubp.fit(n, [[3], [4]], [0, 1], epochs=1, backend='numpy'); n.predict([[3]])"


@pytest.mark.parametrize(
    ("statements", "loaded"),
    [
        (("import gpubp", "import gpubp.cli", "gpubp.cli.main()"), ["", "", "rich"]),
        (("from gpubp import Network", "import gpubp.data", FIT), ["numpy", "numpy", "numpy platformdirs"]),
    ],
)
def test_nothing_waits_for_what_it_does_not_need(statements, loaded):
    """A fresh process, after each statement: what is loaded that only some commands need."""
    code = """
import contextlib, io, sys
sys.argv = ["gpubp", "--help"]
heavy = "numpy numba cupy sklearn requests platformdirs rich PIL onnx safetensors torch gpubp.formats.onnx".split()
for statement in STATEMENTS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        exec(statement)
    print(*(name for name in heavy if name in sys.modules))
    assert "main" not in statement or "train" in said.getvalue()
"""
    command = [sys.executable, "-c", code.replace("STATEMENTS", repr(statements))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == loaded


def test_the_package_holds_its_kernels_recipes_and_data():
    from importlib.resources import files

    import gpubp.kernels.cuda

    for name in ("operations.cu", "epoch.cu", "functions.cuh"):
        assert (files(gpubp.kernels.cuda) / name).is_file()
    assert (files("gpubp.experiments.recipes") / "mnist.toml").is_file()
    assert len((files("gpubp.data") / "mnist-sample.npz").read_bytes()) < 1_000_000


def test_ctrl_c_ends_a_run_with_130_its_report_and_a_checkpoint_that_resumes(run, ok, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PlainProgress, "epoch", lambda *_: signal.raise_signal(signal.SIGINT))
        code, out, err = run("train", "parity", "--backend", "numpy", "--folder", "run")
    assert (code, err) == (130, "")
    assert "gpubp train --resume run/checkpoint.npz" in out
    assert "report in run/report.html" in out
    report = Path("run/report.html").read_text()
    assert "Interrupted after 1 whole epochs" in report
    assert "It goes on with: gpubp train --resume run/checkpoint.npz" in report
    assert gpubp.load("run/model.npz").sizes == [10, 3, 2]
    assert npz.read("run/checkpoint.npz")[0]["training"]["epoch"] == 1
    assert ok("train", "--resume", "run/checkpoint.npz", "--epochs", 2, "-q") == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        assert written_to(full, "recipes") == (1, "error: cannot write the output: No space left on device\n")


def written_to(stdout, command):
    process = [sys.executable, "-m", "gpubp", command]
    done = subprocess.run(process, stdout=stdout, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["recipes", "--version", "doctor"])
def test_a_pipe_closed_early_ends_the_command_quietly(command):
    reading, writing = os.pipe()
    os.close(reading)
    assert written_to(writing, command) == (1, "")
    os.close(writing)


def test_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert gpubp.__version__ == project["version"]
