"""Data sets and inputs from the user's own files."""

import gzip
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from gpubp.data import load, load_path, stream_inputs
from gpubp.data.idx import write_idx
from gpubp.errors import DataError, UsageError
from tests.idx import idx

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 4, 3), np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 2


def put(path, content):
    """Text or bytes as they are, an array in the format of the name's ending; returns the path."""
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix in (".png", ".JPG"):
        Image.fromarray(content).save(path)
    elif path.suffix == ".csv":
        np.savetxt(path, content, delimiter=",")
    else:
        write_idx(path, content)
    return path


def rows(*targets: object, header: str = "") -> str:
    return header + "".join(f"{i},{i / 4},{target}\n" for i, target in enumerate(targets))


def whole(data):
    """All inputs and targets of a data set, in the order of the first column."""
    inputs = np.concatenate([data.train.inputs, data.test.inputs])
    order = inputs[:, 0].argsort()
    return inputs[order].tolist(), np.concatenate([data.train.targets, data.test.targets])[order].tolist()


@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_a_folder_of_four_files(tmp_path, test, gz):
    for part, n in (("train", 20), (test, 7)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{gz}", IMAGES[:n])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{gz}", LABELS[:n])
    data = load(tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.image_shape) == (20, 7, 2, (4, 3))
    np.testing.assert_array_equal(data.train.inputs, IMAGES.reshape(20, 12))
    np.testing.assert_array_equal(data.test.targets, LABELS[:7])
    assert data.name == tmp_path.name
    with pytest.raises(UsageError, match="test part of its own"):
        load(tmp_path, test_fraction=0.5)


def test_a_folder_of_one_pair_is_parted_by_class(tmp_path):
    write_idx(tmp_path / "my-images.idx", IMAGES)
    write_idx(tmp_path / "my-labels.idx", LABELS)
    data = load_path(tmp_path, test_fraction=0.3)
    assert np.bincount(data.test.targets).tolist() == [3, 3]
    assert len(data.train) == 14


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no IDX files to train on"),
        (["t10k-images", "t10k-labels"], "no IDX files to train on"),
        (["train-images"], "one of labels, found train-images"),
        (["a-images", "b-images", "a-labels"], "found a-images, b-images, a-labels"),
    ],
)
def test_folders_without_a_clear_pair(tmp_path, files, message):
    for name in files:
        write_idx(tmp_path / name, IMAGES if "images" in name else LABELS)
    with pytest.raises(DataError, match=message):
        load_path(tmp_path)


DIGITS = np.int32([LABELS, *[range(20)] * 7]).T  # QMNIST's labels: the digit, and where it is from


@pytest.mark.parametrize("differs", ["labels", "images", None])
def test_a_file_and_its_gz_must_hold_the_same(differs, tmp_path):
    for kind, content in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        write_idx(tmp_path / f"train-{kind}-ubyte", content)
        changed = content[::-1].copy() if differs == kind[:6] else content
        (tmp_path / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(changed)))
    if differs is None:
        assert len(load_path(tmp_path).train)
        return
    with pytest.raises(DataError, match=rf"{differs}.*ubyte.gz and .*ubyte should hold the same, but differ"):
        load_path(tmp_path)


def put_set(folder, name, labels=LABELS, tail="labels-idx1-ubyte.gz", test="test"):
    """A set of four files under published names."""
    for part, n in (("train", 20), (test, 7)):
        write_idx(folder / f"{name}{part}-images-idx3-ubyte.gz", IMAGES[:n])
        write_idx(folder / f"{name}{part}-{tail}", labels[:n])


