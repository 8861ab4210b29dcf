"""The benchmark on deformed images: figures by hand, who trains on what, and what becomes of a peer that fails."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

import gpubp
from bench.deformed import command, ours, readme, report, tasks
from bench.deformed.peers import DEFORM, NET, PEERS, SHAPE
from bench.deformed.report import Report
from gpubp.benchmark import data
from gpubp.benchmark.nets import SEED
from gpubp.benchmark.peers import OURS, Peer
from gpubp.benchmark.results import NetReport, Row, origin
from gpubp.data.builtin import mnist_sample
from gpubp.errors import DataError
from gpubp.experiments.recipe import load_recipe
from tests import param

SMALL = replace(NET, layers=(784, 8, 10), data="mnist-sample")
DEVIATION = 34 * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * 4)  # of Simard's field, in pixels

STUBS = {
    "gpubp": "",
    "failing": 'raise RuntimeError("an operator does not exist")',
    "dying": "if kind.epochs == 2: sys.exit('no more')",
}
STUB = """
import sys
import numpy as np
from gpubp.benchmark.peers import Trainer

class Stub(Trainer):
    version, details, differs, epochs = "1", "a stub", "", 0

    def run_epoch(kind, order):
        kind.epochs += 1
        {fault}
        return 1.0

    def parameters(self):
        return self.first

    def deformed(self, images):
        return np.roll(images / np.float32(255), 1, axis=1)  # moved a pixel along x, none along y

def build(net, data, parameters, options):
    made = Stub()
    made.first = parameters
    return made
