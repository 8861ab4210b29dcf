"""Processes timed from the start to the end, in turn, and what came of each trial."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.startup.trials import BARE, BEFORE, TITLES, Process, Trial
from gpubp.benchmark.measure import Say
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.process import (
    ANSWER_SECONDS,
    WorkerFailed,
    end_group,
    environment,
    last_words,
    without_folders,
)
from gpubp.benchmark.results import CUT_SHORT, FAILED, OK, Row
from gpubp.support import machine

ACCURACY = re.compile(r"test accuracy ([\d.]+)")
ACCURACIES_DIFFER = 0.01  # from here on, what was trained is not the same

# What an interpreter's gpubp is, whatever its age. Its byte-code is made, as pip makes it.
_FACTS = """
import compileall, json, platform, sys
from importlib.metadata import PackageNotFoundError, version
import gpubp, gpubp.kernels
for folder in (*gpubp.__path__, *gpubp.kernels.__path__):
    compileall.compile_dir(folder, quiet=2)
packages = {}
for package in sys.argv[1:]:
    try:
        packages[package] = version(package)
    except PackageNotFoundError:
        pass
print(json.dumps({"root": gpubp.__path__[0], "python": platform.python_version(), "packages": packages}))
"""


@dataclass(frozen=True)
class Setting:
    """How processes are run.

    interpreters: of gpubp and, if there is one, of gpubp before; what needs no gpubp runs in this process's own.
    places: what stands for "{mnist}" and "{sample}". threads: None leaves them to each library.
    """

    interpreters: dict[str, str]
    places: dict[str, str]
    threads: int | None = None
    rounds: int = 5
    first_rounds: int = 3

    def interpreter(self, peer: str) -> str:
        return self.interpreters.get(OURS if peer == BARE else peer, sys.executable)

    def environment(self, peer: str, caches: Path | None) -> dict[str, str]:
        """A process's environment; what this one finds by PYTHONPATH is not for other interpreters."""
        env = environment(self.threads, caches)
        if caches is not None:
            env["XDG_CACHE_HOME"] = str(caches)
        if self.interpreter(peer) != sys.executable:
            env.pop("PYTHONPATH", None)
        return env

    def count(self, trial: Trial) -> int:
        return self.first_rounds if trial.fresh else self.rounds


@dataclass
class Measured:
    """What came of a trial. lines: for each of its lines the peers' times; accuracies: of each peer, by round."""

    trial: Trial
    lines: dict[str, list[Row]]
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    status: str = OK
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, trial: Trial) -> Measured:
        return cls(trial, {line: [] for line in trial.lines})

    def add(self, line: str, peer: str, seconds: float) -> None:
        rows = self.lines[line]
        row = next((row for row in rows if row.peer == peer), None)
        if row is None:
            rows.append(row := Row(peer, TITLES[peer]))
        row.rounds.append(seconds)

    def end(self, status: str, why: str) -> None:
        self.status = status
        self.notes.append(f"{status}: {why}")

    def compare_accuracies(self) -> None:
        """Say so, where what was trained is not the same."""
        last = {TITLES[peer]: values[-1] for peer, values in self.accuracies.items()}
        if last and max(last.values()) - min(last.values()) > ACCURACIES_DIFFER:
            told = ", ".join(f"{title} {value:.4f}" for title, value in last.items())
            self.notes.append(f"the accuracies differ by more than {ACCURACIES_DIFFER:g}: {told}")


def present(trial: Trial, missing: dict[str, str], before: bool) -> list[Process]:
    """A trial's processes, less those of what is missing, and gpubp's again as it was before."""
    kept = [process for process in trial.processes if process.peer not in missing]
    return kept + [replace(process, peer=BEFORE) for process in kept if before and process.peer == OURS]


def measure(result: Measured, processes: Sequence[Process], setting: Setting, say: Say) -> None:
    """Run a trial's processes round by round; what is known goes into ``result`` as soon as it is.

    A process that fails ends the trial, which says why; so does Ctrl-C, which is raised on.
    """
    trial, rounds = result.trial, setting.count(result.trial)
    try:
        for number in range(0 if trial.fresh else -1, rounds):
            say(f"{trial.name}: " + (f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"))
            turns = list(processes)
            random.Random(number).shuffle(turns)
            for process in turns:
                try:
                    seconds, said = run(process, setting, number, trial.fresh)
                    if number >= 0:
                        read(result, process.peer, seconds, said)
                except WorkerFailed as failure:
                    raise WorkerFailed(f"{TITLES[process.peer]}: {failure}") from None
    except WorkerFailed as failure:
        result.end(FAILED, without_folders(str(failure)))
    except KeyboardInterrupt:
        result.end(CUT_SHORT, "interrupted")
        raise
    finally:
        result.compare_accuracies()


def run(process: Process, setting: Setting, number: int, fresh: bool) -> tuple[float, str]:
    """Seconds from the start of a process to its end, in an empty folder, and what it printed.

    Raises:
        WorkerFailed: it cannot be started, does not end, or failed.
    """
    places = {**setting.places, "{round}": str(number)}
    command = [setting.interpreter(process.peer), *(places.get(a, a) for a in process.arguments)]
    with tempfile.TemporaryDirectory(prefix="gpubp-bench-") as folder:
        work, caches = Path(folder, "work"), Path(folder, "caches")
        work.mkdir()
        caches.mkdir()
        return timed(command, setting.environment(process.peer, caches if fresh else None), work)


def timed(command: list[str], env: dict[str, str], folder: Path) -> tuple[float, str]:
    """As ``run``, of a command."""
    started = time.perf_counter()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", env=env, cwd=folder, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise WorkerFailed(f"cannot start {command[0]}: {error.strerror or error}") from None
    try:
        said, errors = process.communicate(timeout=ANSWER_SECONDS)
        seconds = time.perf_counter() - started
    except subprocess.TimeoutExpired:
        raise WorkerFailed(f"no end after {ANSWER_SECONDS:g} s") from None
    finally:
        if process.poll() is None:  # also after Ctrl-C
            end_group(process)
    if process.returncode:
        raise WorkerFailed(last_words(process.returncode, errors.strip() or said))
    return seconds, said


def read(result: Measured, peer: str, seconds: float, said: str) -> None:
    """Enter what a process took, or says that things within it took.

    Raises:
        WorkerFailed: it does not say what it should.
    """
    trial = result.trial
    if trial.accuracy:
        found = ACCURACY.findall(said)
        if not found:
            raise WorkerFailed("it prints no test accuracy")
        result.accuracies.setdefault(peer, []).append(float(found[-1]))
    if trial.name in trial.lines:
        result.add(trial.name, peer, seconds)
    if trial.lines.keys() - {trial.name}:
        for line, times in json.loads(said.splitlines()[-1]).items():
            for library, time_of in times.items():
                if library == OURS:
                    result.add(line, peer, time_of)
                elif peer != BEFORE:  # scikit-learn's times are taken once a round
                    result.add(line, library, time_of)


def facts(setting: Setting, peer: str) -> dict[str, Any]:
    """Commit, Python and packages of the interpreter that runs gpubp, or gpubp before.

    Raises:
        WorkerFailed: there is no gpubp there.
    """
    command = [setting.interpreter(peer), "-P", "-c", _FACTS, *machine.PACKAGES]
    found = json.loads(timed(command, setting.environment(peer, None), Path(os.curdir))[1])
    return {"commit": machine.commit(Path(found.pop("root")).parent), **found}
