"""A run of bench.gpu as its parts see it: time left, samples, the worker process, and where results go."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT
from typing import Any

from bench import ROOT, python_path
from bench.gpu.nets import MNIST, SAMPLE, STAND_IN, Sizes, Variant, extra, of_recipe
from bench.gpu.report import Part, Report, write
from gpubp.backends.cuda import cubins
from gpubp.benchmark import data, process
from gpubp.benchmark.measure import Entrant
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import FLOAT32
from gpubp.data.mnist import COLLECTIONS
from gpubp.errors import DataError, GpubpError
from gpubp.experiments.recipe import Recipe, load_recipe, recipe_names
from gpubp.support import machine

WORKER = "bench.gpu.tasks"
ITEM_SECONDS = 30.0  # that one item of a part may take; what takes longer hangs
INTERRUPT_SECONDS = 5.0  # that a program may take to end by Ctrl-C


@dataclass(frozen=True)
class Loaded:
    """A net and its samples, in folders for ``gpubp.benchmark.data.load``; ``count`` are to train on."""

    net: Net
    train: Path
    test: Path
    count: int


@dataclass
class Run:
    """A run: its parts, nets and clock; ``end`` and ``part_end`` are by the clock of time.perf_counter.

    second: whether it does what the first run leaves out. entrants: of the times, begun before all else.
    """

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
    second: bool = False
    entrants: list[Entrant] = field(default_factory=list)
    recipes: list[Loaded] = field(default_factory=list)
    extras: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # recipes that cannot be trained here, and why
    silent: bool = False  # whether the last attempt got no answer in the time that it could have had
    unsaved: str | None = None  # why the files could not be written when they last were to be
    _programs: int = 0
    _saved: dict[tuple, tuple[Path, Path, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        env = process.environment(machine.cores(), gpu=not self.host)
        # Every process finds in one folder the kernels that the first part has built, or found built ahead.
        self.ahead, self.cubins = cubins.folder(), self.folder / "cubins"
        self.env = {**env, "PYTHONPATH": python_path(), cubins.VARIABLE: str(self.cubins)}
        self.cupy = STAND_IN if self.host else "cupy"
        self.worker = self.new_worker("parts")

    def new_worker(self, name: str) -> process.Worker:
        return process.Worker(self.folder / f"{name}.stderr", self.env, WORKER)

    @property
    def plans(self) -> tuple[str, ...]:
        """The plans, in float32."""
        return tuple(variant.plan for variant in self.variants if variant.precision == FLOAT32)

    def left(self) -> float:
        """Seconds that are left for the present part."""
        return self.part_end - time.perf_counter()

    def save(self) -> None:
        """Write the files; a full disk is said once, and the run goes on."""
        warned, self.unsaved = self.unsaved is not None, None
        try:
            write(self.out, self.report)
        except GpubpError as error:
            self.unsaved = str(error)
            if not warned:
                self.say(f"{error}; the run goes on")

    def load(self) -> None:
        """Write the samples of every net where the workers find them; say which cannot be had."""
        for name in recipe_names():
            with self._had(name):
                recipe = load_recipe(name)
                self.recipes.append(self._load(of_recipe(recipe), recipe))
        extras = SAMPLE if self.data_dir is None else MNIST
        with self._had("784-128-10 and 784-2048-2048-10"):
            self.extras.extend(self._load(net, load_recipe(extras)) for net in extra(extras))

    @contextmanager
    def _had(self, name: str) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            self.missing.append(f"{name}: {error.name} is not installed")
        except (GpubpError, ImportError, OSError) as error:
            self.missing.append(process.without_folders(f"{name}: {error}".splitlines()[0]))

    def _load(self, net: Net, recipe: Recipe) -> Loaded:
        # A download may wait for a network that is not there.
        if recipe.data in COLLECTIONS and self.data_dir is None:
            raise DataError(
                f"no {recipe.data}: name the folder of its files with --data-dir or $GPUBP_DATA_DIR"
            )
        key = recipe.data, recipe.standardize, recipe.test_fraction
        if key not in self._saved:
            folders = [self.folder / f"data-{len(self._saved)}-{part}" for part in ("train", "test")]
            for part, folder in zip(("train", "test"), folders, strict=True):
                content = data.of_recipe(recipe, net, self.data_dir, part, quiet=True)
                data.save(folder, content.first(self.sizes.samples))
            self._saved[key] = folders[0], folders[1], len(data.load(folders[0]))
        return Loaded(self.sizes.cut(net), *self._saved[key])

    def begin(self, part: Part, what: str) -> None:
        """Say that an item of a part is begun. Raises OutOfTime where no time is left for it."""
        if self.left() < process.LEAST_SECONDS:
            raise process.OutOfTime("no time left")
        self.say(f"{part.name}: {what}")

    def attempt(
        self, part: Part, what: str, task: str, seconds: float = ITEM_SECONDS, **fields: Any
    ) -> dict[str, Any] | None:
        """The worker's answer; None where there is none, and why is then in the part."""
        self.silent = False
        with part.item(what):
            self.begin(part, what)
            self.worker.until = self.part_end
            try:
                return self.worker.ask(task, seconds, cupy=self.cupy, **fields)
            except process.NoAnswer:
                self.silent = True
                raise
        return None

    def keep(self, part: Part, result: dict[str, Any]) -> None:
        """Add a result, and write the files."""
        part.results.append(result)
        self.save()

    def program(self, command: list[str], env: dict[str, str], seconds: float) -> Ended:
        """Run a command in the root of the source tree to its end, or until its time is up."""
        program = self.start_program(command, env)
        try:
            return program.end(seconds)
        finally:  # also after Ctrl-C
            program.close()

    def start_program(self, command: list[str], env: dict[str, str]) -> Program:
        self._programs += 1
        return Program(command, env, self.folder / f"program-{self._programs}.txt")


class Program:
    """A command in the root of the source tree, and what it says; whoever makes one must close it."""

    def __init__(self, command: list[str], env: dict[str, str], path: Path) -> None:
        self._path = path
        with path.open("w") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "gpubp.benchmark.process", *command], stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=env, start_new_session=True,
            )  # fmt: skip

    def end(self, seconds: float, at_once: bool = False) -> Ended:
        """Wait for its end; when its time is up it is ended as by Ctrl-C unless ``at_once``, then by force.

        So is what it has started.
        """
        try:
            code: int | None = self._child.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            code = None
            if not at_once:
                self._child.send_signal(SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(INTERRUPT_SECONDS)
        gone = self.close()
        text = process.without_folders(self._path.read_text(errors="replace"))
        return Ended(code, text if gone else f"{text}\nit does not end when it is killed\n")

    def close(self) -> bool:
        """End it by force, if it has not ended; whether it has then."""
        return process.end_group(self._child)


@dataclass(frozen=True)
class Ended:
    """The end of a program. code: None if its time was up. text: what it said, stderr included."""

    code: int | None
    text: str

    @property
    def last_line(self) -> str:
        lines = (line.strip() for line in reversed(self.text.splitlines()) if line.strip(" ="))
        return next(lines, "it said nothing")


def sources() -> str:
    """A digest of the code that is measured, where there may be no git to name it: gpubp, its kernels and bench."""
    digest = hashlib.sha256()
    files = (path for folder in ("gpubp", "kernels", "bench") for path in (ROOT / folder).rglob("*"))
    for path in sorted(path for path in files if path.suffix in (".py", ".cu", ".cuh")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
