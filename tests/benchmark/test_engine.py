"""The benchmark: its arithmetic, its check of the same result, its workers, and what it writes."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import gpubp
from bench import cpu, scaling
from gpubp import backends
from gpubp.benchmark import measure, results, shown
from gpubp.benchmark.data import Data
from gpubp.benchmark.measure import Rounds
from gpubp.benchmark.nets import NETS, SEED, Net, parse, select
from gpubp.benchmark.peers import PEERS, Peer
from gpubp.benchmark.peers.plain_numpy import NumpyTrainer
from gpubp.benchmark.peers.plan import PlanTrainer
from gpubp.benchmark.results import BASELINE, DIFFERS, NOT_COMPARABLE, SAME, NetReport, Report, Row
from gpubp.benchmark.worker import epoch_orders
from gpubp.errors import UsageError

BY_NAME = {peer.name: peer for peer in PEERS}

CRASHING = """
def build(net, data, parameters, options):
    raise RuntimeError("cannot load /somewhere/on/a/machine/lib.so")
"""

DYING = """
import os, sys
from gpubp.benchmark.peers.plain_numpy import NumpyTrainer

class Dying(NumpyTrainer):
    epochs = 0

    def run_epoch(self, order):
        print("libraries print what they like")
        self.epochs += 1
        if self.epochs > 1:
            print("no more", file=sys.stderr, flush=True)
            os._exit(3)
        return super().run_epoch(order)

def build(net, data, parameters, options):
    return Dying(net, data, parameters)
"""

WRONG = """
from dataclasses import replace
from gpubp.benchmark.peers.plain_numpy import NumpyTrainer

