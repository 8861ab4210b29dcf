"""The command for a GPU machine: run to its end on the host build, and what it does when something goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest

import gpubp
from bench import ROOT
from bench.gpu import command as gpu
from bench.gpu import micro, parts, report, suite, tasks, times
from bench.gpu import nets as gpu_nets
from bench.gpu import run as gpu_run
from bench.gpu.nets import (
    FIRST_RECIPES,
    OF_PRECISIONS,
    ON_GPU,
    ON_HOST,
    RACE,
    STAND_IN,
    Variant,
    extra,
    of_recipe,
    peers,
)  # fmt: skip
from bench.gpu.report import Part, Report
from bench.gpu.run import Ended, Loaded, Run
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.benchmark import data, results, terminal, worker
from gpubp.benchmark.peers import PRODUCTS
from gpubp.benchmark.process import NoAnswer, OutOfTime, WorkerFailed
from gpubp.benchmark.results import BASELINE, DIFFERS, NOT_COMPARABLE, SAME, WITHIN, NetReport, Row
from gpubp.errors import UsageError
from gpubp.experiments.recipe import load_recipe, recipe_names
from tests import param
from tests.cuda_host import missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))


@pytest.fixture
def few(monkeypatch):
    """few("parity", …): only these recipes and the plans composed and fused, other nets if told, and no MNIST."""
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    kept = ("gpubp-numba", "gpubp-composed", "gpubp-fused")

    def choose(*names, extras=False):
        monkeypatch.setattr(gpu_run, "recipe_names", lambda: list(names))
        if not extras:
            monkeypatch.setattr(gpu_run, "extra", lambda data: [])
        monkeypatch.setattr(gpu, "VARIANTS", (Variant("composed"), Variant("fused")))
        all_peers = times.peers
        monkeypatch.setattr(times, "peers", lambda *run: [p for p in all_peers(*run) if p.name in kept])

    return choose


def content_of(folder):
    return json.loads((folder / "results.json").read_text())


@needs_compiler
@pytest.mark.parametrize(
    ("only", "second"),
    [
        param(("iris",), False, always=True),
        param(("parity",), True, always=True),
        param((), False, always=False),
        param((), True, always=False),
    ],
    ids=["iris", "parity, second", "all", "all, second"],
)
def test_a_run_on_the_host(only, second, few, tmp_path, capsys):
    if only:
        few(*only, extras=not second)
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    out, test = tmp_path / "out", tmp_path / "test_it.py" if only else "tests/test_optimizers.py"
    options = ["--second", "--tests", str(test)] if second else []
    code = gpu.main(["--host", "--budget", "900", "--out", str(out), *options])
    said, text = capsys.readouterr().out, (out / "results.json").read_text()
    assert code == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.txt"]
    assert sum(path.stat().st_size for path in out.iterdir()) < 1e6
    assert str(ROOT) not in text
    content = json.loads(text)
    assert (content["format"], content["format_version"]) == ("gpubp-bench-gpu", 1)
    assert (content["host"], content["settings"]["mnist"]) == (True, False)
    assert content["settings"]["second"] is second
    assert content["machine"]["packages"]["numpy"]
    found = {part["part"]: part for part in content["parts"]}
    skipped = {"sanitizer"} | ({"race"} if only else set())
    names = ["device", "kernels", "verify", "repeat", "sanitizer"]
    names += ["times", "tests"] if second else ["micro", "phases", "times", "race"]
    expected = [(name, "skipped" if name in skipped else "ok") for name in names]
    assert [(name, part["status"]) for name, part in found.items()] == expected
    assert not any(part["failures"] or part["cut_short"] for part in content["parts"])

    plans = {"composed", "fused"} if only else set(CupyBackend.plans)
    variants = plans if only else {*plans, "fused in tf32", "fused in 3xtf32"}
    assert {str(variant) for variant in gpu.VARIANTS} == set(content["settings"]["plans"]) == variants
    built, *held = found["kernels"]["results"]
    assert built["built"]["binaries"] == built["built"]["compiled"] == 19
    assert {row["kernel"] for row in held} == plans - {"composed"}
    assert all(row["resident_blocks"] == 3 for row in held)

    trained = set(only) or {"digits", "iris", "mnist-sample", "parity"}
    pairs = {(variant, recipe) for variant in variants for recipe in trained}
    first = {(v, recipe) for v, recipe in pairs if v in plans and recipe in ("iris", "mnist-sample", "mnist")}
    for name in ("verify", "repeat"):
        done = {(str(Variant(r["plan"], r["precision"])), r["recipe"]) for r in found[name]["results"]}
        refused = {tuple(line.partition(":")[0].split(", ")) for line in found[name]["skipped"]}
        assert done | refused == (pairs - first if second else first)
        assert {variant for variant, _ in done} == {variant for variant, _ in done | refused}
        assert {variant for variant, _ in refused} <= {"units", "cluster"}
    assert all(r["ok"] and 0 < r["part_of_bound"] <= 1 for r in found["verify"]["results"])
    assert all(r["same"] and len(r["digests"]) == 3 for r in found["repeat"]["results"])
    extras = {"784-128-10", "784-2048-2048-10"} if not (only and second) else set()
    nets = {net["name"]: net for net in found["times"]["results"]}
    assert set(nets) == (trained if second else set()) | extras
    for net in nets.values():
        rows = {row["peer"]: row for row in net["peers"]}
        assert rows["gpubp-numba" if second else "gpubp-composed"]["same_result"] == BASELINE
        assert ("gpubp-numba" in rows) == second
        assert "plan" in net["plan_of_auto"]
        for plan in plans:
            row = rows[f"gpubp-{plan}"]
            if plan in ("units", "cluster") and row["status"] == "left out":
                continue
            assert row["same_result"] == SAME or (not second and plan == "composed")
            assert row["by"] == "clock"
            assert len(row["rounds_ms"]) == len(row["clock_rounds_ms"]) == ON_HOST.rounds
        baseline = rows[net["baseline"]]
        assert (baseline["ratio"]["median"], baseline["precision"]) == (1, "float32")
        others = {row["peer"]: row["same_result"] for row in net["peers"] if row["precision"] != "float32"}
        ours = {name: same for name, same in others.items() if name.startswith("gpubp")}
        in_others = second and not only and net["name"] in OF_PRECISIONS
        assert ours == ({"gpubp-fused-tf32": WITHIN, "gpubp-fused-3xtf32": SAME} if in_others else {})
        assert (PRODUCTS in rows) == (not only and net["name"] == "784-2048-2048-10")
    if second:
        assert found["tests"]["results"][0]["counts"]["passed"] >= (1 if only else 10)
    else:
        measured = [f"barrier{what} of {n} blocks" for what in ("", " after stores") for n in (2, 3)]
        measured += ["barrier of a cluster", micro.KERNELS[-1].what]
        results = found["micro"]["results"]
        assert [r["what"] for r in results] == [*measured, "launch", "float32 product"]
        assert [r["what"] for r in results if r.get("cost") == "barrier"] == ["barrier of 3 blocks"]
        assert all(r["cycles"] > 0 for r in results if r["what"] in measured)
    if not only and not second:
        assert {r["plan"] for r in found["race"]["results"]} == plans
        assert found["race"]["results"][0]["rules"]["data"] == "mnist-sample"

    table = (out / "results.txt").read_text()
    assert "WITHOUT A GPU" in table
    lines = table[table.index("\nskipped:") :]
    said_of = ["times: times by events", "sanitizer: compute-sanitizer: needs a GPU"]
    if second:
        said_of += ["tests: the tests on a GPU"]
    else:
        said_of += ["micro: node of a graph: needs a GPU", "micro: copy: needs a GPU"]
        said_of += ["phases: composed, 784-128-10: its kernels count no phases"]
    if not only:
        said_of += ["device: mnist: no mnist: name the folder"] + (
            [] if second else ["race: 97% and 98% of MNIST"]
        )
    assert [line for line in said_of if line not in lines] == []
    assert table.rstrip().endswith("nothing failed")
    assert "nothing failed" in said


@pytest.fixture
def run(tmp_path):
    """A run that has not begun, with all the time there is."""
    no_machine = {"packages": {}, "cpu": "", "cores": 1, "python": ""}
    made = Run(
        report=Report("2026-01-01", False, None, no_machine, {}), out=tmp_path / "out", folder=tmp_path,
        sizes=ON_HOST, host=True, variants=(Variant("one"), Variant("two")), data_dir=None, tests=[],
        say=lambda _: None, end=1e9, part_end=1e9,
    )  # fmt: skip
    nets = [of_recipe(load_recipe(name)) for name in FIRST_RECIPES]
    made.recipes = [Loaded(net, Path(), Path(), 1) for net in nets]
    yield made
    made.worker.close()


def scripted(answer):
    """A worker that answers, or raises, what it is told to."""
    does = {"side_effect" if isinstance(answer, Exception) else "return_value": answer}
    return Mock(ask=Mock(**does), receive=Mock(**does))


@pytest.mark.parametrize(
    ("part_of", "answer", "failures", "skipped", "cut", "said"),
    [
        ("verify", None, 0, 0, 6, "one, iris"),
        ("verify", NoAnswer("no answer"), 2, 2, 0, "no answer"),  # each plan is asked once
        ("verify", WorkerFailed("the GPU stopped"), 6, 0, 0, "the GPU stopped"),
        ("verify", {"ok": False, "wrong": ["W1"], "part_of_bound": 2.0, "worst": "W1"}, 6, 0, 0, ": W1"),
        ("repeat", {"same": False, "digests": ["a"], "loss": 1.0}, 6, 0, 0, "parameters differ: a"),
    ],
)
def test_what_is_wrong_is_a_failure_and_no_time_left_is_not(
    run, part_of, answer, failures, skipped, cut, said
):
    run.worker, part = scripted(answer), Part(part_of, "", ended=True)
    if answer is None:
        run.part_end = 0.0
    getattr(parts, part_of)(run, part)
    assert (len(part.failures), len(part.skipped), len(part.cut)) == (failures, skipped, cut)
    assert part.status == ("failed" if failures else "cut short")
    assert (part.failures or part.cut)[0].endswith(said)


def only_parts(monkeypatch, **does):
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.Job(name, 1.0, 1.0, do) for name, do in does.items()})


@needs_compiler
def test_parts_that_fail_do_not_keep_the_others(few, tmp_path, monkeypatch, capsys):
    few("parity")

    def raises(run, part):
        part.results.append({"before": 1})
        raise RuntimeError("cannot load /somewhere/on/a/machine/lib.so")

    def dies(run, part):
        run.attempt(part, "nonsense", "no_such_task")

    def works(run, part):
        part.results.append(run.attempt(part, "facts", "facts"))

    only_parts(monkeypatch, raises=raises, dies=dies, works=works)
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "raises: RuntimeError: cannot load lib.so" in said
    assert "dies: nonsense: KeyError: 'no_such_task' (exit code 1)" in said
    assert "3 parts" in said
    content = content_of(tmp_path)
    assert [part["status"] for part in content["parts"]] == ["failed", "failed", "ok"]
    assert content["parts"][0]["results"] == [{"before": 1}]

    only_parts(monkeypatch, works=works, interrupted=Mock(side_effect=KeyboardInterrupt), never=works)
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 130
    content = content_of(tmp_path)
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
    content = content_of(tmp_path)
    assert content["refused"]
    assert content["parts"] == []
    assert f"nothing was measured: {content['refused']}" in (tmp_path / "results.txt").read_text()


def test_every_recipe_is_a_net():
    nets = [of_recipe(load_recipe(name)) for name in recipe_names()]
    assert {net.name: net.momentum for net in nets}["mnist"] == 0.9
    for net in [*nets, *extra("mnist"), RACE]:
        assert type(net).from_json(json.loads(json.dumps(asdict(net)))) == ON_GPU.cut(net) == net
        small = ON_HOST.cut(net)
        assert max(small.layers[1:-1]) <= ON_HOST.width
        assert (small.layers[0], small.layers[-1]) == (net.layers[0], net.layers[-1])
    with pytest.raises(UsageError):
        of_recipe(load_recipe("mnist").overridden({"optimizer": "adam"}))


def test_gpubp_is_compared_on_the_gpu_by_one_clock_and_in_one_precision():
    composed = Row("gpubp-composed", "", rounds=[3.0, 5.0], events=[2.0, 4.0])
    fused = Row("gpubp-fused", "Fused", rounds=[2.0, 4.0], events=[1.0, 2.0])
    numba = Row("gpubp-numba", "", rounds=[0.1])
    graph = Row("torch-graph", "Graph", rounds=[9.0, 9.0], events=[3.0, 8.0], same_result=SAME)
    jax = Row("jax", "JAX", rounds=[3.0, 3.0], same_result=SAME)
    wrong = Row("torch", "", rounds=[0.1, 0.1], same_result=DIFFERS)
    products = Row(PRODUCTS, "Products", rounds=[1.0, 1.0], events=[0.5, 0.5], same_result=NOT_COMPARABLE)
    broken = Row("gpubp-units", "", rounds=[0.1, 0.1], same_result=DIFFERS)
    in_tf32 = {"precision": "tf32", "same_result": WITHIN}
    tf32 = Row("gpubp-fused-tf32", "Ours in tf32", rounds=[0.1, 0.1], **in_tf32)
    their_tf32 = Row("jax-tf32", "JAX in tf32", rounds=[0.4, 0.2], **in_tf32)
    rows = [composed, fused, numba, graph, jax, wrong, products, broken, tf32, their_tf32]
    net_report = NetReport(extra("mnist")[0], 60_000, "gpubp-fused", rows)
    assert times.best(net_report, ours=True) is fused
    assert times.best(net_report, ours=False) is results.fastest_peer(net_report) is jax
    assert times.conclusions([net_report]) == [
        "  784-128-10: JAX takes 1.12 × the time (0.75 … 1.50) of Fused",
        "  784-128-10: JAX in tf32 takes 3.00 × the time (2.00 … 4.00) of Ours in tf32",
        "  784-128-10: Fused takes 3.00 × the time (2.00 … 4.00) of Products",
    ]


def test_medians_of_what_is_not_always_reached():
    times = dict.fromkeys(("training_s", "evaluation_s", "upload_s", "compile_s"), 2.0)

    def of(*firsts):
        reached = [{"0.97": 1.0, "0.98": first} for first in firsts]
        return parts.medians([{"reached_s": one, "accuracies": [0.9, 0.98], **times} for one in reached])

    found = of(3.0, None, 1.0, 2.0, None)
    assert found["reached_s"] == {"0.97": 1.0, "0.98": 3.0}
    assert found["reached_by"] == {"0.97": 5, "0.98": 3}
    assert of(3.0, None, None)["reached_s"]["0.98"] is None


def test_a_race_that_is_cut_has_all_plans_and_what_it_had_is_written(run):
    times = dict.fromkeys(("training_s", "evaluation_s", "upload_s", "compile_s"), 2.0)
    answer = {"reached_s": {"0.9": 1.0}, "accuracies": [0.9], **times}
    run.sizes = ON_GPU
    run.worker, part = (
        Mock(ask=Mock(side_effect=[answer, WorkerFailed("lost"), answer, OutOfTime("no")])),
        Part("race", ""),
    )
    run.report.parts = [part]
    parts.race(run, part)
    assert [(call.kwargs["seed"], call.kwargs["plan"]) for call in run.worker.ask.mock_calls] == [
        (0, "one"), (0, "two"), (1, "one"), (2, "one")
    ]  # fmt: skip
    [result] = content_of(run.out)["parts"][0]["results"]
    assert (result["plan"], len(result["seeds"]), result["reached_by"]) == ("one", 2, {"0.9": 2})
    assert (len(part.failures), part.cut) == (1, ["one, seed 2"])


@pytest.mark.parametrize(
    ("summary", "errors", "failures", "skipped"),
    [
        ("ERROR SUMMARY: 0 errors", 0, 0, 0),
        ("ERROR SUMMARY: 13 errors", 13, 5, 0),
        ("RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", 2, 5, 0),
        ("Error: Device not supported", None, 0, 5),
        ("nothing", None, 5, 0),
    ],
)
def test_the_sanitizer_is_run_over_each_plan(run, tmp_path, monkeypatch, summary, errors, failures, skipped):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\necho "$@"\necho \'{{"digests": {{}}}}\'\necho "========= {summary}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    run.host, part = False, Part("sanitizer", "", ended=True)
    run.variants = Variant("composed"), Variant("fused"), Variant("fused", "tf32")
    for run.second in (False, True):
        parts.sanitizer(run, part)
    assert (len(part.failures), len(part.skipped)) == (failures, skipped)
    assert {r["errors"] for r in part.results} == {errors}
    runs = ["memcheck composed", "memcheck fused", "racecheck fused", "synccheck composed", "synccheck fused"]
    assert [f"{r['tool']} {r['plan']}" for r in part.results] == runs
    assert "bench.gpu.tasks" in part.results[0]["last_lines"][0]


def test_sanitizers_that_take_too_long_are_cut_all_at_once(run, tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\ntrap '' INT; sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(parts, "SANITIZER_SECONDS", 0.5)
    monkeypatch.setattr(gpu_run, "INTERRUPT_SECONDS", None)  # which would be waited for one after the other
    run.host, part = False, Part("sanitizer", "", ended=True)
    parts.sanitizer(run, part)
    assert part.status == "cut short"
    assert part.cut == [
        f"{what}: no end in 0 s"
        for what in ("memcheck, one", "memcheck, two", "racecheck, one", "racecheck, two")
    ]


@needs_compiler
def test_what_the_sanitizer_watches_trains():
    answers = {plan: tasks.train_a_little(STAND_IN, plan) for plan in CupyBackend.plans}
    nets = {plan: list(answer["digests"]) for plan, answer in answers.items()}
    assert nets == {
        "composed": ["20-40-33-10"],
        "fused": ["20-40-33-10"],
        "units": ["20-23-10"],
        "cluster": ["20-23-10"],
    }
    refused = worker.answer(tasks.train_a_little, {"cupy": STAND_IN, "plan": "no such plan"})
    assert refused.keys() == {"refused"}


def test_a_program_that_does_not_end_is_ended(run, monkeypatch):
    monkeypatch.setattr(gpu_run, "INTERRUPT_SECONDS", 0.1)
    text = "import signal, time; signal.signal(2, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"
    ended = run.program([sys.executable, "-c", text], dict(os.environ), 2.0)
    assert (ended.code, ended.text) == (None, "begun\n")


def test_what_the_command_needs_is_little():
    modules = "bench.gpu.command, bench.gpu.tasks, gpubp.benchmark.peers.products"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    unwanted = {"cupy", "torch", "jax", "typer", "sklearn", "pooch", "PIL", "hypothesis", "tests", "pytest"}
    assert not unwanted & set(loaded)


@pytest.fixture
def fault(monkeypatch):
    """fault("NAME TASK WORD …"): workers have it from here on, as tests/bench/faulty_worker.py says."""

    def plant(text):
        monkeypatch.setattr(gpu_run, "WORKER", "tests.bench.faulty_worker")
        monkeypatch.setenv("GPUBP_TEST_FAULT", text)

    return plant


@needs_compiler
def test_a_fault_in_one_net_leaves_the_peer_to_the_others(few, fault, tmp_path):
    few("digits", "parity")
    fault("lost build fused float32 digits")
    assert gpu.main(["--host", "--second", "--parts", "times", "--out", str(tmp_path)]) == 1
    [part] = content_of(tmp_path)["parts"]
    [failure] = part["failures"]
    assert failure.startswith("digits: gpubp cupy, fused: failed: the GPU stopped answering")
    rows = {(net["name"], row["peer"]): row["status"] for net in part["results"] for row in net["peers"]}
    assert [key for key, status in rows.items() if status != "ok"] == [("digits", "gpubp-fused")]
    assert ("parity", "gpubp-fused") in rows


def test_an_error_in_one_net_leaves_the_others_alone(run, monkeypatch):
    monkeypatch.setattr(times, "answered", lambda *_: [])
    run.extras = run.recipes
    does = [None, OSError(errno.ENOSPC, "no space left"), None]
    monkeypatch.setattr(times.measure, "measure", Mock(side_effect=does))
    run.worker, part = scripted({"plan": "fused plan"}), Part("times", "")
    times.times(run, part)
    assert part.failures == ["iris: OSError: [Errno 28] no space left"]
    assert [net["name"] for net in part.results] == ["mnist", "iris", "mnist-sample"]


def test_peers_start_beside_each_other_before_any_part(run, monkeypatch):
    log, part, ready = Mock(), Part("times", ""), {"seconds": {"import": 80.0, "device": 1.0}}
    log.a, log.b, log.c = map(scripted, (ready, NoAnswer("no answer for 90 s"), ready))
    monkeypatch.setattr(times, "peers", lambda host, second: peers(host, second)[:3])
    monkeypatch.setattr(Run, "new_worker", lambda *_: workers.pop(0))
    workers = [log.a, log.b, log.c]
    times.call(run, part)
    assert [name for name, _, _ in log.mock_calls] == ["a.send", "b.send", "c.send"]
    ready_ones = times.answered(run, part)
    assert [name for name, _, _ in log.mock_calls][3:] == ["a.receive", "b.receive", "b.close", "c.receive"]
    assert ready_ones == [run.entrants[0], run.entrants[2]]
    assert ready_ones[0].started == {"total": 81.0, **ready["seconds"]}
    assert part.failures == ["gpubp cupy, fused: no answer for 90 s"]


def test_the_first_run_takes_four_minutes_and_the_two_do_everything():
    of_first = [name for name, job in gpu.PARTS.items() if job.first is not None]
    of_second = [name for name, job in gpu.PARTS.items() if job.second is not None]
    assert gpu.arguments([]).budget == 240 >= sum(job.first or 0 for job in gpu.PARTS.values())
    assert set(of_first) | set(of_second) == set(gpu.PARTS)
    assert gpu.choose_parts(None, False) == of_first
    assert gpu.choose_parts(None, True) == of_second
    assert (
        gpu.choose_parts("tests,micro", False) == gpu.choose_parts("micro,tests", True) == ["micro", "tests"]
    )
    assert gpu.share_of(gpu.PARTS["tests"], False) == gpu.PARTS["tests"].second


def test_what_is_known_of_a_net_is_written_after_each_round(run, monkeypatch):
    monkeypatch.setattr(times, "answered", lambda *_: [])
    run.extras, run.worker, part, seen = (
        run.recipes[:1],
        scripted({"plan": "fused plan"}),
        Part("times", ""),
        [],
    )
    run.report.parts = [part]

    def measured(report, entrants, folder, samples, rounds, say):
        for number in (1, 2):
            say(f"round {number}")
            [content] = content_of(run.out)["parts"]
            seen.append(len(content["results"][0]["peers"]))
            report.rows.append(Row(f"gpubp-{number}", "", rounds=[1.0]))

    monkeypatch.setattr(times.measure, "measure", measured)
    times.times(run, part)
    assert seen == [0, 1]
    assert len(content_of(run.out)["parts"][0]["results"][0]["peers"]) == 2


@needs_compiler
def test_a_recipe_that_deforms_images_is_verified_so_by_the_composed_plan(tmp_path, monkeypatch):
    net = ON_HOST.cut(of_recipe(load_recipe("mnist-simard")))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 784), np.uint8)
    data.save(tmp_path, data.Data(pixels, np.arange(20) % 10))
    verify, fit = Mock(wraps=gpubp.verify), Mock(wraps=gpubp.fit)
    monkeypatch.setattr(gpubp, "verify", verify)
    monkeypatch.setattr(gpubp, "fit", fit)
    for plan, deform in (("composed", net.deform), ("fused", None)):
        asked = {"cupy": STAND_IN, "plan": plan, "precision": "float32", "samples": str(tmp_path)}
        asked["net"] = json.loads(json.dumps(asdict(net)))
        assert tasks.verify_net(**asked)["ok"]
        assert tasks.repeat(epochs=2, runs=2, **asked)["same"]
        assert [done.call_args.kwargs.get("deform") for done in (verify, fit)] == [deform, deform]


@needs_compiler
def test_kernels_that_count_their_phases_are_asked_for_them(run, tmp_path):
    net, folder = ON_HOST.cut(of_recipe(load_recipe("mnist-sample"))), tmp_path / "samples"
    data.save(folder, data.Data(np.zeros((20, 784), np.uint8), np.zeros(20, np.int64)))
    asked = {"cupy": STAND_IN, "precision": "float32", "net": asdict(net), "samples": str(folder)}
    answer = tasks.phases(plan="units", **asked)
    assert answer["steps"] == -(-20 // net.batch)
    counted = answer["cycles_a_step"]["units"]
    assert list(counted)[:2] == ["forward", "sums_meet"]
    assert min(counted.values()) >= 1  # on the host, how often the clock was read meanwhile
    with pytest.raises(UsageError, match="its kernels count no phases"):
        tasks.phases(plan="composed", **asked)

    answer = {"steps": 1, "cycles_a_step": {"units": {"forward": 1.0, "back": 3.0}}}
    run.worker, run.extras, part = scripted(answer), [Loaded(net, Path(), Path(), 1)], Part("phases", "")
    parts.phases(run, part)
    shares = [(r["phase"], r["share"]) for r in part.results if r["plan"] == "one"]
    assert shares == [("forward", 0.25), ("back", 0.75)]


def test_adding_a_kernel_to_the_microbenchmarks_takes_a_line_and_a_kernel():
    for kernel in micro.KERNELS:
        text = micro.source(kernel.file)
        assert f" {kernel.name}(" in text
        assert "Cycles timed(cycles)" in text
        assert text.isascii()
    assert {kernel.file for kernel in micro.KERNELS} == set(micro.FILES)


@needs_compiler
def test_a_device_that_does_not_say_what_it_is_is_measured(few, fault, monkeypatch, tmp_path):
    few("parity")
    only_parts(monkeypatch, device=parts.device, works=lambda run, part: part.results.append({"works": True}))
    monkeypatch.setattr(gpu, "FACTS_SECONDS", 2.0)
    fault("hang facts")
    assert gpu.main(["--host", "--out", str(tmp_path)]) == 1
    first, second = content_of(tmp_path)["parts"]
    assert first["failures"] == ["what the device is: no answer for 2 s"]
    assert second["status"] == "ok"


@needs_compiler
def test_facts_that_cannot_be_known_are_none():
    facts = tasks.facts(STAND_IN)
    assert (facts["multiprocessors"], facts["compute_capability"]) == (3, "9.0")
    assert facts["memory_gb"] is facts["second_level_cache_mb"] is None


def test_what_nvml_says_of_the_driver(monkeypatch):
    class Nvml:
        nvmlSystemGetDriverVersion = staticmethod(lambda: "580.1")
        nvmlDeviceGetPowerManagementLimit = staticmethod(lambda gpu: 700_000)

        def __getattr__(self, name):
            return name if name.isupper() else lambda *asked: asked

    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    found = tasks.driver()
    assert (found["driver_version"], found["power_limit_w"]) == ("580.1", 700.0)
    assert found["clock_mhz"] == ((0,), "NVML_CLOCK_SM") != found["memory_clock_mhz"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(gpu, "begin", lambda *_: pytest.fail("it has begun"))
    assert gpu.main(["--host", "--out", str(tmp_path / "file" / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write ")
    assert "Not a directory" in error


@needs_compiler
@pytest.mark.parametrize("stays_full", [True, False])
def test_a_full_disk_ends_no_run(stays_full, few, monkeypatch, capsys, tmp_path):
    few("parity")
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fills(run, part):
        full.setattr(os, "fsync", Mock(side_effect=no_space))
        run.save()
        part.results.append({"first": 1})

    def works(run, part):
        part.results.append({"second": 2})
        if not stays_full:
            full.undo()

    only_parts(monkeypatch, fills=fills, works=works)
    with pytest.MonkeyPatch.context() as full:
        code = gpu.main(["--host", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code == int(stays_full)
    assert said.err.count("No space left on device; the run goes on") == 1
    if stays_full:
        content = json.JSONDecoder().raw_decode(said.out[said.out.index("\n{\n") + 1 :])[0]
        assert "results.json is above" in said.err
    else:
        content = content_of(tmp_path)
    assert [part["results"] for part in content["parts"]] == [[{"first": 1}], [{"second": 2}]]


def test_the_tests_of_the_gpu_are_those_that_go_through_its_backend():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("tests/**/test_*.py")
        if "cuda_backend" in (text := path.read_text()) or "backend_by_name" in text
    }
    # The others have NumPy's backend by its name.
    others = {"tests/bench/test_gpu.py", "tests/cli/test_commands.py"}
    others |= {"tests/reports/test_training.py", "tests/reports/test_redrawn.py"}
    assert users - others == set(suite.GPU_TESTS)


TROUBLE = """
import os, time
import pytest

