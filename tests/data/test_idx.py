"""IDX files: what is written is read, and no damage goes unnoticed."""

import gzip
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpubp.data.idx import parse_idx, read_idx, write_idx
from gpubp.errors import DataError

IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
arrays = hnp.arrays(
    st.sampled_from(["u1", "i1", "<i2", ">i2", "i4", "f4", "f8"]), hnp.array_shapes(min_side=0, max_dims=5)
)


def header(code: int, *dims: int) -> bytes:
    return bytes([0, 0, code, len(dims)]) + b"".join(d.to_bytes(4, "big", signed=d < 0) for d in dims)


@settings(deadline=None)
@given(arrays, st.sampled_from(["a.gz", "a"]))
def test_round_trip(tmp_path_factory, array, name):
    path = tmp_path_factory.mktemp("idx") / name
    write_idx(path, array)
    back = read_idx(path, expect_dims=array.ndim)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)
    assert path.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")


def test_bytes_are_those_of_the_format(tmp_path):
    write_idx(tmp_path / "a", np.array([[1, -2]], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("0000 0b02 00000001 00000002 0001 fffe")


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    write_idx(tmp_path / "a.gz", IMAGES)
    packed = (tmp_path / "a.gz").read_bytes()
    (tmp_path / "plain-name").write_bytes(packed)
    (tmp_path / "b.gz").write_bytes(gzip.decompress(packed))
    for name in ("plain-name", "b.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), IMAGES)
    write_idx(tmp_path / "again.gz", IMAGES)
    assert (tmp_path / "again.gz").read_bytes() == packed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\0", "not an IDX file; it starts with 00"),
        (b"PK\x03\x04rest", "starts with 50 4b 03 04"),
        (header(0x0A, 1) + b"a", "not an IDX file"),
        (bytes([0, 0, 8, 0]), "0 dimensions, expected 1 to 64"),
        (header(8, *[1] * 65) + b"a", "65 dimensions"),
        (header(8, 2, 2)[:-1], "within its header, after 11 of 12 bytes"),
        (header(8, -1, 2), r"negative dimension in \(-1, 2\)"),
        (header(8, 2, 2) + b"abc", r"\(2, 2\) of uint8 needs 16 bytes, found 15"),
        (header(8, 2, 2) + b"abcde", "needs 16 bytes, found 17"),
        (header(0x0E, 2) + b"abc", "float64 needs 24 bytes, found 11"),
        (header(8, *[2**31 - 1] * 3) + b"a", "needs 99.* bytes, found 17"),
        (header(8, 0, *[2**31 - 1] * 3), "impossible shape"),
        (gzip.compress(header(8, 2) + b"ab") + b"more", "damaged or incomplete gzip"),
        (gzip.compress(header(8, 2) + b"ab") + gzip.compress(b"c"), "needs 10 bytes, found 11"),
        (gzip.compress(b""), "not an IDX file"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        read_idx(path)


def test_other_dimensions_than_expected():
    content = header(8, 3) + b"abc"
    assert parse_idx(content, "labels", expect_dims=1).tolist() == [97, 98, 99]
    with pytest.raises(DataError, match="labels: 1 dimensions, expected 3"):
        parse_idx(content, "labels", expect_dims=3)


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="absent: cannot be read: No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read: "):
        read_idx(tmp_path)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_every_truncation_is_noticed(tmp_path, name):
    path = tmp_path / name
    write_idx(path, IMAGES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_idx(path)


def test_a_flipped_bit_in_a_gzip_never_gives_other_numbers(tmp_path):
    path = tmp_path / "a.gz"
    write_idx(path, np.array(random.Random(0).choices(range(256), k=300), np.uint8))
    whole, array = path.read_bytes(), read_idx(path)
    noticed = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_idx(path), array)  # time stamp and such carry no content
        except DataError:
            noticed += 1
    assert noticed > 8 * (len(whole) - 10)


@settings(deadline=None)
@given(st.binary(max_size=64), st.sampled_from([0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E]), st.integers(0, 6))
def test_any_bytes_are_an_array_or_an_error(rest, code, ndim):
    content = bytes([0, 0, code, ndim]) + rest
    try:
        array = parse_idx(content, "x")
    except DataError:
        return
    assert len(content) == 4 + 4 * ndim + math.prod(array.shape) * array.itemsize


@pytest.mark.parametrize("array", [np.zeros(2, np.int64), np.zeros(2, bool), np.float32(1), np.array(["a"])])
def test_what_idx_cannot_hold(tmp_path, array):
    with pytest.raises(DataError, match="IDX cannot hold"):
        write_idx(tmp_path / "a", np.asarray(array))
    assert not (tmp_path / "a").exists()