@pytest.mark.parametrize(
    ("name", "labels", "tail", "test"),
    [
        ("emnist-digits-", LABELS, "labels-idx1-ubyte.gz", "test"),
        ("qmnist-", DIGITS, "labels-idx2-int.gz", "test"),
        ("kuzushiji.", LABELS[:, None], "labels-idx1-ubyte", "t10k"),
    ],
)
def test_a_folder_of_a_set_with_a_name(tmp_path, name, labels, tail, test):
    put_set(tmp_path, name, labels, tail, test)
    (tmp_path / f"{name}train-labels.tsv.gz").write_bytes(gzip.compress(b"1\t2\n"))
    (tmp_path / f"{name}mapping.txt").write_text("0 48")
    write_idx(tmp_path / "xnist-images-idx3-ubyte", IMAGES)
    data = load(tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.class_names) == (20, 7, 2, None)
    np.testing.assert_array_equal(data.train.targets, LABELS)
    np.testing.assert_array_equal(data.test.targets, LABELS[:7])


def test_a_folder_of_several_sets_is_refused_with_their_names(tmp_path):
    put_set(tmp_path, "emnist-letters-")
    put_set(tmp_path, "emnist-digits-")
    with pytest.raises(DataError, match="several sets, emnist-digits, emnist-letters; give each a folder"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_labels_of_a_folder_that_do_not_begin_at_0_are_names(tmp_path, dtype):
    labels = (np.arange(20) % 4 + 3).astype(dtype)
    labels[:7][labels[:7] == 5] = 3  # the test part has a class less, and all are numbered alike
    put_set(tmp_path, "emnist-letters-", labels)
    data = load(tmp_path)
    assert (data.classes, data.class_names) == (4, ("3", "4", "5", "6"))
    np.testing.assert_array_equal(data.train.targets, labels - 3)
    np.testing.assert_array_equal(data.test.targets, labels[:7] - 3)


@pytest.mark.parametrize(
    "labels",
    [np.eye(20, 10, dtype=np.uint8), DIGITS.astype(np.uint8), DIGITS[:, :7], np.zeros((20, 2), np.int32)],
)
def test_labels_of_two_dimensions_are_refused(tmp_path, labels):
    put_set(tmp_path, "", labels)
    with pytest.raises(
        DataError, match=r"train-labels\S*: expected one label for every image, found .*\(20, "
    ):
        load(tmp_path)


def test_values_of_a_folder_are_fitted(tmp_path):
    put_set(tmp_path, "", np.linspace(1, 2, 40).reshape(20, 2).astype(np.float32))
    assert (load(tmp_path).classes, load(tmp_path).train.targets.shape) == (None, (20, 2))


def test_parts_of_different_width(tmp_path):
    arrays = {"X": IMAGES, "y": LABELS, "X_test": IMAGES[:, :2], "y_test": LABELS}
    with pytest.raises(DataError, match="training part has 12 columns and the test part 6"):
        load_path(put(tmp_path / "a.npz", arrays))


@pytest.mark.parametrize("keys", [("X", "y", "X_test", "y_test"), ("x_train", "y_train", "x_test", "y_test")])
def test_npz_with_both_parts(tmp_path, keys):
    values = IMAGES, LABELS, IMAGES[:5], LABELS[:5] + np.uint8(1)
    data = load(str(put(tmp_path / "set.npz", dict(zip(keys, values, strict=True)))))
    assert (data.name, data.classes, data.image_shape, len(data.test)) == ("set", 3, (4, 3), 5)


def test_npz_values_and_weights_are_held_out_together(tmp_path):
    weight = np.arange(1.0, 21)
    arrays = {"X": weight[:, None], "y": weight / 2, "sample_weight": weight}
    data = load_path(put(tmp_path / "a.npz", arrays))
    assert (data.classes, len(data.test)) == (None, 4)
    for part in (data.train, data.test):
        assert (part.targets * 2).tolist() == part.sample_weight.tolist() == part.inputs[:, 0].tolist()


def test_whole_floats_are_labels_where_the_network_takes_classes(tmp_path):
    labels = np.arange(20) % 3
    path = put(tmp_path / "a.npz", {"X": IMAGES, "y": labels.astype(np.float32)})
    data = load(path, targets="classes")
    assert data.summary().endswith("targets: 3 classes (0, 1, 2)")
    assert (data.classes, data.train.targets.dtype, len(data.test)) == (3, np.int64, 4)
    assert load(path).summary().endswith("targets: values from 0 to 2")
    for values in (labels / 2, np.where(labels, np.nan, 1.0), np.where(labels, np.inf, 1.0)):
        with pytest.raises(DataError) if not np.isfinite(values).all() else nullcontext():
            assert (
                load(put(tmp_path / "b.npz", {"X": IMAGES, "y": values}), targets="classes").classes is None
            )


def test_classes_make_labels_of_whole_floats(tmp_path):
    path = put(tmp_path / "a.npz", {"X": IMAGES, "y": LABELS.astype(float)})
    assert (load_path(path).classes, load_path(path, classes=4).classes) == (None, 4)
    with pytest.raises(DataError, match=r"a.npz: .*label at index 1 is 1.*1 classes"):
        load_path(path, classes=1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": IMAGES}, "'y' is missing; it holds x"),
        ({"y": LABELS}, "'x' is missing"),
        ({"X": IMAGES, "y": LABELS, "X_test": IMAGES}, "'y_test' is missing"),
        ({"a": IMAGES}, "needs X and y"),
        ({}, "it holds nothing"),
        ({"X": IMAGES, "y": LABELS[:3]}, "20 rows of inputs but 3 targets"),
        ({"X": IMAGES, "y": LABELS.astype(object)}, "not a valid NumPy file: .*allow_pickle"),
        ({"X": IMAGES, "y": np.arange(20) + 20}, "20 different labels in 20 rows, which are hardly classes"),
        ({"X": IMAGES, "y": LABELS, "X_test": IMAGES, "y_test": LABELS / 2}, "one part has whole numbers"),
    ],
)
def test_unusable_archives(tmp_path, arrays, message):
    with pytest.raises(DataError, match=rf"a.npz.*{message}"):
        load_path(put(tmp_path / "a.npz", arrays))