"""


def needs(module):
    """The module, or a skipped test where it is not installed, or not for the PyTorch beside it."""
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"cannot import {module}: {error}")


@pytest.fixture(scope="module")
def samples():
    train = mnist_sample().train
    return data.Data(train.inputs[:512], train.targets[:512])


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    for name, fault in STUBS.items():
        (tmp_path / f"stub_{name}.py").write_text(STUB.format(fault=fault))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = [Peer(name, name.title(), f"stub_{name}", ()) for name in STUBS]
    made.append(Peer("absent", "Absent", "absent", ("numpy", "no_such_package")))
    monkeypatch.setattr(command, "PEERS", tuple(made))


def reported(**times):
    rows = [
        Row(name.replace("_", "-"), name, rounds=rounds, first_epoch_s=9.0, start_s={"total": 1.0})
        for name, rounds in times.items()
    ]
    settings = {"rounds": 3, "threads": 2}
    return Report(**origin(), settings=settings, missing={}, net=NetReport(NET, 60_000, OURS, rows))


def test_a_peer_that_fails_is_reported_and_ends_no_other(stubs, tmp_path, capsys):
    out = tmp_path / "out"
    code = command.main(["--data", "mnist-sample", "--samples", "256", "--rounds", "2", "--out", str(out)])
    said, content = capsys.readouterr().out, json.loads((out / "results.json").read_text())
    assert code == 1
    assert "Failing: failed: RuntimeError: an operator does not exist (exit code 1)" in said
    assert "Dying: failed: no more (exit code 1)" in said
    assert 'absent left out: no_such_package not installed; python -m pip install -e ".[bench]"' in said
    assert (content["format"], content["format_version"]) == ("gpubp-bench-deformed", 1)
    assert content["missing"] == {"absent": "no_such_package not installed"}
    assert content["deform"] == {"alpha": 34, "sigma": 4, "rotation": 10, "scaling": 0.1}
    assert content["machine"].keys() >= {"cpu", "cores", "load_average_after"}
    peers = {row["peer"]: row for row in content["net"]["peers"]}
    found = {name: (row["status"], len(row["rounds_ms"])) for name, row in peers.items()}
    assert found == {"gpubp": ("ok", 2), "failing": ("failed", 0), "dying": ("failed", 0)}
    assert peers["gpubp"]["images"]["displacement"] == pytest.approx(0.5, rel=1e-4)
    assert peers["dying"]["images"] is None
    assert str(tmp_path) not in json.dumps(content)
    with (out / "results.csv").open() as file:
        assert [line["status"] for line in csv.DictReader(file)] == ["ok", "failed", "failed"]
    assert "Dying: failed: no more" in (out / "README.md").read_text()


def test_ratios_and_shares_are_of_the_same_round():
    made = reported(
        gpubp=[1.0, 2.0, 4.0], gpubp_plain=[0.5, 1.5, 1.0], torch=[5.0, 8.0, 24.0], torch_plain=[4.0, 4.0, 12.0],
        torchvision=[50.0, 80.0, 240.0], torchvision_batch=[2.0, 4.0, 8.0],
    )  # fmt: skip
    made.images["gpubp"] = {"displacement": 1.1, "change": 0.1, "ink": 0.13}
    content = report.to_dict(made)
    peers = {row["peer"]: row for row in content["net"]["peers"]}
    assert peers["torch"]["round_ratios"] == [5.0, 4.0, 6.0]
    assert peers["torch"]["ratio"] == {"median": 5.0, "min": 4.0, "max": 6.0}
    shares = content["share_of_deforming"]
    assert shares["gpubp"] == {"median": 0.5, "min": 0.25, "max": 0.75, "rounds": [0.5, 0.25, 0.75]}
    assert shares["torch"]["median"] == 0.5
    assert content["net"]["fastest_peer"] == "torch"  # of those that deform each image by itself
    assert (peers["torchvision"]["part"], peers["torch"]["part"]) == (0.1, None)
    lines = list(csv.DictReader(report.to_csv(content).splitlines()))
    assert [lines[2][name] for name in ("peer", "median_ms", "ratio", "displacement")] == [
        "torch",
        "8000.0",
        "5.0",
        "",
    ]
    page = report.to_markdown(content)
    assert "| torch | 8,000 (5,000–24,000) | 5.00 (4.00–6.00) | 9 |" in page
    assert "Deforming is 50% of an epoch of gpubp (25% to 75%)." in page


def test_images_that_are_deformed_otherwise_are_told():
    made = reported(gpubp=[1.0], torch=[2.0], torchvision=[3.0], gpubp_plain=[4.0])
    means = {"displacement": 1.0, "change": 0.1, "ink": 0.13}
    made.images = {
        "gpubp": means,
        "torch": means | {"change": 0.108},
        "torchvision": means | {"displacement": 0.5},
    }
    report.compare_images(made)
    said = [row.notes for row in made.net.rows]
    assert said == [[], [], ["its images are deformed otherwise: displacement 0.5, not 1"], []]


def test_what_is_said_of_images(samples):
    assert tasks.statistics(lambda images: images / np.float32(255), samples.inputs) == {
        "displacement": pytest.approx(0, abs=1e-4),
        "change": 0,
        "ink": pytest.approx(samples.inputs.mean() / 255, rel=1e-4),
    }


def test_gpubp_trains_as_fit_does(samples):
    """The very parameters, bit for bit."""
    network = SMALL.network()
    trainer = ours.build(SMALL, samples, [p for pair in network.parameters for p in pair], {})
    trainer.run_epoch(np.random.default_rng(SEED).permutation(len(samples)))
    images, optimizer = samples.inputs.reshape(-1, *SHAPE), gpubp.SGD(SMALL.lr, SMALL.momentum)
    gpubp.fit(
        network, images, samples.labels, loss=SMALL.loss, optimizer=optimizer, batch_size=SMALL.batch, epochs=1,
        deform=DEFORM, seed=SEED, backend="numba", progress=False,
    )  # fmt: skip
    for found, expected in zip(
        trainer.parameters(), (p for pair in network.parameters for p in pair), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert trainer.verify(samples).ok


def test_it_is_the_recipes_network():
    recipe = load_recipe("mnist-simard")
    assert (recipe.layers, recipe.batch_size, recipe.lr, recipe.momentum) == (
        NET.layers,
        NET.batch,
        NET.lr,
        NET.momentum,
    )
    assert (recipe.hidden, recipe.output, recipe.loss, recipe.init) == (
        (NET.hidden,),
        NET.output,
        NET.loss,
        NET.init,
    )


def test_pytorchs_field_is_simards():
    needs("torch").manual_seed(0)
    pytorch = import_module("bench.deformed.pytorch")
    field = pytorch.Deformer(DEFORM, SHAPE).field(400).numpy()
    assert field.shape == (400, 2, *SHAPE)
    np.testing.assert_allclose(field.std(axis=(0, 2, 3)), DEVIATION, rtol=0.03)
    assert abs(field.mean()) < 0.02
    border = field[:, :, 0].std()
    assert border == pytest.approx(DEVIATION, rel=0.05)  # the noise goes on beyond the image
    apart = (field[..., :-4] * field[..., 4:]).mean() / (field**2).mean()
    assert apart == pytest.approx(math.exp(-(4**2) / (4 * 4**2)), abs=0.03)


def test_pytorchs_matrices_are_rotations_and_scalings():
    torch = needs("torch")
    torch.manual_seed(0)
    pytorch = import_module("bench.deformed.pytorch")
    matrices = pytorch.Deformer(replace(DEFORM, shear=0.2), SHAPE).matrices(2000).double().numpy()
    scales = np.linalg.norm(matrices[:, :, 0], axis=1)
    assert (scales.min(), scales.max()) == pytest.approx((0.9, 1.1), abs=0.001)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert (angles.min(), angles.max()) == pytest.approx((-10, 10), abs=0.1)
    turned = np.linalg.inv(_rotations(np.radians(angles))) @ matrices  # [[sₓ, h], [0, s_y]]
    np.testing.assert_allclose(turned[:, 1, 0], 0, atol=1e-6)
    assert (turned[:, 1, 1].min(), turned[:, 1, 1].max()) == pytest.approx((0.9, 1.1), abs=0.001)
    assert (turned[:, 0, 1].min(), turned[:, 0, 1].max()) == pytest.approx((-0.2, 0.2), abs=0.001)


def _rotations(angles):
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)


@pytest.mark.parametrize(
    "name",
    [
        param("torch", always=True),
        param("torchvision", always=False),
        param("torchvision-batch", always=False),
    ],
)
def test_its_images_are_like_gpubps(name, samples):
    peer = next(peer for peer in PEERS if peer.name == name)
    for package in peer.needs:
        needs(package)
    network = SMALL.network()
    parameters = [p for pair in network.parameters for p in pair]
    trainer = import_module(peer.module).build(SMALL, samples, parameters, {**peer.options, "threads": 1})
    expected = tasks.statistics(ours.build(SMALL, samples, parameters, {}).deformed, samples.inputs)
    found = tasks.statistics(trainer.deformed, samples.inputs)
    for kind, value in expected.items():
        assert report.alike(found[kind], value), kind


def test_a_part_of_an_epoch_is_scaled(samples):
    for package in ("torch", "torchvision"):
        needs(package)
    vision = import_module("bench.deformed.vision")
    parameters = [p for pair in SMALL.network().parameters for p in pair]
    trainer = vision.ImageTrainer(SMALL, samples, parameters, "cpu", 1, 0.25)
    assert (trainer.count, trainer.scale) == (128, 4.0)
    assert "timed on 128 of 512 images, and scaled to all" in trainer.differs
    assert vision.ImageTrainer(SMALL, samples, parameters, "cpu", 1, 1.0).scale == 1.0


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["torch", "torch-plain", "torchvision", "torchvision-batch"])
def test_a_peer_trains(name, tmp_path):
    for package in next(peer for peer in PEERS if peer.name == name).needs:
        needs(package)
    options = [
        "--data",
        "mnist-sample",
        "--samples",
        "512",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert command.main([*options, "--peers", f"gpubp-plain,{name}"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["net"]["peers"]
    assert [row["peer"] for row in rows] == ["gpubp", "gpubp-plain", name]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert rows[0]["verification"]["ok"]
    assert rows[2]["same_result"] == ("same" if name == "torch-plain" else "not comparable")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["--threads", "4096"], "--threads 4096: there are"),
        (["--peers", "pytorch"], "unknown peer 'pytorch'"),
    ],
)
def test_wrong_options(options, message, tmp_path, capsys):
    assert command.main([*options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_readme_has_the_table_of_its_results():
    text = readme.README.read_text(encoding="utf-8")
    name = readme.shown_of(text)
    if name is None:
        pytest.skip("it has no table yet")
    assert readme.updated(text, name) == text, f"run: python -m bench.deformed.readme {name}"


def test_a_table_for_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    (tmp_path / "one").mkdir()
    report.write(tmp_path / "one", reported(gpubp=[1.0], torch=[2.0]))
    empty = f"before\n{readme.BEGIN}\n{readme.END}\nafter\n"
    made = readme.updated(empty, "one")
    assert readme.shown_of(empty) is None
    assert readme.shown_of(made) == "one"
    assert "| torch | 2,000 (2,000–2,000) | 2.00 (2.00–2.00) | 9 |" in made
    assert readme.updated(made, "one") == made
    with pytest.raises(DataError, match="cannot read"):
        readme.updated(empty, "another")
