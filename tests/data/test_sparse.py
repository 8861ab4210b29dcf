"""Sparse inputs: the same training as from the dense ones, without ever storing the zeros."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import gpubp
from gpubp import backends
from gpubp.data import check_split
from gpubp.data.samples import Samples
from gpubp.errors import DataError
from tests.networks import DTYPES, bounded_outputs, problem_of, samples_of, within


def sparse_data(n_in, density, n=150, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    x = sp.random_array((n, n_in), density=density, format="csr", rng=rng, dtype=dtype)
    return x, np.random.default_rng(seed + 1).integers(0, 3, n)


def plan_of(x, y):
    """The numba backend's plan, and the samples it trains on."""
    net = gpubp.Network([x.shape[1], 9, 3], seed=0)
    samples = samples_of(net, x, y)
    return backends.get("numba").plan(problem_of(net, samples)), samples


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_in", "density"), [(1, 0.5), (63, 0.1), (64, 0.1), (65, 0.6), (300, 0.02), (784, 1.0)]
)
def test_the_numba_backend_trains_on_rows_of_non_zeros_as_the_reference_does(n_in, density, dtype):
    x, y = sparse_data(n_in, density, dtype=dtype)
    longer = sparse_data(n_in, min(1, 2 * density), n=40, seed=5, dtype=dtype)  # rows than any trained on
    net = gpubp.Network([n_in, 9, 3], seed=0, dtype=dtype)
    history = gpubp.fit(net, x, y, validation=longer, batch_size=32, epochs=3, backend="numba", verify="step")
    assert history.verification.steps == 15
    assert "non-zero inputs only" in history.plan


def test_sparse_and_dense_inputs_leave_the_same_bits():
    x, y = sparse_data(784, 0.1)  # so few that the dense ones are kept as rows of non-zeros as well
    order, rates = np.random.default_rng(0).permutation(150), np.full(5, 0.1)
    (sparse, _), (dense, _) = plan_of(x, y), plan_of(x.toarray(), y)
    for plan in (sparse, dense):
        plan.run(order, rates)
    np.testing.assert_equal(sparse.state().parameters, dense.state().parameters)


def test_no_zero_is_stored(monkeypatch):
    x, y = sparse_data(5000, 0.01)
    plan, samples = plan_of(x, y)
    monkeypatch.setattr(type(samples.inputs), "toarray", None)  # whoever calls it fails
    plan.run(np.arange(150), np.full(5, 0.1))
    plan.evaluate(plan.upload(samples))
    stored = plan_of(x, y)[0].samples.data
    assert stored.numbers.size == stored.bytes.size == 0
    marks, columns_and_values, part_of_a_line = 2 * 80, 50 * 5, 128
    assert stored.records.nbytes < 150 * (marks + columns_and_values + part_of_a_line)


def test_evaluating_rows_longer_than_any_trained_on_makes_room_and_changes_nothing():
    x, y = sparse_data(300, 0.02)
    plan, _ = plan_of(x, y)
    plan.run(np.arange(150), np.full(5, 0.1))
    before = plan.state()
    _, samples = plan_of(*sparse_data(300, 0.9, n=20, seed=3))
    sparse, dense = (
        plan.evaluate(plan.upload(Samples(inputs, samples.targets, samples.sample_weight)))
        for inputs in (samples.inputs, samples.inputs.toarray())
    )
    assert sparse.mean_cost == pytest.approx(dense.mean_cost, rel=1e-6)
    after = plan.state()
    np.testing.assert_equal(before.parameters + before.slots, after.parameters + after.slots)
    assert after.step == before.step
    plan.run(np.arange(150), np.full(5, 0.1))  # and training goes on


