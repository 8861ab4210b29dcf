"""The benchmark of whole processes: figures by hand, what a run writes, and what becomes of one that goes wrong."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

from bench.startup import command, measure, report, trials
from bench.startup.measure import Measured, Setting
from bench.startup.report import Report
from bench.startup.trials import AT_LEAST, AT_MOST, BARE, BEFORE, MORE, SCRIPTS, TRIALS, Goal, Process, Trial
from gpubp.benchmark import peers
from gpubp.benchmark.process import environment
from gpubp.benchmark.results import Row, origin
from gpubp.data.builtin import mnist_sample
from gpubp.errors import UsageError
from gpubp.experiments.recipe import load_recipe
from gpubp.optimizers import Schedule

BY_NAME = {trial.name: trial for trial in TRIALS}


def timed(**times):
    return [Row(peer.replace("_", "-"), peer, rounds=rounds) for peer, rounds in times.items()]


def python(peer, code):
    return Process(peer, ("-c", code))


def says(accuracy):
    return f"print('epoch 1: test accuracy 0.1\\ntest accuracy {accuracy}')"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench(trials, options) runs the command on these, and returns its exit code and what it wrote."""
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    facts = {"commit": None, "python": "3.11", "packages": {"numpy": "2.0"}}
    monkeypatch.setattr(measure, "facts", lambda setting, peer: facts)

    def run(these, *options):
        monkeypatch.setattr(command, "choose", lambda args: these)
        code = command.main(["--out", str(tmp_path / "out"), *map(str, options)])
        return code, json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def test_figures_are_medians_over_the_rounds():
    rows = timed(
        gpubp=[1.0, 4.0, 2.0], sklearn=[6.0, 8.0, 20.0], jax=[5.0, 4.0, 6.0], gpubp_before=[2.0, 2.0, 2.0]
    )
    assert Goal(AT_LEAST, 3.0).found(rows) == 3.0  # of 5, 1 and 3: JAX is the fastest
    assert Goal(AT_LEAST, 3.0).other(rows).peer == "jax"
    assert Goal(AT_LEAST, 6.0, "sklearn").found(rows) == 6.0
    assert Goal(AT_MOST, 0.5, "sklearn").found(rows) == pytest.approx(1 / 6)
    assert Goal(MORE, 0.5, "jax").found(rows) == -4.0  # of -4, 0 and -4
    assert Goal(AT_LEAST, 2.0, "jax").found(rows, BEFORE) == 2.5
    assert Goal(AT_LEAST, 2.0, "keras").found(rows) is None
    assert Goal(AT_LEAST, 2.0).found(timed(gpubp=[1.0])) is None


@pytest.mark.parametrize(
    ("goal", "reaches", "misses"),
    [(Goal(AT_LEAST, 3.5), 3.5, 3.4), (Goal(AT_MOST, 0.5), 0.5, 0.6), (Goal(MORE, 0.25, BARE), 0.25, 0.26)],
)
def test_whether_a_figure_is_reached(goal, reaches, misses):
    assert goal.reached(reaches)
    assert not goal.reached(misses)


def test_rows_are_chosen_by_name_or_beginning():
    assert [trial.name for trial in trials.select(["mnist", "first-step", "help"])] == [
        "mnist", "first-step-numba", "first-step-auto", "help",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="unknown row 'gird': did you mean 'grid'"):
        trials.select(["gird"])


def test_a_run_writes_what_it_measures(bench, tmp_path, monkeypatch, capsys):
    found = peers.find_spec
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "jax" else found(name))
    processes = (python("gpubp", says(0.951)), python("sklearn", says(0.955)), python("jax", "never run"))
    trial = Trial("digits", "digits", processes, {"digits": Goal(AT_LEAST, 1e-6)}, accuracy=True)
    code, content = bench([trial], "--rounds", 3, "--before", sys.executable)
    assert code == 0
    assert (content["format"], content["format_version"]) == ("gpubp-bench-startup", 1)
    assert content["missing"] == {"jax": "jax not installed"}
    assert {"cpu", "load_average_before", "load_average_after"} <= content["machine"].keys()
    (row,) = content["rows"]
    assert [(peer["peer"], len(peer["rounds_s"])) for peer in row["peers"]] == [
        ("gpubp", 3), ("gpubp-before", 3), ("sklearn", 3),
    ]  # fmt: skip
    assert [peer["accuracies"] for peer in row["peers"]] == [[0.951] * 3] * 2 + [[0.955] * 3]
    gpubp, _, sklearn = (peer["rounds_s"] for peer in row["peers"])
    assert row["peers"][2]["round_ratios"] == [b / a for a, b in zip(gpubp, sklearn, strict=True)]
    assert (row["status"], row["notes"], row["reached"], row["beside"]) == ("ok", [], True, "sklearn")
    assert row["found"] == row["peers"][2]["ratio"]["median"]
    assert row["found_before"] is not None
    assert str(tmp_path) not in json.dumps(content)
    with (tmp_path / "out" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["peer"] for line in lines] == ["gpubp", "gpubp-before", "sklearn"]
    assert float(lines[2]["median_s"]) == pytest.approx(np.median(sklearn))
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| gpubp | gpubp before | scikit-learn | to reach | found before | found | reached |" in page
    assert "Left out: jax, jax not installed." in page
    assert "digits: test accuracies from 0.9510 to 0.9550." in page
    assert "jax left out: jax not installed" in capsys.readouterr().out


