"""What a network learned from, bytes or numbers, classes or values, and what it is then asked: refused or right."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

import gpubp
from gpubp.data.inputs import BYTES, NUMBERS, UNKNOWN, Inputs
from gpubp.errors import DataError, UsageError
from gpubp.network import CLASSES, LOGITS, VALUES, Network

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


def test_a_frame_without_names_is_taken_in_order_aloud():
    net = Network([2, 2])
    gpubp.fit(net, FRAME, LABELS, **QUIET)
    with pytest.warns(UserWarning, match="no names of columns, which are taken in the order"):
        assert net.forward(pd.DataFrame(FRAME.to_numpy())).tolist() == net.forward(FRAME).tolist()


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
    assert net.inputs == Inputs(BYTES, shape=(2, 3))
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
    ("factor", "said"), [(1 / 255, True), (255, True), (1 / 3, False), (3, False), (1, False)]
)
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


def test_rows_that_are_all_alike_are_at_no_other_scale():
    net, x = Network([6, 2]), RNG.standard_normal((60, 6))
    gpubp.fit(net, x, LABELS, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(np.tile(x[0], (20, 1)))
