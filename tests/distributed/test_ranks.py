"""What ranks agree on, and how they add."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.distributed.mpi import MpiRanks, ranks_of
from gpubp.distributed.ranks import Alone, tree_sum
from gpubp.errors import DataError, GpubpError, UsageError
from tests.distributed import on_ranks


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16])
def test_sums_of_parts_have_the_bits_of_the_whole_tree(groups, rng):
    parts = rng.standard_normal((16, 1000)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (16, 1))
    of_groups = [tree_sum(part) for part in np.split(parts.astype(np.float32), groups)]
    assert tree_sum(of_groups).tobytes() == tree_sum(parts.astype(np.float32)).tobytes()


@pytest.mark.parametrize("count", range(1, 10))
def test_a_tree_adds_every_row_once(count):
    rows = 2.0 ** np.arange(count)[:, None]
    assert tree_sum(rows) == 2.0**count - 1
    out = np.zeros(1)
    assert tree_sum(rows, out) is out
    assert out == 2.0**count - 1


def test_a_tree_adds_neighbours_first():
    big = np.float32(2**24)
    rows = np.array([[big], [1], [1], [-big]], np.float32)
    assert tree_sum(rows) == 1  # (2²⁴ + 1) + (1 − 2²⁴), of which the first is rounded
    assert np.add.accumulate(rows)[-1] == 0  # one after the other: two are


def test_rank_0_decides():
    found = on_ranks(3, lambda ranks: [ranks.decide(["a", ranks.rank, None]), ranks.told(ranks.rank * "é")])
    assert found == [[["a", 0, None], ["", "é", "éé"]]] * 3
    assert Alone().decide((1, 2)) == (1, 2)


@pytest.mark.parametrize("one", range(3))
def test_any_rank_is_heard(one):
    assert on_ranks(3, lambda ranks: ranks.any(ranks.rank == one)) == [True] * 3
    assert on_ranks(3, lambda ranks: ranks.any(False)) == [False] * 3


def test_seconds_are_those_of_the_first():
    starts = (0.0, 50.0)
    first, second = on_ranks(2, lambda ranks: ranks.seconds_since(starts[ranks.rank]))
    assert first == second


def test_what_fails_on_the_first_fails_on_all():
    def work(ranks):
        def fail():
            raise DataError("it is full")

        ranks.on_first(fail)

    found = on_ranks(3, work)
    assert [str(error) for error in found] == ["it is full"] * 3
    assert all(isinstance(error, GpubpError) and error.exit_code == DataError.exit_code for error in found)
    assert on_ranks(2, lambda ranks: ranks.on_first(lambda: "done")) == ["done", None]


def test_what_differs_is_named():
    def work(ranks):
        ranks.check_same({"versions": {"numpy": "2.0"}, "seed": 3})
        ranks.check_same({"versions": {"numpy": "2.0"}, "seed": 3 + (ranks.rank == 2)})

    for error in on_ranks(3, work):
        assert isinstance(error, UsageError)
        assert "they differ in seed: 3 on rank 0, and 4 on rank 2" in str(error)


def test_bytes_are_counted():
    def work(ranks):
        cuts = [0, 10, 20, 30]
        ranks.deal(np.zeros(30, np.float32), cuts)
        dealt = ranks.traffic.sent
        ranks.spread(np.zeros(30, np.float32), cuts)
        return dealt, ranks.traffic.sent - dealt

    # Of three pieces of 40 bytes each rank keeps one, and then sends its own to two.
    assert on_ranks(3, work) == [(80, 80)] * 3


@pytest.mark.parametrize("distributed", ["nccl", 4, object()])
def test_what_is_no_communicator_is_refused(distributed):
    with pytest.raises(UsageError, match="mpi"):
        ranks_of(distributed)


def test_a_single_process_needs_no_mpi():
    assert isinstance(ranks_of(None), Alone)
    assert not isinstance(ranks_of(None), MpiRanks)
