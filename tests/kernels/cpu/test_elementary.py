"""The vectors of emitted code, and exp, log, tanh and sigmoid on them: every lane within the roundings allowed it."""

from __future__ import annotations

import math
from fractions import Fraction

import numba
import numpy as np
import pytest

from gpubp.functions import ACTIVATIONS
from gpubp.kernels.cpu import elementary
from gpubp.kernels.cpu.elementary import LN2, LOWEST
from gpubp.kernels.cpu.machine import BYTES
from gpubp.kernels.cpu.vector import emitted, index, transpose
from gpubp.verification.bounds import ACTIVATION_ROUNDINGS, EXP_ROUNDINGS, LOG_ROUNDINGS
from tests import param

DTYPES = [np.float32, param(np.float64, always=False)]
# name -> (NumPy's, the roundings allowed, where it is defined); expm1 and log1p are held to what exp and log are.
FUNCTIONS = {
    "exp": (np.exp, EXP_ROUNDINGS, lambda x: x <= 0),
    "expm1": (np.expm1, EXP_ROUNDINGS, lambda x: x <= 0),
    "log": (np.log, LOG_ROUNDINGS, lambda x: x >= np.finfo(x.dtype).tiny),
    "log1p": (np.log1p, LOG_ROUNDINGS, lambda x: x > -1),
    "tanh": (np.tanh, ACTIVATION_ROUNDINGS["tanh"], lambda x: x == x),
    "sigmoid": (ACTIVATIONS["sigmoid"].apply, ACTIVATION_ROUNDINGS["sigmoid"], lambda x: x == x),
}


def lanes_of(dtype) -> int:
    return BYTES // np.dtype(dtype).itemsize


def compiled(function):
    """``function`` of lanes (and a number, if it asks for one), on arrays: call(x, …) -> one result a lane."""

    @emitted(inline=True)
    def through(emit, source, target, number, count):
        def one(i):
            emit.store_lanes(function(emit.load_lanes(source, i), number), target, i)
            return []

        emit.loop(index(0), count, emit.lanes, [], one)

    @numba.njit
    def loop(source, target, number):
        through(source, target, number, len(source))

    def call(x: np.ndarray, number: float = 0.0) -> np.ndarray:
        source = np.pad(x, (0, -len(x) % lanes_of(x.dtype)))
        target = np.full_like(source, np.nan)
        loop(source, target, x.dtype.type(number))
        return target[: len(x)]

    return call


@pytest.fixture(scope="module", params=FUNCTIONS)
def function(request):
    """(name, its compiled self)."""
    emitting = getattr(elementary, request.param)
    return request.param, compiled(lambda x, _: emitting(x))


def around(points, dtype, steps: int = 50) -> np.ndarray:
    """Each point's neighbours on both sides, by their bit patterns."""
    points = np.abs(np.asarray(points, dtype))
    whole = np.dtype(f"i{points.itemsize}")
    bits = points.view(whole)[:, None] + np.arange(-steps, steps + 1, dtype=whole)
    x = np.maximum(bits, 0).view(dtype).reshape(-1)
    return np.concatenate([x, -x])


def special_points(dtype) -> np.ndarray:
    """Where something begins or ends: the range of numbers, exp's range, its steps of ln 2, and log's of 2."""
    info = np.finfo(dtype)
    powers = 2.0 ** np.arange(info.minexp, info.maxexp)
    steps = math.log(2) * (np.arange(1, -info.minexp + 1) - 0.5)
    ends = [0, info.tiny, info.max, LOWEST[info.bits], LOWEST[info.bits] / 2]
    return np.concatenate([ends, powers, powers * 0.5**0.5, steps, steps / 2])


