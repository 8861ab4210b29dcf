"""Philox: the published vectors, and numbers that depend on what they are for and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp.randomness.philox import BLOCK, key_of, numbers, philox

ONES = 2**32 - 1

# Counter, key and result of philox4x32-10 in the known answers of Random123, its authors' library (kat_vectors).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(counter, key, expected):
    assert philox(np.array(counter, np.uint32), key).tolist() == list(expected)
    several = philox(np.array([[(1, 2, 3, 4)], [counter]], np.uint32), key)  # counters of any shape
    assert several.shape == (2, 1, 4)
    assert several[1, 0].tolist() == list(expected)


def test_every_element_has_the_number_that_the_docstring_gives_it():
    key, purpose, step, samples = (123, 456), 3, 9, np.array([7, 0, 2**32 - 1])
    got = numbers(key, purpose, step, samples, 300)
    assert got.shape == (3, 300)
    assert got.dtype == np.uint16
    for b, sample in enumerate(samples):
        for e in range(300):
            counter = np.array([e // 128 * 16 + e % 16, sample, step, purpose], np.uint32)
            number = e // 16 % 8
            word = int(philox(counter, key)[number // 2])
            assert got[b, e] == (word >> 16 if number % 2 else word & 0xFFFF)


@pytest.mark.parametrize("count", [0, 1, 15, 17, BLOCK - 1, BLOCK, BLOCK + 1, 784])
def test_numbers_are_the_same_in_any_company(count):
    """Of fewer elements, other samples beside them, in another order."""
    samples = np.array([5, 3, 900])
    wide = numbers((1, 2), 0, 4, samples, 1000)
    np.testing.assert_array_equal(numbers((1, 2), 0, 4, samples, count), wide[:, :count])
    np.testing.assert_array_equal(numbers((1, 2), 0, 4, samples[[2, 0]], 1000), wide[[2, 0]])


def test_whatever_changes_changes_the_numbers():
    first = numbers((1, 2), 0, 4, np.array([3]), 256)
    others = [
        numbers((2, 2), 0, 4, np.array([3]), 256), numbers((1, 3), 0, 4, np.array([3]), 256),
        numbers((1, 2), 1, 4, np.array([3]), 256), numbers((1, 2), 0, 5, np.array([3]), 256),
        numbers((1, 2), 0, 4, np.array([4]), 256),
    ]  # fmt: skip
    for other in others:
        assert (other == first).mean() < 0.05


def test_numbers_are_uniform():
    """The mean, the variance and each bit, of two million numbers, within five standard errors."""
    drawn = numbers((20, 0), 2, 0, np.arange(2000), 1000).astype(np.float64) / 65536
    error = 5 / np.sqrt(drawn.size)
    assert abs(drawn.mean() - 0.5) < error * np.sqrt(1 / 12)
    assert abs(drawn.var() - 1 / 12) < error * np.sqrt(1 / 180)
    for axis in (0, 1):  # neither samples nor elements are alike
        pairs = np.corrcoef(
            drawn[:1000, :1000].take(range(999), axis).ravel(),
            drawn[:1000].take(range(1, 1000), axis).ravel(),
        )
        assert abs(pairs[0, 1]) < 5 / np.sqrt(999_000)
    bits = numbers((20, 0), 2, 0, np.arange(2000), 1000)[..., None] >> np.arange(16) & 1
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < error / 2


@pytest.mark.parametrize(
    ("seed", "key"), [(0, (0, 0)), (1, (1, 0)), (2**32, (0, 1)), (2**64 - 1, (ONES, ONES))]
)
def test_a_seed_is_a_key_of_two_words(seed, key):
    assert key_of(seed) == key


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_key_holds_is_refused(seed):
    with pytest.raises(gpubp.UsageError, match="64 bits"):
        key_of(seed)
