"""Sweeps from outside: the same bits as single runs, chosen without the test set, and nothing lost whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

import gpubp
from gpubp.backends.numpy import ReferenceBackend
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.experiments.recipe import RunSettings, load_recipe
from gpubp.reports.sweep import write_report
from gpubp.sweeps import folder as kept
from gpubp.sweeps import running
from gpubp.sweeps.engine import Engine
from gpubp.sweeps.plan import plan_of
from gpubp.sweeps.result import Sweep, read
from gpubp.sweeps.trial import DONE, FAILED, STOPPED, Outcome, digest
from tests.browser import problems
from tests.faults import FAULTS, plant

NUMPY = RunSettings(backend="numpy", threads=1)
IRIS = replace(load_recipe("iris"), epochs=3, splits=1)
VARY = {"lr": [0.05, 0.5], "layers": [(4, 5, 3), (4, 8, 3)]}


def weights_of(sweep):
    return {outcome.number: outcome.weights for outcome in sweep.trials}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sweep of 4 settings and 2 seeds that nothing disturbed."""
    return gpubp.sweep(IRIS, VARY, seeds=2, jobs=1, run=NUMPY, folder=tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_trial_has_the_weights_of_the_run_with_its_settings(run, backend, tmp_path):
    vary = ["lr=0.05,0.1", "layers=784-9-10,784-20-10", "batch_size=50,90"]
    settings = RunSettings(backend=backend, threads=1)
    recipe = replace(load_recipe("mnist-sample"), epochs=2, dropout=(0.1,))
    sweep = gpubp.sweep(recipe, vary, seeds=2, jobs=3, run=settings, folder=tmp_path / "sweep")
    assert len(sweep.trials) == 16
    assert len(set(weights_of(sweep).values())) == 16
    for number in (0, 5, 12):
        trial = sweep.trial(number)
        options = {"lr": trial.recipe.lr, "batch-size": trial.recipe.batch_size, "seed": trial.seed}
        options |= {"layers": "-".join(map(str, trial.recipe.layers)), "epochs": 2, "dropout": 0.1}
        options |= {"validation-fraction": 0.1, "split-seed": 0, "backend": backend, "threads": 1}
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        code, _, err = run("train", "mnist-sample", *given, "--folder", tmp_path / str(number), "--no-report")
        assert code == 0, err
        assert digest(gpubp.load(tmp_path / str(number) / "model.npz")) == weights_of(sweep)[number]
    code, _, err = run(
        "train", tmp_path / "sweep" / "winner" / "recipe.toml", "--folder", "again", "--no-report", "-q"
    )
    assert code == 0, err
    assert digest(gpubp.load("again/model.npz")) == sweep.best.weights == digest(sweep.network)


def test_seeds_differ_and_share_what_is_held_out(plain):
    trials = [plain.trial(outcome.number).recipe for outcome in plain.trials]
    assert {recipe.split_seed for recipe in trials} == {0}
    assert {recipe.validation_fraction for recipe in trials} == {0.1}
    assert [recipe.seed for recipe in trials[:2]] == [0, 1]


def test_the_best_is_that_of_the_held_out_samples(plain):
    means = [point.mean for point in plain.points]
    assert means == sorted(means, reverse=True)
    best = plain.points[0].trials
    assert plain.best in best
    assert plain.best.score == max(outcome.score for outcome in best)
    assert plain.test_accuracy is not None


def test_only_the_chosen_network_meets_the_test_set_and_only_once(monkeypatch, tmp_path):
    met = []
    real = running._accuracy
    monkeypatch.setattr(running, "_accuracy", lambda *args: met.append(args) or real(*args))
    first = gpubp.sweep(IRIS, VARY, run=NUMPY, folder=tmp_path)
    assert len(met) == 1
    again = gpubp.sweep(IRIS, VARY, run=NUMPY, folder=tmp_path)
    assert len(met) == 1
    assert again.test_accuracy == first.test_accuracy
    assert again.network_epochs == first.network_epochs  # what is told of is the call that trained


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_runs_beside_a_trial_changes_nothing(plain, jobs, tmp_path):
    assert weights_of(gpubp.sweep(IRIS, VARY, seeds=2, jobs=jobs, run=NUMPY, folder=tmp_path)) == weights_of(
        plain
    )


def test_processes_and_a_dask_cluster_give_the_same_bits(plain, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs gpubp[cluster]")
    in_processes = gpubp.sweep(
        IRIS, VARY, seeds=2, jobs=2, engine="processes", run=NUMPY, folder=tmp_path / "processes"
    )
    assert weights_of(in_processes) == weights_of(plain)
    made = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**made) as cluster:
        on_dask = gpubp.sweep(
            IRIS,
            VARY,
            seeds=2,
            engine=f"dask:{cluster.scheduler_address}",
            run=NUMPY,
            folder=tmp_path / "dask",
        )
    assert on_dask.jobs == 2
    assert weights_of(on_dask) == weights_of(plain)


def test_a_cluster_that_does_not_answer_is_told(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs gpubp[cluster]")
    real = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: real(address, timeout="1s"))
    with pytest.raises(GpubpError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        gpubp.sweep(IRIS, engine="dask:tcp://127.0.0.1:9", run=NUMPY, folder=tmp_path)


@pytest.mark.parametrize("engine", ["thread", "dask", "threads:4", "ray:auto", ""])
def test_another_engine_is_refused(engine):
    with pytest.raises(UsageError, match="--engine is threads, processes or dask:ADDRESS"):
        Engine.of(engine)


def test_folds_are_held_out_in_turn(tmp_path):
    sweep = gpubp.sweep(IRIS, {"lr": [0.1]}, folds=3, run=NUMPY, folder=tmp_path)
    assert [outcome.fold for outcome in sweep.trials] == [1, 2, 3]
    assert len(set(weights_of(sweep).values())) == 3
    point = sweep.points[0]
    assert point.mean == pytest.approx(np.mean([outcome.validation_accuracy for outcome in sweep.trials]))
    assert point.deviation == pytest.approx(np.std([o.validation_accuracy for o in sweep.trials], ddof=1))
    room = running.DataRoom(None)
    parts = [room.parts(sweep.trial(number).recipe) for number in range(3)]
    held = np.concatenate([part.watched.inputs for part in parts])
    whole = parts[0].dataset.train.inputs
    assert np.array_equal(np.sort(held, axis=0), np.sort(whole, axis=0))
    for part in parts:
        assert len(part.train) + len(part.watched) == len(whole)


def test_values_are_compared_by_their_loss(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2))
    lines = ["a,b,y", *(f"{a:.6f},{b:.6f},{a - 2 * b + 0.3:.6f}" for a, b in x)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    values = {
        "layers": (2, 6, 1),
        "output": "identity",
        "loss": "squared_error",
        "epochs": 5,
        "test_fraction": 0.2,
    }
    recipe = load_recipe("mnist-sample").overridden({"data": str(tmp_path / "t.csv"), **values})
    sweep = gpubp.sweep(recipe, {"lr": [1e-5, 0.05]}, run=NUMPY, folder=tmp_path / "sweep")
    assert sweep.measure == "validation loss"
    assert sweep.best.settings == {"lr": 0.05}
    assert sweep.best.validation_accuracy is None
    assert sweep.points[0].mean == -sweep.best.validation_loss
    assert sweep.test_accuracy is None


def test_a_trial_that_fails_is_told_and_ends_nothing(run):
    code, out, err = run(
        "sweep", "mnist-sample", "--epochs", 1, "--vary", "lr=0.1,1e30", "--seeds", 2, "--backend", "numpy",
        "--json", "r.json", "--folder", "sweep",
    )  # fmt: skip
    assert code == 0
    assert "training has diverged" in err
    assert "2 of 4 trials failed" in err
    result = json.loads(Path("r.json").read_text())
    assert [t["state"] for t in result["trials"]] == [DONE, DONE, FAILED, FAILED]
    assert result["best"]["settings"] == {"lr": 0.1}
    assert "trial 3 (lr 1e+30, seed 0) FAILED" in err
    assert "best: trial" in out
    assert "training has diverged" in Path("sweep/report.html").read_text()
    code, _, err = run(
        "sweep", "--epochs", 1, "--lr", 1e30, "--backend", "numpy", "--json", "r.json", "--no-report"
    )
    assert code == 1
    assert "none is chosen" in err
    assert json.loads(Path("r.json").read_text())["best"] is None


def test_a_wrong_backend_fails_its_trials_with_the_code_of_verification(run, monkeypatch):
    faulty = plant(ReferenceBackend(1, plan="composed"), "weight_grad", FAULTS["weight_grad", "dropped row"])
    monkeypatch.setattr("gpubp.sweeps.trial.backends.get", lambda *_, **__: faulty)
    code, _, err = run(
        "sweep", "iris", "--epochs", 2, "--backend", "numpy", "--plan", "composed", "--no-report"
    )
    assert code == 3
    assert "verification failed" in err


@pytest.mark.parametrize("rule", ["halving", "median"])
def test_trials_end_early_where_others_did_better(rule, tmp_path):
    recipe = replace(IRIS, epochs=12)
    vary = {"lr": [0.1, 0.12, 0.14, 0.16, 0.18, 1e-7, 1e-8]}
    sweep = gpubp.sweep(recipe, vary, stop_early=rule, jobs=1, run=NUMPY, folder=tmp_path)
    states = {outcome.settings["lr"]: outcome.state for outcome in sweep.trials}
    assert states[1e-8] == STOPPED
    stopped = next(outcome for outcome in sweep.trials if outcome.state == STOPPED)
    assert stopped.epochs < 12
    assert len(stopped.curves["validation_accuracy"]) == stopped.epochs
    assert sweep.best.state == DONE
    # What a stopped trial knows serves those that come later, also in another process.
    lines = (tmp_path / kept.TRIALS).read_text().splitlines()
    last = next(i for i, line in enumerate(lines) if '"number": 6' in line)
    (tmp_path / kept.TRIALS).write_text("\n".join(lines[:last] + lines[last + 1 :]) + "\n")
    again = gpubp.sweep(recipe, vary, stop_early=rule, jobs=1, run=NUMPY, folder=tmp_path)
    assert [o.state for o in again.trials] == [o.state for o in sweep.trials]
    with pytest.raises(UsageError, match="--stop-early watches trials as they go"):
        gpubp.sweep(recipe, vary, stop_early=rule, engine="processes", run=NUMPY, folder=tmp_path / "other")
    with pytest.raises(UsageError, match="halving or median"):
        gpubp.sweep(recipe, vary, stop_early="best", run=NUMPY, folder=tmp_path / "other")


def test_optuna_searches(tmp_path):
    vary = {"lr": "1e-6..1"}
    sweep = gpubp.sweep(IRIS, vary, search="optuna:8", seeds=2, jobs=2, run=NUMPY, folder=tmp_path)
    assert len(sweep.points) == 8
    assert all(len(point.trials) == 2 for point in sweep.points)
    # A trial is lost: it alone is done again, with its settings, and ends as it did.
    lines = (tmp_path / kept.TRIALS).read_text().splitlines(keepends=True)
    (tmp_path / kept.TRIALS).write_text("".join(lines[:-1]))
    again = gpubp.sweep(IRIS, vary, search="optuna:8", seeds=2, jobs=2, run=NUMPY, folder=tmp_path)
    assert weights_of(again) == weights_of(sweep)
    assert again.network_epochs == IRIS.epochs


def command(folder, *more):
    return [
        *(
            sys.executable,
            "-m",
            "gpubp",
            "sweep",
            "mnist-sample",
            "--epochs",
            "3",
            "--backend",
            "numpy",
            "--seeds",
            "3",
        ),
        *("--vary", "lr=0.05,0.1", "--vary", "layers=784-20-10,784-30-10,784-40-10", "--folder", str(folder)),
        *("--verify", "off", "--jobs", "2", *more),
    ]


def lines_of(folder):
    path = folder / kept.TRIALS
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def wait_for(folder, count, process):
    while len(lines_of(folder)) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_a_sweep_that_is_killed_twice_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    folder, done = tmp_path / "killed", []
    for count in (3, 8):
        with subprocess.Popen(command(folder, "-q"), **quiet) as process:
            wait_for(folder, count, process)
            process.kill()
        kept_lines = lines_of(folder)
        assert kept_lines[: len(done)] == done  # nothing that was there is lost
        done = kept_lines
    finished = subprocess.run(command(folder), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert f"18 trials: 6 settings × 3 seeds; {len(done)} of them done before" in finished.stdout
    assert lines_of(folder)[: len(done)] == done
    assert sorted(json.loads(line)["number"] for line in lines_of(folder)) == list(range(18))
    whole = subprocess.run(command(tmp_path / "whole", "-q", "--json", "-"), capture_output=True, text=True)
    assert weights_of(read(folder)) == {t["number"]: t["weights"] for t in json.loads(whole.stdout)["trials"]}
    assert read(folder).best.number == read(tmp_path / "whole").best.number


def test_ctrl_c_ends_a_sweep_with_130_and_the_same_command_goes_on(tmp_path):
    folder = tmp_path / "sweep"
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(folder, "--epochs", "40"), **quiet) as process:
        wait_for(folder, 1, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: the same command goes on" in out
    assert "Traceback" not in err
    assert "interrupted" in (folder / "report.html").read_text()
    assert 1 <= len(lines_of(folder)) < 18
    assert read(folder).stopped == "interrupted"
    changed = subprocess.run(command(folder), capture_output=True, text=True)
    assert changed.returncode == 2
    assert "its recipe is {'epochs': 40}, not {'epochs': 3}" in changed.stderr


def test_a_full_disk_ends_a_sweep_and_the_same_command_goes_on(plain, tmp_path, monkeypatch):
    written = []
    real = os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(lines_of(tmp_path)) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(GpubpError, match="No space left on device"):
            gpubp.sweep(IRIS, VARY, seeds=2, jobs=2, run=NUMPY, folder=tmp_path)
    assert written
    again = gpubp.sweep(IRIS, VARY, seeds=2, jobs=2, run=NUMPY, folder=tmp_path)
    assert weights_of(again) == weights_of(plain)


def test_a_line_that_was_not_written_to_its_end_is_left_out(plain, tmp_path):
    gpubp.sweep(IRIS, VARY, seeds=2, run=NUMPY, folder=tmp_path)
    path = tmp_path / kept.TRIALS
    path.write_bytes(path.read_bytes()[:-40])
    again = gpubp.sweep(IRIS, VARY, seeds=2, run=NUMPY, folder=tmp_path)
    assert weights_of(again) == weights_of(plain)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:-3], *lines[2:]]))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is damaged in line 2"):
        gpubp.sweep(IRIS, VARY, seeds=2, run=NUMPY, folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": 3}, "its seeds is 2, not 3"),
        ({"vary": {"lr": [0.05]}}, "has another sweep: its vary"),
        (
            {"recipe": replace(IRIS, momentum=0.5)},
            r"its recipe is \{'momentum': .*\}, not \{'momentum': 0.5\}",
        ),
        ({"run": RunSettings(backend="numpy", threads=2)}, "this sweep has threads 1, not 2"),
        ({"run": RunSettings(backend="numba")}, "this sweep has backend numpy, not numba"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(tmp_path, change, says):
    given = {"recipe": IRIS, "vary": VARY, "seeds": 2, "run": NUMPY}
    gpubp.sweep(**given, folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=says):
        gpubp.sweep(**{**given, **change}, folder=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_data_that_has_changed_is_refused(tmp_path):
    table = tmp_path / "t.csv"
    rows = [f"{i % 7},{i % 3},{i % 2}" for i in range(80)]
    table.write_text("\n".join(["a,b,c", *rows]) + "\n")
    recipe = load_recipe("mnist-sample").overridden(
        {"data": str(table), "layers": (2, 4, 2), "epochs": 2, "test_fraction": 0.2}
    )
    gpubp.sweep(recipe, run=NUMPY, folder=tmp_path / "sweep")
    table.write_text("\n".join(["a,b,c", "9,9,1", *rows[1:]]) + "\n")
    with pytest.raises(DataError, match="the data has changed since this sweep began"):
        gpubp.sweep(recipe, run=NUMPY, folder=tmp_path / "sweep")


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    pytest.importorskip("fcntl", reason="folders are held on POSIX systems")
    with kept.held(tmp_path), pytest.raises(UsageError, match="another sweep is at work in"):
        gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)


def test_a_sweep_without_a_folder_has_one_of_its_own(ok):
    given = ("sweep", "iris", "--epochs", 2, "--backend", "numpy", "--no-report")
    ok(*given, "--vary", "lr=0.1,0.2")
    ok(*given, "--vary", "lr=0.1,0.3")
    folders = list(Path("gpubp-runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("sweep-iris-") for folder in folders)
    assert "2 trials: 2 settings; all of them done before" in ok(*given, "--vary", "lr=0.1,0.2")


def test_an_ensemble_is_the_mean_of_the_best(run, ok, tmp_path):
    out = ok(
        "sweep",
        "iris",
        "--epochs",
        4,
        "--seeds",
        5,
        "--ensemble",
        3,
        "--backend",
        "numpy",
        "--folder",
        "sweep",
    )
    sweep = read(Path("sweep"))
    best = sorted(sweep.trials, key=lambda o: (-o.validation_accuracy, o.validation_loss))[:3]
    assert sweep.members == [outcome.number for outcome in best]
    ensemble = gpubp.load("sweep/ensemble.npz")
    members = [gpubp.load(f"sweep/trials/{number + 1:04}.npz") for number in sweep.members]
    test = gpubp.load_data("iris", seed=0).test
    mean = np.mean([member.predict_proba(test.inputs) for member in members], axis=0)
    assert np.allclose(ensemble.predict_proba(test.inputs), mean, rtol=0, atol=1e-6)
    names = np.array(members[0].classes)
    accuracy = float((ensemble.predict(test.inputs) == names[test.targets]).mean())
    assert sweep.ensemble_accuracies[0][1] == pytest.approx(accuracy)
    assert f"ensemble of 3: test accuracy {accuracy:.4f}" in out
    np.save("x.npy", test.inputs)
    assert ok("predict", "sweep/ensemble.npz", "x.npy").split() == ensemble.predict(test.inputs).tolist()
    code, _, err = run(
        "sweep", "iris", "--epochs", 4, "--seeds", 2, "--ensemble", 3, "--backend", "numpy", "-q"
    )
    assert code == 2
    assert "an ensemble of 3 needs as many trials, and there are 2" in err
    code, _, err = run("explain", "iris", "--model", "sweep/ensemble.npz")
    assert code == 2
    assert "is an ensemble of networks" in err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--seeds", 0), "seeds must be 1 or more"),
        (("--jobs", 0), "jobs must be 1 or more"),
        (("--folds", 1), "folds must be 2 or more"),
        (("--folds", 3, "--fold", 1), "holds out each in turn: leave it out"),
        (("--ensemble", 1), "2 members or more"),
        (
            ("--vary", "optimizer=sgd,adam", "--vary", "momentum=0.9"),
            "a trial with optimizer adam, momentum 0.9 cannot be",
        ),
        (("--vary", "layers=5-3"), "give it sizes"),
        (("--backend", "numpyy"), "numpy"),
    ],
)
def test_what_makes_no_sweep_is_refused(run, given, says):
    code, out, err = run("sweep", "iris", "--epochs", 2, "--no-report", *given)
    assert (code, says in err + out) in ((2, True), (1, True), (5, True)), err


def test_the_page_is_sound_and_can_be_drawn_again(ok, tmp_path):
    ok(
        "sweep", "mnist-sample", "--epochs", 3, "--vary", "lr=0.001..1", "--vary", "layers=784-8-10,784-16-10",
        "--vary", "schedule=constant,cosine", "--search", "random:7", "--seeds", 2, "--ensemble", 3,
        "--folder", "sweep", "--backend", "numpy", "-q",
    )  # fmt: skip
    page = Path("sweep/report.html")
    text = page.read_text()
    for part in (
        "Settings, best first",
        "What the search found",
        "lr: best at",
        "The best, as a recipe",
        "ensemble of 3",
    ):
        assert part in text
    assert text.count("<tr>") > 7 + 14
    first = re.sub(r"\d{4}-\d\d-\d\d.*UTC", "", text)
    page.unlink()
    assert "report in sweep/report.html" in ok("report", "sweep")
    assert re.sub(r"\d{4}-\d\d-\d\d.*UTC", "", page.read_text()) == first
    assert problems(page, tmp_path) == []


def test_settings_may_be_listed_one_by_one(tmp_path):
    listed = [{"lr": 0.05, "layers": (4, 5, 3)}, {"lr": 0.5, "layers": (4, 8, 3)}]
    sweep = gpubp.sweep(IRIS, listed, run=NUMPY, folder=tmp_path)
    assert [outcome.settings for outcome in sweep.trials] == listed
    assert [axis.field for axis in read(tmp_path).plan.axes] == ["lr", "layers"]
    write_report(tmp_path / "report.html", sweep)
    with pytest.raises(UsageError, match="leave any search out"):
        gpubp.sweep(IRIS, listed, search="random:2", run=NUMPY, folder=tmp_path)


@pytest.mark.parametrize("how", [("--jobs", "1"), ("--engine", "processes")])
def test_ctrl_c_keeps_no_trial_that_it_cut_short(tmp_path, how):
    """Whoever hears of it first: the training in the main thread, or each process of a terminal's group."""
    folder = tmp_path / "sweep"
    given = [*command(folder, "--epochs", "60", "-q"), *how]
    with subprocess.Popen(given, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(folder, 1, process)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "warning" not in err
    for outcome in read(folder).trials:
        assert (outcome.state, outcome.epochs) == (DONE, 60)
    assert read(folder).stopped == "interrupted"


def test_a_process_that_is_killed_is_told(tmp_path):
    folder = tmp_path / "sweep"
    given = command(folder, "--epochs", "60", "-q", "--engine", "processes")
    with subprocess.Popen(given, stderr=subprocess.PIPE, text=True) as process:
        wait_for(folder, 1, process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "loky" in " ".join(child.cmdline()) and "tracker" not in " ".join(child.cmdline()):
                child.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "error: a process that trained was ended" in err
    assert "Traceback" not in err
    assert len(lines_of(folder)) >= 1


def test_a_report_of_a_sweep_under_way_changes_nothing(tmp_path, ok):
    gpubp.sweep(IRIS, VARY, run=NUMPY, folder=tmp_path)
    path = tmp_path / kept.TRIALS
    path.write_bytes(path.read_bytes()[:-20])  # as a sweep may be writing it
    before = path.read_bytes()
    ok("report", tmp_path)
    assert path.read_bytes() == before


def test_values_are_not_compared_by_unlike_losses(tmp_path):
    (tmp_path / "t.csv").write_text(
        "\n".join(["a,y", *(f"{i / 9},{i / 5 + 0.05}" for i in range(40))]) + "\n"
    )
    values = {
        "layers": (1, 4, 1),
        "output": "identity",
        "loss": "squared_error",
        "epochs": 2,
        "test_fraction": 0.2,
    }
    recipe = load_recipe("mnist-sample").overridden({"data": str(tmp_path / "t.csv"), **values})
    with pytest.raises(UsageError, match="values are compared by their loss"):
        gpubp.sweep(recipe, {"loss": ["squared_error", "quadratic"]}, run=NUMPY, folder=tmp_path / "sweep")
    # The recipe's own values, which no trial has, decide nothing.
    plain = replace(recipe, layers=(784, 10), output="softmax", loss="cross_entropy")
    settings = [{"layers": (1, n, 1), "output": "identity", "loss": "quadratic"} for n in (3, 5)]
    with pytest.raises(UsageError, match="values are compared by their loss"):
        gpubp.sweep(plain, settings, run=NUMPY, folder=tmp_path / "other")
    plain = replace(plain, loss="quadratic")
    settings = [{"layers": (1, n, 1), "output": "identity"} for n in (3, 5)]
    sweep = gpubp.sweep(plain, settings, run=NUMPY, folder=tmp_path / "other")
    assert [outcome.state for outcome in sweep.trials] == [DONE, DONE]


def test_a_tie_of_accuracies_is_not_told_by_unlike_losses(tmp_path):
    plan = plan_of(IRIS, {"loss": ["cross_entropy", "quadratic"]}, 1, "grid", None, None)
    outcomes = [
        Outcome(number, number, {"loss": loss}, 0, None, DONE, 0.5, cost)
        for number, (loss, cost) in enumerate([("cross_entropy", 0.9), ("quadratic", 0.2)])
    ]
    assert Sweep.of(plan, NUMPY, tmp_path, outcomes, "done").best.number == 0


def test_a_search_that_goes_on_does_not_begin_anew(tmp_path):
    vary = {"lr": "1e-6..1", "batch_size": "2..32"}
    given = {"search": "optuna:9", "jobs": 1, "run": NUMPY, "folder": tmp_path}
    whole = gpubp.sweep(IRIS, vary, **given)
    path = tmp_path / kept.TRIALS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))
    again = gpubp.sweep(IRIS, vary, **given)
    assert weights_of(again) == weights_of(whole)
    assert len({str(point.settings) for point in again.points}) == 9


def test_a_learning_search_lives_with_what_cannot_be(tmp_path):
    vary = {"optimizer": ["sgd", "adam"], "momentum": [0.0, 0.9]}
    sweep = gpubp.sweep(IRIS, vary, search="optuna:8", run=NUMPY, folder=tmp_path)
    assert len(sweep.trials) == 8
    assert {o.settings["optimizer"] for o in sweep.trials if o.state == FAILED} == {"adam"}
    assert all("momentum belongs to optimizer sgd" in outcome.error for outcome in sweep.failures)
    assert sweep.best.settings["optimizer"] == "sgd"
    write_report(tmp_path / "report.html", sweep)
    again = gpubp.sweep(IRIS, vary, search="optuna:8", run=NUMPY, folder=tmp_path)
    assert [o.state for o in again.trials] == [o.state for o in sweep.trials]


@pytest.mark.parametrize(
    ("vary", "count", "says"),
    [
        ({"lr": [0.1]}, 2, "needs as many trials, and there are 1"),
        ({"dtype": ["float32", "float64"]}, 2, "one dtype"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused_before_the_training(tmp_path, vary, count, says):
    with pytest.raises(UsageError, match=says):
        gpubp.sweep(IRIS, vary, ensemble=count, run=NUMPY, folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_an_ensemble_that_lacks_members_leaves_the_rest_of_the_sweep(run):
    given = (
        "sweep",
        "mnist-sample",
        "--epochs",
        1,
        "--vary",
        "lr=0.1,1e30",
        "--ensemble",
        2,
        "--backend",
        "numpy",
    )
    code, out, err = run(*given, "--folder", "sweep", "--json", "r.json")
    assert code == 1
    assert "no ensemble was made: 2 members need as many trials, and 1 were trained to their end" in err
    assert "best: trial 1" in out
    assert json.loads(Path("r.json").read_text())["ensemble"] is None
    assert read(Path("sweep")).stopped == "done"


def test_a_failure_of_the_surroundings_is_tried_again_and_one_of_the_settings_is_not(tmp_path, monkeypatch):
    def fails(*args, **settings):
        raise DataError("no data today")

    recipe = replace(load_recipe("mnist-sample"), epochs=1)
    vary = {"lr": [0.1, 1e30]}
    with monkeypatch.context() as patch:
        patch.setattr("gpubp.sweeps.trial.untrained", fails)
        first = gpubp.sweep(recipe, vary, run=NUMPY, folder=tmp_path)
    assert [outcome.error for outcome in first.trials] == ["no data today"] * 2
    second = gpubp.sweep(recipe, vary, run=NUMPY, folder=tmp_path)
    assert [outcome.state for outcome in second.trials] == [DONE, FAILED]
    count = len(lines_of(tmp_path))
    gpubp.sweep(recipe, vary, run=NUMPY, folder=tmp_path)
    assert len(lines_of(tmp_path)) == count


def test_a_folder_with_a_training_run_is_refused(tmp_path, run):
    assert run("train", "iris", "--epochs", 1, "--backend", "numpy", "--folder", "run", "-q")[0] in (0, 1)
    before = Path("run/report.html").read_bytes()
    code, _, err = run("sweep", "iris", "--epochs", 1, "--backend", "numpy", "--folder", "run")
    assert code == 2
    assert "run has a training run in it" in err
    assert Path("run/report.html").read_bytes() == before


@pytest.mark.parametrize("text", ['{"format": 1}', '{"format": 1, "definition": {}}', "[]", "{"])
def test_a_damaged_record_is_told(tmp_path, text):
    gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)
    (tmp_path / kept.SWEEP).write_text(text)
    with pytest.raises(DataError, match=r"sweep\.json is not a record of a gpubp sweep"):
        gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)


def test_a_network_that_is_gone_is_told_with_the_way_out(tmp_path):
    sweep = gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)
    (tmp_path / "trials" / "0001.npz").unlink()
    with pytest.raises(DataError, match=r"0001\.npz: delete the line of number 0 in .*trials\.jsonl"):
        gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)
    (tmp_path / kept.TRIALS).write_text("")
    assert weights_of(gpubp.sweep(IRIS, run=NUMPY, folder=tmp_path)) == weights_of(sweep)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--splits", 2), "--splits is of a single run"),
        (("--reach", 0.9), "--reach is of a single run"),
        (("--folds", 3, "--validation-fraction", 0.2), "both say what is held out"),
        (("--vary", "hidden=relu,foo"), "unknown activation 'foo'"),
        (("--vary", "epochs=0,3"), "epochs must be 1 or more"),
        (("--vary", "init=zzz"), "zzz"),
        (("--vary", "learning_rate=0.1"), "did you mean 'lr'"),
    ],
)
def test_what_contradicts_a_sweep_is_refused_and_leaves_nothing(run, given, says):
    code, _, err = run("sweep", "iris", "--no-report", "--backend", "numpy", *given)
    assert (code, says in err) == (2, True), err
    assert not Path("gpubp-runs").exists() or not list(Path("gpubp-runs").iterdir())


def test_data_is_named_by_its_whole_path(tmp_path, monkeypatch):
    """A cluster's processes work in folders of their own."""
    (tmp_path / "t.csv").write_text(
        "\n".join(["a,b,c", *(f"{i % 7},{i % 3},{i % 2}" for i in range(80))]) + "\n"
    )
    monkeypatch.chdir(tmp_path)
    values = {"data": "t.csv", "layers": (2, 4, 2), "epochs": 1, "test_fraction": 0.2}
    sweep = gpubp.sweep(load_recipe("mnist-sample").overridden(values), run=NUMPY, folder="sweep")
    assert sweep.trial(0).recipe.data == str(tmp_path / "t.csv")
    assert not sweep.failures
