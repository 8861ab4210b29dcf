"""A worker from the parent's side: starting it, asking it, and saying how it ended.

``python -m gpubp.benchmark.process COMMAND …`` is that command, but that it ends with the process that started it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 1800.0  # a worker that is silent for so long is given up
LEAST_SECONDS = 1.0  # with less left, nothing is begun
# For a process to end; one that is inside a driver that hangs does not, not even when it is killed.
END_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1  # of prctl.h

_THREAD_VARIABLES = (  # the last is XLA's
    *(f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA")), "VECLIB_MAXIMUM_THREADS", "NPROC",
)  # fmt: skip


def environment(threads: int | None, caches: Path | None = None, *, gpu: bool = False) -> dict[str, str]:
    """A worker's environment: so many threads, the CPU only unless ``gpu``, and compiled code kept in ``caches``.

    threads: None leaves them to each library. On a GPU products are of full float32, and no memory is taken in advance.
    """
    changed = {} if threads is None else dict.fromkeys(_THREAD_VARIABLES, str(threads))
    changed["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if gpu:
        changed |= {"JAX_PLATFORMS": "cuda", "CUPY_TF32": "0", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    else:
        changed |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if caches is not None:
        folders = {"NUMBA": "numba", "TORCHINDUCTOR": "torch", "TRITON": "triton", "CUPY": "cupy"}
        changed |= {f"{name}_CACHE_DIR": str(caches / folder) for name, folder in folders.items()}
    return {**os.environ, **changed}


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in a process of its own.

    -P: the folder that it happens to run in is not searched for modules.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, even if that is killed; Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_group(process: subprocess.Popen) -> bool:
    """Kill a process that has a session of its own, and what it has started; whether it has ended then."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


class WorkerFailed(Exception):
    """The worker ended, or says that it failed; the message is its last line on stderr, or what it says."""


class NoAnswer(WorkerFailed):
    """The worker was silent for too long, and was ended."""


class OutOfTime(WorkerFailed):
    """There was no time left to ask, or for the answer."""


class Refused(WorkerFailed):
    """The worker cannot do that here, and says why."""


class Worker:
    """A worker process, started when something is asked of it, and again after it has failed. It is idle unless asked.

    program: the module that it runs. until: by the clock of time.perf_counter, when all must have been answered.
    """

    def __init__(self, stderr: Path, env: dict[str, str], program: str = "gpubp.benchmark.worker") -> None:
        self._stderr, self._env, self._program, self.until = stderr, env, program, math.inf
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(self, task: str, seconds: float = ANSWER_SECONDS, **fields: Any) -> dict[str, Any]:
        """The answer. Raises what ``send`` and ``receive`` do."""
        self.send(task, **fields)
        return self.receive(seconds)

    def send(self, task: str, **fields: Any) -> None:
        """Ask, without waiting for the answer. Dataclasses become dictionaries, and paths text.

        Raises:
            OutOfTime: nothing is begun any more.
            WorkerFailed: no process can be started.
        """
        if self.until - time.perf_counter() < LEAST_SECONDS:
            raise OutOfTime("no time left")
        process = self._process or self._start()
        assert process.stdin is not None
        with suppress(OSError):  # it has ended; why, is told by ``receive``
            process.stdin.write(json.dumps({"do": task, **fields}, default=_plain) + "\n")
            process.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        try:
            with self._stderr.open("w") as file:
                process = subprocess.Popen(
                    module_command(self._program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                    text=True, encoding="utf-8", errors="replace", env=self._env,
                    start_new_session=True,  # Ctrl-C is for the parent, who then ends the workers
                )  # fmt: skip
        except OSError as error:
            raise WorkerFailed(f"no process can be started: {error.strerror or error}") from None
        self._process, self._answers = process, queue.SimpleQueue()
        threading.Thread(target=_collect, args=(process, self._answers), daemon=True).start()
        return process

    def receive(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to what was sent.

        Raises:
            Refused: it cannot do that here.
            OutOfTime: ``until`` came first.
            NoAnswer: it took more than ``seconds``.
            WorkerFailed: it ended instead, or it failed.
        """
        limit = min(seconds, self.until - time.perf_counter())
        try:
            line = self._answers.get(timeout=max(limit, 0.0))
        except queue.Empty:
            silent = f"no answer for {max(limit, 0.0):.3g} s{self._ended()}"
            raise (NoAnswer(silent) if limit == seconds else OutOfTime(f"no time left: {silent}")) from None
        answer = self._read(line)
        if "failed" in answer:
            self.close()  # after some errors of CUDA, whatever else the process asks of the device fails too
            raise WorkerFailed(without_folders(answer["failed"]))
        if "refused" in answer:
            raise Refused(without_folders(answer["refused"]))
        return answer

    def _read(self, line: str) -> dict[str, Any]:
        if not line.endswith("\n"):  # it ended, perhaps in the middle of an answer
            return {"failed": self._last_words()}
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            return {"failed": f"its answer cannot be read: {line.strip()[:80]!r}"}

    def _ended(self) -> str:
        return "" if self.close() else ", and it does not end when it is killed"

    def _last_words(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it says no more{self._ended()}"
        return last_words(code, self._stderr.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> bool:
        """End it and what it has started; it holds nothing that would be lost. Whether it has ended."""
        process, self._process = self._process, None
        return process is None or end_group(process)


def _collect(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def last_words(code: int, said: str) -> str:
    """How a process ended, by its exit code, and the last line of what it said."""
    lines = said.strip().splitlines()
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{lines[-1].strip()} ({ended})" if lines else ended


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)


def without_folders(text: str) -> str:
    """Text with only the last part of absolute paths: reports do not tell where things are on a machine."""
    return re.sub(r"(?<![\w.])(?:/[\w.+@-]+)+/([\w.+@-]+)", r"\1", text)


if __name__ == "__main__":
    end_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