def test_passes():
    pass
def test_is_skipped():
    pytest.skip("no GPU")
def test_hangs():
    time.sleep(60)
def test_fails():
    assert 1 == 2
def test_needs_a_library():
    try:
        import no_such_library
    except ImportError as error:
        raise RuntimeError("it needs a library") from error
def test_ours():
    import gpubp.nonsense
def test_dies():
    os.kill(os.getpid(), 9)
def test_comes_after():
    pass
"""


@pytest.mark.exhaustive
def test_what_tests_come_to(run, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(TROUBLE)
    run.tests = [str(tmp_path / "test_it.py")]
    monkeypatch.setattr(suite, "find_spec", lambda name: True)
    run.sizes = gpu_nets.Sizes(test_seconds=1.0)
    part = Part("tests", "", ended=True)
    suite.tests(run, part)
    [result] = part.results
    assert result["counts"] == {"passed": 2, "failed": 2, "skipped": 2, "error": 2}
    failures = {line.rpartition("::")[2].partition(": ")[0]: line for line in part.failures}
    assert set(failures) == {"test_hangs", "test_fails", "test_ours", "test_dies"}
    assert failures["test_fails"].endswith("assert 1 == 2")
    assert failures["test_hangs"].endswith("it hangs, or ends its process")
    assert "No module named 'gpubp.nonsense'" in failures["test_ours"]
    skipped = [line.partition(": 1 tests: ")[2] for line in part.skipped[1:]]
    assert skipped == ["no GPU", "no_such_library is not installed"]


def test_tests_that_the_time_is_up_for_are_cut(run, tmp_path):
    xml, part = tmp_path / "tests.xml", Part("tests", "", ended=True)
    for text, ended in (
        ('<testsuite><testcase classname="t" name="test_it" /><testcase /></testsuite>', Ended(None, "")),
        ("<testsuite>", Ended(-11, "no more")),  # it could not be written to the end
    ):
        xml.write_text(text)
        suite.record(run, part, "t.py", ended, suite.outcomes(xml))
    assert [r["counts"]["passed"] for r in part.results] == [1, 0]
    assert part.cut == ["t.py: what was not tested when its time was up"]
    assert part.failures == ["t.py: pytest: exit code -11: no more"]


RUN = """
import sys
from bench.gpu import command, run
run.WORKER = "tests.bench.faulty_worker"
sys.exit(command.main(sys.argv[1:]))
"""


def living(mark):
    """The processes that have ``mark`` in their environment; None is that of another's, or of one ended meanwhile."""
    processes = psutil.process_iter(["environ"])
    return [p for p in processes if (p.info["environ"] or {}).get("GPUBP_TEST_MARK") == mark]


