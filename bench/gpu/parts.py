"""The parts of bench.gpu but for the times. Each fills in its Part, and leaves out what there is no time for."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu.nets import RACE, SAMPLE_RACE, Variant
from bench.gpu.report import Part, table
from bench.gpu.run import WORKER, Loaded, Run

REPEAT_RUNS = 3
SANITIZERS = ("memcheck", "racecheck", "synccheck")
# The plans that racecheck, the slowest, is run over: those with barriers in their steps.
RACING = ("fused", "units")
SANITIZER_EXIT, SANITIZER_SECONDS = 86, 40.0
FIRST_SECONDS = 60.0  # for what compiles the kernels


def each_plan_and_recipe(run: Run, part: Part, do: Callable[[Variant, Loaded], None]) -> None:
    """do(variant, recipe) for all; one that once did not answer, which takes its time, is asked no more."""
    for variant in run.variants:
        for loaded in run.recipes:
            do(variant, loaded)
            if run.silent:
                part.skipped.append(f"{variant}, the recipes after {loaded.net.name}: it did not answer")
                break
            run.save()


def verify(run: Run, part: Part) -> None:
    """gpubp.verify on each recipe's network and data, for each plan and precision."""

    def one(variant: Variant, loaded: Loaded) -> None:
        what = f"{variant}, {loaded.net.name}"
        answer = run.attempt(
            part, what, "verify_net", FIRST_SECONDS, cupy=run.cupy, **asdict(variant), net=asdict(loaded.net),
            samples=str(loaded.train),
        )  # fmt: skip
        if answer is None:
            return
        part.results.append({**asdict(variant), "recipe": loaded.net.name, **answer})
        if not answer["ok"]:
            part.failures.append(f"{what}: {answer['wrong'][0]}")
        header = ("plan", "precision", "recipe", "", "worst error / bound", "of", "seconds")
        keys = ("plan", "precision", "recipe", "verdict", "part_of_bound", "worst", "seconds")
        rows = [{**r, "verdict": "ok" if r["ok"] else "WRONG"} for r in part.results]
        part.tables[:] = [table(header, [[r[key] for key in keys] for r in rows])]

    each_plan_and_recipe(run, part, one)


def repeat(run: Run, part: Part) -> None:
    """Three trainings from one seed must end in the same bits."""

    def one(variant: Variant, loaded: Loaded) -> None:
        what = f"{variant}, {loaded.net.name}"
        answer = run.attempt(
            part, what, "repeat", cupy=run.cupy, **asdict(variant), net=asdict(loaded.net),
            samples=str(loaded.train), epochs=run.sizes.repeat_epochs, runs=REPEAT_RUNS,
        )  # fmt: skip
        if answer is None:
            return
        part.results.append({**asdict(variant), "recipe": loaded.net.name, **answer})
        if not answer["same"]:
            part.failures.append(f"{what}: parameters differ: {', '.join(answer['digests'])}")
        rows = [
            (r["plan"], r["precision"], r["recipe"], "same" if r["same"] else "DIFFER", r["loss"])
            for r in part.results
        ]
        part.tables[:] = [table(("plan", "precision", "recipe", f"{REPEAT_RUNS} runs", "loss"), rows)]

    each_plan_and_recipe(run, part, one)


def device(run: Run, part: Part) -> None:
    """The device as it is found, and what cannot be trained here."""
    part.skipped.extend(run.missing)
    facts = run.report.machine["device"]
    part.results.append(facts)
    part.tables.append(table(("", ""), [(key.replace("_", " "), str(value)) for key, value in facts.items()]))
    if "failed" in facts:
        part.failures.append(f"what the device is: {facts['failed']}")


def micro(run: Run, part: Part) -> None:
    """What a launch, a graph's node and a barrier of the grid cost, and what the device can do at most."""
    sizes, rows = run.sizes, list[tuple[str, str, float]]()

    def ask(what: str, task: str, **fields: Any) -> None:
        answer = run.attempt(part, what, task, cupy=run.cupy, **fields)
        if answer is not None:
            part.results.append({"what": what, **fields, **answer})
            rows.extend((what, key.replace("_per_", "/").replace("_", " "), v) for key, v in answer.items())
            part.tables[:] = [table(("", "", ""), rows)]
            run.save()

    for blocks in sizes.blocks:
        ask(f"barrier of {blocks} blocks", "barrier", blocks=blocks, count=sizes.barriers)
    ask("launch", "launch_cost", count=sizes.launches)
    ask("node of a graph", "graph_gap", count=sizes.launches)
    ask("copy", "copy", megabytes=sizes.copy_mb)
    ask("float32 product", "product", size=sizes.product)


