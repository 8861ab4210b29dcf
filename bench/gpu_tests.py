"""The part of bench.gpu that runs the tests which use the GPU, each file in a process of its own."""

from __future__ import annotations

import re
import signal
import sys
from collections import Counter
from typing import Any

from bench.gpu_parts import Ended, last_line, parts_env, program
from bench.gpu_report import Part, table
from bench.gpu_run import LEAST_SECONDS, Run

# The files whose tests go through tests.cuda_host.cuda_backend, and which of them do ("": all). The others test the
# project on any machine.
GPU_TESTS = {
    "tests/test_cuda_kernels.py": "",
    "tests/test_cuda_epoch.py": "",
    "tests/test_verification.py": "cupy",
    "tests/test_training.py": "cupy",
    "tests/test_optimizers.py": "cupy",
}
KINDS = ("passed", "failed", "skipped", "error")
FAILURES_TOLD = 10
WIDTH = "250"  # where pytest cuts the reason of a failure


def tests(run: Run, part: Part) -> None:
    """The project's tests of what runs on a GPU, on the GPU."""
    env = parts_env(run)
    env |= {"GPUBP_TEST_GPU": "0" if run.host else "1", "COLUMNS": WIDTH}
    if run.data_dir is not None:
        env["GPUBP_DATA_DIR"] = str(run.data_dir)
    if run.host:
        part.skipped.append("the tests on a GPU: they run on the host build")
    chosen = dict.fromkeys(run.tests, "") or GPU_TESTS
    for path, only in chosen.items():
        if run.left() < LEAST_SECONDS:
            part.cut.append(path)
            continue
        run.say(f"{part.name}: {path}")
        limit = run.sizes.test_seconds
        record(part, path, program(run, command(path, only, limit), env, run.left()), limit)
        run.save()


def command(path: str, only: str, seconds: float) -> list[str]:
    """pytest on a file; a test that takes more than ``seconds`` hangs, and ends it."""
    settings = ("addopts=", f"faulthandler_timeout={seconds:g}", "faulthandler_exit_on_timeout=true")
    return [
        sys.executable, "-m", "pytest", "-p", "bench.gpu_pytest", "-p", "no:cacheprovider",
        *(word for setting in settings for word in ("-o", setting)),
        "-v", "-rsfE", "--tb=line", "--continue-on-collection-errors", "-k", only, path,
    ]  # fmt: skip


def record(part: Part, path: str, ended: Ended, seconds: float) -> None:
    """What a file's tests came to; ``seconds`` is what one of them may take."""
    found, inside = outcomes(ended.text), unfinished(ended.text)
    part.results.append({"tests": path, "collected": collected(ended.text), "exit_code": ended.code, **found})
    rows = [(r["tests"], *(r["counts"][kind] for kind in KINDS)) for r in part.results]
    part.tables[:] = [table(("", *KINDS), rows)]
    part.failures.extend(found["failed"][:FAILURES_TOLD])
    if len(found["failed"]) > FAILURES_TOLD:
        part.failures.append(
            f"{path}: {len(found['failed']) - FAILURES_TOLD} more tests, which results.json names"
        )
    part.skipped.extend(f"{path}: {count} tests: {why}" for why, count in found["skipped"].items())
    after = f"{path}, the tests after {inside or found['last'] or 'the first'}"
    if re.search(r"^.*Timeout \(\d+:\d\d:\d\d", ended.text, re.MULTILINE):
        part.failures.append(f"{inside or path}: it hangs: no end in {seconds:g} s")
        part.cut.append(after)
    elif ended.code is None:
        part.cut.append(after)
    elif ended.code < 0:
        part.failures.append(f"{inside or path}: pytest was ended by {signal.Signals(-ended.code).name}")
        part.cut.append(after)
    elif ended.code not in (0, 1) or (ended.code == 1 and not found["failed"]):
        part.failures.append(f"{path}: pytest: exit code {ended.code}: {last_line(ended.text)}")


def outcomes(text: str) -> dict[str, Any]:
    """What ``pytest -v -rs`` said of each test, also where it did not come to its end."""
    lines = re.findall(r"^(\S+\.py::.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", text, re.MULTILINE)
    errors = re.findall(r"^ERROR (\S+\.py)(?: - .*)?$", text, re.MULTILINE)  # of collection
    counts = {kind: sum(k == kind.upper() for _, k in lines) for kind in KINDS}
    counts["error"] += len(errors)
    why = dict(re.findall(r"^(?:FAILED|ERROR) (\S+\.py(?:::.+?)?) - (.+)$", text, re.MULTILINE))
    failed = [name for name, kind in lines if kind in ("FAILED", "ERROR")] + errors
    skipped: Counter[str] = Counter()
    for count, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+?: (.+)$", text, re.MULTILINE):
        skipped[reason] += int(count)
    return {
        "counts": counts,
        "failed": [f"{name}: {why[name]}" if name in why else name for name in failed],
        "skipped": dict(skipped),
        "last": lines[-1][0] if lines else None,
    }


def unfinished(text: str) -> str | None:
    """The test that had begun and not ended when ``pytest -v`` said no more."""
    lines = [line for line in text.splitlines() if re.match(r"\S+\.py::", line)]
    if not lines or re.search(r" (?:PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", lines[-1]):
        return None
    return re.sub(r" *(Timeout \(|Fatal Python error).*", "", lines[-1]).rstrip()


def collected(text: str) -> int | None:
    """How many tests pytest has found and is to run."""
    found = re.search(r"^collected (\d+) items?(?: / .*?(\d+) selected)?", text, re.MULTILINE)
    return int(found[2] or found[1]) if found else None
