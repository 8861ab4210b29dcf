"""The parts of bench.gpu but for the times. Each fills in its Part, and leaves out what there is no time for."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu.nets import RACE, SAMPLE_RACE
from bench.gpu.report import Part, table
from bench.gpu.run import ITEM_SECONDS, WORKER, Run

REPEAT_RUNS = 3
SANITIZERS = ("memcheck", "racecheck", "synccheck")
# The plans that racecheck, the slowest, is run over: those with barriers in their steps.
RACING = ("fused", "units")
SANITIZER_EXIT, SANITIZER_SECONDS = 86, 40.0
FIRST_SECONDS = 60.0  # for what compiles the kernels


# The headings of tables, and what of a result is below them.
OF_VARIANT = {"plan": "plan", "precision": "precision", "recipe": "recipe"}
VERIFIED = {
    **OF_VARIANT,
    "ok": "ok",
    "worst error / bound": "part_of_bound",
    "of": "worst",
    "seconds": "seconds",
}
REPEATED = {**OF_VARIANT, f"{REPEAT_RUNS} runs the same": "same", "loss": "loss"}
RACED = {
    "plan": "plan", "seconds to accuracy": "reached_s", "seeds": "reached_by", "training, s": "training_s",
    "evaluation, s": "evaluation_s", "upload, s": "upload_s",
}  # fmt: skip
SANITIZED = {"tool": "tool", "plan": "plan", "errors": "errors"}


def verify(run: Run, part: Part) -> None:
    """gpubp.verify on each recipe's network and data, for each plan and precision."""
    _each_plan_and_recipe(
        run, part, "verify_net", FIRST_SECONDS, VERIFIED, lambda r: None if r["ok"] else r["wrong"][0]
    )


def repeat(run: Run, part: Part) -> None:
    """Three trainings from one seed must end in the same bits."""

    def differ(answer: dict[str, Any]) -> str | None:
        return None if answer["same"] else f"parameters differ: {', '.join(answer['digests'])}"

    fields = {"epochs": run.sizes.repeat_epochs, "runs": REPEAT_RUNS}
    _each_plan_and_recipe(run, part, "repeat", ITEM_SECONDS, REPEATED, differ, **fields)


def _each_plan_and_recipe(
    run: Run,
    part: Part,
    task: str,
    seconds: float,
    columns: dict[str, str],
    wrong: Callable[[dict[str, Any]], str | None],
    **fields: Any,
) -> None:
    """Ask it of all; one that once did not answer, which takes its time, is asked no more."""
    for variant in run.variants:
        for loaded in run.recipes:
            name, train = loaded.net.name, str(loaded.train)
            asked = {
                "cupy": run.cupy,
                **asdict(variant),
                "net": asdict(loaded.net),
                "samples": train,
                **fields,
            }
            answer = run.attempt(part, f"{variant}, {name}", task, seconds, **asked)
            if answer is not None:
                if why := wrong(answer):
                    part.failures.append(f"{variant}, {name}: {why}")
                run.keep(part, {**asdict(variant), "recipe": name, **answer}, columns)
            if run.silent:
                part.skipped.append(f"{variant}, the recipes after {name}: it did not answer")
                break


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
    sizes = run.sizes

    def ask(what: str, task: str, **fields: Any) -> None:
        answer = run.attempt(part, what, task, cupy=run.cupy, **fields)
        if answer is not None:
            [(unit, value)] = answer.items()
            shown = {"unit": unit.replace("_per_", "/").replace("_", " "), "value": value}
            run.keep(
                part, {"what": what, **fields, **answer, **shown}, dict.fromkeys(("what", "unit", "value"))
            )

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
    rules = asdict(run.sizes.cut(wanted))
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
            found = {"plan": plan, "rules": rules, **medians(answers), "seeds": answers}
            run.keep(part, found, RACED)
    part.tables.insert(0, _about_race(rules))


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


def _about_race(rules: dict[str, Any]) -> str:
    return (
        f"  {'-'.join(map(str, rules['layers']))} {rules['hidden']}, {rules['data']}, batch {rules['batch']}, "
        f"{rules['epochs']} epochs of adam at {rules['lr']:g}, {rules['schedule']}; medians over the seeds"
    )


def sanitizer(run: Run, part: Part) -> None:
    """compute-sanitizer over a few steps of each plan."""
    if run.host:
        part.skipped.append("compute-sanitizer: needs a GPU")
        return
    tool = find_sanitizer()
    if tool is None:
        part.skipped.append("compute-sanitizer is not found on the PATH, in CUDA_HOME or in /usr/local/cuda*")
        return
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
            last_lines = ended.text.splitlines()[-8:]
            result = {"tool": kind, "plan": plan, "errors": errors, "exit_code": ended.code}
            run.keep(part, {**result, "last_lines": last_lines}, SANITIZED)
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
    """Where compute-sanitizer is, if anywhere."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    homes += sorted((str(path) for path in Path("/usr/local").glob("cuda*")), reverse=True)
    places = [os.environ.get("PATH", ""), *(str(Path(home) / "bin") for home in homes)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def sanitizer_errors(text: str) -> int | None:
    """The number of errors in a summary of compute-sanitizer; racecheck counts hazards, warnings too."""
    found = re.search(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    return int(found[1] or found[2]) if found else None
