"""``python -m bench.many``: a run on little data, and what its report says."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from bench.many import command, peers
from bench.many.task import SETS
from gpubp.errors import UsageError


def test_a_run_measures_every_peer_that_is_installed(tmp_path, capsys):
    asked = "gpubp-one-by-one,gpubp-grid,sklearn"
    given = ["--data", "mnist-sample", "--sets", "unlike", "--rounds", "1", "--epochs", "1", "--threads", "2"]
    assert command.main([*given, "--peers", asked, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "results.json").read_text())
    assert [row["peer"] for row in told["rows"]] == ["gpubp", *asked.split(",")]
    assert all(row["seconds"] > 0 and row["megabytes"] > 10 for row in told["rows"])
    for row in told["rows"]:
        assert row["network_epochs_per_second"] == pytest.approx(16 / row["seconds"])
    with open(tmp_path / "results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    text = (tmp_path / "README.md").read_text()
    assert text == command.report(told)
    ratio = told["rows"][1]["seconds"] / told["rows"][0]["seconds"]
    assert "| gpubp, one by one on all threads | " in text
    assert f"| {ratio:.2f} ({ratio:.2f} – {ratio:.2f}) |" in text


def test_an_unknown_peer_or_set_is_refused():
    with pytest.raises(UsageError, match="unknown tensorflow"):
        command.run(command.arguments(["--peers", "tensorflow"]))
    with pytest.raises(UsageError, match="unknown equal"):
        command.run(command.arguments(["--sets", "equal"]))


def test_the_networks_are_sixteen_alike_and_sixteen_unlike():
    assert {name: (len(nets), len(set(nets))) for name, nets in SETS.items()} == {
        "alike": (16, 1),
        "unlike": (16, 16),
    }


@pytest.mark.parametrize("name", ["jax", "jax-same", "torch", "torch-same"])
@pytest.mark.parametrize("of_set", SETS)
def test_a_peer_trains_what_it_says(name, of_set):
    pytest.importorskip(peers.PEERS[name][1], reason="a peer that is not installed")
    peers.PEERS[name][2](SETS[of_set][:2], "mnist-sample", 1)(1)


def test_each_network_has_an_order_of_its_own():
    orders = peers._orders(3, 50)
    assert [sorted(order) for order in orders.tolist()] == [list(range(50))] * 3
    assert len({tuple(order) for order in orders.tolist()}) == 3
    assert np.array_equal(orders, peers._orders(3, 50))