def build(net, data, parameters, options):
    return NumpyTrainer(replace(net, lr=1.05 * net.lr), data, parameters)
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Peers that fail, each in its way; the workers find their modules."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    for name, text in (("crashing", CRASHING), ("dying", DYING), ("wrong", WRONG)):
        (folder / f"fake_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    peers = [Peer(name, name.title(), f"fake_{name}", ()) for name in ("crashing", "dying", "wrong")]
    absent = Peer("absent", "Absent", "absent", ("numpy", "no_such_package|nor_this"))
    monkeypatch.setattr(cpu, "PEERS", (BY_NAME["gpubp-numpy"], BY_NAME["numpy"], *peers, absent))


def test_a_run_with_peers_that_fail(fakes, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--nets", "digits", "--samples", "200", "--rounds", "2", "--out", str(out)]
    assert cpu.main(options) == 0
    said = capsys.readouterr().out
    assert "absent left out: no_such_package or nor_this not installed" in said
    assert "Crashing: failed: RuntimeError: cannot load lib.so (exit code 1)" in said
    assert "Dying: failed: no more (exit code 3)" in said
    assert "Wrong: does not compute the same as gpubp numpy" in said
    assert "the fastest of the others, NumPy, by hand, takes" in said

    text = (out / "results.json").read_text()
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert content["format"] == "gpubp-bench-cpu"
    assert content["format_version"] == 1
    assert content["interrupted"] is False
    assert content["missing"] == {"absent": "no_such_package or nor_this not installed"}
    assert content["settings"]["samples"] == 200
    (net,) = content["nets"]
    assert (net["name"], net["layers"], net["samples"]) == ("digits", [64, 64, 10], 200)
    assert net["baseline"] == "gpubp-numpy"
    assert net["fastest_peer"] == "numpy"
    peers = {row["peer"]: row for row in net["peers"]}
    assert list(peers) == ["gpubp-numpy", "numpy", "crashing", "dying", "wrong"]
    assert peers["gpubp-numpy"]["same_result"] == BASELINE
    assert peers["numpy"]["same_result"] == SAME
    assert peers["wrong"]["same_result"] == DIFFERS
    assert 0.03 < peers["wrong"]["parameter_difference"] < 0.06
    assert peers["dying"]["same_result"] == SAME  # its first epoch was right
    assert peers["crashing"]["status"] == peers["dying"]["status"] == "failed"
    assert peers["crashing"]["epoch_ms"] is None
    assert peers["dying"]["rounds_ms"] == []
    for name in ("gpubp-numpy", "numpy"):
        row = peers[name]
        assert len(row["rounds_ms"]) == 2
        assert all(n >= 1 for n in row["epochs_a_round"])
        assert row["start_s"]["total"] >= row["start_s"]["import"] > 0
        assert row["first_epoch_s"] > 0
        assert row["samples_per_second"] == pytest.approx(200e3 / row["epoch_ms"]["median"])

    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == results.CSV_COLUMNS
    assert [line["peer"] for line in lines] == list(peers)
    assert float(lines[1]["ratio"]) == peers["numpy"]["ratio"]["median"]
    assert lines[2]["median_ms"] == ""


def report_of(*rows: Row) -> NetReport:
    return NetReport(NETS[0], 1000, rows[0].peer, list(rows))


def test_ratios_are_of_the_same_round():
    base = Row("gpubp-numba", "gpubp numba", rounds=[1.0, 2.0, 4.0])
    slow = Row("torch", "PyTorch", rounds=[2.0, 4.0, 8.0])
    short = Row("jax", "JAX", rounds=[0.5, 3.0])
    report = report_of(base, slow, short)
    assert results.ratios(slow, base) == [2.0, 2.0, 2.0]
    assert results.ratios(short, base) == [0.5, 1.5]
    assert results.ratios(short, None) == []
    assert results.fastest_peer(report) is short
    content = results.net_dict(report)
    assert "JAX, takes 1.00 times as long (0.50 to 1.50)" in shown.verdict(content)
    assert content["peers"][1]["epoch_ms"] == {"median": 4000.0, "min": 2000.0, "max": 8000.0}
    assert content["peers"][1]["samples_per_second"] == 250
    assert content["peers"][2]["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}


def test_a_wrong_peer_is_not_the_fastest():
    base = Row("gpubp-numba", "gpubp numba", rounds=[1.0])
    wrong = Row("torch", "PyTorch", rounds=[0.1], same_result=DIFFERS)
    other = Row("sklearn", "scikit-learn", rounds=[3.0], same_result=NOT_COMPARABLE)
    assert results.fastest_peer(report_of(base, wrong, other)) is other
    assert results.fastest_peer(report_of(base, wrong)) is None
    assert (
        shown.verdict(results.net_dict(report_of(base, wrong))) == "gpubp numba trains an epoch in 1,000 ms."
    )


@pytest.mark.parametrize(
    ("loss", "shift", "differs", "expected"),
    [
        (1.0, 0.0, "", SAME),
        (1.0005, 0.005, "", SAME),
        (1.002, 0.0, "", DIFFERS),
        (1.0, 0.04, "", DIFFERS),
        (math.nan, 0.0, "", DIFFERS),
        (1.0, math.nan, "", DIFFERS),
        (7.0, 9.0, "another loss", NOT_COMPARABLE),
    ],
)
def test_the_check_of_the_same_result(loss, shift, differs, expected):
    base, row = Row("a", "A", loss=1.0), Row("b", "B", loss=loss)
    initial, end = [np.zeros(4)], [np.ones(4)]  # moved by 2
    results.check_same_result(row, base, differs, initial, [np.ones(4) + shift], end)
    assert row.same_result == expected
    assert bool(row.notes) == (expected != SAME)
    if expected == SAME:
        assert row.parameter_difference == pytest.approx(shift)


def test_parameters_of_another_shape_differ():
    base, row = Row("a", "A", loss=1.0), Row("b", "B", loss=1.0)
    results.check_same_result(row, base, "", [np.zeros(4)], [np.ones((2, 2))], [np.ones(4)])
    assert row.same_result == DIFFERS


def test_slow_peers_make_fewer_rounds():
    five, two = (Rounds(count, 0.2, budget=150) for count in (5, 2))
    assert [five.within_budget(seconds) for seconds in (0.2, 40, 1000)] == [5, 3, 3]
    assert two.within_budget(1000) == 2


@pytest.mark.parametrize("net", ["784-32-10", "784-30-10", "784-128-10", "iris"])
def test_numpy_by_hand_is_the_reference(net, rng):
    chosen = select([net])[0]
    small = replace(chosen, layers=(12, *chosen.layers[1:]), batch=8)
    data = Data(rng.integers(0, 256, (30, 12), dtype=np.uint8), rng.integers(0, small.layers[-1], 30))
    initial = [p for pair in small.network().parameters for p in pair]
    row, base = Row("numpy", "NumPy"), Row("gpubp-numpy", "gpubp numpy")
    ends = []
    for trainer, into in (
        (NumpyTrainer(small, data, initial), row),
        (PlanTrainer(backends.get("numpy"), small, data, initial), base),
    ):
        into.loss = trainer.run_epoch(np.arange(30))
        ends.append(trainer.parameters())
    results.check_same_result(row, base, "", initial, *ends)
    assert row.same_result == SAME, row.notes
    assert row.parameter_difference < 1e-5


def test_the_order_of_the_epochs_is_fits(rng):
    net = Net("tiny", (5, 4, 3), "relu", "softmax", "cross_entropy", 0.1, 8, "none")
    data = Data(rng.random((30, 5), dtype=np.float32), rng.integers(0, 3, 30))
    network = net.network()
    history = gpubp.fit(
        network, data.inputs, data.labels, optimizer=gpubp.SGD(net.lr), batch_size=8, epochs=3,
        backend="numpy", verify="off", seed=SEED,
    )  # fmt: skip
    trainer = PlanTrainer(
        backends.get("numpy"), net, data, [p for pair in net.network().parameters for p in pair]
    )
    orders = epoch_orders(SEED, 30)
    assert [trainer.run_epoch(next(orders)) for _ in range(3)] == history["loss"]


def test_nets_are_chosen_by_name_and_beginning():
    assert [net.name for net in select(["784-1"])] == ["784-128-10"]
    assert [net.name for net in select(["iris", "784-2048-2048-10", "iris"])] == ["iris", "784-2048-2048-10"]
    assert len(select(["dense"])) == 5
    assert len({net.name for net in NETS}) == len(NETS)
    assert parse("64-20-10", 16, 0.1, "digits").layers == (64, 20, 10)
    for layers, batch in (("64-x-10", 16), ("64", 16), ("64-20-10", 0)):
        with pytest.raises(UsageError):
            parse(layers, batch, 0.1, "digits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nets", "digit-net"], "unknown net 'digit-net'"),
        (["--peers", "numpy,pytorch"], "unknown peer 'pytorch': did you mean 'torch'"),
        (["--net", "5-5-3", "--data", "digits", "--peers", "numpy"], "digits has 64 columns and 10 classes"),
        (["--net", "64-5-10", "--data", "cifar"], "unknown data 'cifar'"),
        (["--rounds", "0"], "--rounds must be 1 or more"),
        (["--threads", "9999"], "--threads 9999"),
    ],
)
def test_wrong_options(options, message, capsys):
    assert cpu.main(options) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert message in err[-1]
    assert err[-1].startswith("error: ")


def test_slopes_of_the_scaling():
    assert scaling.slope([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert scaling.slope([1, 10, 100], [3, 300, 30000]) == pytest.approx(2)
    assert scaling.slope([1], [1]) is None
    points = [{"series": "samples", "samples": n, "parameters": 5, "ms": 2.0 * n} for n in (10, 20)]
    points += [{"series": "widths", "samples": 5, "parameters": n, "ms": n**0.5} for n in (10, 20)]
    assert scaling.slopes(points) == {"samples": pytest.approx(1), "widths": pytest.approx(0.5)}


def test_images_are_as_sparse_as_mnist():
    x, y = scaling.images(11_000)
    assert x.shape == (11_000, 784)
    assert x.dtype == np.uint8
    assert len(y) == 11_000
    assert np.count_nonzero(x[:1000]) / x[:1000].size == pytest.approx(scaling.DENSITY, abs=0.01)


def test_an_interrupted_run_ends_with_130(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "run", lambda *_: Report("", None, {}, {}, interrupted=True))
    assert cpu.main(["--nets", "iris", "--peers", "numpy", "--out", str(tmp_path)]) == 130
