"""The report of a training run: what it shows, in a browser, of every kind of run."""

from __future__ import annotations

import csv
import html
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.errors import GpubpError
from gpubp.experiments.parts import load_parts
from gpubp.experiments.recipe import load_recipe
from gpubp.experiments.run import run_recipe
from gpubp.randomness.deform import Deformation
from gpubp.reports import pictures
from gpubp.reports.charts import picture
from gpubp.reports.tested import confusion_matrix, fits, most_confident
from gpubp.reports.training import write_report
from tests.browser import problems
from tests.conftest import backend_by_name
from tests.faults import FAULTS, plant

NUMPY = ("--backend", "numpy", "--threads", 1, "-q", "--folder", "run")
PAGE = Path("run/report.html")
KINDS = {
    "images": ("--epochs", 3, "--reach", 0.8),
    "deformed": (
        "--epochs",
        2,
        "--deform-alpha",
        34,
        "--deform-rotation",
        15,
        "--deform-rotation-by-class",
        "1:7.5",
    ),
    "numbers": ("parity", "--epochs", 80),
    "splits": ("iris", "--epochs", 20, "--splits", 3),
    "regression": ("--data", "waves.csv", "--layers", "3-8-1", "--output", "identity", "--loss", "quadratic"),
    "words": (
        *("--data", "words.csv", "--layers", "2-6-1", "--output", "sigmoid"),
        *("--loss", "binary_cross_entropy", "--epochs", 2),
    ),
    "diverged": ("digits", "--lr", 3.0, "--loss", "squared_error", "--output", "identity"),
}


@pytest.fixture
def made(run, rng):
    """Make the report of a kind of run; returns its words and the command's errors."""

    def make(kind: str) -> tuple[str, str]:
        x = rng.uniform(-1, 1, (300, 3)).round(4)
        waves = [(*row, 2.0 * row[0] + row[1]) for row in x]
        said = [(*row[:2], "<b>yes</b>" if row[0] * row[1] > 0 else "no & never") for row in x]
        for name, rows in (("waves.csv", waves), ("words.csv", said)):
            Path(name).write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
        code, _, err = run("train", *KINDS[kind], *NUMPY)
        assert code == (kind == "diverged")
        return text_of(PAGE), err

    return make