def test_damaged_archives_are_noticed_wherever_the_damage(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=IMAGES, y=LABELS)
    sound, expected = path.read_bytes(), whole(load_path(path))
    for at in range(0, len(sound), 3):
        for damaged in (sound[:at], sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :]):
            path.write_bytes(damaged)
            try:
                assert whole(load_path(path)) == expected  # a date or the like
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017 - either outcome is right


def test_csv_without_header_takes_the_last_column(tmp_path):
    data = load(put(tmp_path / "a.csv", rows(*[0, 1] * 5)))
    assert data.train.inputs.dtype == np.float64
    assert (data.classes, data.class_names) == (2, None)
    assert whole(data) == ([[i, i / 4] for i in range(10)], [0, 1] * 5)


@pytest.mark.parametrize("header", ["label", "target", "y", "class", " Label "])
def test_csv_finds_the_target_by_its_header(tmp_path, header):
    text = f"\ufeff{header},a,b\n" + "".join(f"{i % 2},{i},{-i}\n" for i in range(10)) + "\n , ,\n"
    assert whole(load_path(put(tmp_path / "a.csv", text))) == ([[i, -i] for i in range(10)], [0, 1] * 5)


@pytest.mark.parametrize(
    ("targets", "class_names", "labels"),
    [(["pear", '"an, apple"'], ("an, apple", "pear"), [1, 0]), ([1, 2, 7], ("1", "2", "7"), [0, 1, 2])],
)
def test_csv_words_and_numbers_not_from_0_are_class_names(tmp_path, targets, class_names, labels):
    data = load_path(put(tmp_path / "a.csv", rows(*targets * 20)))
    assert (data.class_names, whole(data)[1]) == (class_names, labels * 20)