def race(run: Run, part: Part) -> None:
    """Seconds of training to an accuracy, the median over seeds; compiling, upload and evaluation apart."""
    wanted, name = (RACE, "mnist") if run.data_dir is not None else (SAMPLE_RACE, "mnist-sample")
    loaded = next((loaded for loaded in run.recipes if loaded.net.name == name), None)
    if loaded is None:
        part.skipped.append(f"no samples of {name}")
        return
    batch = min(wanted.batch, run.sizes.batch or wanted.batch)
    rules = asdict(replace(wanted, layers=run.sizes.cut_layers(wanted.layers), batch=batch))
    if name != "mnist":
        part.skipped.append("97% and 98% of MNIST: no MNIST; the sample that comes with gpubp is run instead")
    for plan in run.plans:
        answers: list[dict[str, Any]] = []
        for seed in range(run.sizes.seeds):
            answer = run.attempt(
                part, f"{plan}, seed {seed}", "race", cupy=run.cupy, plan=plan, train=str(loaded.train),
                test=str(loaded.test), rules=rules, seed=seed,
            )  # fmt: skip
            if answer is None:
                break
            answers.append(answer)
        if answers:
            part.results.append({"plan": plan, "rules": rules, **medians(answers), "seeds": answers})
            part.tables[:] = [_race_table(part.results)]
            run.save()


def medians(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each time the median over the seeds; None where half of the seeds or more did not get there."""

    def middle(values: list[float | None]) -> float | None:
        found = median(math.inf if value is None else value for value in values)
        return None if math.isinf(found) else found

    targets = answers[0]["reached_s"]
    return {
        "reached_s": {target: middle([a["reached_s"][target] for a in answers]) for target in targets},
        "reached_by": {
            target: sum(a["reached_s"][target] is not None for a in answers) for target in targets
        },
        "accuracy": median(a["accuracies"][-1] for a in answers),
        **{
            key: middle([a[key] for a in answers])
            for key in ("training_s", "evaluation_s", "upload_s", "compile_s")
        },
    }


def _race_table(results: list[dict[str, Any]]) -> str:
    rows = []
    for r in results:
        for target, seconds in r["reached_s"].items():
            by = f"{r['reached_by'][target]} of {len(r['seeds'])}"
            first = "not reached" if seconds is None else f"{seconds:.4f} s"
            rows.append((r["plan"], target, first, by, r["training_s"], r["evaluation_s"], r["upload_s"]))
    layers = "-".join(map(str, results[0]["rules"]["layers"]))
    rules = results[0]["rules"]
    about = (
        f"  {layers} {rules['hidden']}, {rules['data']}, batch {rules['batch']}, {rules['epochs']} epochs of "
        f"adam at {rules['lr']:g}, {rules['schedule']}; medians over the seeds"
    )
    header = ("plan", "accuracy", "after", "seeds", "training, s", "evaluation, s", "upload, s")
    return f"{about}\n{table(header, rows)}"


def sanitizer(run: Run, part: Part) -> None:
    """compute-sanitizer over a few steps of each plan."""
    if run.host:
        part.skipped.append("compute-sanitizer: needs a GPU")
        return
    tool = find_sanitizer()
    if tool is None:
        part.skipped.append("compute-sanitizer is not found on the PATH, in CUDA_HOME or in /usr/local/cuda*")
        return
    rows = []
    for kind in SANITIZERS:
        for plan in run.plans:
            if kind == "racecheck" and plan not in RACING:
                continue
            what = f"{kind}, {plan}"
            if not run.has_time_for(part, what):
                continue
            request = json.dumps({"do": "train_a_little", "cupy": run.cupy, "plan": plan})
            command = [tool, "--tool", kind, "--error-exitcode", str(SANITIZER_EXIT)]
            command += [sys.executable, "-m", WORKER, request]
            limit = min(run.left(), SANITIZER_SECONDS)
            ended = run.program(command, run.env, limit)
            errors, last = sanitizer_errors(ended.text), ended.last_line
            result = {"tool": kind, "plan": plan, "errors": errors, "exit_code": ended.code}
            part.results.append({**result, "last_lines": ended.text.splitlines()[-8:]})
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
            rows.append((kind, plan, errors))
            part.tables[:] = [table(("tool", "plan", "errors"), rows)]
            run.save()


def find_sanitizer() -> str | None:
    """Where compute-sanitizer is, if anywhere."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    homes += sorted((str(path) for path in Path("/usr/local").glob("cuda*")), reverse=True)
    places = [os.environ.get("PATH", ""), *(str(Path(home) / "bin") for home in homes)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def sanitizer_errors(text: str) -> int | None:
    """The number of errors in a summary of compute-sanitizer; racecheck counts hazards, warnings too."""
    found = re.search(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    return int(found[1] or found[2]) if found else None
