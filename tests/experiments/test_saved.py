"""A run's record, run.json and outputs.npz: what it has, read back without loss, and refused if it is another's."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.errors import DataError
from gpubp.experiments.folder import write_records
from gpubp.experiments.recipe import RunSettings, load_recipe
from gpubp.experiments.run import run_recipe
from gpubp.experiments.saved import read_result
from gpubp.support.jsontext import as_json
from gpubp.support.records import as_text, from_plain
from gpubp.training.history import Epoch, History
from gpubp.verification.compare import TensorCheck
from gpubp.verification.report import Report
from tests.networks import assert_same

QUIET = ("--backend", "numpy", "--threads", 1, "-q", "--no-report", "--folder", "run")


def strict(text: str):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_record_has_all_that_json_has(ok):
    told = strict(ok("train", "iris", "--epochs", 3, "--splits", 2, *QUIET, "--json", "-"))
    record = strict(Path("run/run.json").read_text(encoding="utf-8"))
    assert {key: record[key] for key in told} == told
    assert record["format"] == 1
    assert record["data"]["class_names"] == list(gpubp.load_data("iris").class_names)


def test_a_record_is_read_row_by_row(ok):
    ok("train", "parity", "--epochs", 5, *QUIET)
    lines = Path("run/run.json").read_text(encoding="utf-8").splitlines()
    assert sum('"loss"' in line and '"epoch"' in line for line in lines) == 5
    assert '    "layers": [10, 3, 2],' in lines


def test_outputs_are_those_for_each_splits_test_part(ok):
    told = json.loads(ok("train", "iris", "--epochs", 30, "--splits", 2, *QUIET, "--json", "-"))
    with np.load("run/outputs.npz", allow_pickle=False) as saved:
        found = {name: saved[name] for name in saved.files}
    for split in (1, 2):
        test = gpubp.load_data("iris", seed=split - 1, test_fraction=0.3).test
        np.testing.assert_array_equal(found[f"targets_{split}"], test.targets)
        right = found[f"outputs_{split}"].argmax(axis=1) == test.targets
        assert right.mean() == told["splits"][split - 1]["test_accuracy"]
    model = gpubp.load("run/model.npz")  # the last split's
    np.testing.assert_allclose(found["outputs_2"], model.forward(test.inputs), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_result_is_read_back_as_it_was(tmp_path, dtype):
    recipe = load_recipe("iris").overridden({"epochs": 3, "splits": 2, "dtype": dtype})
    made = run_recipe(recipe, backend="numpy", folder=tmp_path)
    write_records(tmp_path, made, RunSettings())
    read = read_result(tmp_path)
    for name in ("recipe", "accuracies", "seconds", "data", "failure", "versions", "processor", "cores"):
        assert getattr(read, name) == getattr(made, name), name
    assert read.lacking == ""
    assert_same(read.network, made.network)
    assert read.network.meaning == made.network.meaning
    for a, b in zip(read.histories, made.histories, strict=True):
        b.state = None  # which the checkpoint has
        assert a == b
    for a, b in zip(read.evidence, made.evidence, strict=True):
        assert (a.signals, a.samples, a.tested_on) == (b.signals, b.samples, b.tested_on)
        for name in ("inputs", "targets", "outputs"):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_numbers_that_are_not_finite_come_back():
    worst = TensorCheck("W1", (0, 2), math.nan, 1.0, math.inf, math.inf, -math.inf, None)
    history = History(backend="numpy", epochs=[Epoch(1, 0.1, None, math.inf, None, 1e-300, 0.3)])
    history.verification = Report("x", [worst], 4, 0.1)
    read = from_plain(History, strict(as_text(history.to_dict())))
    assert repr(read.verification) == repr(history.verification)  # for NaN is not equal to itself
    assert read.epochs == history.epochs
    assert as_json(history.to_dict()) == as_json(read.to_dict())


def test_a_dataclass_comes_back_by_its_fields():
    @dataclass
    class Old:
        kept: int = 1

    @dataclass
    class New:
        kept: int
        more: str = "as it was"
        table: dict = field(default_factory=dict)

    table = json.loads(as_text(asdict(Old(5)) | {"forgotten": [1]}))
    assert from_plain(New, table) == New(5)
    for wrong in ({}, {"kept": "5"}, {"kept": None}, {"kept": True}, {"kept": 1.5}, [5], None):
        with pytest.raises((TypeError, ValueError)):
            from_plain(New, wrong)


def test_text_beyond_unicode_is_escaped():
    text = as_text({"é": "a\udce9b"})
    assert text.encode() == b'{\n  "\xc3\xa9": "a\\udce9b"\n}\n'
    assert json.loads(text) == {"é": "a\udce9b"}


def change(**fields):
    def spoil(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def without(key: str):
    def spoil(path: Path) -> None:
        table = json.loads(path.read_text())
        del table[key]
        path.write_text(json.dumps(table))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        *(lambda path, text=text: path.write_text(text) for text in ("", "{", "[]", "1", '"format"', "{}")),
        lambda path: path.write_text('{"name": "an app", "version": 2}'),
        lambda path: path.write_bytes(b"\xff\xfe{}"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(path.read_text()[:-50]),
        *(without(key) for key in ("format", "error", "recipe", "splits", "evidence", "files", "signals")),
        *(without(key) for key in ("seconds", "data", "versions", "processor", "cores")),
        change(format="1"),
        change(error=3),
        change(splits=[]),
        change(splits=[{}]),
        change(splits=[{"test_accuracy": 1, "epochs": [{"epoch": 1}]}]),
        change(evidence=[]),
        change(signals=[{"split": 9, "epoch": 0}]),
        change(recipe={"data": "iris"}),
        change(recipe={"data": "iris", "layers": [4, 3], "colour": "red"}),
        change(seconds="long"),
        change(versions=[]),
        change(files=None),
    ],
)
def test_a_record_that_is_damaged_or_anothers_is_one_message(run, spoil):
    run("train", "parity", "--epochs", 1, *QUIET)
    spoil(Path("run/run.json"))
    code, out, err = run("report", "run")
    assert (code, out, err.count("\n")) == (5, "", 1)
    assert err.startswith(
        "error: run/run.json is not a record of a gpubp run, or it is truncated or corrupt ("
    )
    assert not Path("run/report.html").exists()


def test_a_record_of_a_newer_format_is_told(run):
    run("train", "parity", "--epochs", 1, *QUIET)
    change(format=2)(Path("run/run.json"))
    assert run("report", "run") == (
        5,
        "",
        "error: run/run.json was written by a newer gpubp (format 2); upgrade gpubp\n",
    )


@pytest.mark.parametrize("name", ["model.npz", "outputs.npz"])
def test_files_of_another_run_are_refused(run, name):
    run("train", "parity", "--epochs", 1, *QUIET)
    run("train", "parity", "--epochs", 2, *QUIET[:-1], "other")
    shutil.copy(f"other/{name}", "run")
    for told in (
        f"error: run/{name} is not the file that the run left",
        f"error: there is no file run/{name}",
    ):
        code, _, err = run("report", "run")
        assert (code, err.count("\n")) == (5, 1)
        assert err.startswith(told)
        Path(f"run/{name}").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("left", "code", "says"),
    [
        ("nothing", 5, "run is not the folder of a training run: there is no run.json in it"),
        ("older", 5, "there is no run/run.json, .*gpubp train run/recipe.toml"),
        ("killed", 5, "there is no run/run.json, .*gpubp train --resume run/checkpoint.npz"),
        ("absent", 5, "there is no folder run"),
        ("file", 2, "run/model.npz is a file: give the folder that a training run left, run$"),
    ],
)
def test_what_has_no_record_is_told_with_the_way_out(run, left, code, says):
    kept = {
        "nothing": ["report.html", "notes.txt"],
        "older": ["model.npz", "checkpoint.npz", "recipe.toml", "history.csv", "signals.csv"],
        "killed": ["checkpoint.npz"],
        "file": ["model.npz"],
    }.get(left, [])
    run("train", "parity", "--epochs", 1, *QUIET)
    Path("run/notes.txt").touch()
    for path in Path("run").iterdir():
        if path.name not in kept:
            path.unlink()
    if left == "absent":
        Path("run").rmdir()
    found, out, err = run("report", "run/model.npz" if left == "file" else "run")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert re.search(says, err.strip())


def test_a_folder_is_none_of_a_run_for_python_too(tmp_path):
    with pytest.raises(DataError, match="is not the folder of a training run"):
        read_result(tmp_path)
