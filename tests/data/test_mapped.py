"""Inputs that are mapped from a file: trained on where they lie, and looked through by each rank in part."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp.data import mapped
from gpubp.data.mapped import BLOCKS, checksums, is_mapped, share_of_rows
from gpubp.errors import DataError
from gpubp.optimizers import SGD
from gpubp.training.checkpoint import fingerprint
from tests.conftest import backend_by_name, small_net
from tests.distributed import on_ranks
from tests.networks import problem_of, samples_of


def in_file(array, folder):
    path = folder / f"{array.dtype}-{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def test_an_array_is_mapped_through_all_its_views(tmp_path, rng):
    array = rng.integers(0, 256, (20, 3, 4), np.uint8)
    here = in_file(array, tmp_path)
    for view in (
        here,
        np.asarray(here),
        here[3:9],
        here.reshape(20, -1),
        np.ascontiguousarray(here).reshape(-1),
    ):
        assert is_mapped(view)
    for copy in (array, here + 0, here[[1, 2]], here.astype(np.float32), [1, 2], None):
        assert not is_mapped(copy)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 100])
def test_every_row_is_one_ranks(count, ranks):
    rows = [
        i for rank in range(ranks) for some in share_of_rows(count, rank, ranks) for i in range(count)[some]
    ]
    assert rows == list(range(count))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_checksums_are_the_same_whoever_computes_them(ranks, rng):
    array = rng.standard_normal((300, 5))
    found = [crc for rank in range(ranks) for crc in checksums(array, rank, ranks)]
    assert found == checksums(array, 0, 1)
    assert len(found) == BLOCKS
    array[299, 4] = np.nextafter(array[299, 4], 9)
    assert found != checksums(array, 0, 1)


def trained(x, y, backend, ranks=None, **kwargs):
    net = small_net((36, 12, 4), hidden="relu", dtype="float32")
    how = {"epochs": 2, "batch_size": 24, "optimizer": SGD(0.1, momentum=0.9), "verify": "step", **kwargs}
    history = gpubp.fit(net, x, y, backend=backend, distributed=ranks, **how)
    return np.concatenate([p.reshape(-1) for pair in net.parameters for p in pair]), history


def images(rng):
    return rng.integers(0, 256, (80, 36), np.uint8) * (rng.random((80, 36)) < 0.3).astype(np.uint8)


@pytest.mark.parametrize(
    "kind", ["numpy", "numpy, composed", "numba", "numba, composed", "cupy, composed", "cupy, units"]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_training_on_a_mapped_array_is_training_on_its_copy(kind, dtype, rng, tmp_path):
    """With the same bits, but that Numba's fused plan looks for no zeros to skip in a file."""
    x, y = images(rng).astype(dtype), rng.integers(0, 4, 80)
    x = x if dtype == "uint8" else x / x.dtype.type(255)
    ours, history = trained(in_file(x, tmp_path), y, backend_by_name(kind))
    theirs, _ = trained(x, y, backend_by_name(kind))
    assert history.verification.ok
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    if kind != "numba":
        assert ours.tobytes() == theirs.tobytes()
    elif dtype != "float64":  # which has to be made float32 first
        assert "read from a file" in history.plan


def test_a_mapped_array_is_not_copied(rng, tmp_path):
    x, y = in_file(images(rng), tmp_path), rng.integers(0, 4, 80)
    net = small_net((36, 12, 4), hidden="relu", dtype="float32")
    samples = samples_of(net, x, y)
    assert is_mapped(samples.inputs)
    for kind in ("numpy", "numpy, composed", "numba", "numba, composed"):
        plan = backend_by_name(kind).plan(problem_of(net, samples, batch=24))
        stored = plan.samples.data.bytes if kind == "numba" else plan.samples.inputs
        assert is_mapped(stored), kind


@pytest.mark.parametrize("row", [0, 41, 79])
def test_nan_in_a_file_is_found_by_the_rank_whose_share_it_is_in_and_told_by_all(row, rng, tmp_path):
    x, y = rng.standard_normal((80, 36)).astype(np.float32), rng.integers(0, 4, 80)
    x[row, 7] = np.nan
    here = in_file(x, tmp_path)
    with pytest.raises(DataError, match=f"row {row}, column 7 is nan"):
        trained(here, y, "numpy")
    for error in on_ranks(3, lambda ranks: trained(here, y, backend_by_name("numpy"), ranks)):
        assert isinstance(error, DataError)
        assert f"row {row}, column 7 is nan" in str(error)


def test_ranks_look_through_a_share_each(rng, tmp_path, monkeypatch):
    x, y = in_file(rng.standard_normal((640, 36)).astype(np.float32), tmp_path), rng.integers(0, 4, 640)
    looked = []
    right = mapped.share_of_rows

    def noted(count, rank, ranks):
        for some in right(count, rank, ranks):
            looked.append((rank, some.start, some.stop))
            yield some

    monkeypatch.setattr(mapped, "share_of_rows", noted)
    found = on_ranks(4, lambda ranks: trained(x, y, backend_by_name("numpy"), ranks, epochs=1, verify="off"))
    assert len({weights.tobytes() for weights, _ in found}) == 1
    for rank in range(4):
        own = [(start, stop) for who, start, stop in looked if who == rank]
        assert min(own)[0] == 160 * rank
        assert max(own)[1] == 160 * (rank + 1)
        assert sum(stop - start for start, stop in own) == 160  # once, for the fingerprint


def test_a_file_has_one_fingerprint_on_any_number_of_ranks(rng, tmp_path):
    x, y = images(rng), rng.integers(0, 4, 80)
    samples = samples_of(small_net((36, 12, 4)), in_file(x, tmp_path), y)
    alone = fingerprint(samples)
    assert on_ranks(3, lambda ranks: fingerprint(samples, ranks)) == [alone] * 3
    x[5, 5] ^= 1
    assert fingerprint(samples_of(small_net((36, 12, 4)), in_file(x, tmp_path), y)) != alone


def test_a_run_on_a_file_is_resumed(rng, tmp_path):
    x, y = in_file(images(rng), tmp_path), rng.integers(0, 4, 80)
    whole, _ = trained(x, y, "numba", epochs=4)
    path = tmp_path / "checkpoint.npz"
    trained(x, y, "numba", epochs=2, save_to=path)
    again, history = trained(x, y, "numba", epochs=4, resume=path)
    assert history.resumed_epochs == 2
    assert again.tobytes() == whole.tobytes()
