"""Every operation of every backend, a GPU's on the GPU or its stand-in, held to the bounds of the reference."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp import reference
from gpubp.backends.cpu.backend import NumbaBackend
from gpubp.data.samples import as_inputs
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.randomness.dropout import Dropout
from gpubp.verification import bounds
from gpubp.verification.bounds import (
    ACTIVATION_ROUNDINGS,
    EXP_ROUNDINGS,
    LOG_ROUNDINGS,
    SLOPE_ERRORS,
    Bounded,
    Precision,
)
from gpubp.verification.steps import bounded_update
from tests import examples, fewer
from tests.conftest import BACKENDS, backend_by_name
from tests.networks import EVERY_OPTIMIZER, every_dtype

# One, odd, a warp and one beside it, and wider than a block of 256 threads.
widths = st.sampled_from([1, 2, 3, 10, 31, 32, 33, 65, 300])
batches = st.sampled_from([1, 2, 7, 8, 9, 33, 70])
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.1, 1.0, 30.0])  # up to activations that saturate
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
every_loss = pytest.mark.parametrize("loss", LOSSES)


class GuardedNumba(NumbaBackend):
    """Its arrays lie between numbers that no kernel may change, as those of the stand-in for a GPU do."""

    def __init__(self):
        super().__init__()
        self.guarded = deque(maxlen=20)  # those of the present test, and of some before

    def to_device(self, array, out=None):
        wide = np.full(array.size + 128, 77, array.dtype)
        view = wide[64:-64].reshape(array.shape)
        view[...] = array
        self.guarded.append(wide)
        return view

    def to_host(self, array):
        for wide in self.guarded:
            assert (wide[:64] == 77).all(), "a kernel wrote outside of an array"
            assert (wide[-64:] == 77).all(), "a kernel wrote outside of an array"
        return array.copy()


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return GuardedNumba() if request.param == "numba" else backend_by_name(request.param)


def normal(seed, dtype, *shapes, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * scale).astype(dtype) for shape in shapes]


def output_layer(seed, dtype, b, n, activation, scale=1.0):
    """Logits, activations, one-hot targets (or a probability) and sample weights."""
    rng = np.random.default_rng(seed)
    (z,) = normal(seed, dtype, (b, n), scale=scale)
    a = ACTIVATIONS[activation].apply(z).astype(dtype)
    y = np.eye(n)[rng.integers(0, n, b)] if n > 1 else rng.random((b, 1))
    return z, a, y.astype(dtype), rng.random(b).astype(dtype)


def run(backend, operation, arrays, *options, outputs):
    """Run an operation with outputs of these shapes, poisoned before, in the dtype of the last array; return them."""
    send, dtype = backend.to_device, arrays[-1].dtype
    results = [send(np.full(shape, np.nan, dtype)) for shape in outputs]
    if operation == "output_delta":
        results.append(send(np.full(len(arrays[0]), 255, np.uint8)))
    getattr(backend, operation)(*map(send, arrays), *options, *results)
    return [backend.to_host(result) for result in results]


def run_gather(backend, source, order, dtype):
    out = backend.to_device(np.full((len(order), *source.shape[1:]), np.nan, dtype))
    backend.gather(backend.to_device(source), backend.to_device(order), out)
    return backend.to_host(out)


def run_output_delta(backend, z, a, y, w, activation, loss):
    options = ACTIVATIONS[activation], LOSSES[loss]
    return run(backend, "output_delta", (z, a, y, w), *options, outputs=[a.shape, w.shape])


def wide(array):
    return array.astype(np.float64)


def exact(array):
    return Bounded.exact(wide(array))


def assert_within(got, bounded):
    error = np.abs(got - bounded.value)
    ok = (error <= bounded.error) | (got == bounded.value)
    assert ok.all(), f"worst error {(error / np.maximum(bounded.error, 1e-300)).max():.3g} of its bound"


@every_dtype
@pytest.mark.parametrize("bytes_in", [True, False])
@examples(6, 25)
@given(n=widths, b=batches, seed=seeds)
def test_gather(backend, dtype, bytes_in, n, b, seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (50, n), np.uint8) if bytes_in else rng.random((50, n)).astype(dtype)
    order = rng.integers(0, 50, b)
    out = run_gather(backend, source, order, dtype)
    np.testing.assert_array_equal(out, as_inputs(source[order], dtype))


@every_dtype
def test_gather_of_a_vector(backend, dtype):
    source, order = np.arange(7, dtype=dtype), np.array([6, 0, 0, 3])
    out = run_gather(backend, source, order, dtype)
    np.testing.assert_array_equal(out, source[order])


@every_dtype
@examples(6, 25)
@given(n=widths, b=batches, seed=seeds, rate=st.sampled_from([2.0**-16, 0.2, 0.9]), in_place=st.booleans())
def test_drop(backend, dtype, n, b, seed, rate, in_place):
    """Masks are those of the reference, bit for bit."""
    rng = np.random.default_rng(seed)
    mask = Dropout.of([0, rate], 2, seed << 20).mask(1, step=int(rng.integers(2**31)))
    order, (a,) = rng.integers(0, 2**31, b), normal(seed, dtype, (b, n))
    source = backend.to_device(a)
    out = source if in_place else backend.to_device(np.full((b, n), np.nan, dtype))
    backend.drop(source, mask, backend.to_device(order), out)
    expected = a * mask.of(order, n, a.dtype)
    assert backend.to_host(out).tobytes() == expected.tobytes()


@every_activation
@every_dtype
@examples(6, 25)
@given(i=widths, o=widths, b=batches, seed=seeds, scale=scales, shared=st.booleans())
def test_forward(backend, activation, dtype, i, o, b, seed, scale, shared):
    a_prev, weights, bias = normal(seed, dtype, (b, i), (o, i), (o,), scale=scale)
    sigma = ACTIVATIONS[activation]
    on_device = [backend.to_device(array) for array in (a_prev, weights, bias)]
    z = backend.to_device(np.full((b, o), np.nan, dtype))
    a = z if shared else backend.to_device(np.full((b, o), np.nan, dtype))
    backend.forward(*on_device, sigma, z, a)
    bounded = bounds.forward(exact(a_prev), wide(weights), wide(bias), sigma, Precision.of(dtype))
    assert_within(backend.to_host(a), bounded[1])
    if not shared:
        assert_within(backend.to_host(z), bounded[0])


@every_activation
@every_loss
@every_dtype
@examples(2, 10)
@given(n=widths, b=batches, seed=seeds, scale=scales)
def test_output_delta(backend, activation, loss, dtype, n, b, seed, scale):
    z, a, y, w = output_layer(seed, dtype, b, n, activation, scale)
    delta, cost, hit = run_output_delta(backend, z, a, y, w, activation, loss)
    sigma, loss_function, precision = ACTIVATIONS[activation], LOSSES[loss], Precision.of(dtype)
    truth = wide(y), wide(w), sigma, loss_function, precision
    assert_within(delta, bounds.output_delta(exact(z), exact(a), *truth))
    for row in range(b):
        part = slice(row, row + 1)
        bounded = bounds.cost(exact(z[part]), exact(a[part]), wide(y[part]), wide(w[part]), *truth[2:])
        assert_within(cost[row], bounded)
    if n == 1:
        np.testing.assert_array_equal(hit, ((a > 0.5) == (y > 0.5))[:, 0])
    else:
        np.testing.assert_array_equal(hit, a.argmax(axis=1) == y.argmax(axis=1))


@pytest.mark.parametrize("n", [2, 33, 300])
def test_a_hit_is_the_first_of_equals(backend, n):
    a = np.zeros((3, n), np.float32)
    a[:, -1] = [1, 0, 0]
    a[1, n // 2 :] = 1
    y = np.zeros((3, n), np.float32)
    y[0, -1] = y[1, n // 2] = y[2, 0] = 1
    assert run_output_delta(backend, a, a, y, np.ones(3, np.float32), "identity", "quadratic")[2].all()


@every_activation
@every_dtype
@examples(6, 25)
@given(n=widths, n_next=widths, b=batches, seed=seeds, scale=scales)
def test_hidden_delta(backend, activation, dtype, n, n_next, b, seed, scale):
    sigma = ACTIVATIONS[activation]
    delta_next, weights, z = normal(seed, dtype, (b, n_next), (n_next, n), (b, n), scale=scale)
    a = sigma.apply(z).astype(dtype)
    (delta,) = run(backend, "hidden_delta", [delta_next, weights, a], sigma, outputs=[(b, n)])
    side = bounds.known_side(wide(a))
    bounded = bounds.hidden_delta(
        exact(delta_next), wide(weights), side, exact(a), sigma, Precision.of(dtype)
    )
    assert_within(delta, bounded)


@every_dtype
@examples(6, 25)
@given(i=widths, o=widths, b=batches, seed=seeds)
def test_weight_grad(backend, dtype, i, o, b, seed):
    delta, a_prev = normal(seed, dtype, (b, o), (b, i))
    gradients = run(backend, "weight_grad", [delta, a_prev], outputs=[(o, i), (o,)])
    bounded = bounds.weight_grad(exact(delta), exact(a_prev), Precision.of(dtype))
    for got, expected in zip(gradients, bounded, strict=True):
        assert_within(got, expected)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
@every_dtype
@examples(6, 25)
@given(shape=st.sampled_from([(1,), (255,), (257,), (33, 65)]), seed=seeds)
def test_update(backend, optimizer, dtype, shape, seed):
    parameter, gradient, *slots = normal(seed, dtype, *[shape] * (2 + len(optimizer.slots)))
    slots = [np.abs(slot) for slot in slots]
    c = optimizer.coefficients(optimizer.lr, 3, decay=True)
    p, g, *memory = (backend.to_device(array) for array in (parameter, gradient, *slots))
    backend.update(p, g, memory, optimizer, c)
    expected = bounded_update(parameter, gradient, slots, optimizer, c)
    for got, bounded in zip((p, *memory), expected, strict=True):
        assert_within(backend.to_host(got), bounded)


@every_activation
@every_dtype
def test_nan_goes_through_forward_and_back(backend, activation, dtype):
    a_prev, weights, bias = normal(0, dtype, (3, 5), (40, 5), (40,))
    a_prev[1, 2] = np.nan
    sigma, shapes = ACTIVATIONS[activation], [(3, 40), (3, 40)]
    results = run(backend, "forward", [a_prev, weights, bias], sigma, outputs=shapes)
    for result in results:
        assert np.isnan(result).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(result[::2]).all()

    arrays = [a_prev, weights.T.copy(), results[1]]
    (delta,) = run(backend, "hidden_delta", arrays, sigma, outputs=shapes[:1])
    assert np.isnan(delta).all(axis=1).tolist() == [False, True, False]


@every_activation
@every_loss
def test_nan_goes_through_the_cost(backend, activation, loss):
    z, a, y, w = output_layer(0, np.float32, 3, 40, activation)
    z[1, 35] = a[1, 35] = np.nan
    delta, cost, _ = run_output_delta(backend, z, a, y, w, activation, loss)
    assert np.isnan(cost).tolist() == [False, True, False]
    with np.errstate(all="ignore"):
        expected = reference.output_delta(a, y, w, ACTIVATIONS[activation], LOSSES[loss])
    # Where an output is NaN, a clipped loss of it has no gradient for the reference; that of the vectors is NaN.
    nan = np.isnan(expected) | (np.isnan(a) if backend.name == "numba" else False)
    np.testing.assert_array_equal(np.isnan(delta), nan)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_nan_goes_through_gradient_and_update(backend, optimizer):
    delta, a_prev = normal(0, np.float32, (70, 3), (70, 4))
    delta[69, 1] = np.nan
    grad_weights, grad_bias = run(backend, "weight_grad", [delta, a_prev], outputs=[(3, 4), (3,)])
    assert np.isnan(grad_bias).tolist() == [False, True, False]
    assert np.isnan(grad_weights).all(axis=1).tolist() == [False, True, False]

    p, g = backend.to_device(np.ones(3, np.float32)), backend.to_device(grad_bias)
    slots = [backend.to_device(np.zeros(3, np.float32)) for _ in optimizer.slots]
    backend.update(p, g, slots, optimizer, optimizer.coefficients(0.1, 1, decay=True))
    assert np.isnan(backend.to_host(p)).tolist() == [False, True, False]


# Bounds that are as wide as they must be, and not far wider, which would hide errors --------------------------


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "softmax"])
def test_activations_are_within_the_roundings_that_the_bounds_allow_them(backend, activation):
    """float32 over its whole range of z, and the range in which e^-z moves, against float64."""
    count = 30_000 if backend.name == "cupy" else 1_000_000
    patterns = np.linspace(0, 2.0**32 - 1, count).astype(np.uint32).view(np.float32)
    z = np.concatenate([patterns[np.isfinite(patterns)], np.linspace(-90, 90, count, dtype=np.float32)])
    arrays = z[:, None], np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    a = run(backend, "forward", arrays, ACTIVATIONS[activation], outputs=[(len(z), 1)] * 2)[1]
    expected = ACTIVATIONS[activation].apply(wide(z))
    normal = (np.abs(expected) >= np.finfo(np.float32).tiny) & (np.abs(expected) <= np.finfo(np.float32).max)
    roundings = np.abs(wide(a)[:, 0] - expected)[normal] / np.abs(expected[normal]) / 2.0**-24
    allowed = ACTIVATION_ROUNDINGS[activation]
    assert allowed / 8 <= roundings.max() <= allowed


@pytest.mark.parametrize("activation", SLOPE_ERRORS)
def test_slopes_are_within_the_errors_that_the_bounds_allow_them(backend, activation):
    """As BP2 computes them from an exact a in float32, against float64."""
    sigma = ACTIVATIONS[activation]
    a = sigma.apply(np.linspace(-20, 20, 20_001)[:, None]).astype(np.float32)
    arrays = np.ones_like(a), np.ones((1, 1), np.float32), a
    (delta,) = run(backend, "hidden_delta", arrays, sigma, outputs=[a.shape])
    off = np.abs(delta - sigma.slope(wide(a)))
    allowed, variance = SLOPE_ERRORS[activation](exact(a), 2.0**-24)
    assert (off <= allowed).all()
    assert off.max() >= allowed.max() / 16  # half of its roundings are not there with fused multiply-adds
    assert (variance <= allowed**2).all()


@pytest.mark.parametrize(
    ("activation", "loss"), [("sigmoid", "binary_cross_entropy"), ("softmax", "cross_entropy")]
)
def test_logarithms_are_within_the_roundings_that_the_bounds_allow_them(backend, activation, loss):
    """ln(1 + e^-|z|) and ln Σ e^z as the costs of a single sample, in float32 against float64."""
    count = fewer(2_001, 20_001) if backend.name == "cupy" else 20_001
    z = np.linspace(-80, 80, count, dtype=np.float32)
    logits = np.stack([z, np.zeros_like(z)], axis=1)
    a = ACTIVATIONS[activation].apply(wide(logits)).astype(np.float32)
    y = np.tile(np.float32([1, 0]), (count, 1))
    cost = run_output_delta(backend, logits, a, y, np.ones_like(z), activation, loss)[1]
    expected = LOSSES[loss].cost_from_logits(wide(logits), wide(y))
    roundings = np.abs(cost - expected) / (np.abs(logits).sum(axis=1) + 1.4) / 2.0**-24
    assert roundings.max() <= LOG_ROUNDINGS + EXP_ROUNDINGS
