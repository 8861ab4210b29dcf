"""The parts of bench.gpu but for the times. Each fills in its Part, and leaves out what there is no time for."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu.micro import KERNELS
from bench.gpu.nets import FIRST_RECIPES, RACE, SAMPLE_RACE, Variant
from bench.gpu.report import Part, text_of
from bench.gpu.run import ITEM_SECONDS, WORKER, Ended, Program, Run
from gpubp.benchmark import terminal
from gpubp.benchmark.peers import FLOAT32

REPEAT_RUNS = 3
SANITIZERS, SECOND_SANITIZERS = ("memcheck", "racecheck"), ("synccheck",)
NO_BARRIERS = ("composed",)  # the plans that racecheck, the slowest, has nothing to say of
SANITIZER_EXIT, SANITIZER_SECONDS = 86, 40.0
FIRST_SECONDS = 60.0  # for what compiles the kernels

# The headings of tables, and what of a result is below them.
OF_VARIANT = {name: name for name in ("plan", "precision", "recipe")}
VERIFIED = OF_VARIANT | {
    "ok": "ok", "worst error / bound": "part_of_bound", "of": "worst", "seconds": "seconds",
}  # fmt: skip
REPEATED = OF_VARIANT | {f"{REPEAT_RUNS} runs the same": "same", "loss": "loss"}
MEASURED = {name: name for name in ("what", "unit", "value", "cycles")}
HELD = OF_VARIANT | {
    "kernel of": "kernel", "blocks": "resident_blocks", "a multiprocessor": "blocks_a_multiprocessor",
    "threads": "threads", "shared bytes": "shared_bytes", "registers": "num_regs",
}  # fmt: skip
HELD.pop("recipe")
COUNTED = {name: name for name in ("plan", "net", "kernel", "phase", "cycles a step", "share")}
RACED = {
    "plan": "plan", "seconds to accuracy": "reached_s", "seeds": "reached_by", "training, s": "training_s",
    "evaluation, s": "evaluation_s", "upload, s": "upload_s",
}  # fmt: skip
SANITIZED = {name: name for name in ("tool", "plan", "errors")}


def verify(run: Run, part: Part) -> None:
    """gpubp.verify on each recipe's network and data, for each plan and precision."""
    _each_plan_and_recipe(run, part, "verify_net", FIRST_SECONDS, lambda r: (*r["wrong"][:1],))


def repeat(run: Run, part: Part) -> None:
    """Three trainings from one seed must end in the same bits."""

    def differ(answer: dict[str, Any]) -> tuple[str, ...]:
        return () if answer["same"] else (f"parameters differ: {', '.join(answer['digests'])}",)

    fields = {"epochs": run.sizes.repeat_epochs, "runs": REPEAT_RUNS}
    _each_plan_and_recipe(run, part, "repeat", ITEM_SECONDS, differ, **fields)


def _each_plan_and_recipe(
    run: Run, part: Part, task: str, seconds: float, wrong: Callable[[dict], tuple[str, ...]], **fields: Any
) -> None:
    """Ask it of all that are for this run; one that once did not answer, which takes its time, is asked no more."""
    silent: set[Variant] = set()
    for loaded in run.recipes:  # so that no plan is left out where the time is up
        for variant in run.variants:
            name, asked = loaded.net.name, {**asdict(variant), "net": loaded.net, "samples": loaded.train}
            of_first = variant.precision == FLOAT32 and name in FIRST_RECIPES
            if run.second == of_first or variant in silent:
                continue
            answer = run.attempt(part, f"{variant}, {name}", task, seconds, **asked, **fields)
            if answer is not None:
                part.failures.extend(f"{variant}, {name}: {why}" for why in wrong(answer))
                run.keep(part, {**asdict(variant), "recipe": name, **answer})
            if run.silent:
                part.skipped.append(f"{variant}, the recipes after {name}: it did not answer")
                silent.add(variant)


def device(run: Run, part: Part) -> None:
    """The device as it is found, and what cannot be trained here."""
    part.skipped.extend(run.missing)
    facts = run.report.machine["device"]
    part.results.append(facts)
    rows = [{"": name.replace("_", " "), " ": str(value)} for name, value in facts.items()]
    part.tables.append(text_of(terminal.table({"": "", " ": " "}, rows)))
    if "failed" in facts:
        part.failures.append(f"what the device is: {facts['failed']}")