def test_other_accuracies_are_told(bench, tmp_path):
    processes = (python("gpubp", says(0.95)), python("sklearn", says(0.93)))
    code, content = bench([Trial("digits", "", processes, {"digits": None}, accuracy=True)], "--rounds", 1)
    assert code == 0
    said = "the accuracies differ by more than 0.01: gpubp 0.9500, scikit-learn 0.9300"
    assert content["rows"][0]["notes"] == [said]
    assert f"digits: {said}." in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('first\\nno digits')", "no digits (exit code 1)"),
        ("print('did not reach 0.9'); raise SystemExit(1)", "did not reach 0.9 (exit code 1)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("print('nothing')", "it prints no test accuracy"),
    ],
)
def test_a_script_that_fails_ends_its_row_and_no_other(bench, code, why):
    processes = (python("gpubp", says(0.95)), python("sklearn", code))
    failing = Trial("failing", "", processes, {"failing": Goal(AT_LEAST, 1.0)}, fresh=True, accuracy=True)
    next_one = Trial("next", "", (python("gpubp", "pass"),), {"next": None})
    ended, content = bench([failing, next_one], "--rounds", 1)
    assert ended == 1
    first, second = content["rows"]
    assert (first["status"], first["notes"]) == ("failed", [f"failed: scikit-learn: {why}"])
    assert (first["found"], first["reached"]) == (None, None)
    assert (second["status"], len(second["peers"])) == ("ok", 1)


def test_ctrl_c_keeps_what_was_measured(bench, monkeypatch):
    calls, real = [], measure.timed

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:  # of the second round; the first is a warm-up
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(measure, "timed", interrupted)
    trial = Trial("one", "", (python("gpubp", "pass"),), {"one": None})
    code, content = bench([trial, trial], "--rounds", 2)
    assert code == 130
    assert content["interrupted"] is True
    (row,) = content["rows"]
    assert (row["status"], len(row["peers"][0]["rounds_s"])) == ("cut short", 1)


def test_first_runs_have_empty_caches_of_their_own_and_no_warm_up(tmp_path):
    log = tmp_path / "log"
    code = (
        "import os; from pathlib import Path\n"
        "folders = [Path(os.environ[name + '_CACHE_DIR']) for name in ('NUMBA', 'TORCHINDUCTOR')]\n"
        "folders.append(Path(os.environ['XDG_CACHE_HOME'], 'matplotlib'))\n"
        "assert not any(folder.exists() for folder in folders), folders\n"
        "[folder.mkdir() for folder in folders]\n"
        f"open({str(log)!r}, 'a').write(f'{{folders[0]}}\\n')"
    )
    result = Measured.of(Trial("one", "", (python("gpubp", code),), {"one": None}, fresh=True))
    setting = Setting({"gpubp": sys.executable}, {}, rounds=5, first_rounds=2)
    measure.measure(result, result.trial.processes, setting, lambda line: None)
    assert result.notes == []
    assert len(set(log.read_text().split())) == len(result.lines["one"][0].rounds) == 2


def test_times_within_a_process_are_of_whose_interpreter_it_is():
    result = Measured.of(BY_NAME["fits"])
    said = "a line\n" + json.dumps({"fits-iris": {"gpubp": 1.0, "sklearn": 2.0}})
    measure.read(result, "gpubp", 9.0, said)
    measure.read(result, BEFORE, 9.0, said.replace("1.0", "3.0"))
    assert [(row.peer, row.rounds) for row in result.lines["fits-iris"]] == [
        ("gpubp", [1.0]), ("sklearn", [2.0]), (BEFORE, [3.0]),
    ]  # fmt: skip


