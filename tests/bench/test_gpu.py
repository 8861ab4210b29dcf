"""The command for a GPU machine: run to its end on the host build, and what it does when something goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import gpu, gpu_parts, gpu_report, gpu_run, gpu_tests, gpu_times, gpu_worker
from bench.gpu_parts import find_sanitizer, medians, program, sanitizer_errors
from bench.gpu_peers import OF_PRECISIONS, PRODUCTS, peers
from bench.gpu_report import Part, Report
from bench.gpu_run import Loaded, Run, environment
from bench.gpu_tests import collected, outcomes, unfinished
from bench.gpu_times import WITHIN, Entrant, GpuRow, NetTimes
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.benchmark.gpu_nets import (
    FLOAT32,
    ON_GPU,
    ON_HOST,
    RACE,
    VARIANTS,
    GpuNet,
    Race,
    Variant,
    extra,
    of_recipe,
)
from gpubp.benchmark.process import ROOT, NoAnswer, WorkerFailed
from gpubp.benchmark.results import BASELINE, DIFFERS, NOT_COMPARABLE, SAME
from gpubp.errors import UsageError
from gpubp.experiments.recipe import load_recipe, recipe_names
from tests.cuda_host import missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))
WITHOUT_MNIST = ("784-128-10", "784-2048-2048-10", "digits", "iris", "mnist-sample", "parity")
FEW_TESTS = "tests/test_optimizers.py"
NO_MACHINE = {"packages": {}, "cpu": "", "cores": 1, "python": ""}


@needs_compiler
def test_a_run_on_the_host(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    out = tmp_path / "out"
    code = gpu.main(["--host", "--budget", "300", "--tests", FEW_TESTS, "--out", str(out)])
    said, text = capsys.readouterr().out, (out / "results.json").read_text()
    assert code == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.txt"]
    assert str(ROOT) not in text
    content = json.loads(text)
    assert (content["format"], content["format_version"]) == ("gpubp-bench-gpu", 1)
    assert content["host"] is True
    assert content["settings"]["mnist"] is False
    assert content["machine"]["packages"]["numpy"]
    parts = {part["part"]: part for part in content["parts"]}
    assert list(parts) == list(gpu.PARTS)
    assert {name for name, part in parts.items() if part["status"] != "ok"} == {"sanitizer"}
    assert parts["sanitizer"]["status"] == "skipped"
    assert not any(part["failures"] or part["cut_short"] for part in content["parts"])

    plans, trained = set(CupyBackend.plans), {"digits", "iris", "mnist-sample", "parity"}
    variants = {str(variant) for variant in VARIANTS}
    assert variants == {*plans, "fused in tf32", "fused in 3xtf32"}
    for name in ("verify", "repeat"):
        done = {(str(Variant(r["plan"], r["precision"])), r["recipe"]) for r in parts[name]["results"]}
        refused = {tuple(line.partition(":")[0].split(", ")) for line in parts[name]["skipped"]}
        assert done | refused == {(variant, recipe) for variant in variants for recipe in trained}
        assert {variant for variant, _ in done} == variants
        assert {variant for variant, _ in refused} == {"units"}
    assert all(r["ok"] and 0 < r["part_of_bound"] <= 1 for r in parts["verify"]["results"])
    assert all(r["same"] and len(r["digests"]) == 3 for r in parts["repeat"]["results"])
    assert [r["what"] for r in parts["micro"]["results"]] == [
        "barrier of 2 blocks",
        "barrier of 3 blocks",
        "launch",
        "float32 product",
    ]
    nets = {net["name"]: net for net in parts["times"]["results"]}
    assert tuple(sorted(nets)) == WITHOUT_MNIST
    for net in nets.values():
        rows = {row["peer"]: row for row in net["peers"]}
        assert rows["gpubp-numba"]["same_result"] == BASELINE
        for plan in plans:
            row = rows[f"gpubp-{plan}"]
            if row["status"] == "left out":
                assert plan not in ("composed", "fused")
                continue
            assert row["same_result"] == SAME
            assert row["by"] == "clock"
            assert len(row["rounds_ms"]) == ON_HOST.rounds
        assert rows[net["baseline"]]["ratio"]["median"] == 1
        assert rows[net["baseline"]]["precision"] == FLOAT32
        others = {row["peer"]: row["same_result"] for row in net["peers"] if row["precision"] != FLOAT32}
        expected = {"gpubp-fused-tf32": WITHIN, "gpubp-fused-3xtf32": SAME}
        ours = {name: same for name, same in others.items() if name.startswith("gpubp")}
        assert ours == (expected if net["name"] in OF_PRECISIONS else {})
        assert (PRODUCTS in rows) == (net["name"] == "784-2048-2048-10")
    assert {r["plan"] for r in parts["race"]["results"]} == plans
    assert parts["race"]["results"][0]["rules"]["data"] == "mnist-sample"
    assert parts["tests"]["results"][0]["counts"]["passed"] > 10

    table = (out / "results.txt").read_text()
    assert "WITHOUT A GPU" in table
    skipped = table[table.index("\nskipped:") :]
    for line in (
        "device: mnist: no MNIST: name the folder",
        "micro: node of a graph: needs a GPU",
        "micro: copy: needs a GPU",
        "times: times by events",
        "race: 97% and 98% of MNIST",
        "tests: the tests on a GPU",
        "sanitizer: compute-sanitizer: needs a GPU",
    ):
        assert line in skipped
    assert table.rstrip().endswith("nothing failed")
    assert "nothing failed" in said


@pytest.fixture
def run(tmp_path):
    """A run that has not begun, with all the time there is."""
    made = Run(
        report=Report("2026-01-01", False, None, NO_MACHINE, {}), out=tmp_path / "out", folder=tmp_path,
        sizes=ON_HOST, host=True, variants=(Variant("one"), Variant("two")), data_dir=None, tests=[],
        say=lambda _: None, end=1e9, part_end=1e9,
    )  # fmt: skip
    desk = made.desk
    yield made
    desk.close()


class Scripted:
    """A desk that answers what it is told to."""

    def __init__(self, answer, log=None):
        self.answer, self.log = answer, [] if log is None else log

    def send(self, *_, **__):
        self.log.append("asked")

    def receive(self, _):
        self.log.append("answered")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        self.log.append("closed")


@pytest.mark.parametrize(
    ("answer", "kind", "line"),
    [
        ({"refused": "no such thing in /home/me/data"}, "skipped", "x: no such thing in data"),
        ({"failed": "out of memory"}, "failures", "x: out of memory"),
        (WorkerFailed("ended by SIGSEGV"), "failures", "x: ended by SIGSEGV"),
        (NoAnswer("no answer for 30 s"), "failures", "x: no answer for 30 s"),
    ],
)
def test_what_an_attempt_comes_to(run, answer, kind, line):
    part = Part("part", "")
    assert run.attempt(part, "x", "task", desk=Scripted(answer)) is None
    assert getattr(part, kind) == [line]
    assert run.silent == isinstance(answer, NoAnswer)


def test_a_process_whose_device_failed_is_asked_no_more(run):
    for answer, closed in (({"failed": "the GPU stopped answering"}, True), ({"refused": "too wide"}, False)):
        desk = Scripted(answer)
        run.attempt(Part("part", ""), "x", "task", desk=desk)
        assert ("closed" in desk.log) == closed


def test_what_there_is_no_time_for_is_cut_and_has_not_failed(run):
    part = Part("part", "", ended=True)
    run.part_end = 0.0
    assert run.attempt(part, "late", "task", desk=Scripted({})) is None
    assert part.cut == ["late"]
    run.part_end = gpu.time.perf_counter() + 5
    assert run.attempt(part, "slow", "task", desk=Scripted(NoAnswer("no answer for 5 s"))) is None
    assert part.cut == ["late", "slow"]
    assert part.status == "cut short"
    assert not part.failures


def test_a_plan_that_hangs_is_not_asked_again(run):
    nets = [of_recipe(load_recipe(name)) for name in ("parity", "iris", "digits")]
    run.recipes = [Loaded(net, Path(), Path(), 1) for net in nets]
    run.desk, part = Scripted(NoAnswer("no answer for 60 s")), Part("verify", "")
    gpu_parts.verify(run, part)
    assert run.desk.log == ["asked", "answered"] * 2  # once a plan
    assert part.failures == ["one, parity: no answer for 60 s", "two, parity: no answer for 60 s"]
    assert len(part.skipped) == 2


@needs_compiler
def test_parts_that_fail_do_not_keep_the_others(tmp_path, monkeypatch, capsys):
    def raises(run, part):
        part.results.append({"before": 1})
        raise RuntimeError("cannot load /somewhere/on/a/machine/lib.so")

    def dies(run, part):
        run.attempt(part, "nonsense", "no_such_task")
        run.attempt(part, "too slow", "facts", seconds=0.01, host=True)

    def interrupted(run, part):
        raise KeyboardInterrupt

    def works(run, part):
        part.results.append(run.attempt(part, "facts", "facts", host=True))

    kinds = {"raises": raises, "dies": dies, "works": works}
    monkeypatch.setattr(gpu, "PARTS", {name: (name, 1.0, do) for name, do in kinds.items()})
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "raises: RuntimeError: cannot load lib.so" in said
    assert "dies: nonsense: KeyError: 'no_such_task' (exit code 1)" in said
    assert "dies: too slow: no answer for 0.01 s" in said
    assert "3 parts" in said
    content = json.loads((tmp_path / "results.json").read_text())
    assert [part["status"] for part in content["parts"]] == ["failed", "failed", "ok"]
    assert content["parts"][0]["results"] == [{"before": 1}]

    kinds = {"works": works, "interrupted": interrupted, "never": works}
    monkeypatch.setattr(gpu, "PARTS", {name: (name, 1.0, do) for name, do in kinds.items()})
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 130
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["interrupted"] is True
    assert [part["status"] for part in content["parts"]] == ["ok", "unfinished", "unfinished"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--parts", "verify,nothing"], 2, "unknown part 'nothing'"),
        (["--host", "--budget", "0"], 2, "--budget must be positive"),
        (["--host", "--data-dir", "no-such-folder"], 5, "no-such-folder: no such folder"),
    ],
)
def test_wrong_options(options, code, message, capsys):
    assert gpu.main(options) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main(["--out", str(tmp_path)]) == 4
    assert "--host" in capsys.readouterr().err.strip().splitlines()[-1]
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["refused"]
    assert content["parts"] == []
    assert f"nothing was measured: {content['refused']}" in (tmp_path / "results.txt").read_text()


def test_children_compute_in_full_float32():
    assert environment(host=False)["CUPY_TF32"] == "0"
    assert environment(host=True)["CUDA_VISIBLE_DEVICES"] == ""


def test_every_recipe_is_a_net():
    nets = [of_recipe(load_recipe(name)) for name in recipe_names()]
    assert {net.name: net.momentum for net in nets}["mnist"] == 0.9
    for net in [*nets, *extra("mnist")]:
        assert GpuNet.from_json(json.loads(json.dumps(vars(net)))) == net
        assert ON_GPU.cut(net) == net
        small = ON_HOST.cut(net)
        assert max(small.layers[1:-1]) <= ON_HOST.width
        assert (small.layers[0], small.layers[-1]) == (net.layers[0], net.layers[-1])
    with pytest.raises(UsageError):
        of_recipe(load_recipe("mnist").overridden({"optimizer": "adam"}))
    assert Race.from_json(json.loads(json.dumps(RACE.to_json()))) == RACE


def test_times_are_compared_by_the_same_clock():
    composed = GpuRow("gpubp-composed", "", rounds=[2.0, 4.0], clocks=[3.0, 5.0], by_events=True)
    fused = GpuRow("gpubp-fused", "", rounds=[1.0, 2.0], clocks=[2.0, 4.0], by_events=True)
    numba = GpuRow("gpubp-numba", "", rounds=[0.1], clocks=[0.1])
    graph = GpuRow("torch-graph", "Graph", rounds=[3.0, 8.0], clocks=[9.0, 9.0], by_events=True, same=SAME)
    jax = GpuRow("jax", "JAX", rounds=[3.0, 3.0], clocks=[3.0, 3.0], same=SAME)
    wrong = GpuRow("torch", "", rounds=[0.1, 0.1], clocks=[0.1, 0.1], by_events=True, same=DIFFERS)
    products = GpuRow(PRODUCTS, "", rounds=[0.5, 0.5], clocks=[1.0, 1.0], by_events=True, same=NOT_COMPARABLE)
    loaded = Loaded(extra("mnist")[0], Path(), Path(), 60_000)
    ours = {"rounds": [0.1, 0.1], "clocks": [0.1, 0.1], "by_events": True}
    broken = GpuRow("gpubp-units", "", same=DIFFERS, **ours)
    tf32 = GpuRow("gpubp-fused-tf32", "Ours in tf32", precision="tf32", same=WITHIN, **ours)
    their_tf32 = GpuRow(
        "jax-tf32", "JAX in tf32", precision="tf32", rounds=[0.4, 0.2], clocks=[0.4, 0.2], same=WITHIN
    )
    rows = [composed, fused, numba, graph, jax, wrong, products, broken, tf32, their_tf32]
    report = NetTimes(loaded, rows, "fused plan")
    assert report.baseline is fused
    assert report.fastest is jax
    assert gpu_times.ratios(graph, fused) == [3.0, 4.0]
    assert gpu_times.ratios(jax, fused) == [1.5, 0.75]  # which has no events
    assert gpu_times.ratios(numba, fused) == [0.05]
    assert gpu_times.ratios(graph, None) == []
    content = gpu_times.to_dict(report)
    assert content["samples"] == 60_000
    assert content["peers"][3]["epoch_ms"] == {"median": 5500.0, "min": 3000.0, "max": 8000.0}
    for row in report.rows:
        row.loss_difference = row.parameter_difference = 0.0
    assert "1,500" in gpu_times.net_table(report)
    assert "tf32: within its bound" in gpu_times.net_table(report)
    fused.title, products.title = "Fused", "Products"
    assert gpu_times.conclusions([report]) == [
        "  784-128-10: JAX takes 1.12 × the time (0.75 … 1.50) of Fused",
        "  784-128-10: JAX in tf32 takes 3.00 × the time (2.00 … 4.00) of Ours in tf32",
        "  784-128-10: Fused takes 3.00 × the time (2.00 … 4.00) of Products",
    ]


def test_medians_of_what_is_not_always_reached():
    def seed(first):
        return {
            "reached_s": {"0.97": 1.0, "0.98": first},
            "accuracies": [0.9, 0.98],
            **dict.fromkeys(("training_s", "evaluation_s", "upload_s", "compile_s"), 2.0),
        }

    found = medians([seed(first) for first in (3.0, None, 1.0, 2.0, None)])
    assert found["reached_s"] == {"0.97": 1.0, "0.98": 3.0}
    assert found["reached_by"] == {"0.97": 5, "0.98": 3}
    assert medians([seed(first) for first in (3.0, None, None)])["reached_s"]["0.98"] is None


PYTEST = """
collected 5 items