def kernels(run: Run, part: Part) -> None:
    """Have all kernels compiled, beside each other, but for those built ahead; and how many blocks the device holds."""
    given = {"ahead": run.ahead, "dtypes": run.sizes.dtypes}
    if answer := run.attempt(part, "building", "build_ahead", run.left(), **given):
        part.tables.append(
            f"  {answer['binaries']} binaries for {answer['architecture']}, {answer['compiled']} of them compiled in "
            f"{answer['seconds']:.1f} s, the others ahead"
        )
        run.keep(part, {"built": answer})
    net = next((loaded.net for loaded in run.extras or run.recipes), None)
    for variant in run.variants if net else ():
        if answer := run.attempt(part, f"{variant}, resident", "resident", **asdict(variant), net=net):
            for held in answer["kernels"]:
                run.keep(part, {**asdict(variant), **held})


def micro(run: Run, part: Part) -> None:
    """Measure what a launch, a graph's node and the things of micro.cu cost, and the device's peaks."""
    sizes = run.sizes
    grids = [(kernel, blocks) for kernel in KERNELS for blocks in kernel.grids(sizes.blocks)]
    asked: list[tuple[str, str, dict[str, Any], str | None]] = [
        *(
            (
                f"{kernel.what} of {blocks} blocks" if kernel.grid else kernel.what,
                "micro_kernel",
                {"kernel": asdict(kernel), "blocks": blocks, "count": sizes.barriers},
                kernel.cost,
            )
            for kernel, blocks in grids
        ),
        ("launch", "launch_cost", {"count": sizes.launches}, None),
        ("node of a graph", "graph_gap", {"count": sizes.launches}, None),
        ("copy", "copy", {"megabytes": sizes.copy_mb}, None),
        ("float32 product", "product", {"size": sizes.product}, None),
    ]
    largest: dict[str, dict[str, Any]] = {}
    for what, task, fields, cost in asked:
        if answer := run.attempt(part, what, task, **fields):
            unit, value = next(iter(answer.items()))
            shown = {"unit": unit.replace("_per_", "/").replace("_", " "), "value": value}
            run.keep(part, {"what": what, **fields, **answer, **shown})
            if cost is not None:
                largest[cost] = part.results[-1]
    for name, result in largest.items():  # plans are chosen by it
        result["cost"] = name
    run.save()


def phases(run: Run, part: Part) -> None:
    """The cycles of each phase of a step, by kernels that can count them."""
    for plan in run.plans:
        for loaded in run.extras:
            name, what = loaded.net.name, f"{plan}, {loaded.net.name}"
            answer = run.attempt(
                part,
                what,
                "phases",
                FIRST_SECONDS,
                plan=plan,
                precision=FLOAT32,
                net=loaded.net,
                samples=loaded.train,
            )
            for kernel, counted in (answer or {"cycles_a_step": {}})["cycles_a_step"].items():
                whole = sum(counted.values())
                for phase, cycles in counted.items():
                    found = {"plan": plan, "net": name, "kernel": kernel, "phase": phase}
                    run.keep(part, {**found, "cycles a step": cycles, "share": cycles / whole})


def race(run: Run, part: Part) -> None:
    """Seconds of training to an accuracy, the median over seeds; compiling, upload and evaluation apart."""
    wanted, name = (RACE, "mnist") if run.data_dir is not None else (SAMPLE_RACE, "mnist-sample")
    loaded = next((loaded for loaded in run.recipes if loaded.net.name == name), None)
    if loaded is None:
        part.skipped.append(f"no samples of {name}")
        return
    rules = run.sizes.cut(wanted)
    if name != "mnist":
        part.skipped.append("97% and 98% of MNIST: no MNIST; the sample that comes with gpubp is run instead")
    part.tables.append(
        f"  {'-'.join(map(str, rules.layers))} {rules.hidden}, {rules.data}, batch {rules.batch}, "
        f"{rules.epochs} epochs of adam at {rules.lr:g}, {rules.schedule}; medians over the seeds"
    )
    answers: dict[str, list[dict[str, Any]]] = {plan: [] for plan in run.plans}
    found: dict[str, dict[str, Any]] = {}
    for seed in range(run.sizes.seeds):
        for plan in [plan for plan in run.plans if len(answers[plan]) == seed]:  # that failed no seed before
            answer = run.attempt(
                part, f"{plan}, seed {seed}", "race", plan=plan, train=loaded.train, test=loaded.test, rules=rules,
                seed=seed,
            )  # fmt: skip
            if answer is None:
                continue
            answers[plan].append(answer)
            if plan not in found:
                found[plan] = {"plan": plan, "rules": asdict(rules)}
                part.results.append(found[plan])
            found[plan] |= {**medians(answers[plan]), "seeds": answers[plan]}
            run.save()


