"""A run of bench.gpu as its parts see it: time left, samples, worker processes, and where results go."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_report import Part, Report, write
from gpubp.benchmark import data
from gpubp.benchmark.gpu_nets import FLOAT32, MNIST, SAMPLE, GpuNet, Sizes, Variant, extra, of_recipe
from gpubp.benchmark.process import ROOT, NoAnswer, Worker, WorkerFailed, without_folders
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.experiments.recipe import load_recipe, recipe_names
from gpubp.experiments.run import load_parts

WORKER = "gpu_worker"
LEAST_SECONDS = 1.0  # with less left, nothing is begun
ITEM_SECONDS = 30.0  # that one item of a part may take; what takes longer hangs


def environment(host: bool) -> dict[str, str]:
    """A child's environment: full float32, no memory taken in advance, and no GPU where the host is meant."""
    changed = {
        "CUPY_TF32": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JAX_PLATFORMS": "cpu" if host else "cuda",
    }
    if host:
        changed["CUDA_VISIBLE_DEVICES"] = ""
    return {**os.environ, **changed}


class Desk:
    """A worker process, started when something is asked of it, and again after it has failed."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        self._stderr, self._env = folder / f"{name}.stderr", env
        self._worker: Worker | None = None

    def ask(self, task: str, seconds: float, **fields: Any) -> dict[str, Any]:
        """The answer. Raises what ``send`` and ``receive`` do."""
        self.send(task, **fields)
        return self.receive(seconds)

    def send(self, task: str, **fields: Any) -> None:
        """Ask, without waiting for the answer. Raises WorkerFailed if no process can be started."""
        if self._worker is None:
            try:
                self._worker = Worker(program=WORKER, stderr=self._stderr, env=self._env)
            except OSError as error:
                raise WorkerFailed(f"no process can be started: {error.strerror or error}") from None
        self._worker.send({"do": task, **fields})

    def receive(self, seconds: float) -> dict[str, Any]:
        """The answer to what was sent. Raises WorkerFailed as Worker.receive does."""
        assert self._worker is not None
        try:
            return self._worker.receive(seconds)
        except WorkerFailed:
            self.close()
            raise

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


@dataclass(frozen=True)
class Loaded:
    """A net and its samples, in folders for ``gpubp.benchmark.data.load``; ``count`` are to train on."""

    net: GpuNet
    train: Path
    test: Path
    count: int


@dataclass
class Run:
    """What is measured and how; ``end`` and ``part_end`` are by the clock of time.perf_counter."""

    report: Report
    out: Path
    folder: Path
    sizes: Sizes
    host: bool
    variants: tuple[Variant, ...]
    data_dir: Path | None
    tests: list[str]
    say: Callable[[str], None]
    end: float
    part_end: float = 0.0
    recipes: list[Loaded] = field(default_factory=list)
    extras: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # recipes that cannot be trained here, and why
    silent: bool = False  # whether the last attempt got no answer in the time that it could have had
    unsaved: str | None = None  # why the files could not be written when they last were to be
    _saved: dict[tuple, tuple[Path, Path, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = environment(self.host)
        self.desk = Desk("parts", self.folder, self.env)

    @property
    def plans(self) -> tuple[str, ...]:
        """The plans, in float32."""
        return tuple(variant.plan for variant in self.variants if variant.precision == FLOAT32)

    @property
    def data_of_extras(self) -> str:
        return MNIST if self.data_dir is not None else SAMPLE

    def left(self) -> float:
        """Seconds that are left for the present part."""
        return self.part_end - time.perf_counter()

    def save(self) -> None:
        """Write the files; a full disk is said once, and the run goes on."""
        warned = self.unsaved is not None
        try:
            write(self.out, self.report)
            self.unsaved = None
        except GpubpError as error:
            self.unsaved = str(error)
            if not warned:
                self.say(f"{error}; the run goes on")

    def load(self) -> None:
        """Write the samples of every net where the workers find them; say which cannot be had."""
        for name in recipe_names():
            try:
                net = self.sizes.cut(of_recipe(load_recipe(name)))
                self.recipes.append(Loaded(net, *self._samples(name)))
            except (GpubpError, ImportError, OSError) as error:
                self.missing.append(f"{name}: {_reason(error)}")
        recipe = "mnist" if self.data_of_extras == MNIST else "mnist-sample"
        try:
            for net in extra(self.data_of_extras):
                self.extras.append(Loaded(self.sizes.cut(net), *self._samples(recipe)))
        except (GpubpError, OSError) as error:
            self.missing.append(f"784-128-10 and 784-2048-2048-10: {_reason(error)}")

    def _samples(self, name: str) -> tuple[Path, Path, int]:
        recipe = load_recipe(name)
        key = recipe.data, recipe.standardize, recipe.test_fraction
        if key not in self._saved:
            if recipe.data == MNIST and self.data_dir is None:
                raise DataError(
                    "no MNIST: name the folder of its four files with --data-dir or $GPUBP_DATA_DIR"
                )
            parts = load_parts(recipe, recipe.seed, self.data_dir, quiet=True)
            if parts.test is None:
                raise UsageError(f"{recipe.data} has no test part")
            folders: list[Path] = []
            most = self.sizes.samples
            for part in map(parts.scaled, (parts.dataset.train, parts.test)):
                inputs = part.inputs if part.inputs.dtype == np.uint8 else part.inputs.astype(np.float32)
                folders.append(self.folder / f"data-{len(self._saved)}-{len(folders)}")
                data.save(folders[-1], data.Data(inputs[:most], part.targets[:most].astype(np.int64)))
            count = len(parts.dataset.train.inputs[:most])
            self._saved[key] = folders[0], folders[1], count
        return self._saved[key]

    def attempt(
        self,
        part: Part,
        what: str,
        task: str,
        seconds: float = ITEM_SECONDS,
        desk: Desk | None = None,
        **fields: Any,
    ) -> dict[str, Any] | None:
        """The answer of a worker; None where there is none, and why is then in the part."""
        desk = desk or self.desk
        return (
            self.outcome(part, what, desk, seconds) if self.begin(part, what, desk, task, **fields) else None
        )

    def begin(self, part: Part, what: str, desk: Desk, task: str, **fields: Any) -> bool:
        """Ask a worker, without waiting for the answer; False where it cannot be, and why is then in the part."""
        self.silent = False
        if self.left() < LEAST_SECONDS:
            part.cut.append(what)
            return False
        self.say(f"{part.name}: {what}")
        try:
            desk.send(task, **fields)
        except WorkerFailed as failure:
            part.failures.append(f"{what}: {failure}")
            return False
        return True

    def outcome(self, part: Part, what: str, desk: Desk, seconds: float) -> dict[str, Any] | None:
        """The answer to what was begun; None where there is none, and why is then in the part."""
        limit, self.silent = min(seconds, self.left()), False
        try:
            answer = desk.receive(limit)
        except NoAnswer as failure:
            if limit < seconds:
                part.cut.append(what)
            else:
                part.failures.append(f"{what}: {failure}")
                self.silent = True
            return None
        except WorkerFailed as failure:
            part.failures.append(f"{what}: {failure}")
            return None
        for key, lines in (("failed", part.failures), ("refused", part.skipped)):
            if key in answer:
                lines.append(f"{what}: {without_folders(answer[key])}")
                if key == "failed":
                    desk.close()  # after some errors of CUDA, whatever else the process asks of the device fails too
                return None
        return answer


def sources() -> str:
    """A digest of the code that is measured, where there may be no git to name it: gpubp, its kernels and bench."""
    digest = hashlib.sha256()
    files = (path for folder in ("gpubp", "kernels", "bench") for path in (ROOT / folder).rglob("*"))
    for path in sorted(path for path in files if path.suffix in (".py", ".cu", ".cuh")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return without_folders(str(error).splitlines()[0])


def parts_env(run: Run) -> dict[str, str]:
    """The environment of a child that is not a worker: it finds the source tree from wherever it runs."""
    paths = [str(ROOT), *filter(None, [run.env.get("PYTHONPATH")])]
    return {**run.env, "PYTHONPATH": os.pathsep.join(paths)}
