"""The part of bench.gpu that runs the tests which use the GPU, each file in a process of its own."""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from bench.gpu.report import Part
from bench.gpu.run import Ended, Run
from gpubp.backends.cuda import cubins
from gpubp.benchmark.process import without_folders
from gpubp.benchmark.worker import OURS

# The files whose tests go through tests.cuda_host.cuda_backend, and which of them do ("": all). The others test the
# project on any machine.
GPU_TESTS = {
    "tests/kernels/test_operations.py": "cupy",
    "tests/backends/cuda/test_persistent.py": "",
    "tests/backends/cuda/test_backend.py": "every_byte",
    "tests/backends/cuda/test_deform.py": "",
    "tests/verification/test_verify.py": "cupy",
    "tests/randomness/test_dropout.py": "cupy",
    "tests/training/test_fit.py": "cupy",
    "tests/training/test_deform.py": "cupy",
    "tests/test_optimizers.py": "cupy",
    "tests/data/test_mapped.py": "cupy",
    "tests/distributed/test_plan.py": "cupy",
}
KINDS = ("passed", "failed", "skipped", "error")
FAILURES_TOLD = 10
ABSENT = r"ModuleNotFoundError: No module named '((\w+)[\w.]*)'"
COLUMNS = {"": "tests", "counts": "counts"}


def tests(run: Run, part: Part) -> None:
    """The project's tests of what runs on a GPU, on the GPU."""
    env = {**run.env, "GPUBP_TEST_GPU": "0" if run.host else "1"}
    if run.data_dir is not None:
        env["GPUBP_DATA_DIR"] = str(run.data_dir)
    if run.host:
        del env[cubins.VARIABLE]  # on the host they train in float64 too, for which nothing is built
        part.skipped.append("the tests on a GPU: they run on the host build")
    chosen = dict.fromkeys(run.tests, "") or GPU_TESTS
    for path, only in chosen.items():
        with part.item(path):
            run.begin(part, path)
            results, seconds = run.folder / "tests.xml", run.sizes.test_seconds
            results.unlink(missing_ok=True)
            ended = run.program(command(path, only, seconds, results), env, run.left())
            record(run, part, path, ended, outcomes(results))


def command(path: str, only: str, seconds: float, results: Path) -> list[str]:
    """pytest on a file; a test that takes more than ``seconds`` hangs, and ends its process.

    pytest-xdist runs the tests in a process beside pytest's, and goes on in a new one where that ends.
    """
    options = ["-p", "no:cacheprovider", "-o", "addopts=", *(["-n", "1"] if find_spec("xdist") else [])]
    if find_spec("pytest_timeout"):
        options += [f"--timeout={seconds:g}", "--timeout-method=thread"]
    options += ["--tb=short", f"--junitxml={results}", "-o", "junit_family=xunit1"]
    return [sys.executable, "-m", "pytest", *options, "--continue-on-collection-errors", "-k", only, path]


def outcomes(results: Path) -> dict[str, dict[str, str]]:
    """Each test that came to an end, and why, in a line, by the kind of its outcome."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    try:
        cases = ElementTree.parse(results).iter("testcase")
    except (OSError, ElementTree.ParseError):  # pytest ended before it could write them
        return found
    for case in cases:
        if case.get("name"):  # the one that it was interrupted in has none
            name = f"{case.get('file') or case.get('classname')}::{case.get('name')}"
            kind, why = _outcome(list(case))
            found[kind][name] = without_folders(why)
    return found


def _outcome(said: list[ElementTree.Element]) -> tuple[str, str]:
    for element in said:
        message = (element.get("message") or "").strip().partition("\n")[0]
        if element.tag == "skipped":
            return "skipped", message
        if element.tag in ("failure", "error"):
            absent = re.search(ABSENT, element.text or message)
            if absent and absent[2] not in OURS:
                return "skipped", f"{absent[1]} is not installed"
            if "crashed while running" in message:
                return "error", "it hangs, or ends its process"
            return ("failed" if element.tag == "failure" else "error"), message
    return "passed", ""


def record(run: Run, part: Part, path: str, ended: Ended, found: dict[str, dict[str, str]]) -> None:
    """Counts of a file's tests."""
    wrong = [f"{name}: {why}" for kind in ("failed", "error") for name, why in found[kind].items()]
    skipped = Counter(found["skipped"].values())
    counts = {kind: len(found[kind]) for kind in KINDS}
    result = {"tests": path, "exit_code": ended.code, "counts": counts, "failed": wrong, "skipped": skipped}
    run.keep(part, result)
    part.failures.extend(wrong[:FAILURES_TOLD])
    if len(wrong) > FAILURES_TOLD:
        part.failures.append(f"{path}: {len(wrong) - FAILURES_TOLD} more tests, which results.json names")
    part.skipped.extend(f"{path}: {count} tests: {why}" for why, count in skipped.items())
    if ended.code is None:
        part.cut.append(f"{path}: what was not tested when its time was up")
    elif ended.code not in (0, 1) or not any(counts.values()):
        part.failures.append(f"{path}: pytest: exit code {ended.code}: {ended.last_line}")