@pytest.mark.parametrize(
    ("targets", "header", "classes"),
    [
        ([0.0, 1.0] * 5, "", None),
        ([0.5, -1] * 5, "", None),
        ([-1, 1] * 5, "a,b,y\n", None),
        ([0.0, 1.0] * 5, "a,b,label\n", 2),
        ([0.5, 1] * 5, "a,b,label\n", None),
        ([0, 1] * 5, "0,1,label\n", 2),
    ],
)
def test_csv_classes_or_values(tmp_path, targets, header, classes):
    data = load_path(put(tmp_path / "a.csv", rows(*targets, header=header)))
    assert (data.classes, data.n_in, whole(data)[1]) == (classes, 2, targets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("1\n2\n", "1 columns"),
        ("1;2;0\n3;4;1\n", "1 columns, separated by ',', are too few; they seem .* by ';': --delimiter"),
        ("a,b,label\n", "no rows"),
        ("a,label\n1,0\n\n2,3,1\n", "line 4 has 3 columns, the first has 2"),
        ("a,b,label\n1,2,0\n3,x4,1\n", r"line 3, column 2 \(b\): 'x4' is not a number"),
        ("label,a,b\n0,1,2\n1,3,\n", r"line 3, column 3 \(b\): the cell is empty; .* fill them in"),
        ("7,2,4\n3,nan,1\n", "line 2, column 2: 'nan' is no number; .* leave such rows out"),
        ("1,1e999,0\n", "line 1, column 2: '1e999'"),
        ("label,a\n0,1\nx,2\n", r"line 3, column 1 \(label\): the target 'x' is not a number"),
        ("1,0\n2,\n", "line 2, column 2: the target is missing; leave such rows out"),
        ("1,a\n2,a\n3,\n", "line 3, column 2: the target is missing"),
        ("1,0\n2,nan\n", "line 2, column 2: the target is missing"),
        ("1,0\n2,0\n3,1\n", "cannot hold out"),
        ("1,1999\n2,2000\n", "2 different labels in 2 rows, which are hardly classes"),
        (b"1,2\n\xff\xfe,3\n", r"a\.csv: not a readable CSV file"),
        (b'1,2\n"' + b"x" * 200_000 + b'",2\n', r"a\.csv: not a readable CSV file"),
    ],
)
def test_csv_errors_say_where(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_path(put(tmp_path / "a.csv", content))


def read(path, rows=4096):
    return np.concatenate(list(stream_inputs(path, rows)))


VALUES = RNG.standard_normal((20, 5))


@pytest.mark.parametrize(
    ("name", "content", "dtype"),
    [
        ("a.npy", IMAGES, "u1"),
        ("a.npy", np.asfortranarray(VALUES), "f8"),
        ("a.npy", VALUES.astype(">f4"), "f4"),
        ("a.npz", {"X": IMAGES, "y": LABELS}, "u1"),
        ("a.npz", {"anything": VALUES}, "f8"),
        ("a.csv", VALUES, "f8"),
        ("a.csv", "p,q\n" + "1,2.5\n" * 20, "f8"),
        ("t10k-images-idx3-ubyte", IMAGES, "u1"),
        ("t10k-images.idx3-ubyte", IMAGES, "u1"),
        ("a.gz", IMAGES, "u1"),
        ("a.idx", VALUES, "f8"),
        ("a.png", IMAGES[0], "u1"),
        ("a.JPG", np.full((5, 4), 77, np.uint8), "u1"),
    ],
)
@pytest.mark.parametrize("rows", [1, 7, 20, 100])
def test_every_kind_of_file_gives_what_it_holds_in_parts(tmp_path, name, content, dtype, rows):
    parts = list(stream_inputs(put(tmp_path / name, content), rows))
    held = next(iter(content.values())) if isinstance(content, dict) else content
    held = np.array([[1, 2.5]] * 20) if isinstance(content, str) else held
    together = np.concatenate(parts)
    assert together.dtype == dtype
    is_image = name in ("a.png", "a.JPG")
    np.testing.assert_array_equal(together, held.reshape(1 if is_image else 20, -1))
    assert is_image or name == "a.npz" or max(map(len, parts)) == min(rows, 20)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_an_image_is_one_row_of_grey_never_inverted(tmp_path, mode):
    bright = np.where(np.arange(12).reshape(4, 3) == 5, 0, 255).astype(np.uint8)
    Image.fromarray(bright).convert(mode).save(tmp_path / "a.png")
    inputs = read(tmp_path / "a.png")
    assert (inputs.dtype, inputs.tolist()) == (np.uint8, [bright.ravel().tolist()])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "1,2\n3,4\n5\n", "line 3 has 1 columns"),
        ("a.csv", "a,b\n\n3,4\nx,4\n", r"line 4, column 1 \(a\): 'x'"),
        ("a.csv", "a,b\n", "no rows of data"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "1,2\n3,word\n", "line 2, column 2: 'word' .*leave out a column of targets"),
        ("a.npy", "text", "not a valid NumPy file"),
        ("a.npy", "", "not a valid NumPy file"),
        ("a.npy", b"\x80\x04N.", "not a valid NumPy file"),
        ("a.npy", np.zeros(3), "two dimensions"),
        ("a.npy", np.zeros((0, 3)), "no data"),
        ("a.npy", np.zeros((3, 0)), "no data"),
        ("a.npy", np.array([[0.0, 1], [2, np.inf]]), "row 1, column 1 is inf"),
        ("a.npy", np.array([["x"]]), "dtype <U1, not numbers"),
        ("a.npy", np.array([[None]]), "allow_pickle|Python objects"),
        ("a.npz", "", "not a valid NumPy file"),
        ("a.npz", "nonsense", "not a valid NumPy file"),
        ("a.npz", b"\x80\x04N.", "not a valid NumPy file"),
        ("a.npz", {"a": IMAGES, "b": IMAGES}, "needs X, or a single array; it holds a, b"),
        ("a.idx", "", "the file is empty"),
        ("a.idx", "nonsense", "not an IDX file"),
        ("a.idx", np.zeros((0, 3), np.uint8), "no data"),
        ("a.idx", np.array([[0.0], [np.nan]]), "row 1, column 0 is nan"),
        ("a.png", "", "not a valid image"),
        ("a.jpg", "nonsense", "not a valid image"),
        ("a.png", np.full((4, 4), 40000, np.uint16), "8 bits"),
        ("a.png", np.zeros((4, 4, 4), np.uint8), "transparent"),
        ("a.xlsx", "", r"not a known kind of file; use \.npy, \.npz, .*\.csv, "),
    ],
)
def test_inputs_that_cannot_be_read_say_why(tmp_path, name, content, says):
    with pytest.raises(DataError, match=f"{name}: .*({says})"):
        list(stream_inputs(put(tmp_path / name, content), 1))