tests/test_a.py::test_one PASSED                    [ 20%]
tests/test_a.py::test_two[a b] FAILED               [ 40%]
tests/test_a.py::test_three SKIPPED (no compiler)   [ 60%]
tests/test_b.py::test_four
"""


def test_the_tests_of_the_gpu_are_those_that_go_through_its_backend():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("tests/test_*.py")
        if "cuda_backend" in (text := path.read_text()) or "backend_by_name" in text
    }
    # The latter two have NumPy's backend by its name.
    others = {"tests/test_bench_gpu.py", "tests/test_cli.py", "tests/test_report.py"}
    assert users - others == set(gpu_tests.GPU_TESTS)


def test_what_pytest_said_is_read():
    found = outcomes(PYTEST)
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1, "error": 0}
    assert (
        unfinished(PYTEST)
        == unfinished(PYTEST.rstrip() + " Timeout (0:01:00)!\n")
        == "tests/test_b.py::test_four"
    )
    assert unfinished(PYTEST.rstrip() + " PASSED [80%]\n") is None
    assert outcomes("SKIPPED [2] tests/a.py:3: no GPU\nSKIPPED [1] tests/b.py: no GPU\n")["skipped"] == {
        "no GPU": 3
    }
    assert found["failed"] == ["tests/test_a.py::test_two[a b]"]
    assert found["last"] == "tests/test_a.py::test_three"
    assert collected(PYTEST) == 5
    assert outcomes("ERROR tests/test_c.py - ImportError: x\n")["failed"] == [
        "tests/test_c.py: ImportError: x"
    ]
    ended = PYTEST + "FAILED tests/test_a.py::test_two[a b] - assert 1 == 2\n"
    assert outcomes(ended)["failed"] == ["tests/test_a.py::test_two[a b]: assert 1 == 2"]
    assert collected("") is None
    assert collected("collected 9 items / 7 deselected / 2 selected\n") == 2


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 12 errors", 12),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", 2),
        ("========= Error: Device not supported", None),
    ],
)
def test_what_compute_sanitizer_said_is_read(text, errors):
    assert sanitizer_errors(text) == errors


@pytest.mark.parametrize(
    ("summary", "failures", "skipped"),
    [
        ("ERROR SUMMARY: 0 errors", 0, 0),
        ("ERROR SUMMARY: 3 errors", 5, 0),
        ("Error: Device not supported", 0, 5),
        ("nothing", 5, 0),
    ],
)
def test_the_sanitizer_is_run_over_each_plan(run, tmp_path, monkeypatch, summary, failures, skipped):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\necho "$@"\necho \'{{"digests": {{}}}}\'\necho "========= {summary}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_sanitizer() == str(tool)
    run.host, part = False, Part("sanitizer", "", ended=True)
    run.variants = Variant("composed"), Variant("fused"), Variant("fused", "tf32")
    gpu_parts.sanitizer(run, part)
    assert (len(part.failures), len(part.skipped)) == (failures, skipped)
    assert [(r["tool"], r["plan"]) for r in part.results] == [
        ("memcheck", "composed"),
        ("memcheck", "fused"),
        ("racecheck", "fused"),
        ("synccheck", "composed"),
        ("synccheck", "fused"),
    ]
    assert "bench.gpu_worker" in part.results[0]["last_lines"][0]


def test_a_sanitizer_that_takes_too_long_has_not_failed(run, tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(gpu_parts, "SANITIZER_SECONDS", 0.1)
    run.host, part = False, Part("sanitizer", "", ended=True)
    gpu_parts.sanitizer(run, part)
    assert part.status == "cut short"
    assert part.cut[0] == "memcheck, one: no end in 0 s"


@needs_compiler
def test_what_the_sanitizer_watches_trains():
    answers = {plan: gpu_worker.train_a_little(True, plan) for plan in CupyBackend.plans}
    nets = {plan: list(answer["digests"]) for plan, answer in answers.items()}
    assert nets == {"composed": ["20-40-33-10"], "fused": ["20-40-33-10"], "units": ["20-23-10"]}
    assert gpu_worker.answer("train_a_little", {"host": True, "plan": "no such plan"}).keys() == {"refused"}


def test_a_program_that_does_not_end_is_ended(run):
    text = "print('begun', flush=True); import time; time.sleep(60)"
    ended = program(run, [sys.executable, "-c", text], dict(os.environ), 2.0)
    assert ended.code is None
    assert ended.text == "begun\n"


PROPERTY = """
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

