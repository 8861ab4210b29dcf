"""Random numbers as a pure function of what they are for: the same bits in any order, on any backend, after any resume.

Philox 4×32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011) turns a counter of
four 32-bit words, under a key of two, into four random words, by ten rounds of two multiplications. The key is a
seed; the counter says what the numbers are for::

    word 0   which of a sample's counters      word 2   the step: updates made before it
    word 1   the sample, by its place in       word 3   the purpose, such as the dropout
             the training data                          of what goes into layer i

A counter gives eight numbers of 16 bits, the low half of each word before its high half. A vector of 16 lanes takes 16
counters at a time, and lays the eight numbers of each below each other, not beside each other, so that nothing has to
change places: of 128 elements in a row, element e has number e // 16 of counter e % 16 (:func:`places`). The CUDA
and the Numba kernels compute the same (kernels/cuda/random.cuh, kernels/cpu/random.py).
"""

from __future__ import annotations

import numpy as np

from gpubp.errors import UsageError

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key from round to round
ROUNDS = 10
LANES, NUMBERS = 16, 8  # counters beside each other, and numbers of each
BLOCK = LANES * NUMBERS  # elements
LOW = np.uint64(0xFFFFFFFF)
LARGEST_SEED = 2**64 - 1  # that a key holds


def key_of(seed: int) -> tuple[int, int]:
    """The two words of a seed, the low one first.

    Raises UsageError if it has more.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"random numbers of a step need a seed of 64 bits, from 0 to 2**64 - 1, not {seed}")
    return seed & 0xFFFFFFFF, seed >> 32


def seed_of(key: tuple[int, int]) -> int:
    """The seed whose words these are."""
    low, high = key
    return high << 32 | low


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Four random words (…, 4) of each counter (…, 4), uint32 both."""
    c0, c1, c2, c3 = (counters[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = map(np.uint64, key)
    m0, m1 = map(np.uint64, MULTIPLIERS)
    for _ in range(ROUNDS):
        first, second = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (
            (second >> np.uint64(32)) ^ c1 ^ k0,
            second & LOW,
            (first >> np.uint64(32)) ^ c3 ^ k1,
            first & LOW,
        )
        k0, k1 = (k0 + np.uint64(WEYL[0])) & LOW, (k1 + np.uint64(WEYL[1])) & LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of elements 0 … count − 1, each one's counter and its number there, (count,) both."""
    e = np.arange(count)
    return e // BLOCK * LANES + e % LANES, e // LANES % NUMBERS


def numbers(key: tuple[int, int], purpose: int, step: int, samples: np.ndarray, count: int) -> np.ndarray:
    """``count`` random numbers of 16 bits for each of these samples (B,) at a step, (B, count) uint16."""
    counters = -(-count // BLOCK) * LANES
    words = np.zeros((len(samples), counters, 4), np.uint32)
    words[..., 0] = np.arange(counters)
    words[..., 1] = np.asarray(samples)[:, None]
    words[..., 2], words[..., 3] = step, purpose
    halves = philox(words, key)[..., None] >> np.array([0, 16], np.uint32)  # (B, counters, 4, 2)
    eight = (halves & np.uint32(0xFFFF)).astype(np.uint16).reshape(len(samples), -1, LANES, NUMBERS)
    return eight.transpose(0, 1, 3, 2).reshape(len(samples), -1)[:, :count]
