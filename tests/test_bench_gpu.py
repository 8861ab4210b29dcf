"""The command for a GPU machine: run to its end on the host build, and what it does when something goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu, gpu_parts, gpu_report, gpu_times, gpu_worker
from bench.gpu_nets import ON_GPU, ON_HOST, RACE, GpuNet, Race, extra, of_recipe
from bench.gpu_parts import collected, find_sanitizer, medians, outcomes, program, sanitizer_errors
from bench.gpu_report import Part, Report
from bench.gpu_run import Loaded, Run, environment
from bench.gpu_times import PRODUCTS, GpuRow, NetTimes
from bench.process import ROOT, NoAnswer, WorkerFailed
from bench.results import BASELINE, DIFFERS, NOT_COMPARABLE, SAME
from gpubp import recipes
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import UsageError
from tests.cuda_host import missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))
WITHOUT_MNIST = ("784-128-10", "784-2048-2048-10", "digits", "iris", "mnist-sample", "parity")
FEW_TESTS = "tests/test_optimizers.py"


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
    for name in ("verify", "repeat"):
        done = {(r["plan"], r["recipe"]) for r in parts[name]["results"]}
        refused = {tuple(line.partition(":")[0].split(", ")) for line in parts[name]["skipped"]}
        assert done | refused == {(plan, recipe) for plan in plans for recipe in trained}
        assert {plan for plan, _ in done} == plans
        assert not {plan for plan, _ in refused} & {"composed", "fused"}
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
    """A run that has not begun, with a second's time."""
    report = Report("2026-01-01", False, None, {"packages": {}, "cpu": "", "cores": 1, "python": ""}, {})
    made = Run(
        report=report, out=tmp_path / "out", folder=tmp_path, sizes=ON_HOST, host=True, plans=("one", "two"),
        data_dir=None, tests=[], say=lambda _: None, end=1e9, part_end=1e9,
    )  # fmt: skip
    desk = made.desk
    yield made
    desk.close()


class Scripted:
    """A desk that answers what it is told to."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def ask(self, *_, **__):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


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
    nets = [of_recipe(recipes.load(name)) for name in ("parity", "iris", "digits")]
    run.recipes = [Loaded(net, Path(), Path(), 1) for net in nets]
    run.desk, part = Scripted(NoAnswer("no answer for 60 s")), Part("verify", "")
    gpu_parts.verify(run, part)
    assert run.desk.asked == 2  # once a plan
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


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main([]) == 4
    assert "--host" in capsys.readouterr().err.strip().splitlines()[-1]


def test_children_compute_in_full_float32():
    assert environment(host=False)["CUPY_TF32"] == "0"
    assert environment(host=True)["CUDA_VISIBLE_DEVICES"] == ""


def test_every_recipe_is_a_net():
    nets = [of_recipe(recipes.load(name)) for name in recipes.names()]
    assert {net.name: net.momentum for net in nets}["mnist"] == 0.9
    for net in [*nets, *extra("mnist")]:
        assert GpuNet.from_json(json.loads(json.dumps(vars(net)))) == net
        assert ON_GPU.cut(net) == net
        small = ON_HOST.cut(net)
        assert max(small.layers[1:-1]) <= ON_HOST.width
        assert (small.layers[0], small.layers[-1]) == (net.layers[0], net.layers[-1])
    with pytest.raises(UsageError):
        of_recipe(recipes.load("mnist").overridden({"optimizer": "adam"}))
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
    report = NetTimes(loaded, [composed, fused, numba, graph, jax, wrong, products], "fused plan")
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
    assert gpu_times.conclusions([content]) == [
        "  784-128-10: JAX takes 1.12 × the time (0.75 … 1.50) of gpubp-fused",
        "  784-128-10: gpubp-fused takes 3.00 × the time (2.00 … 4.00) of cuBLAS's products alone",
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


def test_all_tests_are_run_but_this_one():
    names = gpu_parts.all_tests()
    assert len(names) == len(set(names)) == len(list(ROOT.glob("tests/test_*.py"))) - 1
    assert all((ROOT / name).is_file() for name in names)


def test_what_pytest_said_is_read():
    found = outcomes(PYTEST)
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1, "error": 0}
    assert found["failed"] == ["tests/test_a.py::test_two[a b]"]
    assert found["last"] == "tests/test_a.py::test_three"
    assert collected(PYTEST) == 5
    assert outcomes("ERROR tests/test_c.py - ImportError: x\n")["failed"] == [
        "tests/test_c.py: ImportError: x"
    ]
    ended = PYTEST + "FAILED tests/test_a.py::test_two[a b] - assert 1 == 2\n"
    assert outcomes(ended)["failed"] == ["tests/test_a.py::test_two[a b]: assert 1 == 2"]
    assert collected("") is None


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
        ("ERROR SUMMARY: 3 errors", 6, 0),
        ("Error: Device not supported", 0, 6),
        ("nothing", 6, 0),
    ],
)
def test_the_sanitizer_is_run_over_each_plan(run, tmp_path, monkeypatch, summary, failures, skipped):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\necho "$@"\necho \'{{"digests": {{}}}}\'\necho "========= {summary}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_sanitizer() == str(tool)
    run.host, part = False, Part("sanitizer", "", ended=True)
    gpu_parts.sanitizer(run, part)
    assert (len(part.failures), len(part.skipped)) == (failures, skipped)
    asked = [(r["tool"], r["plan"]) for r in part.results]
    assert asked == [
        (kind, plan) for kind in ("memcheck", "racecheck", "synccheck") for plan in ("one", "two")
    ]
    assert "bench.gpu_worker" in part.results[0]["last_lines"][0]


@needs_compiler
def test_what_the_sanitizer_watches_trains():
    answers = {plan: gpu_worker.train_a_little(True, plan) for plan in CupyBackend.plans}
    assert all("20-23-10" in answer["digests"] for answer in answers.values())
    assert len(answers["fused"]["digests"]) == 2
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
    code = "import sys, bench.gpu, bench.gpu_worker, bench.peers.gpubp_gpu, bench.peers.products; print(*sys.modules)"
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
