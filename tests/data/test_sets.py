"""Data sets by name, and the gate that arrays from outside pass."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpubp.data import builtin, check_split, load, names
from gpubp.data.dataset import fold_of, hold_out
from gpubp.data.inputs import Scaling
from gpubp.errors import DataError, UsageError

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
NAN_AT_2_1 = np.where(np.arange(12).reshape(4, 3) == 7, np.nan, X)
KEPT = {"f4": ("f2", "f4", "?", "i1", "u2", "i8", ">i2"), "f8": ("f8", ">f8"), "u1": ("u1",)}


@pytest.mark.parametrize(("given_dtype", "kept"), [(dtype, kept) for kept in KEPT for dtype in KEPT[kept]])
def test_inputs_keep_their_values_in_one_of_three_dtypes(given_dtype, kept):
    x = np.array([[0, 1], [1, 0]]).astype(given_dtype)
    split = check_split(x, [0, 1])
    assert split.inputs.dtype == kept
    np.testing.assert_array_equal(split.inputs, x)


def test_integers_too_long_for_float32_become_float64():
    x = [[2**24 + 1, 0]]
    np.testing.assert_array_equal(check_split(x, [0]).inputs, x)


def test_images_are_flattened_row_by_row_and_contiguous():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    split = check_split(images.transpose(0, 2, 1), [0, 1])
    assert split.inputs.flags.c_contiguous
    assert split.inputs.tolist() == [image.T.ravel().tolist() for image in images]


@pytest.mark.parametrize(
    ("targets", "classes", "kept"),
    [
        (Y.astype(np.uint8), None, Y),
        (Y.astype(np.float32)[:, None], 2, Y),
        (Y.astype(np.float16), None, Y.astype(np.float32)),
        (np.eye(4, 2, dtype=np.uint8), None, np.eye(4, 2, dtype=np.float32)),
    ],
)
def test_targets_become_int64_labels_or_float32_values(targets, classes, kept):
    np.testing.assert_array_equal(check_split(X, targets, classes=classes).targets, kept, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], Y), r"two dimensions.*\(3,\).*x\[None, :\]"),
        ((3.0, Y), "two dimensions"),
        ((np.empty((0, 3)), []), r"no data.*\(0, 3\)"),
        ((np.empty((4, 0)), Y), "no data"),
        ((X.astype(object), Y), "inputs have dtype object"),
        ((X.astype(str), Y), "inputs have dtype <U"),
        ((X.astype(complex), Y), "inputs have dtype complex"),
        (([[1, 2], [3]], [0, 1]), "inputs cannot be made an array"),
        ((NAN_AT_2_1, Y), "row 2, column 1 is nan"),
        ((-np.inf * np.ones((1, 1)), [0]), "row 0, column 0 is -inf"),
        ((X, Y[:3]), "4 rows of inputs but 3 targets"),
        ((X, np.array(list("abcd"))), "targets have dtype <U1"),
        ((X, np.zeros((4, 2, 2))), "targets need shape"),
        ((X, np.zeros((4, 0))), "targets need shape"),
        ((X, 1), "targets need shape"),
        ((X, [0, 1, -1, 0]), "label at index 2 is -1.*from 0"),
        ((X, [0, 1.5, np.nan, 0]), "target in row 2 is nan"),
        ((X, np.where(NAN_AT_2_1 > 0, 0, NAN_AT_2_1)), "target in row 2, column 1 is nan"),
        ((X, Y, [1, 1, 1]), r"weights need shape \(4,\)"),
        ((X, Y, [1, 1, -1, 1]), "weight at index 2 is -1"),
        ((X, Y, [1, 1, 1, np.nan]), "weight at index 3 is nan"),
        ((X, Y, np.zeros(4)), "every sample weight is 0"),
    ],
)
def test_the_gate_refuses_and_says_where(arguments, message):
    with pytest.raises(DataError, match=f"^set: .*{message}"):
        check_split(*arguments, name="set")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0], "index 2 is 2.*2 classes go from 0 to 1"),
        ([0, -1, 0, 0], "index 1 is -1"),
        ([0, 1, 0.5, 0], "index 2 is 0.5.*whole numbers"),
        ([0, 1, 1, np.inf], "index 3 is inf"),
        ([0, 1, 1, np.nan], "index 3 is nan"),
        (np.eye(4, 2), r"argmax\(axis=1\)"),
    ],
)
def test_labels_must_fit_the_classes(labels, message):
    with pytest.raises(DataError, match=message):
        check_split(X, labels, classes=2)


@settings(deadline=None)
@given(st.integers(1, 2_100_000), st.data())
def test_nan_is_found_wherever_it_is(columns, data):
    # Wide rows put the boundaries of the chunked scan between, at and within rows.
    rows = max(1, 2_100_000 // columns)
    at = data.draw(st.integers(0, min(rows, 5000) - 1)), data.draw(st.integers(0, columns - 1))
    x = np.zeros((min(rows, 5000), columns), np.float32)
    x[at] = np.nan
    with pytest.raises(DataError, match=f"row {at[0]}, column {at[1]} is nan"):
        check_split(x, np.zeros(len(x)))


def by_class(inputs, labels, size, seed=0):
    return hold_out(check_split(inputs, labels), size, seed, stratify=True)


def test_holding_out_by_class_keeps_shares_rows_and_seed():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    inputs = np.arange(100.0)[:, None]
    train, test = by_class(inputs, labels, 0.2, seed=3)
    assert np.bincount(test.targets).tolist() == [10, 6, 4]
    assert sorted([*train.inputs[:, 0], *test.inputs[:, 0]]) == list(range(100))
    assert (labels[test.inputs[:, 0].astype(int)] == test.targets).all()
    again, other = (by_class(inputs, labels, 20, seed)[1].inputs.tolist() for seed in (3, 4))
    assert again == test.inputs.tolist() != other


def test_weights_are_kept_and_go_with_their_rows():
    whole = check_split(np.arange(10)[:, None], np.arange(10.0), np.arange(10))
    assert whole.sample_weight.tolist() == list(range(10))
    for part in hold_out(whole, 3, 0, stratify=False):
        assert part.sample_weight.tolist() == part.inputs[:, 0].tolist() == part.targets.tolist()


@pytest.mark.parametrize(
    ("labels", "size", "error", "message"),
    [
        *((Y, fraction, UsageError, "between 0 and 1") for fraction in (0.0, 1.0, -0.1, float("nan"))),
        *((y, size, DataError, "cannot hold out") for y, size in (([0, 0, 0, 1], 0.5), (Y, 4), (Y, 1))),
    ],
)
def test_parts_that_cannot_be_held_out(labels, size, error, message):
    with pytest.raises(error, match=message):
        by_class(X, labels, size)


matrices = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 20), st.integers(2, 6)), elements=st.floats(-1e3, 1e3, width=16)
)


@settings(deadline=None)
@given(matrices)
def test_a_scaling_comes_from_the_training_part_and_serves_both(x):
    scaling = Scaling.of(x)
    out, other = scaling.apply(x), scaling.apply(x[:1] + 1)
    constant = np.ptp(x, axis=0) == 0
    assert not out[:, constant].any()
    np.testing.assert_allclose(out[:, ~constant].std(axis=0), 1, rtol=1e-9)
    scale = np.where(constant, 1, x.std(axis=0))
    np.testing.assert_allclose(other[0] - out[0], 1 / scale, rtol=1e-6)


def test_a_constant_column_becomes_exactly_0_despite_rounding():
    x = np.full((7, 2), 0.1)
    assert not Scaling.of(x).apply(x).any()


def test_scaling_bytes_gives_float64_and_leaves_the_original():
    x = builtin.mnist_sample().train.inputs
    before = x.copy()
    scaled = Scaling.of(x).apply(x)
    assert scaled.dtype == np.float64
    np.testing.assert_array_equal(scaled, Scaling.of(x / 255).apply(x / 255))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("name", "n_train", "n_test", "n_in", "each", "dtype", "top"),
    [
        ("mnist-sample", 4000, 1000, 784, [100] * 10, np.uint8, 255),
        ("digits", 1437, 360, 64, [36, 36, 35, 37, 36, 37, 36, 36, 35, 36], np.float32, 1),
        ("iris", 105, 45, 4, [15] * 3, np.float64, 7.9),
        ("parity", 700, 324, 10, [162, 162], np.float32, 1),
    ],
)
def test_built_in_sets(name, n_train, n_test, n_in, each, dtype, top):
    data, again = load(name), load(name)
    assert (data.name, len(data.train), len(data.test), data.n_in) == (name, n_train, n_test, n_in)
    assert data.classes == len(each) == len(data.class_names)
    assert data.train.inputs.dtype == data.test.inputs.dtype == dtype
    assert max(data.train.inputs.max(), data.test.inputs.max()) == top
    assert set(data.train.targets) == set(range(data.classes))
    assert np.bincount(data.test.targets).tolist() == each
    np.testing.assert_array_equal(data.test.inputs, again.test.inputs)
    np.testing.assert_array_equal(data.train.targets, again.train.targets)
    assert data.image_shape is None or np.prod(data.image_shape) == n_in


def test_seed_and_fraction_part_the_sets_that_come_whole():
    assert len(load("digits", test_fraction=0.5).test) == 899
    a, b = load("iris", seed=1), load("iris", seed=2)
    assert a.test.inputs.tolist() != b.test.inputs.tolist()
    with pytest.raises(UsageError, match="test part of its own"):
        load("parity", test_fraction=0.5)


def test_parity_is_of_the_number_the_bits_spell():
    data = load("parity")
    bits, label = data.test.inputs[5], data.test.targets[5]
    assert "".join(str(int(bit)) for bit in bits) == f"{705:010b}"
    assert data.class_names[label] == "odd"
    assert data.train.targets[0] == 1


def test_a_damaged_sample_asks_for_a_new_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin.resources, "files", lambda _: tmp_path)
    for _ in ("absent", "altered"):
        with pytest.raises(DataError, match="reinstall gpubp"):
            builtin.mnist_sample()
        np.savez(tmp_path / "mnist-sample.npz", X=np.zeros((5000, 784), np.uint8), y=np.zeros(5000, np.uint8))


@pytest.mark.parametrize(
    ("wrong", "near"), [("minst", "mnist"), ("IRIS", "iris"), ("digit", "digits"), ("", "")]
)
def test_an_unknown_name_gets_the_nearest(wrong, near):
    with pytest.raises(UsageError, match=f"neither a data set nor a file; did you mean '{near}"):
        load(wrong)


@pytest.mark.parametrize("path", ["nowhere/mnist", "nowhere.npz"])
def test_a_path_that_is_absent_is_missing_data(path):
    with pytest.raises(DataError, match=f"{path}: no such file"):
        load(path)


def test_names():
    assert names() == ("mnist-sample", "digits", "iris", "parity", "mnist", "fashion-mnist")


@pytest.mark.parametrize("stratify", [True, False])
def test_folds_part_the_samples_and_repeat(stratify):
    labels = np.repeat([0, 1, 2], [20, 10, 5])
    whole = check_split(np.arange(35.0)[:, None], labels, np.arange(1.0, 36))
    held = []
    for fold in range(1, 6):
        train, out = fold_of(whole, 5, fold, 7, stratify=stratify)
        assert sorted([*train.inputs[:, 0], *out.inputs[:, 0]]) == list(range(35))
        assert np.array_equal(out.targets, labels[out.inputs[:, 0].astype(int)])
        assert np.array_equal(out.sample_weight, out.inputs[:, 0] + 1)
        if stratify:
            assert np.bincount(out.targets).tolist() == [4, 2, 1]
        held.append(out.inputs[:, 0])
        again = fold_of(whole, 5, fold, 7, stratify=stratify)[1]
        assert np.array_equal(again.inputs, out.inputs)
        assert not np.array_equal(
            np.sort(fold_of(whole, 5, fold, 8, stratify=stratify)[1].inputs), np.sort(out.inputs)
        )
    assert sorted(np.concatenate(held)) == list(range(35))


def test_more_folds_than_there_are_of_a_class_are_refused():
    whole = check_split(np.arange(6.0)[:, None], np.array([0, 0, 0, 0, 1, 1]))
    with pytest.raises(DataError, match="cannot make 3 folds: the smallest class has 2 rows"):
        fold_of(whole, 3, 1, 0, stratify=True)
    with pytest.raises(DataError, match="cannot make 7 folds of 6 rows"):
        fold_of(whole, 7, 1, 0, stratify=False)
