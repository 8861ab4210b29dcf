"""gpubp report: the page that gpubp train wrote, drawn again from the run's folder."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.data.idx import write_idx
from gpubp.errors import GpubpError
from gpubp.training.progress import PlainProgress
from tests.conftest import backend_by_name
from tests.faults import FAULTS, plant

FOLDER = ("-q", "--folder", "run")
NUMPY = ("--backend", "numpy", "--threads", 1)
WAVES = ("--data", "waves.csv", "--layers", "3-8-1", "--output", "identity", "--loss", "quadratic")
WORDS = ("--data", "words.csv", "--layers", "2-6-1", "--output", "sigmoid", "--loss", "binary_cross_entropy")
PAGE = Path("run/report.html")

KINDS = {
    "images": (0, ("mnist-sample", "--epochs", 2, "--reach", 0.5)),
    "a result not reached": (1, ("mnist-sample", "--epochs", 1, "--reach", 1)),
    "numba": (0, ("mnist-sample", "--epochs", 2, "--backend", "numba")),
    "deformed": (0, ("mnist-sample", "--epochs", 1, "--deform-alpha", 34, "--deform-rotation", 9)),
    "numbers": (0, ("parity", "--epochs", 30)),
    "splits": (0, ("iris", "--epochs", 20, "--splits", 3)),
    "regression": (0, WAVES),
    "regression in float64": (0, (*WAVES, "--dtype", "float64", "--standardize")),
    "words": (0, (*WORDS, "--epochs", 2)),
    "patience": (0, ("digits", "--patience", 2, "--epochs", 200)),
    "held out": (0, ("digits", "--epochs", 2, "--validation-fraction", 0.2)),
    "unverified": (0, ("digits", "--epochs", 2, "--verify", "off")),
    "schedule": (0, ("digits", "--epochs", 4, "--optimizer", "adam", "--schedule", "cosine")),
    "a warning": (0, ("parity", "--epochs", 30, "--lr", 1e-6)),
    "diverged": (1, ("digits", "--lr", 3.0, "--loss", "squared_error", "--output", "identity")),
}


@pytest.fixture(autouse=True)
def tables(tmp_path, rng):
    x = rng.uniform(-1, 1, (300, 3)).round(4)
    waves = [(*row, 2.0 * row[0] + row[1]) for row in x]
    said = [(*row[:2], "<b>yes</b>" if row[0] * row[1] > 0 else "é & never") for row in x]
    for name, rows in (("waves.csv", waves), ("words.csv", said)):
        text = "".join(",".join(map(str, row)) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")


@pytest.fixture
def train(run):
    def call(*args, code=0):
        backend = () if "--backend" in args else NUMPY
        found, _, err = run("train", *args, *backend, *FOLDER)
        assert found == code, err

    return call


def undated(page: Path = PAGE) -> str:
    """A page without when it was written, which must be told."""
    text, count = re.subn(r", \d{4}-\d\d-\d\d \d\d:\d\d \S+", "", page.read_text(encoding="utf-8"))
    assert count == 1
    return text


def assert_redrawn(ok) -> None:
    """The page that train wrote is the one that report writes, of this machine or another."""
    before = undated()
    PAGE.unlink()
    with pytest.MonkeyPatch.context() as elsewhere:
        for name in ("processor", "cores", "versions"):
            elsewhere.setattr(f"gpubp.support.machine.{name}", lambda: pytest.fail("asked again"))
        assert ok("report", "run") == "report in run/report.html\n"
    assert undated() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_the_one_that_train_wrote(train, ok, kind):
    code, args = KINDS[kind]
    train(*args, code=code)
    assert_redrawn(ok)


def test_the_page_of_a_run_without_one_is_what_it_would_have_been(train, ok, run):
    train("iris", "--epochs", 3, "--no-report")
    assert not PAGE.exists()
    assert run("report", "run", "-q") == (0, "", "")
    assert "135 test samples" not in undated()
    assert "225 test samples" in undated()


def test_the_page_of_an_interrupted_run(train, ok, monkeypatch):
    monkeypatch.setattr(PlainProgress, "epoch", lambda *_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr("gpubp.training.progress.progress_for", lambda **_: PlainProgress())
    for number, args in enumerate((("digits",), ("iris", "--epochs", 9)), start=1):
        train(*args, code=130)
        assert "Interrupted after" in PAGE.read_text()
        assert_redrawn(ok)
        Path("run").rename(f"before-{number}")


def test_the_page_of_a_resumed_run(train, ok, run):
    train("digits", "--epochs", 2)
    assert run("train", "--resume", "run/checkpoint.npz", "--epochs", 4, *NUMPY, "-q")[0] == 0
    assert "The first 2 epochs were trained before" in PAGE.read_text()
    assert_redrawn(ok)


@pytest.mark.parametrize("recipe", ["digits", "iris"])
def test_the_page_of_a_failed_verification(train, ok, monkeypatch, recipe):
    faulty = plant(backend_by_name("numpy, composed"), "hidden_delta", FAULTS["hidden_delta", "dropped row"])
    with monkeypatch.context() as patch:
        patch.setattr("gpubp.backends.get", lambda name, **_: faulty)
        train(recipe, code=3)
    assert "tensors FAILED" in PAGE.read_text()
    Path("run/history.csv").unlink()  # tables are for people: the record has it all
    Path("run/signals.csv").unlink()
    assert_redrawn(ok)


def test_the_page_of_a_backend_that_computes_what_is_no_number(train, ok, monkeypatch):
    def no_number(inputs, before, after):
        after["delta"][-1] = np.nan

    faulty = plant(backend_by_name("numpy, composed"), "hidden_delta", no_number)
    with monkeypatch.context() as patch:
        patch.setattr("gpubp.backends.get", lambda name, **_: faulty)
        train("digits", code=3)
    checks = PAGE.read_text().partition('id="checks"')[2]
    assert ">nan<" in checks
    assert ">inf<" in checks
    assert_redrawn(ok)


def test_a_resumed_run_that_diverges_is_not_shown_with_the_model_before(train, ok, run, monkeypatch):
    train("digits", "--epochs", 1)
    model = Path("run/model.npz").read_bytes()

    def diverges(loop, shown):
        loop._download()
        raise GpubpError("the loss is inf after epoch 2: training has diverged")

    with monkeypatch.context() as patch:
        patch.setattr("gpubp.training.loop.Loop._look_out", diverges)
        assert run("train", "--resume", "run/checkpoint.npz", "--epochs", 2, *NUMPY, "-q")[0] == 1
    assert "training has diverged" in PAGE.read_text()
    assert Path("run/model.npz").read_bytes() == model
    assert_redrawn(ok)


@pytest.mark.parametrize("how", ["gone", "changed", "recipe gone"])
@pytest.mark.parametrize("kind", ["regression", "words"])
def test_the_page_of_a_run_whose_data_is_gone_or_changed(train, run, kind, how):
    train(*KINDS[kind][1])
    before = undated()
    data = Path(KINDS[kind][1][1])
    if how == "gone":
        data.unlink()
    elif how == "changed":
        first, *rest = data.read_text(encoding="utf-8").splitlines()
        data.write_text("\n".join([*rest, first]), encoding="utf-8")
    else:
        Path("run/recipe.toml").unlink()
    code, out, err = run("report", "run")
    assert (code, out, err.count("\n")) == (0, "report in run/report.html\n", 1)
    assert err.startswith("warning: the inputs of the test samples are not shown: ")
    assert ("run/recipe.toml" if how == "recipe gone" else str(data.resolve())) in err
    lines = set(undated().splitlines()) - set(before.splitlines())
    (note,) = (line for line in lines if "Drawn again later: the inputs of the test samples" in line)
    assert "are not shown" in note
    others = lines - {note}
    assert others
    assert all(line.startswith("<tr><td") and line.endswith(">–</td></tr>") for line in others)


def test_the_page_of_images_that_are_gone(run, ok, rng):
    Path("letters").mkdir()
    labels = np.tile(np.arange(4, dtype=np.uint8), 50)
    images = rng.integers(0, 256, (200, 5, 5)).astype(np.uint8)
    for part in ("train", "test"):
        write_idx(Path(f"letters/emnist-letters-{part}-images-idx3-ubyte.gz"), images)
        write_idx(Path(f"letters/emnist-letters-{part}-labels-idx1-ubyte.gz"), labels)
    ok("train", "--data", "letters", "--layers", "25-6-4", "--epochs", 1, *NUMPY, *FOLDER)
    assert 'class="tiles" id="mistakes"' in PAGE.read_text()
    assert_redrawn(ok)
    Path("letters").rename("moved")
    code, _, err = run("report", "run", "-q")
    assert (code, err.count("\n")) == (0, 1)
    assert str(Path("letters").resolve()) in err
    page = PAGE.read_text()
    assert 'id="mistakes"' in page
    assert "test image of class" not in page
    assert 'id="units"' in page  # weights are pictures as before


def test_a_run_is_drawn_from_anywhere_and_into_any_file(train, ok, monkeypatch):
    train(
        "--data",
        "waves.csv",
        "--layers",
        "3-4-1",
        "--output",
        "identity",
        "--loss",
        "quadratic",
        "--epochs",
        1,
    )
    before, made = undated(), PAGE.stat().st_mtime_ns
    Path("there").mkdir()
    monkeypatch.chdir("there")
    assert ok("report", "../run", "--html", "new/page.html") == "report in new/page.html\n"
    assert Path("../run/report.html").stat().st_mtime_ns == made
    assert undated(Path("new/page.html")).replace("../run/", "run/") == before


@pytest.mark.parametrize("name", ["model.npz", "run.json", "outputs.npz", "history.csv", "checkpoint.npz"])
def test_a_page_is_not_written_over_what_the_run_left(train, run, name):
    train("digits", "--epochs", 1)
    before = Path("run", name).read_bytes()
    code, _, err = run("report", "run", "--html", f"run/{name}")
    assert (code, err) == (2, f"error: --html run/{name} would be written over what is read\n")
    assert Path("run", name).read_bytes() == before


def test_data_is_found_in_the_folder_that_is_given(train, run, rng, monkeypatch):
    monkeypatch.setattr("gpubp.data.mnist.load_idx_collection", _small_mnist)
    Path("here").mkdir()
    train("mnist", "--epochs", 1, "--layers", "4-3-10", "--data-dir", "here")
    before = undated()
    Path("here").rename("there")
    code, _, err = run("report", "run", "-q")
    assert (code, "here" in err) == (0, True)
    assert run("report", "run", "-q", "--data-dir", "there") == (0, "", "")
    assert undated() == before


def _small_mnist(name, data_dir, quiet):
    if not Path(data_dir).exists():
        raise GpubpError(f"there is no folder {data_dir}")
    rng = np.random.default_rng(3)
    parts = [
        gpubp.data.check_split(rng.integers(0, 256, (n, 4), np.uint8), rng.integers(0, 10, n))
        for n in (80, 40)
    ]
    return gpubp.data.Dataset(name, *parts, 10, (2, 2), None, "nowhere")