settings.register_profile("x", deadline=None)
settings.load_profile("x")

@st.composite
def shapes(draw):
    return draw(st.integers(1, 3).map(str) | st.none())

@settings(max_examples=3)
@given(shape=shapes(), array=hnp.arrays(float, 3))
def test_property(shape, array):
    raise AssertionError

def test_plain():
    pass
"""


def test_property_tests_are_skipped_without_hypothesis(tmp_path):
    (tmp_path / "test_it.py").write_text(PROPERTY)
    code = "import sys; sys.modules['hypothesis'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-p", "bench.gpu_pytest", "-p", "no:cacheprovider", "-c", os.devnull, "-v", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed, 1 skipped" in ran.stdout


def test_what_the_command_needs_is_little():
    peers = "gpubp.benchmark.peers"
    code = (
        f"import sys, bench.gpu, bench.gpu_worker, {peers}.gpubp_gpu, {peers}.products; print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    unwanted = {
        "cupy",
        "torch",
        "jax",
        "rich",
        "typer",
        "sklearn",
        "pooch",
        "threadpoolctl",
        "PIL",
        "hypothesis",
    }
    assert not unwanted & set(ran.stdout.split())


# What goes wrong with a worker.


@pytest.fixture
def fault(monkeypatch):
    """fault("NAME TASK WORD …"): workers have it from here on, as tests/faulty_worker.py says."""

    def plant(text):
        monkeypatch.setattr(gpu_run, "WORKER", "tests.bench.faulty_worker")
        monkeypatch.setenv("GPUBP_TEST_FAULT", text)

    return plant


@needs_compiler
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lost", "the GPU stopped answering"),
        ("end", "exit code 3"),
        ("end_in_mid_line", "exit code 3"),
        ("garble", "its answer cannot be read: '{\"ok\": tr'"),
    ],
)
def test_a_fault_in_one_item_leaves_the_others_alone(name, says, fault, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    fault(f"{name} verify fused float32 parity")
    assert gpu.main(["--host", "--parts", "verify", "--out", str(tmp_path)]) == 1
    [part] = json.loads((tmp_path / "results.json").read_text())["parts"]
    [failure] = part["failures"]
    assert failure.startswith("fused, parity: ")
    assert says in failure
    done = [(str(Variant(r["plan"], r["precision"])), r["recipe"]) for r in part["results"]]
    assert len(done) == 4 * 4 - 1 + 3  # units take three of the four recipes
    assert ("fused", "mnist-sample") in done  # in the same process, if there were one
    assert all(r["ok"] for r in part["results"])


@needs_compiler
def test_a_fault_in_one_net_leaves_the_peer_to_the_others(fault, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    fault("lost build fused float32 digits")
    assert gpu.main(["--host", "--parts", "times", "--out", str(tmp_path)]) == 1
    [part] = json.loads((tmp_path / "results.json").read_text())["parts"]
    [failure] = part["failures"]
    assert failure.startswith("digits: gpubp cupy, fused, rounds: the GPU stopped answering")
    rows = {(net["name"], row["peer"]): row["status"] for net in part["results"] for row in net["peers"]}
    assert [key for key, status in rows.items() if status == "failed"] == [("digits", "gpubp-fused")]
    assert rows["parity", "gpubp-fused"] == "ok"


def test_an_error_in_one_net_leaves_the_others_alone(run, monkeypatch):
    nets = [of_recipe(load_recipe(name)) for name in ("parity", "iris", "digits")]
    run.recipes = [Loaded(net, Path(), Path(), 1) for net in nets]

    def measure(run, part, report, *_):
        if report.loaded.net.name == "iris":
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(gpu_times, "_start", lambda *_: [])
    monkeypatch.setattr(gpu_times, "_measure", measure)
    part = Part("times", "")
    gpu_times.times(run, part)
    assert part.failures == ["iris: OSError: [Errno 28] no space left"]
    assert [net["name"] for net in part.results] == ["parity", "iris", "digits"]


def test_peers_start_beside_each_other_before_any_net(run):
    log, ready = [], {"seconds": {"import": 80.0, "device": 1.0}}
    entrants = [Entrant(peer, run) for peer in peers()[:3]]
    answers = [ready, NoAnswer("no answer for 90 s"), ready]
    for entrant, answer in zip(entrants, answers, strict=True):
        entrant.desk = Scripted(answer, log)
    part = Part("times", "")
    started = gpu_times._start(run, part, entrants)
    assert log[:6] == ["asked"] * 3 + ["answered"] * 3 or log[:5] == ["asked"] * 3 + ["answered"] * 2
    assert started == [entrants[0], entrants[2]]
    assert started[0].started["import"] == 80
    assert part.failures == ["gpubp cupy, fused: no answer for 90 s"]


@needs_compiler
def test_a_device_that_does_not_say_what_it_is_is_measured(fault, monkeypatch, capsys, tmp_path):
    def works(run, part):
        part.results.append({"works": True})

    monkeypatch.setattr(gpu, "PARTS", {"device": gpu.PARTS["device"], "works": ("works", 1.0, works)})
    monkeypatch.setattr(gpu, "FACTS_SECONDS", 2.0)
    fault("hang facts")
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 1
    first, second = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert first["failures"] == ["what the device is: no answer for 2 s"]
    assert second["status"] == "ok"


def test_facts_that_cannot_be_known_are_none(monkeypatch):
    class Odd:
        cp = gpu_worker.device_of(True).cp if missing_compiler is None else gpu_worker

        def properties(self):
            return {"name": b"a GPU", "totalGlobalMem": 8e9}

    monkeypatch.setattr(gpu_worker, "device_of", lambda _: Odd())
    facts = gpu_worker.facts(False)
    assert (facts["name"], facts["memory_gb"]) == ("a GPU", 8.0)
    assert facts["multiprocessors"] is facts["second_level_cache_mb"] is facts["compute_capability"] is None


# What goes wrong with the files.


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(gpu, "begin", lambda *_: pytest.fail("it has begun"))
    assert gpu.main(["--host", "--out", str(tmp_path / "file" / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write ")
    assert "Not a directory" in error


@needs_compiler
@pytest.mark.parametrize("stays_full", [True, False])
def test_a_full_disk_ends_no_run(stays_full, monkeypatch, capsys, tmp_path):
    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fills(run, part):
        full.setattr(os, "fsync", no_space)
        run.save()
        part.results.append({"first": 1})

    def works(run, part):
        part.results.append({"second": 2})
        if not stays_full:
            full.undo()

    monkeypatch.setattr(gpu, "PARTS", {"fills": ("fills", 1.0, fills), "works": ("works", 1.0, works)})
    with pytest.MonkeyPatch.context() as full:
        code = gpu.main(["--host", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code == int(stays_full)
    assert said.err.count("No space left on device; the run goes on") == 1
    if stays_full:
        content = json.JSONDecoder().raw_decode(said.out[said.out.index("\n{\n") + 1 :])[0]
        assert "results.json is above" in said.err
    else:
        content = json.loads((tmp_path / "results.json").read_text())
    assert [part["results"] for part in content["parts"]] == [[{"first": 1}], [{"second": 2}]]


# What goes wrong with the tests.


HANGS = """
import time

