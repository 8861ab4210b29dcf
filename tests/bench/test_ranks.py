"""``python -m bench.ranks``: a quick run, and the model's numbers."""

from __future__ import annotations

import json

import pytest

from bench.ranks import command, worker
from bench.ranks.model import Link, Step
from gpubp.distributed.ranks import Alone
from tests.distributed.test_mpi import why_no_mpi

STEP = Step({1: 8e-3, 2: 4e-3, 4: 2e-3}, {1: 2e-3, 2: 1e-3, 4: 5e-4}, 4_000_000)
LINK = Link("a wire", 1e-4, 1e9)


def test_the_model_adds_what_was_measured_to_what_is_assumed():
    # Four ranks send three messages of a megabyte each way: 3 × (0.1 + 1) ms, twice.
    assert STEP.exchange(4, LINK) == pytest.approx(6.6e-3)
    assert STEP.seconds(4, LINK) == pytest.approx(2e-3 + 5e-4 + 6.6e-3)
    assert STEP.exchange(1, LINK) == 0
    assert STEP.speedup(1, LINK) == 1
    assert STEP.speedup(2, Link("none", 0, float("inf"))) == pytest.approx(2)


def test_a_link_goes_through_the_least_and_the_largest_vector():
    found = command.link_of({"1000": 2e-5 + 1000 / 2e9, "500000": 1.0, "9000000": 2e-5 + 9e6 / 2e9})
    assert found.bandwidth == pytest.approx(2e9)
    assert found.latency == pytest.approx(1e-5)


def test_what_a_rank_measures():
    found = worker.shares(Alone(), [784, 16, 10], 32, [1, 2, 4])
    assert set(found["gradients"]) == set(found["updates"]) == {1, 2, 4}
    assert all(seconds > 0 for table in ("gradients", "updates") for seconds in found[table].values())
    assert found["size"] >= 4 * (785 * 16 + 17 * 10)
    epochs = worker.epochs(Alone(), [784, 16, 10], 32, 320, None, 2, True)
    assert len(epochs["seconds"]) == 2
    assert epochs["exchanges"] == [0, 0]
    assert epochs["steps"] == 10


@pytest.mark.skipif(why_no_mpi() is not None, reason=str(why_no_mpi()))
@pytest.mark.exhaustive
def test_a_quick_run(tmp_path, capsys):
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "results.json").read_text())
    ways = [way.name for way in command.WAYS]
    assert [row["way"] for row in told["rows"]] == 2 * ways
    assert all(row["seconds"] > 0 for row in told["rows"])
    assert all(
        (row["exchanges"] > 0) == row["way"].startswith("2 ranks")
        for row in told["rows"]
        if "8 parts" not in row["way"]
    )
    text = (tmp_path / "README.md").read_text()
    assert text == command.report(told)
    ratio = told["rows"][1]["seconds"] / told["rows"][0]["seconds"]
    assert f"| {ratio:.2f} ({ratio:.2f} – {ratio:.2f}) |" in text
    assert "No such cluster was there." in text