def test_every_process_of_gpubp_is_run_again_as_before():
    processes = measure.present(BY_NAME["first-step-numba"], {}, before=True)
    assert [process.peer for process in processes] == ["gpubp", BARE, BEFORE]
    assert processes[0].arguments == processes[2].arguments
    setting = Setting({"gpubp": "/new/python", BEFORE: "/old/python"}, {})
    interpreters = [setting.interpreter(name) for name in ("gpubp", BARE, BEFORE, "jax")]
    assert interpreters == ["/new/python", "/new/python", "/old/python", sys.executable]


def test_modules_found_by_pythonpath_are_not_for_other_interpreters(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    setting = Setting({"gpubp": "/new/python"}, {})
    assert "PYTHONPATH" not in setting.environment("gpubp", None)
    assert setting.environment("jax", None)["PYTHONPATH"] == "here"


def test_facts_of_an_interpreter():
    found = measure.facts(Setting({"gpubp": sys.executable}, {}), "gpubp")
    assert found["packages"]["numpy"] == np.__version__
    assert found.keys() == {"commit", "python", "packages"}


def test_without_mnist_its_rows_are_left_out(bench):
    code, content = bench([BY_NAME["mnist"]])
    assert code == 0
    assert content["rows"][0]["status"] == "left out"
    assert "give --data-dir" in content["rows"][0]["notes"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["--first-rounds", "0"], "--first-rounds must be 1 or more, not 0"),
        (["--threads", "0"], "--threads must be 1 or more, not 0"),
        (["--before", "no-such-python"], "there is no interpreter no-such-python"),
        (["--data-dir", "."], "has no train-images-idx3-ubyte.gz"),
        (["--rows", "speed"], "unknown row 'speed'"),
    ],
)
def test_wrong_options(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([*options, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_scripts_train_as_the_recipes_do():
    for name, data in (("mnist", "{mnist}"), ("mnist-sample", "{sample}")):
        recipe = load_recipe(name)
        assert (recipe.layers, recipe.epochs, recipe.optimizer) == ((784, 128, 10), 10, "sgd")
        assert (recipe.lr, recipe.momentum, recipe.loss) == (0.1, 0.9, "cross_entropy")
        assert recipe.weight_decay is None
        for process in BY_NAME[name].processes[1:]:
            assert process.arguments[1:] == (data, str(recipe.batch_size), recipe.schedule)
    assert all(len(path.read_text().splitlines()) <= 60 for path in SCRIPTS.glob("*.py"))


def test_the_scripts_have_the_same_digits_and_rates():
    common = SimpleNamespace(**runpy.run_path(str(SCRIPTS / "common.py")))
    x, y, x_test, y_test = common.load(str(files("gpubp.data").joinpath("mnist-sample.npz")))
    ours = mnist_sample()
    for images, labels, split in ((x, y, ours.train), (x_test, y_test, ours.test)):
        theirs = sorted((row.tobytes(), label) for row, label in zip(images, labels.tolist(), strict=True))
        scaled = split.inputs.astype(np.float32) / 255
        assert theirs == sorted((r.tobytes(), t) for r, t in zip(scaled, split.targets.tolist(), strict=True))
    for kind in ("constant", "cosine"):
        np.testing.assert_allclose(
            common.learning_rates(kind, 40), 0.1 * Schedule(kind).factors(0, 40, 4, 10), atol=1e-15
        )


@pytest.mark.parametrize("name", ["numpy_by_hand", "sklearn_mlp"])
def test_a_script_learns_the_sample(name, tmp_path):
    sample = str(files("gpubp.data").joinpath("mnist-sample.npz"))
    arguments = [sys.executable, str(SCRIPTS / f"{name}.py"), sample, "64", "constant"]
    _, said = measure.timed(arguments, environment(1), tmp_path)
    assert float(measure.ACCURACY.findall(said)[-1]) > 0.93


def test_a_row_without_times_is_in_all_files():
    result = Measured.of(BY_NAME["help"])
    result.end("failed", "gpubp: it is not there")
    made = Report(
        **origin(), settings={"rounds": 5, "first_rounds": 3, "threads": None}, interpreters={}, missing={}
    )
    made.measured.append(result)
    content = report.to_dict(made)
    assert made.failed
    assert "help,,failed" in report.to_csv(content)
    assert "help: failed: gpubp: it is not there." in report.to_markdown(content)
    assert report.verdict(content["rows"][0]) == [
        "to reach: 0.25 s more than bare Python or less; not measured"
    ]