@pytest.mark.parametrize("of", [load_path, read])
def test_what_is_absent_or_of_no_known_kind(tmp_path, of):
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        of(tmp_path / "absent.csv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match=r"a.xlsx: .*\.npz, .*\.csv"):
        of(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"not a known kind|no IDX files"):
        of(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".idx", ".gz", ".png"])
def test_truncated_files_never_give_other_numbers(tmp_path, suffix):
    path = put(tmp_path / f"a{suffix}", IMAGES[0] if suffix == ".png" else IMAGES[:9])
    sound, expected, refused = path.read_bytes(), read(path), 0
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        try:
            assert np.array_equal(read(path, 2), expected)
        except DataError as error:
            assert f"a{suffix}: " in str(error)  # noqa: PT017 - either outcome is right
            refused += 1
    # Behind a PNG's pixels there are two checksums and an end mark.
    assert refused == len(sound) or (suffix == ".png" and refused >= len(sound) - 24)


@pytest.mark.parametrize(
    ("suffix", "says"), [(".idx", "needs 56 bytes, found 57"), (".gz", "needs 56 bytes, found more")]
)
def test_what_follows_an_idx_array_is_noticed(tmp_path, suffix, says):
    more = idx(IMAGES[:10, :2, :2]) + b"x"
    path = put(tmp_path / f"a{suffix}", gzip.compress(more) if suffix == ".gz" else more)
    with pytest.raises(DataError, match=says):
        read(path, 2)


def test_a_plain_file_of_the_wrong_length_is_refused_before_its_first_rows(tmp_path):
    path = put(tmp_path / "a.idx", idx(np.zeros((100, 3), np.uint8))[:-1])
    with pytest.raises(DataError, match="needs 312 bytes, found 311"):
        next(stream_inputs(path, 2))