ENDINGS = [
    param(number, part, always=(number, part) == (signal.SIGTERM, "verify"))
    for part in ("verify", "tests")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)
]


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's prctl")
@pytest.mark.parametrize(("number", "part"), ENDINGS)
def test_a_run_that_is_ended_leaves_no_process_and_what_it_had(number, part, tmp_path):
    (tmp_path / "test_it.py").write_text("import time\n\ndef test_hangs():\n    time.sleep(60)\n")
    options, mark = ["--parts", f"device,{part}", "--tests", str(tmp_path / "test_it.py")], f"mark {tmp_path}"
    environment = {**os.environ, "GPUBP_TEST_FAULT": "hang verify_net", "GPUBP_TEST_MARK": mark}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "--host", "--out", str(tmp_path / "out"), *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert any(f"{part}: " in line for line in process.stderr)
    end = time.monotonic() + 30
    while len(living(mark)) < 2 and time.monotonic() < end:  # the child is being started
        time.sleep(0.02)
    time.sleep(1.0)  # until it is at work
    assert len(living(mark)) >= 2
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    _, left = psutil.wait_procs(living(mark), timeout=10)
    for child in left:
        child.kill()
    assert left == []
    content = content_of(tmp_path / "out")
    assert content["parts"][0]["status"] == "ok"
    if number != signal.SIGKILL:
        assert content["interrupted"] is True
        assert content["parts"][1]["status"] == "unfinished"
        assert "and it was interrupted" in said


def test_a_closed_pipe_ends_no_run():
    loop = "for _ in range(9): speak('x' * 99999, sys.stdout)"
    code = f"import sys; from bench.gpu.command import speak\n{loop}\nsys.exit(7)"
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
    request = {"module": "gpubp.benchmark.peers.jax_scan", "options": {"device": "gpu"}}
    code = f"from gpubp.benchmark.worker import answer, hello; print(answer(hello, {request}))"
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    assert "{'refused': 'JAX" in said


def test_tables_line_up():
    columns = {name: name for name in ("name", "ms", "note")}
    rows = [("a", 1.5, "[x]"), ("long name", 12345.6, ""), ("b", None, "y")]
    text = report.text_of(terminal.table(columns, [dict(zip(columns, row, strict=True)) for row in rows]))
    assert text.splitlines() == [
        "  name           ms  note",
        "  a             1.5  [x]",
        "  long name  12,346",
        "  b                  y",
    ]
