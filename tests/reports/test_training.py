"""The report of a training run: what it shows, in a browser, of every kind of run."""

from __future__ import annotations

import html
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.errors import GpubpError
from gpubp.experiments import recipe as recipes
from gpubp.experiments import run as experiment
from gpubp.reports import pictures as weights
from gpubp.reports import training as report
from gpubp.reports.mistakes import confusion_matrix, fits, most_confident
from tests.browser import opened, problems
from tests.conftest import backend_by_name
from tests.faults import FAULTS, plant

NUMPY = ("--backend", "numpy", "-q", "--folder", "run")
PAGE = Path("run/report.html")


def text_of(page: Path) -> str:
    """The words of a page, without its markup, style and charts."""
    source = page.read_text(encoding="utf-8")
    for block in ("style", "svg"):
        source = re.sub(rf"<{block}.*?</{block}>", " ", source, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def csv_of(path: str, columns: np.ndarray, targets: list) -> str:
    lines = (",".join(map(str, [*row, t])) for row, t in zip(columns.round(4), targets, strict=True))
    Path(path).write_text("\n".join(lines) + "\n")
    return path


# In a browser


def test_the_report_of_images(run):
    assert run("train", *NUMPY)[0] == 0
    assert PAGE.stat().st_size < 1_000_000
    assert problems(PAGE) == []
    model, test = gpubp.load("run/model.npz"), gpubp.load_data("mnist-sample").test
    outputs = model.forward(test.inputs)
    wrong = outputs.argmax(axis=1) != test.targets
    with opened(PAGE) as driver:
        body = driver.find_element("tag name", "main").text
        cells = [[c.text for c in row.find_elements("tag name", "td")] for row in table(driver, "confusion")]
        tiles = [f.text for f in driver.find_elements("css selector", "#mistakes figure")]
        units = driver.find_elements("css selector", "#units img")
        unit_numbers = [int(f.text) for f in driver.find_elements("css selector", "#units figure")]
        for words in (
            "Learning",
            "What reaches each layer",
            "Test",
            "Weights",
            "Verification",
            "How this was made",
        ):
            assert any(words == h.text for h in driver.find_elements("tag name", "h2"))
    counts = np.array([[int(c) for c in row[:-1]] for row in cells])
    assert counts.sum() == len(test)
    assert counts.trace() == len(test) - wrong.sum()
    surest = np.where(wrong, outputs.max(axis=1), 0).max()
    assert tiles[0].endswith(f"{surest:.3f}")
    assert len(tiles) == min(24, wrong.sum())
    norms = np.linalg.norm(model.parameters[0][0], axis=1)
    assert len(units) == 64
    assert set(unit_numbers) == set(np.argsort(-norms)[:64] + 1)
    assert f"{(~wrong).mean():.4f}" in body
    assert "reached 0.92" in body
    assert "verification ok" in body
    assert "gpubp train run/recipe.toml" in body
    assert np.__version__ in body


def table(driver, name):
    return driver.find_elements("css selector", f"#{name} tbody tr")


def test_the_report_of_parity_shows_that_the_last_bit_weighs_most(run):
    assert run("train", "parity", "--epochs", 200, *NUMPY)[0] == 0
    assert problems(PAGE) == []
    first = gpubp.load("run/model.npz").parameters[0][0]
    with opened(PAGE) as driver:
        layer = driver.find_element("css selector", ".layer table")
        shown = [
            [float(c.text.replace("−", "-")) for c in row.find_elements("tag name", "td")]
            for row in layer.find_elements("css selector", "tbody tr")
        ]
        heads = [h.text for h in layer.find_elements("css selector", "tbody th")]
        assert "those of bit 1, the least significant" in driver.find_element("tag name", "main").text
    np.testing.assert_allclose(shown, first.T, atol=0.006)
    assert heads[0] == "bit 512"
    assert heads[-1] == "bit 1, the least significant"
    assert np.abs(shown).mean(axis=1).argmax() == 9


def test_the_report_of_several_splits(run):
    assert run("train", "iris", "--epochs", 30, "--splits", 3, *NUMPY)[0] == 0
    assert problems(PAGE) == []
    words = text_of(PAGE)
    assert "trained 3 times, on 3 different splits" in words
    assert "135 test samples" in words  # 45 of each split
    assert len(re.findall(r"Split [123]: verification ok", words)) == 3
    with opened(PAGE) as driver:
        cells = [[c.text for c in row.find_elements("tag name", "td")] for row in table(driver, "confusion")]
        mistakes = [
            [c.text for c in row.find_elements("tag name", "td")] for row in table(driver, "mistakes")
        ]
    assert sum(int(c) for row in cells for c in row[:-1]) == 135
    flowers = gpubp.load_data("iris")
    known = {
        ", ".join(f"{v:.4g}" for v in row) for part in (flowers.train, flowers.test) for row in part.inputs
    }
    assert mistakes
    assert all(row[-1] in known for row in mistakes)  # in centimetres, not as they were scaled


def test_the_report_of_a_regression(run, rng):
    x = rng.uniform(-1, 1, (300, 3))
    data = csv_of("waves.csv", x, (2.0 * x[:, 0] + x[:, 1]).tolist())
    options = ("--layers", "3-8-1", "--output", "identity", "--loss", "quadratic", "--epochs", 20)
    assert run("train", "--data", data, *options, *NUMPY)[0] == 0
    assert problems(PAGE) == []
    test = gpubp.load_data(data).test
    outputs = gpubp.load("run/model.npz").forward(test.inputs)[:, 0]
    error = outputs - test.targets
    with opened(PAGE) as driver:
        (fit,) = [[c.text for c in row.find_elements("tag name", "td")] for row in table(driver, "fits")]
        worst = [[c.text for c in row.find_elements("tag name", "td")] for row in table(driver, "worst")]
    assert float(fit[1]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert float(fit[2]) == pytest.approx(1 - (error**2).mean() / test.targets.var(), abs=1e-3)
    assert float(worst[0][2]) == pytest.approx(np.abs(error).max(), rel=1e-3)
    assert "accuracy" not in text_of(PAGE)


def test_the_report_of_a_failed_verification(run, monkeypatch):
    faulty = plant(backend_by_name("numpy"), "hidden_delta", FAULTS["hidden_delta", "dropped row"])
    monkeypatch.setattr("gpubp.backends.get", lambda name, **_: faulty)
    code, _, err = run("train", "digits", "-q", "--folder", "run")
    assert code == 3
    assert err.count("The model was saved in run/model.npz") == 1
    assert problems(PAGE) == []
    words = text_of(PAGE)
    assert "This run failed" in words
    assert "FAIL ∂C/∂W1" in words
    assert "tensors FAILED" in words
    assert "The model was saved in run/model.npz" in words
    with opened(PAGE) as driver:
        assert driver.find_element("css selector", "#checks .bad").is_displayed()


# Every kind of run


def test_a_run_that_diverges_leaves_its_report(run):
    options = ("--lr", 3.0, "--loss", "squared_error", "--output", "identity")
    code, _, err = run("train", "digits", *options, *NUMPY)
    assert code == 1
    assert "training has diverged" in err
    words = text_of(PAGE)
    assert "training has diverged" in words
    assert "No epoch was completed" in words
    assert "The weights are not finite any more" in words
    assert problems(PAGE) == []
    assert sorted(p.name for p in Path("run").iterdir()) == [
        "history.csv",
        "recipe.toml",
        "report.html",
        "signals.csv",
    ]


def test_early_stopping_is_marked_at_the_best_epoch(run):
    import csv

    assert run("train", "digits", "--patience", 2, "--epochs", 300, *NUMPY)[0] == 0
    with open("run/history.csv", newline="") as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    best = int(np.argmin(losses)) + 1
    words = text_of(PAGE)
    assert f"Stopped early, after epoch {len(losses)}" in words
    assert f"below that of epoch {best}, whose weights the model has" in words
    assert "10% of the training data, held out" in words
    assert f"best, epoch {best}" in PAGE.read_text()


def test_a_single_epoch_shows_as_points(run):
    for epochs in (1, 2):
        shutil.rmtree("run", ignore_errors=True)
        assert run("train", "digits", "--epochs", epochs, *NUMPY)[0] == 0
        chart = re.search(r'aria-label="cross entropy by epoch.*?</svg>', PAGE.read_text(), re.DOTALL)
        assert chart
        assert bool(re.search(r"<use [^>]*fill: var\(--series-1\)", chart[0])) == (epochs == 1)


def test_many_classes_are_listed_by_confusion(run, rng):
    centres, labels = rng.normal(size=(120, 5)), np.repeat(np.arange(120), 12)
    np.savez("many.npz", X=centres[labels] + 0.8 * rng.normal(size=(1440, 5)), y=labels)
    assert run("train", "--data", "many.npz", "--layers", "5-32-120", "--epochs", 2, *NUMPY)[0] == 0
    words = text_of(PAGE)
    assert "120 classes are too many for a confusion matrix" in words
    assert 'id="confusion"' not in PAGE.read_text()
    assert 'id="confusions"' in PAGE.read_text()
    assert PAGE.stat().st_size < 300_000


def test_wide_and_deep_nets_are_shown_in_part(run):
    layers = "784-300-20-20-20-20-20-10"
    assert run("train", "--layers", layers, "--epochs", 1, *NUMPY)[0] == 0
    words = text_of(PAGE)
    assert "the 64 of 300 units with the heaviest weights" in words
    assert "6 of the 7 layers are shown" in words
    assert PAGE.stat().st_size < 1_000_000
    shutil.rmtree("run")
    Path("bits.csv").write_text("".join(f"{','.join(map(str, row))},{sum(row) % 2}\n" for row in bits(90)))
    run("train", "--data", "bits.csv", "--layers", "90-70-2", "--epochs", 1, *NUMPY)
    assert "Shown are the 64 of 70 units and 64 inputs" in text_of(PAGE)


def bits(columns: int) -> list[list[float]]:
    return np.random.default_rng(0).integers(0, 2, (60, columns)).astype(float).tolist()


def test_a_single_output_and_classes_that_are_words(run, rng):
    x = rng.normal(size=(200, 2))
    data = csv_of("words.csv", x, ["<b>yes</b>" if a * b > 0 else "no & never" for a, b in x])
    options = ("--layers", "2-6-1", "--output", "sigmoid", "--loss", "binary_cross_entropy", "--epochs", 2)
    assert run("train", "--data", data, *options, *NUMPY)[0] == 0
    assert "<b>yes" not in PAGE.read_text()
    words = text_of(PAGE)
    assert "<b>yes</b>" in words
    assert "no & never" in words
    assert problems(PAGE) == []


def test_a_resumed_run_shows_where(run):
    run("train", "parity", "--epochs", 3, *NUMPY)
    assert run("train", "--resume", "run/checkpoint.npz", "--epochs", 6, "--backend", "numpy", "-q")[0] == 0
    assert "The first 3 epochs were trained before" in text_of(PAGE)
    assert "at 7 points of the run" in text_of(PAGE)
    Path("run/signals.csv").unlink()
    assert run("train", "--resume", "run/checkpoint.npz", "--epochs", 8, "--backend", "numpy", "-q")[0] == 0
    assert "What was before epoch 7 was not measured" in text_of(PAGE)


def test_an_interrupted_run_leaves_its_report(tmp_path):
    command = [sys.executable, "-m", "gpubp", "train", "parity", "--backend", "numpy", "--epochs", "100000"]
    process = subprocess.Popen(
        [*command, "--folder", "run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()  # the first epoch is over
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "report in run/report.html" in out
    assert "warning" not in err
    words = text_of(tmp_path / "run" / "report.html")
    assert re.search(r"Interrupted after \d+ whole epochs", words)
    assert "It goes on with: gpubp train --resume run/checkpoint.npz" in words
    assert "reached" not in words.split("Learning")[0]


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_no_test_data_and_no_validation(tmp_path, monkeypatch, loss):
    from dataclasses import replace

    load = experiment.load
    monkeypatch.setattr(experiment, "load", lambda *a: (replace((found := load(*a))[0], test=None), found[1]))
    recipe = recipes.load("parity").overridden({"epochs": 2, "loss": loss, "output": "softmax"})
    result = experiment.run(recipe, backend="numpy", verify="off")
    report.write(tmp_path / "report.html", result, tmp_path)
    words = text_of(tmp_path / "report.html")
    assert "There is no test result" in words
    assert "there is no validation data" in words
    assert "verification: off" in words


def test_no_report_if_none_is_wanted(run):
    code, out, _ = run(
        "train", "parity", "--epochs", 1, "--backend", "numpy", "--folder", "run", "--no-report"
    )
    assert code == 0
    assert "report" not in out
    assert not PAGE.exists()
    assert Path("run/history.csv").exists()


def test_a_report_that_cannot_be_written_is_one_line(run, monkeypatch):
    def fail(*_):
        raise GpubpError("cannot write run/report.html: No space left on device")

    monkeypatch.setattr(report, "write", fail)
    code, out, err = run("train", "parity", "--epochs", 1, *NUMPY, "--json", "-")
    assert code == 0
    assert '"ok": true' in out
    assert err == "warning: cannot write run/report.html: No space left on device\n"


# Its numbers


def test_the_most_confident_mistakes():
    outputs = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    found = most_confident(outputs, np.array([1, 1, 2, 0]), 2)
    assert [(m.row, m.true, m.predicted, m.output, m.output_of_true) for m in found] == [
        (0, 1, 0, 0.9, 0.1),
        (3, 0, 2, 0.7, 0.1),
    ]
    (single,) = most_confident(np.array([[0.2], [0.9]]), np.array([1, 1]), 5)
    assert (single.row, single.predicted, single.output) == (0, 0, pytest.approx(0.8))


def test_the_confusion_matrix_has_true_classes_as_rows():
    counts = confusion_matrix(np.eye(3)[[0, 2, 2]], np.array([0, 1, 2]), 3)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 1], [0, 0, 1]])


def test_a_fit_of_constant_targets_has_no_r2():
    one, two = fits(np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 1.0]]))
    assert (one.rmse, one.r2) == (0.0, 1.0)
    assert two.rmse == pytest.approx(0.5**0.5)
    assert two.r2 is None


def test_weights_are_coloured_by_sign_and_as_opaque_as_they_are_large():
    pixels = weights.coloured(np.array([[2.0, -1.0, 0.0, 5.0]]), 2.0)[0]
    assert tuple(pixels[0]) == (*weights.POSITIVE, 255)
    assert tuple(pixels[1][:3]) == weights.NEGATIVE
    assert abs(int(pixels[1][3]) - 128) < 256 / weights.LEVELS
    assert pixels[2][3] == 0
    assert pixels[3][3] == 255