def test_rows_without_any_entry_and_entries_that_are_zero():
    x, y = sparse_data(130, 0.05)
    x.data[::3] = 0
    x = sp.vstack([sp.csr_array((5, 130), dtype="float32"), x]).tocsr()
    y = np.concatenate([[0, 1, 2, 0, 1], y])
    losses = [
        gpubp.fit(gpubp.Network([130, 4, 3]), inputs, y, backend=backend, epochs=2)["loss"]
        for inputs, backend in ((x, "numba"), (x, "numpy"), (x.toarray(), "numpy"))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[1] == losses[2]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.coo_array, sp.lil_matrix, sp.bsr_array])
def test_any_kind_of_sparse_matrix_predicts_as_its_dense_form(kind):
    x = sparse_data(40, 0.2)[0]
    net = gpubp.Network([40, 5, 3])
    assert within(net.predict_proba(kind(x)), bounded_outputs(net, x.toarray()))
    np.testing.assert_array_equal(net.predict(kind(x)), net.predict(x.toarray()))


def test_predicting_stores_no_zero_either():
    x, _ = sparse_data(300_000, 1e-4, n=500)
    net = gpubp.Network([300_000, 3, 2])
    tracemalloc.start()
    net.predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # dense, they would be 600 MB


def test_duplicate_entries_add_up_and_the_given_matrix_is_left_alone():
    twice = sp.csr_matrix((np.ones(3), np.array([4, 4, 1]), np.array([0, 3])), shape=(1, 6))
    split = check_split(twice, [0])
    np.testing.assert_array_equal(split.inputs.toarray(), [[0, 1, 0, 0, 2, 0]])
    assert (twice.data.tolist(), twice.nnz) == ([1, 1, 1], 3)


def test_sparse_bytes_are_images_scaled_like_dense_ones():
    pixels = np.zeros((4, 30), np.uint8)
    pixels[:, ::7] = 255
    both = pixels, sp.csr_array(pixels)
    net = gpubp.Network([30, 3])
    np.testing.assert_array_equal(*map(net.predict_proba, both))
    dense, sparse = (gpubp.gradients(net, x, [0, 1, 2, 0], backend="numpy")[0] for x in both)
    assert dense == sparse


def test_every_backend_trains_on_sparse_inputs_and_verifies_them(backend):
    x, y = sparse_data(90, 0.1)
    net = gpubp.Network([90, 7, 3])
    history = gpubp.fit(net, x, y, validation=(x, y), backend=backend, epochs=2, verify="step")
    assert history.verification.ok
    assert gpubp.verify(net, x, y, backend=backend).ok


def test_resuming_on_other_sparse_data_is_refused(tmp_path):
    x, y = sparse_data(90, 0.1)
    path = tmp_path / "checkpoint.npz"
    gpubp.fit(gpubp.Network([90, 7, 3]), x, y, epochs=1, save_to=path)
    gpubp.fit(gpubp.Network([90, 7, 3]), x, y, epochs=2, resume=path)
    other = x.copy()
    other.indices[0] += 1 if x.indices[0] + 1 not in x.indices[: x.indptr[1]] else 0
    other.data[-1] += 1
    with pytest.raises(gpubp.UsageError, match="data"):
        gpubp.fit(gpubp.Network([90, 7, 3]), other, y, epochs=2, resume=path)


def spoilt(value):
    x = sparse_data(3, 0.5)[0]
    x.data[7] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (spoilt(np.nan), r"row \d+, column \d+ is nan"),
        (spoilt(np.inf), r"row \d+, column \d+ is inf"),
        (sp.csr_array((0, 4)), "no data"),
        (sp.csr_array(np.eye(3) * 1j), "complex128, not numbers"),
        (sp.csr_array(np.eye(4)), "4 columns"),
        (sp.csr_array(np.eye(3) * 1e300), "too large for float32"),
    ],
)
def test_what_cannot_be_trained_on_is_one_clear_message(x, message):
    with pytest.raises(DataError, match=message):
        gpubp.fit(gpubp.Network([3, 3]), x, np.zeros(x.shape[0], int))