def text_of(page: Path) -> str:
    """The words of a page, without its markup, style and charts."""
    return plain(re.sub(r"<(style|svg).*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL))


def plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def cells(table: str) -> list[list[str]]:
    """The texts of the cells of the page's first table with this in its tag, row by row, without heads."""
    source = PAGE.read_text(encoding="utf-8")
    body = re.findall(rf"<table[^>]*{table}.*?<tbody>(.*?)</tbody>", source, re.DOTALL)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[plain(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in rows]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_the_report_of_any_run_reads_well(made, kind):
    made(kind)
    assert problems(PAGE) == []


def test_the_report_of_images(made):
    words, _ = made("images")
    assert PAGE.stat().st_size < 1_000_000
    model, test = gpubp.load("run/model.npz"), gpubp.load_data("mnist-sample").test
    outputs = model.forward(test.inputs)
    wrong = outputs.argmax(axis=1) != test.targets
    source = PAGE.read_text()
    headings = ("Learning", "What reaches each layer", "Test", "Weights", "Verification", "How this was made")
    assert re.findall(r"<h2>(.*?)</h2>", source) == list(headings)
    counts = np.array([[int(c) for c in row[:-1]] for row in cells('id="confusion"')])
    assert counts.sum() == len(test)
    assert counts.trace() == len(test) - wrong.sum()
    tiles = re.findall(r"<figcaption>\d, taken for <strong>\d</strong><br>([\d.]+)</figcaption>", source)
    assert tiles[0] == f"{np.where(wrong, outputs.max(axis=1), 0).max():.3f}"
    assert len(tiles) == min(24, wrong.sum())
    units = re.findall(r'alt="incoming weights of unit (\d+)"', source)
    norms = np.linalg.norm(model.parameters[0][0], axis=1)
    assert set(map(int, units)) == set(np.argsort(-norms)[:64] + 1)
    assert len(units) == 64
    assert f"{(~wrong).mean():.4f}" in words
    for fact in ("reached 0.8", "verification ok", "gpubp train run/recipe.toml", np.__version__):
        assert fact in words


def test_the_report_of_deformed_images_shows_them_beside_the_originals(made):
    words, _ = made("deformed")
    source, train = PAGE.read_text(), gpubp.load_data("mnist-sample", seed=0).train
    section = re.findall(r'id="deformed".*?</section>', source, re.DOTALL)[0]
    images = re.findall(r'src="(.*?)" alt="(.*?)"', section)
    assert len({image for image, _ in images}) == 6 * 8
    places = np.sort([np.flatnonzero(train.targets == label)[0] for label in range(6)])
    labels = [int(label) for label in train.targets[places]]
    assert [alt for _, alt in images[::8]] == [f"training image of class {label}" for label in labels]
    deform = gpubp.Deform(alpha=34, rotation=15, rotation_by_class={1: 7.5})
    deformation = Deformation.of(deform, train.inputs, (28, 28), 0)
    for place, label, row in zip(places, labels, range(6), strict=True):
        image = train.inputs[[place]]
        steps = [deformation.images(image, np.array([place]), step, np.array([label])) for step in range(7)]
        shown = [picture(made.reshape(28, 28)) for made in (image, *steps)]
        assert [image for image, _ in images[8 * row : 8 * row + 8]] == shown
    assert "Elastic α 34 σ 4, rotation ±15° (±7.5° for class 1)." in words
    assert "deform alpha 34.0, sigma 4.0, rotation 15.0, rotation by class 1 7.5" in words
    assert "Training alone has deformed images, which makes its own curves the worse ones." in words


def test_the_report_of_parity_shows_that_the_last_bit_weighs_most(made):
    words, _ = made("numbers")
    first = gpubp.load("run/model.npz").parameters[0][0]
    shown = [[float(c.replace("−", "-")) for c in row] for row in cells('class="matrix">')]
    np.testing.assert_allclose(shown, first.T, atol=0.006)
    assert "bit 512" in words
    assert "those of bit 1, the least significant" in words
    assert np.abs(shown).mean(axis=1).argmax() == 9


def test_the_report_of_several_splits(made):
    words, _ = made("splits")
    assert "trained 3 times, on 3 different splits" in words
    assert "135 test samples" in words  # 45 of each split
    assert len(re.findall(r"Split [123]: verification ok", words)) == 3
    assert sum(int(c) for row in cells('id="confusion"') for c in row[:-1]) == 135
    flowers = gpubp.load_data("iris")
    known = {", ".join(f"{v:.4g}" for v in row) for row in (*flowers.train.inputs, *flowers.test.inputs)}
    assert cells('id="mistakes"')
    assert all(row[-1] in known for row in cells('id="mistakes"'))  # in centimetres, not as they were scaled


def test_the_report_of_a_regression(made):
    words, _ = made("regression")
    test = gpubp.load_data("waves.csv").test
    error = gpubp.load("run/model.npz").forward(test.inputs)[:, 0] - test.targets
    (fit,), worst = cells('id="fits"'), cells('id="worst"')
    assert float(fit[1]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert float(fit[2]) == pytest.approx(1 - (error**2).mean() / test.targets.var(), abs=1e-3)
    assert float(worst[0][2]) == pytest.approx(np.abs(error).max(), rel=1e-3)
    assert "accuracy" not in words


def test_the_report_of_a_failed_verification(run, monkeypatch):
    faulty = plant(backend_by_name("numpy, composed"), "hidden_delta", FAULTS["hidden_delta", "dropped row"])
    monkeypatch.setattr("gpubp.backends.get", lambda name, **_: faulty)
    code, _, err = run("train", "digits", "-q", "--folder", "run")
    assert code == 3
    assert err.count("The model was saved in run/model.npz") == 1
    words = text_of(PAGE)
    for told in ("This run failed", "FAIL ∂C/∂W1", "tensors FAILED", "The model was saved in run/model.npz"):
        assert told in words
    assert re.search(r'<details open>.*?id="checks".*?<td class="number bad">', PAGE.read_text(), re.DOTALL)


def test_a_run_that_diverges_leaves_its_report(made):
    words, err = made("diverged")
    assert "training has diverged" in err
    for told in ("training has diverged", "No epoch was completed", "The weights are not finite any more"):
        assert told in words
    left = ["history.csv", "outputs.npz", "recipe.toml", "report.html", "run.json", "signals.csv"]
    assert sorted(p.name for p in Path("run").iterdir()) == left


def test_early_stopping_is_marked_at_the_best_epoch(ok):
    ok("train", "digits", "--patience", 2, "--epochs", 300, *NUMPY)
    with open("run/history.csv", newline="") as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    best = int(np.argmin(losses)) + 1
    kept = f"below that of epoch {best}, whose weights the model has"
    for told in (f"Stopped early, after epoch {len(losses)}", kept, "10% of the training data, held out"):
        assert told in text_of(PAGE)
    assert f"best, epoch {best}" in PAGE.read_text()


def test_a_single_epoch_shows_as_points(ok):
    for epochs in (1, 2):
        shutil.rmtree("run", ignore_errors=True)
        ok("train", "parity", "--epochs", epochs, *NUMPY)
        chart = re.search(r'aria-label="[^"]* by epoch.*?</svg>', PAGE.read_text(), re.DOTALL)
        assert chart
        assert bool(re.search(r'd="M[\d.,]+h0" style="[^"]*stroke:var\(--series-1\)', chart[0])) == (
            epochs == 1
        )


def test_a_page_waits_for_no_library_of_charts_or_pictures(run, monkeypatch):
    for module in ("matplotlib", "PIL"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run("train", "digits", "--epochs", 1, *NUMPY) == (0, "", "")
    assert "<svg" in PAGE.read_text()
    assert "data:image/png" in PAGE.read_text()


def test_many_classes_are_listed_by_confusion(ok, rng):
    centres, labels = rng.normal(size=(120, 5)), np.repeat(np.arange(120), 12)
    np.savez("many.npz", X=centres[labels] + 0.8 * rng.normal(size=(1440, 5)), y=labels)
    ok("train", "--data", "many.npz", "--layers", "5-32-120", "--epochs", 2, *NUMPY)
    assert "120 classes are too many for a confusion matrix" in text_of(PAGE)
    assert 'id="confusion"' not in PAGE.read_text()
    assert 'id="confusions"' in PAGE.read_text()
    assert PAGE.stat().st_size < 300_000


def test_wide_and_deep_nets_are_shown_in_part(ok, rng):
    ok("train", "--layers", "784-300-20-20-20-20-20-10", "--epochs", 1, *NUMPY)
    words = text_of(PAGE)
    assert "the 64 of 300 units with the heaviest weights" in words
    assert "6 of the 7 layers are shown" in words
    assert PAGE.stat().st_size < 1_000_000
    shutil.rmtree("run")
    np.savez("bits.npz", X=rng.integers(0, 2, (60, 90)).astype(float), y=np.arange(60) % 2)
    ok("train", "--data", "bits.npz", "--layers", "90-70-2", "--epochs", 1, *NUMPY)
    assert "Shown are the 64 of 70 units and 64 inputs" in text_of(PAGE)


def test_a_single_output_and_classes_that_are_words(made):
    words, _ = made("words")
    assert "<b>yes" not in PAGE.read_text()
    assert "<b>yes</b>" in words
    assert "no & never" in words


def test_a_resumed_run_shows_where(ok):
    ok("train", "parity", "--epochs", 3, *NUMPY)
    ok("train", "--resume", "run/checkpoint.npz", "--epochs", 6, "--backend", "numpy", "-q")
    assert "The first 3 epochs were trained before" in text_of(PAGE)
    assert "at 7 points of the run" in text_of(PAGE)
    Path("run/signals.csv").unlink()
    ok("train", "--resume", "run/checkpoint.npz", "--epochs", 8, "--backend", "numpy", "-q")
    assert "Nothing was measured before epoch 7" in text_of(PAGE)


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_no_test_data_and_no_validation(tmp_path, monkeypatch, loss):
    without = lambda *args: replace(load_parts(*args), watched=None, test=None)  # noqa: E731
    monkeypatch.setattr("gpubp.experiments.run.load_parts", without)
    recipe = load_recipe("parity").overridden({"epochs": 2, "loss": loss, "output": "softmax"})
    result = run_recipe(recipe, backend="numpy", verify="off")
    write_report(tmp_path / "report.html", result, tmp_path)
    words = text_of(tmp_path / "report.html")
    for told in ("There is no test result", "there is no validation data", "verification: off"):
        assert told in words


def test_a_report_that_cannot_be_written_is_one_line(run, monkeypatch):
    def fail(*_):
        raise GpubpError("cannot write run/report.html: No space left on device")

    monkeypatch.setattr("gpubp.reports.training.write_report", fail)
    code, out, err = run("train", "parity", "--epochs", 1, *NUMPY, "--json", "-")
    assert code == 0
    assert '"ok": true' in out
    assert err == "warning: cannot write run/report.html: No space left on device\n"


def test_the_most_confident_mistakes():
    outputs = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    found = most_confident(outputs, np.array([1, 1, 2, 0]), 2)
    told = [(m.row, m.true, m.predicted, m.output, m.output_of_true) for m in found]
    assert told == [(0, 1, 0, 0.9, 0.1), (3, 0, 2, 0.7, 0.1)]
    (single,) = most_confident(np.array([[0.2], [0.9]]), np.array([1, 1]), 5)
    assert (single.row, single.predicted, single.output) == (0, 0, pytest.approx(0.8))


def test_the_confusion_matrix_has_true_classes_as_rows():
    counts = confusion_matrix(np.array([0, 1, 2]), np.array([0, 2, 2]), 3)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 1], [0, 0, 1]])


def test_a_fit_of_constant_targets_has_no_r2():
    (rmse, r2), other = fits(np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 1.0]]))
    assert (rmse, r2) == (0.0, 1.0)
    assert other[0] == pytest.approx(0.5**0.5)
    assert not np.isfinite(other[1])


def test_weights_are_coloured_by_sign_and_as_opaque_as_they_are_large():
    pixels = pictures.coloured(np.array([[2.0, -1.0, 0.0, 5.0]]), 2.0)[0]
    assert tuple(pixels[0]) == (*pictures.POSITIVE, 255)
    assert tuple(pixels[1][:3]) == pictures.NEGATIVE
    assert abs(int(pixels[1][3]) - 128) < 256 / pictures.LEVELS
    assert pixels[2:, 3].tolist() == [0, 255]
