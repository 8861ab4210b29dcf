"""The benchmark: its arithmetic, its check of the same result, its workers, and what it writes."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import gpubp
from bench import RESULTS, cpu, scaling
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

FAKES = {
    "crashing": """
def build(net, data, parameters, options):
    raise RuntimeError("cannot load /somewhere/on/a/machine/lib.so")
""",
    "dying": """
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
""",
    "wrong": """
from dataclasses import replace
from gpubp.benchmark.peers.plain_numpy import NumpyTrainer

def build(net, data, parameters, options):
    return NumpyTrainer(replace(net, lr=1.05 * net.lr), data, parameters)
""",
}


def test_a_run_with_peers_that_fail(tmp_path, monkeypatch, capsys):
    for name, text in FAKES.items():
        (tmp_path / f"fake_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fakes = [Peer(name, name.title(), f"fake_{name}", ()) for name in FAKES]
    absent = Peer("absent", "Absent", "absent", ("numpy", "no_such_package|nor_this"))
    monkeypatch.setattr(cpu, "PEERS", (BY_NAME["gpubp-numpy"], BY_NAME["numpy"], *fakes, absent))
    out = tmp_path / "out"
    options = ["--nets", "digits", "--samples", "200", "--rounds", "2", "--out", str(out)]
    assert cpu.main(options) == 0
    said, text = capsys.readouterr().out, (out / "results.json").read_text()
    assert "absent left out: no_such_package or nor_this not installed" in said
    assert "Crashing: failed: RuntimeError: cannot load lib.so (exit code 1)" in said
    assert "Dying: failed: no more (exit code 3)" in said
    assert "Wrong: does not compute the same as gpubp numpy" in said
    assert "the fastest of the others, NumPy, by hand, takes" in said
    assert str(tmp_path) not in text

    content = json.loads(text)
    assert (content["format"], content["format_version"]) == ("gpubp-bench-cpu", 1)
    assert (content["interrupted"], content["settings"]["samples"]) == (False, 200)
    assert content["missing"] == {"absent": "no_such_package or nor_this not installed"}
    (net,) = content["nets"]
    assert (net["name"], net["layers"], net["samples"]) == ("digits", [64, 64, 10], 200)
    assert (net["baseline"], net["fastest_peer"]) == ("gpubp-numpy", "numpy")
    peers = {row["peer"]: row for row in net["peers"]}
    found = [(name, row["status"], row["same_result"], len(row["rounds_ms"])) for name, row in peers.items()]
    assert found == [
        ("gpubp-numpy", "ok", BASELINE, 2),
        ("numpy", "ok", SAME, 2),
        ("crashing", "failed", None, 0),
        ("dying", "failed", SAME, 0),  # its first epoch was right
        ("wrong", "ok", DIFFERS, 2),
    ]
    assert 0.03 < peers["wrong"]["parameter_difference"] < 0.06
    assert peers["crashing"]["epoch_ms"] is None
    row = peers["numpy"]
    assert all(n >= 1 for n in row["epochs_a_round"])
    assert row["samples_per_second"] == pytest.approx(200e3 / row["epoch_ms"]["median"])

    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == results.CSV_COLUMNS
    assert [line["peer"] for line in lines] == list(peers)
    assert float(lines[1]["ratio"]) == row["ratio"]["median"]
    assert lines[2]["median_ms"] == ""


def report_of(*rows: Row) -> NetReport:
    return NetReport(NETS[0], 1000, rows[0].peer, list(rows))


def test_ratios_are_of_the_same_round():
    base = Row("gpubp-numba", "gpubp numba", rounds=[1.0, 2.0, 4.0])
    slow = Row("torch", "PyTorch", rounds=[2.0, 4.0, 8.0])
    short = Row("jax", "JAX", rounds=[0.5, 3.0])
    assert results.ratios(slow, base) == [2.0, 2.0, 2.0]
    assert results.ratios(short, base) == [0.5, 1.5]
    assert results.ratios(short, None) == []
    content = results.net_dict(report_of(base, slow, short))
    assert content["fastest_peer"] == "jax"
    assert "JAX, takes 1.00 times as long (0.50 to 1.50)" in shown.verdict(content)
    assert content["peers"][1]["epoch_ms"] == {"median": 4000.0, "min": 2000.0, "max": 8000.0}
    assert content["peers"][1]["samples_per_second"] == 250
    assert content["peers"][2]["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}


def test_a_wrong_peer_is_not_the_fastest():
    base = Row("gpubp-numba", "gpubp numba", rounds=[1.0])
    wrong = Row("torch", "PyTorch", rounds=[0.1], same_result=DIFFERS)
    other = Row("sklearn", "scikit-learn", rounds=[3.0], same_result=NOT_COMPARABLE)
    assert results.fastest_peer(report_of(base, wrong, other)) is other
    content = results.net_dict(report_of(base, wrong))
    assert shown.verdict(content) == "gpubp numba trains an epoch in 1,000 ms."


@pytest.mark.parametrize(
    ("loss", "end", "differs", "expected"),
    [
        (1.0, np.ones(4), "", SAME),
        (1.0005, np.ones(4) + 0.005, "", SAME),
        (1.002, np.ones(4), "", DIFFERS),
        (1.0, np.ones(4) + 0.04, "", DIFFERS),
        (math.nan, np.ones(4), "", DIFFERS),
        (1.0, np.ones(4) + math.nan, "", DIFFERS),
        (1.0, np.ones((2, 2)), "", DIFFERS),
        (7.0, np.ones(4) + 9, "another loss", NOT_COMPARABLE),
    ],
)
def test_the_check_of_the_same_result(loss, end, differs, expected):
    base, row = Row("a", "A", loss=1.0), Row("b", "B", loss=loss)
    results.check_same_result(row, base, differs, [np.zeros(4)], [end], [np.ones(4)])  # moved by 2
    assert row.same_result == expected
    assert bool(row.notes) == (expected != SAME)
    if expected == SAME:
        assert row.parameter_difference == pytest.approx(end[0] - 1)


def test_slow_peers_make_fewer_rounds():
    five, two = (Rounds(count, 0.2, budget=150) for count in (5, 2))
    assert [five.within_budget(seconds) for seconds in (0.2, 40, 1000)] == [5, 3, 3]
    assert two.within_budget(1000) == 2


@pytest.mark.parametrize("net", ["784-32-10", "784-30-10", "784-128-10", "iris"])
def test_numpy_by_hand_is_the_reference(net, rng):
    (chosen,) = select([net])
    small = replace(chosen, layers=(12, *chosen.layers[1:]), batch=8)
    data = Data(rng.integers(0, 256, (30, 12), dtype=np.uint8), rng.integers(0, small.layers[-1], 30))
    initial = [p for pair in small.network().parameters for p in pair]
    trainers = NumpyTrainer(small, data, initial), PlanTrainer(backends.get("numpy"), small, data, initial)
    row, base = (Row("", "", loss=trainer.run_epoch(np.arange(30))) for trainer in trainers)
    results.check_same_result(row, base, "", initial, *(trainer.parameters() for trainer in trainers))
    assert row.same_result == SAME, row.notes
    assert row.parameter_difference < 1e-5


def test_the_order_of_the_epochs_is_fits(rng):
    net = Net("tiny", (5, 4, 3), "relu", "softmax", "cross_entropy", 0.1, 8, "none")
    data = Data(rng.random((30, 5), dtype=np.float32), rng.integers(0, 3, 30))
    options = {"batch_size": 8, "epochs": 3, "backend": "numpy", "verify": "off", "seed": SEED}
    history = gpubp.fit(net.network(), data.inputs, data.labels, optimizer=gpubp.SGD(net.lr), **options)
    initial = [p for pair in net.network().parameters for p in pair]
    trainer, orders = PlanTrainer(backends.get("numpy"), net, data, initial), epoch_orders(SEED, 30)
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
    before = sorted(RESULTS.iterdir())
    assert cpu.main(options) == 2
    assert sorted(RESULTS.iterdir()) == before  # no empty folder is left
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_slopes_of_the_scaling():
    points = [{"series": "samples", "samples": n, "parameters": 5, "ms": 2.0 * n} for n in (10, 20)]
    points += [{"series": "widths", "samples": 5, "parameters": n, "ms": n**0.5} for n in (10, 20)]
    assert scaling.slopes(points) == {"samples": pytest.approx(1), "widths": pytest.approx(0.5)}
    assert scaling.slopes(points[:1]) == {"samples": None, "widths": None}


def test_the_scaling_of_a_few_samples(monkeypatch, tmp_path, capsys):
    x, y = scaling.images(11_000)
    assert (x.shape, x.dtype, y.shape) == ((11_000, 784), np.uint8, (11_000,))
    assert np.count_nonzero(x[:1000]) / x[:1000].size == pytest.approx(scaling.DENSITY, abs=0.01)
    monkeypatch.setattr(scaling, "QUICK_SAMPLES", (200, 400))
    monkeypatch.setattr(scaling, "QUICK_WIDTHS", (4,))
    monkeypatch.setattr(scaling, "SECONDS_A_REPEAT", 0.001)
    threads = "1"
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    assert scaling.main(["--quick", "--threads", threads, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    assert [point["layers"] for point in content["points"]] == ["784-128-10"] * 2 + ["784-4-4-10"]
    assert "time grows as samples to the power" in capsys.readouterr().out
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4


def test_an_interrupted_run_ends_with_130(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "run", lambda *_: Report("", None, {}, {}, interrupted=True))
    assert cpu.main(["--nets", "iris", "--peers", "numpy", "--out", str(tmp_path)]) == 130
