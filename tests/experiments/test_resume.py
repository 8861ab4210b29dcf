"""A run is resumed as it was, from wherever it is asked for, or is refused and leaves everything as it lay."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.experiments import run as experiments
from gpubp.experiments.folder import LEFT
from gpubp.formats import npz
from gpubp.training import checkpoint
from tests.cli.test_commands import faulty_backend  # noqa: F401 - a fixture
from tests.networks import assert_same

QUIET = ("--backend", "numpy", "--threads", 1, "--no-report")
NET = ("--layers", "2-4-2", "--optimizer", "adam", "--lr", 0.05, "--batch-size", 8)
RESUME = ("--resume", "run/checkpoint.npz", *QUIET)


def table(path: str, seed: int, rows: int = 40, head: str = "a,b,label\n") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    points = np.random.default_rng(seed).random((rows, 2))
    Path(path).write_text(head + "".join(f"{a:.3f},{b:.3f},{int(a > b)}\n" for a, b in points))


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def first(ok):
    """A run of two epochs in ``run``, on tr.csv and te.csv."""
    table("tr.csv", 1)
    table("te.csv", 2, 16)
    ok("train", "--data", "tr.csv", "--test-data", "te.csv", *NET, "--epochs", 2, "--folder", "run", *QUIET)
    assert set(LEFT) <= set(content("run"))


# A refusal leaves the folder as it was


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--lr", 0.2), 2, "its optimizer is"),
        (("--seed", 3), 2, "its seed is"),
        (("--batch-size", 4), 2, "its batch_size is"),
        (("--layers", "2-5-2"), 2, "its network is"),
        (("--data", "other.csv"), 2, "its data is '40 samples, crc32 .*', not '40 samples, crc32"),
        (("--test-data", "other.csv"), 2, "its test data is '16 samples, crc32 .*', not '40 samples, crc32"),
        (("--data", "absent.csv"), 5, "absent.csv: no such file"),
        (("--patience", 2), 2, "its data is '40 samples, crc32 .*', not '36 samples"),
        (("--splits", 2), 2, "run/checkpoint.npz is of one split: it cannot be resumed with --splits 2"),
        (("--verify", "now and then"), 2, "verify"),
        (("--plan", "fused"), 2, "fused"),
    ],
)
@pytest.mark.usefixtures("first")
def test_a_refused_resume_leaves_every_file_as_it_was(run, args, code, says):
    table("other.csv", 3)
    before = content("run")
    found, _, err = run("train", *RESUME, "--epochs", 4, *args)
    assert found == code
    assert re.search(says, err), err
    assert content("run") == before


@pytest.mark.parametrize("at", ["plan", "first step"])
def test_a_resume_that_fails_its_first_verification_leaves_every_file_as_it_was(
    ok, run, request, at, monkeypatch
):
    ok("train", "digits", "--epochs", 1, "--folder", "run", *QUIET)
    before = content("run")
    request.getfixturevalue("faulty_backend")
    if at == "first step":
        monkeypatch.setattr("gpubp.training.loop.Loop._verify_plan", lambda loop: None)
    code, _, err = run("train", *RESUME, "--epochs", 2, "--json", "r.json")
    assert (code, "verification failed" in err, "saved in" in err) == (3, True, False)
    assert json.loads(Path("r.json").read_text())["verification"]["ok"] is False
    assert content("run") == before


@pytest.mark.usefixtures("first")
def test_a_resume_that_fails_later_leaves_its_record(run, monkeypatch):
    def full(loop):
        raise gpubp.GpubpError("the disk is full")

    monkeypatch.setattr("gpubp.training.loop.Loop._finish_epoch", full)
    assert run("train", *RESUME, "--epochs", 4)[0] == 1
    assert json.loads(Path("run/run.json").read_text())["error"] == "the disk is full"


@pytest.mark.parametrize("left", ["model.npz", "checkpoint.npz"])
@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.usefixtures("first")
def test_a_folder_with_another_run_is_refused(run, left, resumed):
    Path("other").mkdir()
    Path("other", left).write_bytes(b"of another run")
    args = (*RESUME, "--epochs", 4) if resumed else ("parity", *QUIET)
    code, _, err = run("train", *args, "--folder", "other")
    assert (code, "other has a run in it: give another --folder" in err) == (2, True)
    assert content("other") == {left: b"of another run"}


@pytest.mark.usefixtures("first")
def test_a_runs_own_folder_may_be_named(ok):
    ok("train", *RESUME, "--epochs", 4, "--folder", Path("run").resolve())
    assert len(json.loads(Path("run/run.json").read_text())["splits"][0]["epochs"]) == 4


def test_data_that_fails_in_a_later_split_leaves_the_record_of_those_before(run, monkeypatch):
    real = experiments.load_parts

    def gone(recipe, seed, *rest):
        if seed > recipe.seed:
            raise gpubp.DataError("tr.csv: no such file or folder")
        return real(recipe, seed, *rest)

    monkeypatch.setattr(experiments, "load_parts", gone)
    code, _, err = run("train", "iris", "--splits", 3, "--epochs", 2, "--folder", "run", *QUIET)
    assert (code, "no such file" in err) == (5, True)
    record = json.loads(Path("run/run.json").read_text())
    assert (record["error"], len(record["splits"])) == ("tr.csv: no such file or folder", 1)


# The data is that of the run


@pytest.fixture
def whole(first, ok):
    """What the run of four epochs gives that never stopped."""
    args = ("--data", "tr.csv", "--test-data", "te.csv", *NET, "--epochs", 4, "--folder", "whole")
    ok("train", *args, *QUIET)
    return gpubp.load("whole/model.npz"), json.loads(Path("whole/run.json").read_text())["test_accuracy"]


def relative_paths() -> None:
    """Write the checkpoint as older versions did: paths as they were given, and nothing of what it was tested on."""
    training, header, arrays = checkpoint.read_training("run/checkpoint.npz")
    training["recipe"] |= {"data": "tr.csv", "test_data": "te.csv"}
    del training["recipe"]["tested_on"], training["validation data"]
    npz.write("run/checkpoint.npz", {**header, "training": training}, arrays)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_a_run_is_resumed_from_another_folder_on_its_own_data(whole, ok, old, alike, monkeypatch):
    if old:
        relative_paths()
    if alike:
        table("elsewhere/tr.csv", 7)
        table("elsewhere/te.csv", 8, 16)
    Path("elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir("elsewhere")
    out = ok("train", "--resume", "../run/checkpoint.npz", "--epochs", 4, *QUIET)
    assert_same(gpubp.load("../run/model.npz"), whole[0])
    assert json.loads(Path("../run/run.json").read_text())["test_accuracy"] == whole[1]
    read = f"test_data te.csv of ../run/checkpoint.npz is read from {Path('../te.csv').resolve()}\n"
    assert (read in out) == old


@pytest.mark.usefixtures("first")
def test_an_old_checkpoint_without_a_recipe_beside_it_says_what_is_read(ok, run, monkeypatch):
    relative_paths()
    os.remove("run/recipe.toml")
    table("elsewhere/tr.csv", 7)
    table("elsewhere/te.csv", 8, 16)
    monkeypatch.chdir("elsewhere")
    code, out, err = run("train", "--resume", "../run/checkpoint.npz", "--epochs", 4, *QUIET)
    assert f"data tr.csv of ../run/checkpoint.npz is read from {Path('tr.csv').resolve()}\n" in out
    assert (code, "its data is '40 samples" in err) == (2, True)
    monkeypatch.chdir("..")
    ok("train", *RESUME, "--epochs", 4)


def test_data_that_was_moved_is_named_by_options_and_read_as_before(ok, run):
    for path, seed in (("tr.csv", 1), ("te.csv", 2)):
        table(path, seed, head="kind,x,y\n")
        Path(path).write_text(Path(path).read_text().replace(",", ";"))
    args = ("--data", "tr.csv", "--test-data", "te.csv", "--delimiter", ";", "--target", "y", *NET)
    ok("train", *args, "--epochs", 4, "--folder", "whole", *QUIET)
    ok("train", *args, "--epochs", 2, "--folder", "run", *QUIET)
    Path("moved").mkdir()
    for path in ("tr.csv", "te.csv"):
        os.rename(path, f"moved/{path}")
    assert run("train", *RESUME, "--epochs", 4)[0] == 5
    ok("train", *RESUME, "--epochs", 4, "--data", "moved/tr.csv", "--test-data", "moved/te.csv")
    assert_same(gpubp.load("run/model.npz"), gpubp.load("whole/model.npz"))


@pytest.mark.parametrize(
    "settings", [(), ("--patience", 9)]
)  # watching the test data, and a part of the training's
def test_changed_test_data_is_refused(ok, run, settings):
    table("tr.csv", 1)
    table("te.csv", 2, 16)
    args = ("--data", "tr.csv", "--test-data", "te.csv", *NET, *settings, "--epochs", 2, "--folder", "run")
    ok("train", *args, *QUIET)
    table("te.csv", 3, 16)
    before = content("run")
    code, _, err = run("train", *RESUME, "--epochs", 4)
    assert (code, "its test data is '16 samples, crc32" in err) == (2, True)
    assert content("run") == before


def test_other_validation_data_is_refused(rng, tmp_path):
    x, y, path = rng.random((20, 2)), rng.integers(0, 2, 20), tmp_path / "c.npz"
    settings = {"backend": "numpy", "early_stopping": 5}

    def train(validation, epochs, **more):
        net = gpubp.Network([2, 3, 2], output="softmax", seed=0)
        return gpubp.fit(net, x, y, epochs=epochs, validation=validation, **settings, **more)

    train((x, y), 2, save_to=path)
    with pytest.raises(
        gpubp.UsageError, match=r"its validation data is '20 samples, crc32 .*', not '19 samples"
    ):
        train((x[1:], y[1:]), 4, resume=path)
    assert len(train((x, y), 4, resume=path)) == 4