def numbers_of_all_sizes(dtype) -> np.ndarray:
    """Of float32 every 997th there is, of float64 random ones; and many where exp and tanh are not constant."""
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        bits = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32)
    else:
        bits = rng.integers(0, 2**64, 300_000, dtype=np.uint64)
    everywhere = bits.view(dtype)
    moving = rng.uniform(-1, 1, 300_000) * np.repeat([2, 30, -1.05 * LOWEST[np.finfo(dtype).bits]], 100_000)
    x = np.concatenate([everywhere, moving.astype(dtype), around(special_points(dtype), dtype)])
    return x[np.isfinite(x)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_result_is_within_the_roundings_that_the_bounds_allow(function, dtype):
    name, call = function
    reference, allowed, defined = FUNCTIONS[name]
    wide = np.float64 if dtype == np.float32 else np.longdouble
    if np.finfo(wide).eps > np.finfo(dtype).eps / 256:
        pytest.skip("NumPy's longdouble is no wider than float64 here")
    x = numbers_of_all_sizes(dtype)
    x = x[defined(x)]
    assert len(x) > 100_000
    got = call(x).astype(wide)
    with np.errstate(under="ignore", over="ignore"):
        expected = reference(x.astype(wide))
    info = np.finfo(dtype)
    normal = np.abs(expected) >= info.tiny
    unit = wide(info.eps) / 2
    roundings = np.abs(got - expected)[normal] / np.abs(expected[normal]) / unit
    assert roundings.max() <= allowed, f"at {x[normal][roundings.argmax()]!r}"
    assert (np.abs(got - expected)[~normal] <= info.tiny).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_goes_through_every_function(function, dtype):
    name, call = function
    x = np.full(2 * lanes_of(dtype), dtype(2 if name == "log" else -0.5))
    x[[1, -1]] = np.nan, -np.nan
    np.testing.assert_array_equal(np.isnan(call(x)), np.isnan(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_at_zero_and_at_infinity(function, dtype):
    name, call = function
    if name == "log":
        np.testing.assert_array_equal(call(np.ones(1, dtype)), 0)
        return
    at_zero = {"exp": 1, "sigmoid": 0.5}.get(name, 0)
    np.testing.assert_array_equal(call(np.array([0.0, -0.0], dtype)), at_zero)
    if name != "log1p":
        limit = {"exp": 0, "sigmoid": 0}.get(name, -1)
        np.testing.assert_array_equal(call(np.array([-np.inf, np.finfo(dtype).min], dtype)), limit)
    if name in ("tanh", "sigmoid"):
        np.testing.assert_array_equal(call(np.array([np.inf, np.finfo(dtype).max], dtype)), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sigmoid"])
def test_a_result_below_the_normal_numbers_is_0(name, dtype):
    """Arithmetic on subnormal numbers is many times slower, and they have lost the bits that bounds speak of."""
    info = np.finfo(dtype)
    emitting = getattr(elementary, name)
    call = compiled(lambda x, _: emitting(x))
    lowest = dtype(LOWEST[info.bits])
    edge = around([lowest], dtype, steps=100_000)
    x = np.concatenate([edge[edge < 0], np.linspace(0, 1.2, 10_000, dtype=dtype) * lowest])
    got = call(x)
    assert (got[x < lowest] == 0).all()
    assert (got[x >= lowest] >= info.tiny).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiples_of_the_first_part_of_ln2_are_exact(dtype):
    """On which processors without fused multiply-adds depend."""
    info = np.finfo(dtype)
    high, _ = LN2[info.bits]
    for k in range(info.minexp, info.maxexp + 1):  # every exponent that exp and log may meet
        assert Fraction(float(dtype(high) * dtype(k))) == Fraction(high) * k


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_is_the_mask_of_equal_numbers_and_count_their_number(dtype):
    @emitted(numba.types.intp, inline=True)
    def equal(emit, source, number):
        return emit.count(emit.load_lanes(source, index(0)).equals(emit.spread(number)))

    @numba.njit
    def call(source, number):
        return equal(source, number)

    lanes = lanes_of(dtype)
    for count in range(lanes + 1):
        x = np.arange(lanes, dtype=dtype)
        x[:count] = -1
        assert call(x, dtype(-1)) == count
        x[:count] = np.nan
        assert call(x, dtype(np.nan)) == 0
    assert call(np.zeros(lanes, dtype), dtype(-0.0)) == lanes


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_adds_halves_in_float64(dtype):
    @emitted(numba.types.float64, inline=True)
    def add(emit, source):
        return emit.load_lanes(source, index(0)).sum()

    @numba.njit
    def call(source):
        return add(source)

    rng, count = np.random.default_rng(1), lanes_of(dtype)
    for _ in range(20):
        x = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 6, count)).astype(dtype)
        halves = x.astype(np.float64)
        while len(halves) > 1:
            halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
        assert call(x) == halves[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_first_lanes_of_a_mask_are_kept(dtype):
    keep = compiled(lambda x, n: x.where(x.emit.first_lanes(x.emit.builder.fptosi(n, index(0).type)), -1))
    count = lanes_of(dtype)
    x = np.arange(1, count + 1, dtype=dtype)
    for n in (-1, 0, 1, count - 1, count, count + 5):
        np.testing.assert_array_equal(keep(x, n), np.where(np.arange(count) < n, x, -1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_reads_and_writes_only_the_rows_there_are(dtype):
    @numba.njit
    def call(memory, source, source_row, rows, zero, target, target_row, target_rows, spare):
        transpose(memory, source, source_row, rows, zero, target, target_row, target_rows, spare)

    n = lanes_of(dtype)
    for rows in range(1, n + 1):
        source_row, target_row, target_rows = n + 3, n + 2, n + 1 - rows
        zero, source = 1, 1 + n
        target = source + n * source_row
        spare = target + n * target_row
        memory = np.full(spare + n + 1, np.nan, dtype)
        memory[zero : zero + n] = 0
        square = np.zeros((n, n), dtype)
        square[:rows] = np.arange(1, rows * n + 1).reshape(rows, n)
        for i in range(rows):  # what is below the last row stays NaN: nothing may read it
            memory[source + i * source_row :][:n] = square[i]
        before = memory.copy()
        call(memory, source, source_row, rows, zero, target, target_row, target_rows, spare)
        written = np.zeros(len(memory), bool)
        for j in range(target_rows):
            place = slice(target + j * target_row, target + j * target_row + n)
            np.testing.assert_array_equal(memory[place], square[:, j])
            written[place] = True
        written[spare : spare + n] = True
        np.testing.assert_array_equal(memory[~written], before[~written])
