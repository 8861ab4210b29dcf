"""A worker from the parent's side: starting it, asking it, and saying how it ended."""

from __future__ import annotations

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

ROOT = Path(__file__).resolve().parents[1]
ANSWER_SECONDS = 1800.0  # a worker that is silent for so long is given up

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
    """The command that runs a module of this package in a process of its own, and the folder to run it in.

    In a source tree that is its root. An installation is found from anywhere, and the folder that the command happens
    to run in must not be searched for modules: -P.
    """
    name = [f"{__package__}.{module}", *arguments]
    if __package__ == "bench":
        return [sys.executable, "-m", *name], ROOT
    return [sys.executable, "-P", "-m", *name], None


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
        """The worker's answer.

        Raises:
            WorkerFailed: it ended instead; NoAnswer: it took more than ``seconds``.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended; why, is told below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.kill()
            raise NoAnswer(f"no answer for {seconds:.3g} s") from None
        if not line:
            raise WorkerFailed(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = [line.strip() for line in self._stderr.read_text(errors="replace").splitlines()]
        said = [without_folders(line) for line in lines if line]
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{said[-1]} ({ended})" if said else ended

    def kill(self) -> None:
        """End it and what it has started; it holds nothing that would be lost."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def without_folders(text: str) -> str:
    """Text with only the last part of absolute paths: reports do not tell where things are on a machine."""
    return re.sub(r"(?<![\w.])(?:/[\w.+@-]+)+/([\w.+@-]+)", r"\1", text)
