"""What a network learned from, bytes or numbers, classes or values, and what it is then asked: refused or right."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

import gpubp
from gpubp.data.inputs import BYTES, NUMBERS, UNKNOWN, Inputs, kind_of, size_of
from gpubp.errors import DataError, UsageError
from gpubp.model import CLASSES, LOGITS, VALUES
from gpubp.network import Network

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 6), np.uint8)
LABELS = (IMAGES[:, 0] > 127).astype(np.int64)
OTHERS = {  # the same numbers, of the other kind
    BYTES: [IMAGES.astype(kind) for kind in (np.int64, np.float32, np.float64, np.int8)] + [IMAGES > 99],
    NUMBERS: [IMAGES, csr_array(IMAGES), np.array(IMAGES.tolist(), np.uint8)],
}
QUIET = {"epochs": 1, "backend": "numpy", "verify": "off"}


def trained(kind: str) -> Network:
    net = Network([6, 4, 2])
    assert net.inputs == Inputs(UNKNOWN)
    gpubp.fit(net, IMAGES if kind == BYTES else IMAGES.astype(float), LABELS, **QUIET)
    assert net.inputs.kind == kind
    return net


@pytest.mark.parametrize("kind", [BYTES, NUMBERS])
@pytest.mark.parametrize(
    "door",
    [
        lambda net, x: net.forward(x),
        lambda net, x: net.predict(x),
        lambda net, x: net.predict_proba(x),
        lambda net, x: list(net.stream(iter([x, x]))),
        lambda net, x: gpubp.fit(net, x, LABELS, **QUIET),
        lambda net, x: gpubp.fit(Network([6, 2]), x, LABELS, validation=(_as_trained(net), LABELS), **QUIET),
        lambda net, x: gpubp.gradients(net, x, LABELS, backend="numpy"),
        lambda net, x: gpubp.verify(net, x, LABELS, backend="numpy"),
    ],
)
def test_the_other_kind_is_refused_at_every_door(kind, door):
    net = trained(kind)
    for other in OTHERS[kind]:
        with pytest.raises(DataError, match=r"(these inputs are .* learned from (bytes|numbers))"):
            door(net, other)
    door(net, _as_trained(net))


def _as_trained(net: Network) -> np.ndarray:
    return IMAGES if net.inputs.kind == BYTES else IMAGES.astype(float)


def test_a_network_that_nobody_trained_takes_both():
    net = Network([6, 2], dtype="float64")
    np.testing.assert_allclose(net.forward(IMAGES), net.forward(IMAGES / 255), rtol=1e-12)


def test_a_run_that_is_refused_leaves_the_network_as_it_was():
    net = Network([6, 2])
    with pytest.raises(DataError, match="validation data: these inputs are float64"):
        gpubp.fit(net, IMAGES, LABELS, validation=(IMAGES / 255, LABELS), **QUIET)
    assert net.inputs.kind == UNKNOWN


# Classes and values


@pytest.mark.parametrize("targets", [np.arange(60) - 30, np.arange(60), LABELS])
def test_whole_numbers_are_values_where_one_output_fits_values(targets):
    net = Network([6, 1], output="identity", dtype="float64")
    history = gpubp.fit(
        net, IMAGES, targets, loss="quadratic", validation=(IMAGES[:9], targets[:9]), batch_size=60, **QUIET
    )
    assert (net.meaning, history["accuracy"]) == (VALUES, [None])
    untrained = Network([6, 1], output="identity", dtype="float64").forward(IMAGES)[:, 0]
    assert history["loss"][0] == pytest.approx(0.5 * np.mean((untrained - targets) ** 2))
    assert net.predict(IMAGES).shape == (60, 1)


def test_a_network_of_classes_predicts_labels_whatever_its_output():
    net = Network([6, 2], output="identity")
    gpubp.fit(net, IMAGES, LABELS, loss="quadratic", optimizer=gpubp.SGD(0.01), **QUIET)
    assert net.meaning == CLASSES
    assert net.predict(IMAGES).tolist() == net.forward(IMAGES).argmax(axis=1).tolist()


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy", "squared_error"])
def test_softmax_over_one_output_is_refused(loss):
    for targets in (LABELS, LABELS / 2):
        with pytest.raises(
            UsageError, match=r"softmax over one output is 1 whatever goes in: .*sigmoid.*identity"
        ):
            gpubp.fit(Network([6, 1]), IMAGES, targets, loss=loss, **QUIET)


@pytest.mark.parametrize(
    ("output", "wrong", "right"),
    [
        ("sigmoid", 1.5, 1.0), ("sigmoid", -0.1, 0.0), ("softmax", 2.0, 0.5), ("tanh", -1.01, -1.0),
        ("lecun_tanh", 1.8, 1.7), ("relu", -1e-3, 7.0), ("leaky_relu", None, -7.0), ("identity", None, 300.0),
    ],
)  # fmt: skip
def test_targets_that_an_output_cannot_reach_are_refused(output, wrong, right):
    targets = np.full((60, 2), 0.5)
    targets[7, 1] = right
    gpubp.fit(Network([6, 2], output=output), IMAGES, targets, loss="quadratic", **QUIET)
    if wrong is not None:
        targets[7, 1] = wrong
        with pytest.raises(
            DataError, match=f"the target at index 7 is {wrong:g}, but {output} outputs lie .*identity"
        ):
            gpubp.fit(Network([6, 2], output=output), IMAGES, targets, loss="quadratic", **QUIET)


# Logits


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_give_labels_and_probabilities(outputs):
    net = Network([6, outputs], output="identity", dtype="float64", seed=1)
    x = RNG.standard_normal((20, 6))
    z = net.forward(x)
    assert net.predict(x).tolist() == z.tolist()  # nobody has said what they are
    net.meaning = LOGITS
    net.inputs = Inputs(NUMBERS)
    expected = 1 / (1 + np.exp(-z)) if outputs == 1 else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(x), expected, rtol=1e-12)
    assert net.predict(x).tolist() == (z[:, 0] > 0 if outputs == 1 else z.argmax(axis=1)).astype(int).tolist()
    assert net.forward(x).tolist() == z.tolist()


# Bytes that are hardly images


@pytest.mark.parametrize(
    ("largest", "warned"), [(1, True), (16, True), (127, True), (128, False), (255, False)]
)
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_bytes_that_are_hardly_images_are_said_to_be_taken_for_some(largest, warned, form):
    x, net = np.zeros((60, 6), np.uint8), Network([6, 2])
    x[5, 2] = largest
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):  # once: then the network knows them
            gpubp.fit(net, form(x), LABELS, **QUIET)
    assert [f"the largest of these is {largest}:" in str(w.message) for w in caught] == [True] * warned
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpubp.fit(Network([6, 2]), x.astype(np.int64), LABELS, **QUIET)


# Names of columns

FRAME = pd.DataFrame(IMAGES[:, :2], columns=["a", "b"])


@pytest.mark.parametrize(
    "door",
    [
        lambda net, frame: net.forward(frame),
        lambda net, frame: np.concatenate(list(net.stream(iter([frame, frame]), "forward"))),
        lambda net, frame: gpubp.gradients(net, frame, LABELS, backend="numpy")[0],
        lambda net, frame: _validated(net, frame),
    ],
)
def test_columns_of_a_frame_are_found_by_name_at_every_door(door):
    net = Network([2, 4, 2])
    gpubp.fit(net, FRAME, LABELS, **QUIET)
    assert (net.inputs.kind, net.inputs.names) == (NUMBERS, ("a", "b"))  # uint8, but of a table
    expected = door(copy.deepcopy(net), FRAME)
    for frame in (
        FRAME[["b", "a"]],
        FRAME.astype(object),
        FRAME.astype("Int64"),
        FRAME.astype("float32")[["b", "a"]],
    ):
        np.testing.assert_array_equal(door(copy.deepcopy(net), frame), expected)
    with pytest.warns(UserWarning, match="c is not among the columns"):
        np.testing.assert_array_equal(door(copy.deepcopy(net), FRAME.assign(c=1)[["c", "b", "a"]]), expected)
    with pytest.raises(DataError, match=r"b is missing; .* did you mean 'bb'"):
        door(net, FRAME.rename(columns={"b": "bb"}))


def _validated(net: Network, frame: pd.DataFrame) -> list[float]:
    return gpubp.fit(net, FRAME, LABELS, validation=(frame, LABELS), **QUIET)["validation_loss"]


def test_targets_of_a_validation_frame_are_found_by_name():
    wanted = pd.DataFrame({"u": IMAGES[:, 0] / 255, "v": IMAGES[:, 1] / -255})
    losses = []
    for held in (wanted, wanted[["v", "u"]]):
        net = Network([2, 2], output="identity")
        history = gpubp.fit(
            net, FRAME / 255, wanted, loss="quadratic", validation=(FRAME / 255, held), **QUIET
        )
        losses.append(history["validation_loss"])
    assert losses[0] == losses[1]
    with pytest.raises(DataError, match="validation targets: v is missing"):
        gpubp.fit(
            net,
            FRAME,
            wanted,
            loss="quadratic",
            validation=(FRAME, wanted.rename(columns={"v": "w"})),
            **QUIET,
        )


@pytest.mark.parametrize("names", [[2001, 2002], ["a", 2002], [("x", "a"), ("x", "b")], [0.5, 1.5]])
def test_names_that_are_no_words_are_names_too(names):
    frame, net = FRAME.set_axis(names, axis=1), Network([2, 4, 2])
    gpubp.fit(net, frame, LABELS, **QUIET)
    assert net.inputs.names == tuple(map(str, names))
    np.testing.assert_array_equal(net.forward(frame.iloc[:, ::-1]), net.forward(frame))


@pytest.mark.parametrize("kind", [np.float64, np.uint8])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b"], True), (["b", "a"], True), (["pixel1", "pixel0"], True), (["x9", "y10"], True),
        (["1x1", "b"], True),
        (["pixel0", "pixel1"], False), (["p9", "p10"], False), (["1x2", "2x1"], False), ([0, 1], False),
        (["0", "1"], False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "door",
    [
        lambda net, frame: net.forward(frame),
        lambda net, frame: list(net.stream(iter([frame]), "forward")),
        lambda net, frame: gpubp.gradients(net, frame, LABELS, backend="numpy"),
        lambda net, frame: gpubp.verify(net, frame, LABELS, backend="numpy"),
        lambda net, frame: gpubp.fit(copy.deepcopy(net), frame, LABELS, **QUIET),
        lambda net, frame: gpubp.fit(
            copy.deepcopy(net), FRAME.to_numpy(float), LABELS, validation=(frame, LABELS), **QUIET
        ),
    ],
)
def test_names_that_the_network_has_not_learned_are_said_to_be_taken_in_order(door, names, said, kind):
    net, frame = Network([2, 2]), FRAME.astype(kind).set_axis(names, axis=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net.forward(frame)  # of a network that has learned nothing, nothing is said
        gpubp.fit(net, FRAME.to_numpy(float), LABELS, **QUIET)
        assert caught == []
        door(net, frame)
    words = f"learned from columns without names; these, {names[0]}, {names[1]}, are taken in the order"
    assert [words in str(w.message) for w in caught] == [True] * said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert net.forward(frame).tolist() == net.forward(FRAME.to_numpy(float)).tolist()


def test_names_that_differ_in_how_letters_are_composed_are_the_same():
    net, (whole, parts) = Network([2, 2]), ("L\u00e4nge", "La\u0308nge")
    gpubp.fit(net, FRAME.set_axis([parts, "b"], axis=1), LABELS, **QUIET)
    expected = net.forward(FRAME.set_axis([parts, "b"], axis=1)).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.forward(FRAME.set_axis([whole, "b"], axis=1)).tolist() == expected
        assert net.forward(FRAME.set_axis([whole, "b"], axis=1).iloc[:, ::-1]).tolist() == expected
    table = pa.table({"b": FRAME.b.astype(float), whole: FRAME.a.astype(float)})
    assert net.forward(table).tolist() == expected


WITHOUT_NAMES = {
    "array": lambda x: x, "list": lambda x: x.tolist(), "sparse": csr_array, "frame": pd.DataFrame,
    "images": lambda x: x[:, None, :],
}  # fmt: skip


def said_by(door, *given) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        door(*given)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("without", WITHOUT_NAMES.values(), ids=WITHOUT_NAMES)
@pytest.mark.parametrize(
    "door",
    [
        lambda net, x: net.forward(x),
        lambda net, x: net.predict(x),
        lambda net, x: net.predict_proba(x),
        lambda net, x: list(net.stream(iter([x, x, x]))),
        lambda net, x: gpubp.gradients(net, x, LABELS, backend="numpy"),
        lambda net, x: gpubp.verify(net, x, LABELS, backend="numpy"),
        lambda net, x: gpubp.fit(net, x, LABELS, **QUIET),
        lambda net, x: gpubp.fit(net, x, LABELS, validation=(x, LABELS), **QUIET),
        lambda net, x: gpubp.fit(net, net.frame, LABELS, validation=(x, LABELS), **QUIET),
        lambda net, x: gpubp.fit(Network([2, 2]), net.frame, LABELS, validation=(x, LABELS), **QUIET),
    ],
)
def test_columns_without_names_are_said_once_to_be_taken_in_the_order_of_those_learned(door, without):
    words = (
        "the network learned from columns {}; these have no names, and are taken in the order they come in"
    )
    x = FRAME.to_numpy(float)
    for names, said in ((["b", "a"], 1), (["x9", "x8"], 1), (["pixel0", "pixel1"], 0), (["0", "1"], 0)):
        net = Network([2, 2])
        net.frame = pd.DataFrame(x, columns=names)
        gpubp.fit(net, net.frame, LABELS, **QUIET)
        told = said_by(door, net, without(x))
        assert [text.partition(": ")[2] for text in told] == [words.format(", ".join(names))] * said
        turned = iter([net.frame.iloc[:, ::-1], net.frame])
        assert said_by(lambda n, parts: list(n.stream(parts)), net, turned) == []


def test_each_part_of_a_stream_is_put_in_order_by_its_own_names():
    net, x = Network([2, 2]), FRAME.to_numpy(float)
    gpubp.fit(net, FRAME.astype(float), LABELS, **QUIET)
    frame = FRAME.astype(float)
    parts = [x, pd.DataFrame(x), frame[["b", "a"]], x, frame, frame[["b", "a"]].assign(c=1)]
    with warnings.catch_warnings(record=True):
        assert net.forward(iter(parts)).tolist() == net.forward(frame).tolist() * 6


def test_columns_of_the_same_name_are_taken_as_they_stand():
    net, frame = Network([2, 2]), FRAME.astype(float).set_axis(["a", "a"], axis=1)
    gpubp.fit(net, frame, LABELS, **QUIET)
    assert net.forward(frame).tolist() == net.without_names().forward(frame.to_numpy()).tolist()


def test_pixels_have_a_place_without_a_name():
    net = Network([6, 2])
    for shape, said in (((2, 3), 0), ((), 1)):
        net.inputs = Inputs(BYTES, tuple("abcdef"), shape)
        assert len(said_by(net.forward, IMAGES)) == said


def test_targets_without_names_are_said_to_be_taken_in_order():
    x, y = FRAME.to_numpy(float), FRAME / 255

    def fit(targets, others):
        gpubp.fit(Network([2, targets.shape[1]], output="identity"), x, targets, loss="quadratic",
                  optimizer=gpubp.SGD(1e-9), validation=(x, others), **QUIET)  # fmt: skip

    words = "learned from columns a, b; these have no names"
    assert [words in text for text in said_by(fit, y, y.to_numpy())] == [True]
    assert said_by(fit, y, y[["b", "a"]]) == said_by(fit, y[["a"]], y[["a"]].to_numpy()) == []


def test_columns_of_an_arrow_table_are_found_by_name():
    frame, net = pa.table({"a": FRAME.a / 255, "b": FRAME.b / 255}), Network([2, 2])
    gpubp.fit(net, frame, LABELS, **QUIET)
    assert net.inputs.names == ("a", "b")
    assert net.forward(frame.select(["b", "a"])).tolist() == net.forward(frame).tolist()
    with pytest.raises(DataError, match="b is missing"):
        net.forward(frame.rename_columns(["a", "c"]))


@pytest.mark.parametrize("column", [["x"] * 60, [None] * 60, [pd.NA] * 60])
def test_a_frame_of_anything_but_numbers_is_refused(column):
    with pytest.raises(DataError, match=r"DataFrame must be numbers|is nan"):
        gpubp.fit(Network([3, 2]), FRAME.assign(c=column), LABELS, **QUIET)


# Images of another shape


def test_images_of_another_shape_are_refused():
    images, net = IMAGES.reshape(60, 2, 3), Network([6, 2])
    gpubp.fit(net, images, LABELS, **QUIET)
    assert (net.inputs.kind, net.inputs.shape) == (BYTES, (2, 3))
    expected = net.forward(images).tolist()
    for same in (IMAGES, images[..., None], images[:, None]):  # rows, and images of one channel
        assert net.forward(same).tolist() == expected
    for other in (images.transpose(0, 2, 1), IMAGES.reshape(60, 3, 2), IMAGES.reshape(60, 3, 1, 2)):
        with pytest.raises(DataError, match=r"samples of shape 3 .*learned from samples of shape 2 × 3"):
            net.forward(other)
        for door in (
            lambda x: gpubp.fit(net, x, LABELS, **QUIET), lambda x: gpubp.gradients(net, x, LABELS),
            lambda x: gpubp.fit(Network([6, 2]), images, LABELS, validation=(x, LABELS), **QUIET),
        ):  # fmt: skip
            with pytest.raises(DataError, match="learned from samples of shape 2 × 3"):
                door(other)


# Masked arrays


@pytest.mark.parametrize("door", ["inputs", "targets", "predict", "estimator", "estimator's predict"])
def test_masked_values_are_refused(door):
    x, y = np.ma.masked_array(IMAGES.astype(float)), np.ma.masked_array(LABELS)
    net, estimator = trained(NUMBERS), gpubp.MLPClassifier((3,), max_iter=1, backend="numpy", verify="off")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        estimator.fit(x, y)
    net.predict(x)
    (y if door == "targets" else x)[3] = np.ma.masked
    call = {
        "inputs": lambda: gpubp.fit(net, x, y, **QUIET), "targets": lambda: gpubp.fit(net, x, y, **QUIET),
        "predict": lambda: net.predict(x), "estimator": lambda: estimator.fit(x, y),
        "estimator's predict": lambda: estimator.predict(x),
    }[door]  # fmt: skip
    with pytest.raises(DataError, match="masked values: leave out such rows, or fill them in"):
        call()
    with pytest.raises(DataError, match="masked values"):
        gpubp.fit(net, list(np.ma.masked_greater(IMAGES.astype(float), 99)), LABELS, **QUIET)


# Another scale


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1 / 255, True), (255, True), (1 / 54, True), (1 / 16, True), (15, True), (0.1, True), (10, True),
        (1 / 3, False), (3, False), (1, False), (0, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [7, 60])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_inputs_at_another_scale_are_said(factor, said, rows, form, tmp_path):
    net, x = Network([6, 2]), IMAGES / 255
    gpubp.fit(net, form(x), LABELS, **QUIET)
    net.save(tmp_path / "m.npz")
    for door in (
        gpubp.load(tmp_path / "m.npz").predict,
        lambda x: gpubp.fit(Network([6, 2]), IMAGES / 255, LABELS, validation=(x, LABELS[:rows]), **QUIET),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            door(form(x[:rows] * factor))
        assert ["at another scale" in str(w.message) for w in caught] == [True] * (said and rows > 7)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize(
    ("learned", "asked", "said"),
    [  # "few" where the scale of rows too few to tell is said too
        ("bytes", "bits", "few"), ("bits", "bytes", "few"), ("bytes", "sixteenths", "many"),
        ("sixteenths", "bytes", "many"), ("sixteenths", "bits", "few"), ("bytes", "bytes", ""), ("bits", "bits", ""),
        ("bytes", "zeros", ""), ("bits", "zeros", ""), ("bytes", "dark", ""), ("bytes", "one bright", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [1, 7, 60])
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_bytes_at_another_scale_are_said(learned, asked, said, rows, form, ending, tmp_path):
    sets = {
        "bytes": IMAGES, "bits": (IMAGES > 127).astype(np.uint8), "sixteenths": IMAGES // 16,
        "zeros": IMAGES * np.uint8(0), "dark": IMAGES // 6,
        "one bright": np.where(np.arange(60)[:, None] == 0, IMAGES, np.uint8(0)),
    }  # fmt: skip
    x, net = sets[asked][:rows], Network([6, 2])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "an array of uint8 is taken for images")
        gpubp.fit(net, form(sets[learned]), LABELS, **QUIET)
    net.save(tmp_path / f"m{ending}")
    for door in (
        gpubp.load(tmp_path / f"m{ending}").predict,
        lambda x: list(net.stream(iter([x, x]))),
        lambda x: gpubp.gradients(net, x, LABELS[:rows], backend="numpy"),
        lambda x: gpubp.verify(net, x, LABELS[:rows], backend="numpy"),
        lambda x: gpubp.fit(copy.deepcopy(net), x, LABELS[:rows], **QUIET),
        lambda x: gpubp.fit(
            copy.deepcopy(net), form(sets[learned]), LABELS, validation=(x, LABELS[:rows]), **QUIET
        ),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "training goes nowhere")
            door(form(x))
        expected = said == "few" or (said == "many" and rows > 7)
        assert ["at another scale" in str(w.message) for w in caught] == [True] * expected, asked


def test_parts_too_small_or_black_leave_the_scale_of_a_stream_to_the_next():
    bits, black = (IMAGES > 127).astype(np.uint8), IMAGES * np.uint8(0)
    for parts, said in (
        ([black, IMAGES // 16, IMAGES // 16], 1), ([IMAGES[:3] // 16, IMAGES // 16], 1),
        ([black[:1], *bits[:, None]], 1),
        ([*IMAGES[:, None]], 0), ([IMAGES, bits], 0), ([black, IMAGES], 0),
    ):  # fmt: skip
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(trained(BYTES).stream(iter(parts)))
        assert ["at another scale" in str(w.message) for w in caught] == [True] * said


def test_a_model_that_knows_no_scale_says_nothing():
    net = Network([6, 2])
    net.inputs = Inputs(BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (IMAGES, IMAGES // 16, (IMAGES > 127).astype(np.uint8)):
            net.predict(x)


def test_parts_of_ordinary_data_are_at_no_other_scale():
    """Digits one by one and in small batches, tables, and numbers whose few largest are far above all others."""
    rng = np.random.default_rng(0)
    gains = np.where(rng.random(5000) < 0.05, rng.lognormal(8.5, 1.2, 5000), 0)
    tables = {
        "digits": gpubp.load_data("mnist-sample").train.inputs, "iris": load_iris().data, "wine": load_wine().data,
        "cancer": load_breast_cancer().data, "diabetes": load_diabetes().data,
        "gains": np.c_[rng.integers(17, 90, 5000), gains], "cauchy": rng.standard_cauchy((5000, 8)),
        "prices": rng.lognormal(0, 1.5, (5000, 4)), "counts": rng.poisson(rng.lognormal(-4, 1, 300), (2000, 300)),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, x in tables.items():
            train, test = x[::2], x[1::2]
            learned = Inputs(kind_of(x), size=size_of(train))
            for rows in (1, 2, 7, 8, 12, 30):
                for _ in range(100):
                    part = test[rng.choice(len(test), rows, replace=False)]
                    learned.say_if_of_another_scale(part, f"{rows} rows of {name}")


def test_rows_that_are_all_alike_are_at_no_other_scale():
    net, x = Network([6, 2]), RNG.standard_normal((60, 6))
    gpubp.fit(net, x, LABELS, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(np.tile(x[0], (20, 1)))