def medians(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median over the seeds of each time; None where half of the seeds or more did not get there."""

    def middle(values: list[float | None]) -> float | None:
        found = median(math.inf if value is None else value for value in values)
        return None if math.isinf(found) else found

    reached = {target: [a["reached_s"][target] for a in answers] for target in answers[0]["reached_s"]}
    times = ("training_s", "evaluation_s", "upload_s", "compile_s")
    return {
        "reached_s": {target: middle(found) for target, found in reached.items()},
        "reached_by": {target: len(found) - found.count(None) for target, found in reached.items()},
        "accuracy": median(a["accuracies"][-1] for a in answers),
        **{key: middle([a[key] for a in answers]) for key in times},
    }


def sanitizer(run: Run, part: Part) -> None:
    """compute-sanitizer over a few steps of each plan."""
    if run.host:
        part.skipped.append("compute-sanitizer: needs a GPU")
        return
    tool = find_sanitizer()
    if tool is None:
        part.skipped.append("compute-sanitizer is not found on the PATH, in CUDA_HOME or in /usr/local/cuda*")
        return
    asked = [
        (kind, plan)
        for kind in (SECOND_SANITIZERS if run.second else SANITIZERS)
        for plan in run.plans
        if kind != "racecheck" or plan not in NO_BARRIERS
    ]
    started: list[tuple[str, str, Program]] = []
    try:
        for kind, plan in asked:  # beside each other: most of their time is the start
            with part.item(f"{kind}, {plan}"):
                run.begin(part, f"{kind}, {plan}")
                started.append((kind, plan, _start_sanitizer(run, tool, kind, plan)))
        limit = min(run.left(), SANITIZER_SECONDS)
        end = time.perf_counter() + limit
        for kind, plan, program in started:
            with part.item(f"{kind}, {plan}"):
                _sanitized(run, part, kind, plan, program.end(end - time.perf_counter(), at_once=True), limit)
    finally:
        for _, _, program in started:
            program.close()


def _start_sanitizer(run: Run, tool: str, kind: str, plan: str) -> Program:
    request = json.dumps({"do": "train_a_little", "cupy": run.cupy, "plan": plan})
    command = [tool, "--tool", kind, "--error-exitcode", str(SANITIZER_EXIT)]
    return run.start_program([*command, sys.executable, "-m", WORKER, request], run.env)


def _sanitized(run: Run, part: Part, kind: str, plan: str, ended: Ended, limit: float) -> None:
    what = f"{kind}, {plan}"
    errors, last = sanitizer_errors(ended.text), ended.last_line
    result = {"tool": kind, "plan": plan, "errors": errors, "exit_code": ended.code}
    run.keep(part, {**result, "last_lines": ended.text.splitlines()[-8:]})
    if ended.code is None:  # what it watches is slower by some factor that nobody knows
        part.cut.append(f"{what}: no end in {limit:.0f} s")
    elif errors is None and "not supported" in ended.text:
        part.skipped.append(f"{what}: it does not work here: {last}")
    elif errors is None:
        part.failures.append(f"{what}: it gave no summary: {last}")
    elif errors or ended.code:
        part.failures.append(f"{what}: {last}")
    elif '"digests"' not in ended.text:
        part.failures.append(f"{what}: nothing was trained: {last}")


def find_sanitizer() -> str | None:
    """Find compute-sanitizer, if it is anywhere."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    homes += sorted((str(path) for path in Path("/usr/local").glob("cuda*")), reverse=True)
    places = [os.environ.get("PATH", ""), *(str(Path(home) / "bin") for home in homes)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def sanitizer_errors(text: str) -> int | None:
    """The number of errors in a summary of compute-sanitizer; racecheck counts hazards, warnings too."""
    found = re.search(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    return int(found[1] or found[2]) if found else None