def test_before():
    pass

def test_hangs():
    time.sleep(60)

def test_after():
    pass
"""


def test_a_test_that_hangs_is_a_failure(run, tmp_path):
    (tmp_path / "test_it.py").write_text(HANGS)
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    run.tests = [str(tmp_path / "test_it.py"), str(tmp_path / "test_other.py")]
    run.sizes = replace(run.sizes, test_seconds=2.0)
    part, started = Part("tests", "", ended=True), time.monotonic()
    gpu_tests.tests(run, part)
    assert time.monotonic() - started < 50
    [failure] = part.failures
    assert failure.endswith("test_it.py::test_hangs: it hangs: no end in 2 s")
    assert part.cut[0].endswith("test_it.py::test_hangs")
    assert [r["counts"]["passed"] for r in part.results] == [1, 1]


def test_tests_that_the_time_is_up_for_are_cut(run, tmp_path):
    (tmp_path / "test_it.py").write_text(HANGS)
    run.tests = [str(tmp_path / "test_it.py")]
    run.part_end = time.perf_counter() + 6
    part = Part("tests", "", ended=True)
    gpu_tests.tests(run, part)
    assert not part.failures
    assert part.cut[0].endswith("test_it.py::test_hangs")


NEEDS = """
import pytest

@pytest.fixture
def library():
    import no_such_library

