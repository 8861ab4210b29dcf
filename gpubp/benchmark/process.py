"""A worker from the parent's side: starting it, asking it, and saying how it ended.

``python -m gpubp.benchmark.process COMMAND …`` is that command, but that it ends with the process that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 1800.0  # a worker that is silent for so long is given up
END_SECONDS = (
    10.0  # for a process to end; one that is inside a driver that hangs does not, not even when it is killed
)
OURS = ("bench", "gpubp", "tests")  # packages that cannot be missing
_PR_SET_PDEATHSIG = 1  # of prctl.h

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # XLA's
)


def environment(threads: int, caches: Path | None, *, gpu: bool = False) -> dict[str, str]:
    """A worker's environment: so many threads, the CPU only unless ``gpu``, and compiled code kept in ``caches``."""
    changed = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    changed |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if not gpu:
        changed["CUDA_VISIBLE_DEVICES"] = ""
    if caches is not None:
        changed |= {
            "NUMBA_CACHE_DIR": str(caches / "numba"),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "torch"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "CUPY_CACHE_DIR": str(caches / "cupy"),
        }
    return {**os.environ, **changed}


def module_command(module: str, *arguments: str) -> tuple[list[str], Path | None]:
    """The command that runs a module in a process of its own, and the folder to run it in.

    A name without a dot is one of this package. In a source tree the folder is its root. An installation is found from
    anywhere, and the folder that the command happens to run in must not be searched for modules: -P.
    """
    name = [module if "." in module else f"{__package__}.{module}", *arguments]
    if __package__ == "bench":
        return [sys.executable, "-m", *name], ROOT
    return [sys.executable, "-P", "-m", *name], None


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
    """The worker ended, or does not answer; the message is its last line on stderr."""


class NoAnswer(WorkerFailed):
    """The worker was silent for too long, and was ended."""


class Worker:
    """A running worker process. It is idle unless asked. ``program`` is the module of this package that it runs."""

    def __init__(self, *arguments: str, stderr: Path, env: dict[str, str], program: str = "worker") -> None:
        self._stderr = stderr
        command, folder = module_command(program, *arguments)
        with stderr.open("w") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=folder,
                env=env,
                start_new_session=True,  # Ctrl-C is for the parent, who then ends the workers
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, request: dict[str, Any], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The worker's answer. Raises what ``receive`` does."""
        self.send(request)
        return self.receive(seconds)

    def send(self, request: dict[str, Any]) -> None:
        """Ask, without waiting for the answer."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended; why, is told by ``receive``
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to what was sent.

        Raises:
            WorkerFailed: it ended instead; NoAnswer: it took more than ``seconds``.
        """
        try:
            line = self._answers.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            raise NoAnswer(f"no answer for {seconds:.3g} s{self._ended()}") from None
        if not line.endswith("\n"):  # it ended, perhaps in the middle of an answer
            raise WorkerFailed(self._last_words())
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            self.kill()
            raise WorkerFailed(f"its answer cannot be read: {line.strip()[:80]!r}") from None

    def _ended(self) -> str:
        return "" if self.kill() else ", and it does not end when it is killed"

    def _last_words(self) -> str:
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it says no more{self._ended()}"
        lines = [line.strip() for line in self._stderr.read_text(errors="replace").splitlines()]
        said = [without_folders(line) for line in lines if line]
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{said[-1]} ({ended})" if said else ended

    def kill(self) -> bool:
        """End it and what it has started; it holds nothing that would be lost. Whether it has ended."""
        return end_group(self._process)


def without_folders(text: str) -> str:
    """Text with only the last part of absolute paths: reports do not tell where things are on a machine."""
    return re.sub(r"(?<![\w.])(?:/[\w.+@-]+)+/([\w.+@-]+)", r"\1", text)


def main() -> None:
    """Become the command."""
    end_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
