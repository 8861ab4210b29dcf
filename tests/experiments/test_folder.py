"""What a training run leaves in its folder: a recipe that repeats it, its history, its layers' signals."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.benchmark.results import numbered
from gpubp.data.dataset import Split
from gpubp.errors import GpubpError
from gpubp.experiments.folder import HISTORY, read_signals, run_folder
from gpubp.experiments.folder import SIGNALS as SIGNAL_COLUMNS
from gpubp.experiments.recipe import RunSettings, load_recipe, load_with_run, to_toml
from gpubp.functions import LOSSES
from gpubp.network import Network
from gpubp.training.budget import SIGNALS
from gpubp.training.history import Epoch
from gpubp.training.signals import GROWTH, LayerSignal, SignalRecorder
from tests.conftest import small_data
from tests.networks import assert_same, samples_of

QUIET = ("--backend", "numpy", "--threads", 1, "-q", "--no-report")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_repeats_from_its_recipe(ok, rng):
    table = "".join(f"{a:.3f},{b:.3f},{int(a > b)}\n" for a, b in rng.random((90, 2)))
    Path("mine.csv").write_text(table)
    changes = ("--layers", "2-6-2", "--epochs", 4, "--lr", 0.3, "--seed", 5, "--standardize", "--splits", 2)
    ok("train", "--data", "mine.csv", *changes, *QUIET)
    Path("elsewhere").mkdir()
    saved = Path("gpubp-runs/mine-1/recipe.toml").resolve()
    assert load_with_run(str(saved))[1] == RunSettings(backend="numpy", threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("elsewhere")
        ok("train", saved, "--folder", "again", "-q", "--no-report")
    assert_same(gpubp.load("gpubp-runs/mine-1/model.npz"), gpubp.load("elsewhere/again/model.npz"))
    again = Path("elsewhere/again")
    assert (again / "recipe.toml").read_text() == saved.read_text()
    for a, b in zip(rows(saved.parent / "history.csv"), rows(again / "history.csv"), strict=True):
        assert {**a, "seconds": ""} == {**b, "seconds": ""}


def test_a_recipe_remembers_its_data_folder_and_options_go_before_it(run, monkeypatch):
    asked = []

    def refuse(recipe, **settings):
        asked.append(settings)
        raise GpubpError("no training here")

    Path("again.toml").write_text(
        to_toml(load_recipe("mnist"), RunSettings(backend="numpy", threads=2, data_dir="/there"))
    )
    monkeypatch.setattr("gpubp.experiments.run.run_recipe", refuse)
    run("train", "again.toml")
    run("train", "again.toml", "--backend", "numba", "--data-dir", "here")
    found = [(a["backend"].name, a["backend"].threads, a["data_dir"]) for a in asked]
    assert found == [("numpy", 2, "/there"), ("numba", 2, "here")]


def test_history_has_a_row_for_each_epoch_of_each_split(run):
    run("train", "iris", "--epochs", 3, "--splits", 2, "--folder", "run", *QUIET)
    found = rows(Path("run/history.csv"))
    assert [(row["split"], row["epoch"]) for row in found] == [(s, e) for s in "12" for e in "123"]
    assert tuple(found[0]) == HISTORY
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["seconds"]) > 0 for row in found)
    signals = rows(Path("run/signals.csv"))
    assert tuple(signals[0]) == SIGNAL_COLUMNS
    assert [(r["split"], r["epoch"], r["layer"]) for r in signals] == [
        (s, e, n) for s in "12" for e in "0123" for n in "1234"
    ]
    assert all(float(row["mean_delta"]) > 0 for row in signals)
    assert all((row["saturated"] == "") == (row["layer"] == "4") for row in signals)  # softmax has no slope


def test_the_first_signals_are_those_of_the_initial_network(run):
    from gpubp.training.signals import layer_signals

    run("train", "iris", "--epochs", 1, "--splits", 1, "--no-standardize", *QUIET)
    recipe = replace(load_recipe("iris"), standardize=False)
    train, net = gpubp.load_data("iris", seed=0, test_fraction=0.3).train, recipe.network(0)
    samples = samples_of(net, train.inputs, train.targets, loss=recipe.loss)  # 105 are below the limit
    expected = layer_signals(net, samples, LOSSES[recipe.loss])
    found = read_signals(Path("gpubp-runs/iris-1"), 4)[0]
    for a, b in zip(found, expected, strict=True):
        assert a.mean_delta == pytest.approx(b.mean_delta)
        assert a.saturated == (None if b.saturated is None else pytest.approx(b.saturated))


def test_regression_leaves_accuracy_empty(ok, rng):
    Path("line.csv").write_text("".join(f"{x:.4f},{3 * x:.4f}\n" for x in rng.random(50)))
    options = ("--layers", "1-3-1", "--output", "identity", "--loss", "quadratic", "--epochs", 2)
    ok("train", "--data", "line.csv", *options, "--folder", "run", *QUIET)
    assert [row["accuracy"] for row in rows(Path("run/history.csv"))] == ["", ""]


def test_a_resumed_run_keeps_what_was_measured_before(ok):
    ok("train", "parity", "--epochs", 6, "--folder", "whole", *QUIET)
    ok("train", "parity", "--epochs", 3, "--folder", "part", *QUIET)
    ok("train", "--resume", "part/checkpoint.npz", "--epochs", 6, *QUIET)
    assert len(rows(Path("part/history.csv"))) == 6
    assert not Path("part/report.html").exists()
    assert Path("part/signals.csv").read_text() == Path("whole/signals.csv").read_text()
    assert_same(gpubp.load("part/model.npz"), gpubp.load("whole/model.npz"))


@pytest.mark.parametrize(
    "text", ["", "split,epoch\n1,2\n", "split,epoch,layer,mean_delta,saturated,dead\n1,x,1,,,\n"]
)
def test_signals_that_cannot_be_read_are_not_kept(tmp_path, text):
    (tmp_path / "signals.csv").write_text(text)
    assert read_signals(tmp_path, 2) == {}
    assert read_signals(tmp_path / "absent", 2) == {}


def test_signals_of_another_network_are_not_kept(tmp_path):
    (tmp_path / "signals.csv").write_text(",".join(SIGNAL_COLUMNS) + "\n1,0,1,0.5,0.1,0.0\n1,0,2,0.5,,\n")
    assert read_signals(tmp_path, 2) == {0: [LayerSignal(0.5, 0.1, 0.0), LayerSignal(0.5, None, None)]}
    assert read_signals(tmp_path, 3) == {}


def recorder_and_net() -> tuple[SignalRecorder, Network]:
    split = Split(*small_data(np.random.default_rng(0), 300, 4, 3))
    return SignalRecorder(split, LOSSES["cross_entropy"]), Network([4, 5, 3])


def epoch(number: int, seconds: float = 1.0) -> Epoch:
    return Epoch(number, 1.0, None, None, None, 0.1, seconds)


def test_a_run_is_measured_from_end_to_end_at_a_limited_number_of_epochs():
    recorder, net = recorder_and_net()
    recorder.measure(0, net)
    for number in range(1, 1001):
        recorder(epoch(number, seconds=10.0), net)
    points = sorted(recorder.signals)
    assert points[:10] == list(range(10))
    assert len(points) <= 110
    assert all(b <= max(a + 1, a * GROWTH) for a, b in itertools.pairwise(points))
    assert points[-1] >= 1000 / GROWTH


def test_measuring_keeps_to_its_share_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("gpubp.training.signals.time.perf_counter", lambda: clock[0])

    def slow(*_):
        clock[0] += 0.04
        return [LayerSignal(0.1, None, None)]

    monkeypatch.setattr("gpubp.training.signals.layer_signals", slow)
    recorder, net = recorder_and_net()
    recorder.measure(0, net)
    for number in range(1, 50):
        recorder(epoch(number, seconds=0.001), net)
    assert clock[0] <= SIGNALS.seconds + 1e-9
    for number in range(50, 60):
        recorder(epoch(number, seconds=8.0), net)
    assert clock[0] <= 0.01 * 10 * 8.1
    assert max(recorder.signals) > 55  # there is time again


def test_signals_of_a_run_that_diverges_warn_of_nothing():
    recorder, net = recorder_and_net()
    net.parameters = [(np.full_like(w, np.inf), b) for w, b in net.parameters]
    recorder(epoch(1), net)
    assert not math.isfinite(recorder.signals[1][0].mean_delta)


def test_a_recipe_is_trained_on_the_data_beside_it_from_anywhere(ok, rng):
    Path("of").mkdir()
    Path("of/x.csv").write_text("".join(f"{a:.3f},{b:.3f},{int(a > b)}\n" for a, b in rng.random((40, 2))))
    Path("of/my.toml").write_text('data = "x.csv"\nlayers = [2, 3, 2]\nepochs = 1\n')
    ok("train", "of/my.toml", *QUIET)
    saved = load_recipe("gpubp-runs/my-1/recipe.toml")
    assert saved.data == str(Path("of/x.csv").resolve())
    found = json.loads(ok("explain", "of/my.toml", "--json", "-"))
    assert found["recipe"] == "my"


def test_runs_started_together_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = threading.Barrier(8)

    def hold(_):
        start.wait()
        with run_folder(None, "x") as folder:
            start.wait()
            if folder.name != "x-3":
                (folder / "model.npz").touch()
            return str(folder)

    with ThreadPoolExecutor(8) as pool:
        taken = sorted(pool.map(hold, range(8)))
    assert taken == [f"gpubp-runs/x-{number}" for number in range(1, 9)]
    assert [f"gpubp-runs/x-{n}" for n in range(1, 9) if not Path(f"gpubp-runs/x-{n}").exists()] == [
        "gpubp-runs/x-3"
    ]


@pytest.mark.parametrize(
    "args", [("--data", "absent.csv"), ("--layers", "3-2"), ("--threads", 0), ("--lr", -1)]
)
def test_a_run_that_fails_at_once_leaves_no_folder(run, args):
    Path("mine").mkdir()
    for folder in ((), ("--folder", "new"), ("--folder", "mine")):
        assert run("train", "parity", "--backend", "numpy", "-q", *args, *folder)[0] in (2, 5)
    assert list(Path("gpubp-runs").glob("*")) == []
    assert Path("mine").exists()
    assert not Path("new").exists()


@pytest.mark.parametrize("above", ["file", "link"])
def test_a_folder_that_cannot_be_made_is_told(run, above):
    if above == "file":
        Path("gpubp-runs").touch()
    else:
        Path("gpubp-runs").symlink_to("absent")
    code, _, err = run("train", "parity", "--backend", "numpy")
    assert code == 1
    assert err.startswith("error: cannot write into folder gpubp-runs")


def test_benchmarks_have_folders_of_their_own(run, monkeypatch):
    seen = []

    def fails(*args):
        seen.append(args[4])
        if len(seen) < 3:
            (args[4] / "results.json").touch()
        raise GpubpError("no measuring here")

    monkeypatch.setattr("gpubp.benchmark.measure.run", fails)
    for _ in range(3):
        assert run("bench", "--backends", "numpy", "--peers", "none")[0] == 1
    assert len(set(seen)) == 3
    assert set(Path("gpubp-bench").iterdir()) == set(seen[:2])  # nothing is in the third


def test_numbers_follow_the_first_of_a_day():
    first = Path("gpubp-bench/day")
    assert [*itertools.islice(numbered(first), 3)] == [
        first,
        Path("gpubp-bench/day-2"),
        Path("gpubp-bench/day-3"),
    ]


@pytest.mark.parametrize(("module", "left"), [("tomli_w", "recipe.toml"), ("jinja2", "report.html")])
def test_a_run_without_a_library_has_still_succeeded(run, monkeypatch, module, left):
    monkeypatch.setitem(sys.modules, module, None)
    options = ("--epochs", 2, "--backend", "numpy", "--folder", "run", "-q", "--json", "-")
    code, out, err = run("train", "parity", *options)
    assert (code, '"ok": true' in out) == (0, True)
    assert re.fullmatch("warning: .*pip install.*\n", err)
    assert gpubp.load("run/model.npz").sizes == [10, 3, 2]
    assert len(rows(Path("run/history.csv"))) == 2
    assert not Path("run", left).exists()


def test_a_full_disk_after_training_leaves_model_and_result(run, monkeypatch):
    from gpubp.support import files

    real = files.write_atomically

    def full(path, fill, **how):
        def fails(file):
            raise OSError(28, "No space left on device")

        return real(path, fails if Path(path).suffix in (".csv", ".toml", ".html") else fill, **how)

    monkeypatch.setattr(files, "write_atomically", full)
    options = ("--epochs", 2, "--backend", "numpy", "--folder", "run", "--json", "r.json")
    code, out, err = run("train", "parity", *options)
    assert (code, "test accuracy" in out, "Traceback" in err) == (0, True, False)
    assert "warning: cannot write run/history.csv: No space left on device" in err
    assert sorted(p.name for p in Path("run").iterdir()) == ["checkpoint.npz", "model.npz"]
    assert Path("r.json").exists()


def test_a_goal_that_is_not_reached_is_exit_code_1(run):
    code, out, _ = run("train", "parity", "--reach", 1, "--epochs", 1, "--backend", "numpy", "--no-report")
    assert (code, "DID NOT REACH 1" in out) == (1, True)
