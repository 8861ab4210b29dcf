"""IDX files: what they hold is read, and no damage goes unnoticed."""

import gzip
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpubp.data.idx import parse_idx, read_idx, unpack, write_idx
from gpubp.errors import DataError
from tests.idx import header, idx

IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
arrays = hnp.arrays(
    st.sampled_from(["u1", "i1", "<i2", ">i2", "i4", "f4", "f8"]), hnp.array_shapes(max_dims=5)
)


def test_the_bytes_of_the_format():
    assert idx(np.array([[1, -2]], np.int16)) == bytes.fromhex("0000 0b02 00000001 00000002 0001 fffe")


@given(arrays, st.sampled_from(["a.gz", "a"]))
def test_what_is_written_is_read_in_native_byte_order(tmp_path_factory, array, name):
    path = tmp_path_factory.mktemp("idx") / name
    write_idx(path, array)
    back, raw = read_idx(path), path.read_bytes()
    assert (gzip.decompress(raw) if name == "a.gz" else raw) == idx(array)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match="a: an IDX file cannot hold int64; it has uint8, int8, int16"):
        write_idx(tmp_path / "a", np.arange(3))


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "plain-name").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "b.gz").write_bytes(idx(IMAGES))
    for name in ("plain-name", "b.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), IMAGES)


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
        (header(8, 0, *[2**31 - 1] * 3), r"no data, its shape is \(0, "),
        (gzip.compress(header(8, 2) + b"ab", mtime=0) + b"more", "damaged or incomplete gzip"),
        (
            gzip.compress(header(8, 2) + b"ab", mtime=0) + gzip.compress(b"c", mtime=0),
            "needs 10 bytes, found 11",
        ),
        (gzip.compress(b"", mtime=0), "the file is empty"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        read_idx(path)


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="absent: cannot be read: No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read: "):
        read_idx(tmp_path)


def test_a_flipped_bit_in_a_gzip_never_gives_other_numbers():
    array = np.array(random.Random(0).choices(range(256), k=100), np.uint8)
    whole = gzip.compress(idx(array), mtime=0)
    noticed = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = parse_idx(unpack(bytes(damaged), "x"), "x")
        except DataError:
            noticed += 1
        else:
            assert found.tobytes() == array.tobytes()  # time stamp and such carry no content
    assert noticed > 8 * (len(whole) - 10)


@given(st.binary(max_size=64), st.sampled_from([0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E]), st.integers(0, 6))
def test_any_bytes_are_an_array_or_an_error(rest, code, ndim):
    content = bytes([0, 0, code, ndim]) + rest
    try:
        array = parse_idx(content, "x")
    except DataError:
        return
    assert len(content) == 4 + 4 * ndim + math.prod(array.shape) * array.itemsize