def test_it():
    import no_such_library

def test_its_fixture(library):
    pass

def test_what_says_so_in_its_own_words():
    try:
        import no_such_library
    except ImportError as error:
        raise RuntimeError("it needs a library") from error

def test_ours():
    import gpubp.nonsense
"""


def test_what_a_test_needs_and_is_not_installed_is_a_skip(run, tmp_path):
    (tmp_path / "test_it.py").write_text(NEEDS)
    run.tests, part = [str(tmp_path / "test_it.py")], Part("tests", "", ended=True)
    gpu_tests.tests(run, part)
    assert any("3 tests: no_such_library is not installed" in line for line in part.skipped)
    [failure] = part.failures
    assert "No module named 'gpubp.nonsense'" in failure


def test_a_crash_in_a_test_names_it(run, tmp_path):
    (tmp_path / "test_it.py").write_text("import os\n\ndef test_it():\n    os.kill(os.getpid(), 9)\n")
    run.tests, part = [str(tmp_path / "test_it.py")], Part("tests", "", ended=True)
    gpu_tests.tests(run, part)
    [failure] = part.failures
    assert failure.endswith("test_it.py::test_it: pytest was ended by SIGKILL")


# What ends the run.


RUN = """
import sys
from bench import gpu, gpu_run
gpu_run.WORKER = "tests.bench.faulty_worker"
sys.exit(gpu.main(sys.argv[1:]))
"""


def living(mark):
    """The processes that have ``mark`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # another's, or ended meanwhile
    return found


def start_and_wait_for(line, options, tmp_path, mark):
    """The command, whose workers hang in verify and in no other task, once it has said the line."""
    environment = {**os.environ, "GPUBP_TEST_FAULT": "hang verify", "GPUBP_TEST_MARK": mark}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "--host", "--out", str(tmp_path / "out"), *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for said in process.stderr:
        if line in said:
            return process
    raise AssertionError(f"it ended without saying {line!r}")


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, and Linux's prctl")


@needs_compiler
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("part", ["verify", "tests"])
def test_a_run_that_is_ended_leaves_no_process_and_what_it_had(number, part, tmp_path):
    (tmp_path / "test_it.py").write_text(HANGS)
    options, mark = ["--parts", f"device,{part}", "--tests", str(tmp_path / "test_it.py")], f"mark {tmp_path}"
    process = start_and_wait_for(f"{part}: ", options, tmp_path, mark)
    end = time.monotonic() + 30
    while len(living(mark)) < 2 and time.monotonic() < end:  # the child is being started
        time.sleep(0.02)
    time.sleep(1.0)  # until it is at work
    assert len(living(mark)) >= 2
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    end = time.monotonic() + 10
    while (left := living(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for child in left:
        os.kill(child, signal.SIGKILL)
    assert left == []
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["parts"][0]["status"] == "ok"
    if number != signal.SIGKILL:
        assert content["interrupted"] is True
        assert content["parts"][1]["status"] == "unfinished"
        assert "and it was interrupted" in said


def test_a_closed_pipe_ends_no_run(tmp_path):
    code = "import sys\nfrom bench.gpu import speak\nfor _ in range(9): speak('x' * 99999, sys.stdout)\nsys.exit(7)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(60) == 7


def test_the_code_that_is_measured_has_a_name(tmp_path, monkeypatch):
    for name in ("gpubp/a.py", "kernels/cuda/b.cu", "bench/c.py", "bench/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(gpu_run, "ROOT", tmp_path)
    seen = [gpu_run.sources()]
    for name in ("bench/notes.md", "gpubp/a.py", "kernels/cuda/b.cu"):
        (tmp_path / name).write_text("2")
        seen.append(gpu_run.sources())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_jax_without_a_gpu_is_skipped():
    pytest.importorskip("jax")
    request = {"module": "gpubp.benchmark.peers.jax_gpu", "options": {"host": False}}
    code = f"from bench.gpu_worker import answer; print(answer('hello', {request}))"
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "{'refused': 'JAX" in ran.stdout, ran.stderr


def test_tables_line_up():
    text = gpu_report.table(
        ("name", "ms", "note"), [("a", 1.5, "x"), ("long name", 12345.6, ""), ("b", None, "y")]
    )
    assert text.splitlines() == [
        "  name           ms  note",
        "  a             1.5  x",
        "  long name  12,346",
        "  b                  y",
    ]
