"""Tables from the command line: what a run says that it read, and what its model is then asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import gpubp

QUICK = ("--epochs", 3, "--backend", "numpy", "--no-report")
FIT_VALUES = ("--output", "identity", "--loss", "quadratic", "--optimizer", "adam")


@pytest.fixture
def flowers(run, rng):
    """flowers.csv: two columns that tell three kinds apart, and more.csv: the same rows without them."""
    kind = np.arange(90) % 3
    table = pd.DataFrame({"long": kind + rng.normal(0, 0.1, 90), "wide": rng.normal(0, 1, 90)})
    table.to_csv("more.csv", index=False)
    table.assign(kind=np.array(["ash", "birch", "cedar"])[kind]).to_csv("flowers.csv", index=False)
    return kind


def test_names_that_only_the_model_has_are_said_once_and_nothing_else_is(run, flowers):
    def told(*args):
        code, _, err = run(*args)
        assert code == 0, err
        return [line for line in err.splitlines() if "warning" in line]

    x = pd.read_csv("more.csv").to_numpy()
    np.save("more.npy", np.tile(x, (100, 1)))
    np.savez("more.npz", X=x, y=flowers)
    new = pd.read_csv("flowers.csv")[::-1].assign(long=x[::-1, 0] + 0.001)
    new.to_csv("bare.csv", index=False, header=False)
    pd.DataFrame(x).to_csv("bare-more.csv", index=False, header=False)
    new.iloc[:, ::-1].to_csv("test.csv", index=False)
    train = ("train", "--data", "flowers.csv", "--layers", "2-8-3", "--lr", 0.5, *QUICK[:-1], "--epochs", 30)
    assert told(*train, "--folder", "run") == told("report", "run") == []
    assert told(*train, "--patience", 30, "--standardize", "--splits", 2) == []
    assert told(*train, "--test-data", "test.csv", "--target", "kind") == []
    assert told("explain", "--data", "flowers.csv", "--layers", "2-8-3", "--epochs", 1) == []
    assert told("explain", "--data", "flowers.csv", "--model", "run/model.npz") == []
    assert told("predict", "run/model.npz", "more.csv") == []
    words = "warning: {}: the network learned from columns long, wide; these have no names, and are taken in the order"
    for args, file in (
        (("predict", "run/model.npz", "more.npy"), "more.npy"),
        (("predict", "run/model.npz", "more.npz", "--proba"), "more.npz"),
        (("predict", "run/model.npz", "bare-more.csv"), "bare-more.csv"),
        (("explain", "--data", "more.npz", "--model", "run/model.npz"), "more.npz"),
    ):
        (line,) = told(*args)
        assert line.startswith(words.format(file)), line
    (line,) = told(*train, "--test-data", "bare.csv", "--folder", "bare")
    assert line.startswith(words.format("bare.csv"))
    assert told("report", "bare") == []


def test_a_run_says_in_one_line_what_it_read(ok, flowers):
    out = ok("train", "--data", "flowers.csv", "--layers", "2-8-3", *QUICK)
    line = (
        "flowers: 72 rows to train on and 18 to test; 2 inputs (long, wide); target 'kind', the last column: "
    )
    assert line + "3 classes (ash, birch, cedar)\n" in out
    out = ok("train", "mnist-sample", *QUICK, "--epochs", 1, "--reach", 0.01)
    assert (
        "mnist-sample: 4,000 rows to train on and 1,000 to test; 784 inputs, bytes of images, 28 × 28; targets: "
        "10 classes (0, 1, 2, 3 … (10 in all))\n"
    ) in out
    assert "rows to train" not in ok("train", "--data", "flowers.csv", "--layers", "2-3", *QUICK, "--quiet")


def test_a_model_finds_its_columns_by_name(run, ok, flowers):
    ok(
        "train",
        "--data",
        "flowers.csv",
        "--layers",
        "2-8-3",
        "--lr",
        0.5,
        *QUICK,
        "--epochs",
        60,
        "--folder",
        "run",
    )
    frame = pd.read_csv("more.csv")
    frame[["wide", "long"]].to_csv("swapped.csv", index=False)
    frame.assign(id=range(90))[["id", "wide", "long"]].to_csv("wider.csv", index=False)
    pd.DataFrame(frame.to_numpy()).to_csv("counted.csv", index=False)
    expected = ok("predict", "run/model.npz", "more.csv").split()
    assert np.mean(np.array(expected) == np.array(["ash", "birch", "cedar"])[flowers]) > 0.9
    for name in ("swapped", "wider", "counted"):
        code, out, err = run("predict", "run/model.npz", f"{name}.csv")
        assert (code, out.split()) == (0, expected)
        said = {"swapped": "", "wider": "id is not among the columns", "counted": "is taken for a header"}[
            name
        ]
        assert said in err
    frame.rename(columns={"wide": "width"}).to_csv("other.csv", index=False)
    code, _, err = run("predict", "run/model.npz", "other.csv")
    assert code == 5
    assert (
        "other.csv: wide is missing; the network learned from columns of these names; did you mean 'width'?"
        in err
    )
    model = gpubp.load("run/model.npz")
    assert (model.inputs.kind, model.inputs.names) == ("numbers", ("long", "wide"))
    ok("export", "run/model.npz", "m.safetensors")
    assert ok("predict", "m.safetensors", "swapped.csv").split() == expected


def test_prices_are_values_where_values_are_fitted(ok, rng):
    x = rng.random((200, 3))
    prices = np.round((100 + x @ [50, 30, 20]) / 10).astype(int) * 10
    pd.DataFrame(x, columns=list("abc")).assign(price=prices).to_csv("prices.csv", index=False)
    how = ("--layers", "3-1", "--standardize", *FIT_VALUES, "--lr", 1, *QUICK, "--epochs", 100)
    out = ok("train", "--data", "prices.csv", *how, "--folder", "run")
    assert f"target 'price', the last column: values from {prices.min()} to {prices.max()}" in out
    np.save("x.npy", x)
    predicted = np.array(ok("predict", "run/model.npz", "x.npy").split(), float)
    assert np.abs(predicted - prices).mean() < 5


def test_a_table_in_another_dress(ok, flowers):
    frame = pd.read_csv("flowers.csv")
    frame.to_csv("semi.csv", sep=";", decimal=",", index=False)
    frame[:30].to_csv("test.csv", sep=";", decimal=",", index=False)
    dress = ("--delimiter", ";", "--decimal", ",")
    out = ok(
        "train",
        "--data",
        "semi.csv",
        "--test-data",
        "test.csv",
        *dress,
        "--layers",
        "2-3",
        *QUICK,
        "--folder",
        "r",
    )
    assert "semi: 90 rows to train on and 30 to test; 2 inputs (long, wide)" in out
    pd.read_csv("more.csv").to_csv("more-semi.csv", sep=";", decimal=",", index=False)
    assert ok("predict", "r/model.npz", "more-semi.csv", *dress) == ok("predict", "r/model.npz", "more.csv")
    again = ok("train", "r/recipe.toml", "--folder", "again", "--json", "-")
    assert json.loads(again)["recipe"]["decimal"] == ","
    assert Path("again/model.npz").read_bytes() == Path("r/model.npz").read_bytes()


def test_the_network_of_an_estimator_finds_the_columns_of_a_table(ok, flowers):
    frame = pd.read_csv("more.csv")
    fitted = gpubp.MLPClassifier((4,), max_iter=5, random_state=0, backend="numpy", verify="off")
    with pytest.warns(UserWarning, match="raise max_iter"):
        fitted.fit(frame, flowers)
    assert fitted.network_.inputs.names == ("long", "wide")
    gpubp.save(fitted.network_, "fitted.npz")
    frame[["wide", "long"]].to_csv("swapped.csv", index=False)
    assert ok("predict", "fitted.npz", "swapped.csv").split() == list(map(str, fitted.predict(frame)))


@pytest.fixture
def digits(run):
    """Pixels of digits as a table, train.csv with and test.csv without labels, as .npy of bytes, and one as .png."""
    data = gpubp.load_data("mnist-sample")
    names = [f"pixel{i}" for i in range(784)]
    train = pd.DataFrame(data.train.inputs[:1000], columns=names)
    train.insert(0, "label", data.train.targets[:1000])
    train.to_csv("train.csv", index=False)
    pd.DataFrame(data.test.inputs[:50], columns=names).to_csv("test.csv", index=False)
    np.save("test.npy", data.test.inputs[:50])
    Image.fromarray(data.test.inputs[0].reshape(28, 28)).save("digit.png")


@pytest.mark.parametrize("said", [(), ("--standardize",), ("--pixels",), ("--pixels", "--standardize")])
def test_pixels_of_a_table_are_numbers_unless_they_are_said_to_be_bytes(run, ok, digits, said):
    out = ok("train", "--data", "train.csv", "--layers", "784-16-10", *said, *QUICK, "--folder", "run")
    assert (
        "784 inputs (pixel0, pixel1, pixel2, pixel3 … (784 in all)), bytes of images, 28 × 28" in out
    ) == ("--pixels" in said)
    expected = ok("predict", "run/model.npz", "test.csv").split()
    for other, count in (("test.npy", 50), ("digit.png", 1)):
        code, out, err = run("predict", "run/model.npz", other)
        if "--pixels" in said:
            assert (code, out.split()) == (0, expected[:count])
        else:
            assert code == 5
            assert f"{other}: these inputs are bytes" in err


def test_a_model_without_names_or_of_another_scale_is_said_to_be_asked_so(run, ok, digits):
    images = gpubp.load_data("mnist-sample").test
    np.savez("images.npz", X=images.inputs, y=images.targets)
    np.savez("bits.npz", X=(images.inputs > 127).astype(np.uint8), y=images.targets)
    np.save("bits.npy", (images.inputs > 127).astype(np.uint8)[:1])
    np.save("black.npy", np.zeros((9, 784), np.uint8))
    frame = pd.read_csv("test.csv")
    frame.iloc[:, ::-1].to_csv("turned.csv", index=False)
    (frame > 127).astype(int).to_csv("bits.csv", index=False)
    ok("train", "--data", "images.npz", "--layers", "784-16-10", *QUICK, "--folder", "run")
    for name, says in (
        ("test.csv", ""), ("test.npy", ""), ("digit.png", ""), ("black.npy", ""),
        ("bits.npy", "bits.npy: these inputs are 0.00"), ("turned.csv", "turned.csv: the network learned from columns"),
    ):  # fmt: skip
        code, _, err = run("predict", "run/model.npz", name)
        assert (code, err.count("warning")) == (0, bool(says))
        assert says in err
    code, _, err = run("predict", "run/model.npz", "bits.csv")
    assert (code, "no pixel is above 1, so that they seem to be scaled already" in err) == (5, True)
    code, _, err = run("explain", "--model", "run/model.npz", "--data", "bits.npz", "--json", "-")
    assert (code, "bits.npz: these inputs are 0.00" in err) == (0, True)
    how = ("--target", "label", "--pixels", "--json", "-")
    assert run("explain", "--model", "run/model.npz", "--data", "train.csv", *how)[2] == ""
    train = pd.read_csv("train.csv")
    train[["label", *frame.columns[::-1]]].to_csv("turned.csv", index=False)
    _, _, err = run("explain", "--model", "run/model.npz", "--data", "turned.csv", *how)
    assert "turned.csv: the network learned from columns without names" in err


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_bytes_that_are_standardised_are_asked_about_as_bytes(run, ok, digits, kind):
    data = gpubp.load_data("train.csv", pixels=True)
    np.savez("train.npz", X=data.train.inputs, y=data.train.targets)
    how = ("--layers", "784-10", "--standardize", *QUICK, "--epochs", 5, "--folder", "run")
    ok("train", "--data", "train.npz", *how)
    test = gpubp.load_data("mnist-sample").test
    assert (gpubp.load("run/model.npz").predict(test.inputs) == test.targets).mean() > 0.7
    assert ok("predict", "run/model.npz", "test.npy") == ok("predict", "run/model.npz", "test.csv")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--layers", "2-8-1"), 2, "softmax over one output"),
        (
            ("--layers", "2-8-1", *FIT_VALUES),
            5,
            "'ash' is not a number, but output identity and loss quadratic fit",
        ),
        (("--layers", "2-8-2"), 5, "has 3 classes (ash, birch, cedar), too many for 2 outputs"),
        (
            ("--layers", "2-8-3", "--target", "nothing"),
            2,
            "no column 'nothing' to be the target; there are long, wide",
        ),
        (
            ("--layers", "2-8-3", "--target", "wide"),
            5,
            "column 3 (kind): 'ash' is not a number; only a target can be words",
        ),
        (("--layers", "2-8-3", "--pixels"), 5, "is no pixel"),
        (("--layers", "2-8-3", "--test-data", "absent.csv"), 5, "absent.csv: no such file"),
    ],
)
def test_what_cannot_be_read_as_asked_is_refused(run, flowers, args, code, says):
    got, _, err = run("train", "--data", "flowers.csv", *args, *QUICK)
    assert got == code
    assert says in err
    assert not Path("gpubp-runs").exists() or not list(Path("gpubp-runs").iterdir())


def test_probabilities_of_one_output_are_those_of_the_second_class(ok, flowers):
    table = pd.read_csv("flowers.csv")
    table[table.kind != "cedar"].to_csv("two.csv", index=False)
    how = ("--output", "sigmoid", "--loss", "binary_cross_entropy", *QUICK, "--folder", "run")
    ok("train", "--data", "two.csv", "--layers", "2-1", *how)
    ok("predict", "run/model.npz", "more.csv", "--proba", "--out", "p.csv")
    assert Path("p.csv").read_text().splitlines()[0] == "birch"


@pytest.mark.parametrize("args", [("--out", "more.csv"), ("--json", "more.csv"), ("--json", "run/model.npz")])
def test_what_is_read_is_not_written_over(run, ok, flowers, args):
    ok("train", "--data", "flowers.csv", "--layers", "2-3", *QUICK, "--folder", "run")
    before = Path(args[1]).read_bytes()
    code, _, err = run("predict", "run/model.npz", "more.csv", *args)
    assert (code, Path(args[1]).read_bytes()) == (2, before)
    assert f"{args[0]} {args[1]} would be written over what is read" in err


def test_explain_takes_a_models_columns_by_name_and_refuses_other_classes(run, ok, flowers):
    ok("train", "--data", "flowers.csv", "--layers", "2-8-3", "--standardize", *QUICK, "--folder", "run")
    table = pd.read_csv("flowers.csv")
    table[["wide", "kind", "long"]].rename(columns={"kind": "label"}).to_csv("swapped.csv", index=False)
    table.rename(columns={"kind": "label"}).to_csv("same.csv", index=False)
    table.assign(kind=table.kind.str.upper()).to_csv("others.csv", index=False)
    how = ("--model", "run/model.npz", "--json", "-")
    walks = [json.loads(ok("explain", "--data", f"{name}.csv", *how)) for name in ("same", "swapped")]
    for walk in walks:
        walk.pop("recipe")
    assert walks[0] == walks[1]
    code, _, err = run("explain", "--data", "others.csv", *how)
    assert code == 2
    assert (
        "the classes of run/model.npz are ash, birch, cedar, but those of others are ASH, BIRCH, CEDAR" in err
    )


def test_an_image_of_another_shape_is_refused(run, ok, rng):
    images = rng.integers(0, 256, (100, 4, 6), np.uint8)
    np.savez("r.npz", X=images, y=(images[:, 0, 0] > 127).astype(int))
    ok("train", "--data", "r.npz", "--layers", "24-2", *QUICK, "--folder", "run")
    Image.fromarray(images[0]).save("right.png")
    Image.fromarray(np.ascontiguousarray(images[0].T)).save("turned.png")
    assert ok("predict", "run/model.npz", "right.png")
    code, _, err = run("predict", "run/model.npz", "turned.png")
    assert (code, "turned.png: samples of shape 6 × 4, but the network learned from" in err) == (5, True)


def test_no_command_writes_over_what_it_reads(run, ok, flowers):
    ok("train", "--data", "flowers.csv", "--layers", "2-3", *QUICK, "--folder", "run")
    Path("r.toml").write_text('data = "flowers.csv"\nlayers = [2, 3]\n')
    train, kept = ("train", "--data", "flowers.csv", "--layers", "2-3", *QUICK), "run/checkpoint.npz"
    explain = ("explain", "--data", "flowers.csv", "--model", "run/model.npz")
    for command, target in (
        ((*train, "--json", "flowers.csv"), "flowers.csv"),
        ((*train, "--test-data", "more.csv", "--json", "more.csv"), "more.csv"),
        (("train", "r.toml", *QUICK, "--json", "r.toml"), "r.toml"),
        (("train", "--resume", kept, "--epochs", 4, "--json", kept), kept),
        ((*explain, "--html", "flowers.csv"), "flowers.csv"),
        ((*explain, "--html", "run/model.npz"), "run/model.npz"),
        ((*explain, "--json", "run/model.npz"), "run/model.npz"),
    ):
        before = Path(target).read_bytes()
        code, _, err = run(*command)
        assert code == 2, (command, err)
        assert f"{target} would be written over what is read" in err
        assert Path(target).read_bytes() == before


def test_a_column_in_another_unit_is_said_of_a_network_that_scales(run, rng):
    """However small it is beside the others."""
    n = 100
    table = pd.DataFrame({"height": rng.normal(1.7, 0.1, n), "income": rng.normal(5e4, 8e3, n), "one": 1.0})
    table.assign(kind=np.where(table.height > 1.7, "tall", "short")).to_csv("m.csv", index=False)
    train = ("train", "--data", "m.csv", "--layers", "3-6-2", "--standardize", *QUICK, "--folder", "run")
    code, _, err = run(*train)
    assert (code, "unit" in err) == (0, False)
    for name, changed, told in (
        ("cm", table.assign(height=table.height * 100), ["1"]),
        ("both", table.assign(height=table.height * 100, income=table.income * 5), ["1", "2"]),
        ("same", table[::-1], []),
        ("later", table.assign(height=table.height + 0.4, one=99.0), []),
    ):
        changed.to_csv(f"{name}.csv", index=False)
        code, out, err = run("predict", "run/model.npz", f"{name}.csv")
        lines = [line for line in err.splitlines() if "it may be in another unit" in line]
        assert (code, len(out.splitlines())) == (0, n)
        assert [line.split("input ")[1].split(" ")[0] for line in lines] == told
    net = gpubp.load("run/model.npz")
    with pytest.warns(UserWarning, match=r"input 1 \(height\) lies 1,... standard deviations"):
        net.predict(table.assign(height=table.height * 100))


@pytest.mark.parametrize(
    ("kept", "told"), [(slice(0, 30), "30 of its 30"), (slice(0, 90), None), (slice(0, 0), None)]
)
def test_test_rows_that_are_trained_on_are_told(run, flowers, kept, told, rng):
    """But not in a table whose rows are often alike, nor where most are new."""
    table = pd.read_csv("flowers.csv")
    new = table.assign(long=table.long + rng.normal(0, 0.01, 90))
    pd.concat([table[kept], new[: 0 if told else 90]]).to_csv("test.csv", index=False)
    code, _, err = run(
        "train", "--data", "flowers.csv", "--test-data", "test.csv", "--layers", "2-8-3", *QUICK
    )
    assert code == 0
    assert (f"test.csv: {told} rows are rows of the table that is trained on" in err) == bool(told)
    assert ("trained on" in err) == bool(told)
    pd.DataFrame({"a": np.arange(90) % 2, "b": np.arange(90) % 3, "kind": np.arange(90) % 2}).to_csv(
        "few.csv", index=False
    )
    pd.read_csv("few.csv")[:20].to_csv("part.csv", index=False)
    code, _, err = run("train", "--data", "few.csv", "--test-data", "part.csv", "--layers", "2-8-2", *QUICK)
    assert (code, "trained on" in err) == (0, False)


@pytest.mark.parametrize("more", [(), ("--standardize",), ("--standardize", "--patience", 2)])
def test_a_test_table_is_held_to_the_size_that_inputs_had_as_they_were_read(run, rng, more):
    """A column a thousand times too small is hardly off in standard deviations."""
    rooms, income = rng.integers(0, 4, 100), rng.integers(1000, 9000, 100)
    table = pd.DataFrame({"rooms": rooms, "income": income, "rich": income > 5000})
    table.to_csv("train.csv", index=False)
    for factor, said in ((0.001, True), (1.01, False)):
        table[::-2].assign(income=income[::-2] * factor, rooms=3 - rooms[::-2]).to_csv(
            "test.csv", index=False
        )
        code, _, err = run(
            "train", "--data", "train.csv", "--test-data", "test.csv", "--layers", "2-8-2", *QUICK, *more
        )
        assert (code, "these inputs are 0.00" in err) == (0, said), err


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("coded", "line 6, column 2 (bmi): -999, in 3 of 60 rows, is far from"),
        ("summed", "the inputs of the last row"),
    ],
)
def test_what_is_doubtful_is_said_of_training_test_and_prediction_alike(run, rng, bad, says):
    age, bmi = rng.integers(18, 60, 60), rng.normal(27, 4, 60).round(1)
    good = pd.DataFrame({"age": age, "bmi": bmi})
    table = good.assign(bmi=np.where(np.arange(60) % 20 == 4, -999, bmi))
    if bad == "summed":
        table = pd.concat([good, good.sum().to_frame().T])
    for name, frame in (("bad", table), ("good", good.assign(age=age + 1))):
        frame.to_csv(f"{name}-new.csv", index=False)
        frame.assign(sick=np.where(frame.bmi > 27, "yes", "no")).to_csv(f"{name}.csv", index=False)
    for train, test in (("good", "bad"), ("bad", "good")):
        how = ("--layers", "2-8-2", "--standardize", *QUICK, "--folder", train)
        code, _, err = run("train", "--data", f"{train}.csv", "--test-data", f"{test}.csv", *how)
        (line,) = (line for line in err.splitlines() if ".csv" in line)
        assert (code, line.startswith(f"warning: bad.csv: {says}")) == (0, True)
    for name in ("bad", "good"):
        code, out, err = run("predict", "good/model.npz", f"{name}-new.csv")
        assert (code, len(out.splitlines())) == (0, len(table) if name == "bad" else 60)
        assert (err.count("warning"), f"bad-new.csv: {says}" in err) == (name == "bad", name == "bad")
