"""What is measured: the trials, the processes of each, and the figure that gpubp is to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

from bench import ROOT
from gpubp.benchmark.nets import named
from gpubp.benchmark.peers import OURS, PEERS
from gpubp.benchmark.results import Row, fastest, ratios

SCRIPTS = ROOT / "bench" / "startup" / "scripts"
BEFORE, BARE, NOTHING = "gpubp-before", "bare", "dummy"
TITLES = {  # in the order of tables
    OURS: "gpubp",
    BEFORE: "gpubp before",
    **{peer.name: peer.title for peer in PEERS if not peer.is_gpubp},
    "torch": "PyTorch",  # eager is what is meant
    BARE: "bare Python",
    NOTHING: "fits of nothing",
}
AT_LEAST, AT_MOST, MORE = "at least", "at most", "more"


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    kind: AT_LEAST so many times gpubp's time another takes; AT_MOST such a part of another's time gpubp takes; MORE,
    the seconds at most that gpubp takes more. beside: the other, or None for the fastest library; NumPy by hand, which
    has to load and prepare nothing but NumPy, is none.
    """

    kind: str
    limit: float
    beside: str | None = None

    def other(self, rows: list[Row]) -> Row | None:
        """Whom gpubp is compared with."""
        if self.beside is None:
            return fastest(row for row in rows if not row.peer.startswith(OURS) and row.peer != "numpy")
        return next((row for row in rows if row.peer == self.beside and row.rounds), None)

    def found(self, rows: list[Row], ours: str = OURS) -> float | None:
        """The figure, the median over the rounds that both made; None if there is none."""
        own, other = next((row for row in rows if row.peer == ours), None), self.other(rows)
        if own is None or other is None or not ratios(other, own):
            return None
        if self.kind == MORE:
            return median(a - b for a, b in zip(own.rounds, other.rounds, strict=False))
        return median(ratios(other, own) if self.kind == AT_LEAST else ratios(own, other))

    def reached(self, found: float) -> bool:
        return found >= self.limit if self.kind == AT_LEAST else found <= self.limit

    def said(self, value: float) -> str:
        """A value of this kind in words."""
        other = "the fastest library" if self.beside is None else TITLES[self.beside]
        return {
            AT_LEAST: f"{other} takes {value:.3g} times as long",
            AT_MOST: f"{value:.3g} of {other}'s time",
            MORE: f"{value:.3g} s more than {other}",
        }[self.kind]

    def __str__(self) -> str:
        return self.said(self.limit) + (" or more" if self.kind == AT_LEAST else " or less")


@dataclass(frozen=True)
class Process:
    """Whose process it is, and what follows the interpreter; {…} are filled in."""

    peer: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """Processes that are run in turn.

    lines: what is told of it, by name, each with its figure to reach: the time of a whole process is the line that is
    named as the trial; others are what a process prints at the end, {line: {peer: seconds}} as JSON. fresh: caches are
    empty in every process, and there is no warm-up. accuracy: processes print "test accuracy", which must agree.
    """

    name: str
    title: str
    processes: tuple[Process, ...]
    lines: dict[str, Goal | None]
    fresh: bool = False
    accuracy: bool = False
    quick: bool = False

    def first(self, limit: float) -> Trial:
        """The same as the first run after installing."""
        name, title = f"{self.name}-first", f"{self.title}; first run, nothing compiled"
        return replace(self, name=name, title=title, fresh=True, lines={name: Goal(AT_LEAST, limit)})

    @property
    def needs_mnist(self) -> bool:
        return any("{mnist}" in process.arguments for process in self.processes)


def _script(peer: str, name: str, *arguments: str) -> Process:
    return Process(peer, (str(SCRIPTS / f"{name}.py"), *arguments))


def _gpubp(*arguments: str) -> Process:
    return Process(OURS, ("-P", "-m", "gpubp", *arguments))


def _training(ours: Process, data: str, batch: str, schedule: str) -> tuple[Process, ...]:
    """gpubp's process, and those of the scripts that train on the same data as its recipe does."""
    names = {
        "numpy": "numpy_by_hand", "sklearn": "sklearn_mlp", "torch": "torch_loop", "jax": "jax_scan",
        "keras": "keras_fit",
    }  # fmt: skip
    return ours, *(_script(peer, name, data, batch, schedule) for peer, name in names.items())


def _both(name: str) -> tuple[Process, ...]:
    """A script with gpubp's estimator, and with scikit-learn's."""
    return _script(OURS, name, OURS), _script("sklearn", name, "sklearn")


MNIST = Trial(
    "mnist", "gpubp train mnist, with its page",
    _training(_gpubp("train", "mnist", "--data-dir", "{mnist}", "--folder", "run"), "{mnist}", "128", "cosine"),
    {"mnist": Goal(AT_LEAST, 3.5)}, accuracy=True,
)  # fmt: skip
SAMPLE = Trial(
    "mnist-sample", "gpubp train, with its page",
    _training(_gpubp("train"), "{sample}", "64", "constant"),
    {"mnist-sample": Goal(AT_LEAST, 2.0, "sklearn")}, accuracy=True,
)  # fmt: skip
TRIALS = (
    MNIST,
    SAMPLE,
    MNIST.first(1.0),
    SAMPLE.first(1.0),
    Trial(
        "first-fit", "MLPClassifier().fit(iris) in a new process, nothing compiled; the fit alone", _both("first_fit"),
        {"first-fit": Goal(AT_MOST, 3.0, "sklearn"), "first-fit-alone": None}, fresh=True,
    ),
    Trial(
        "fits", "later fits of MLPClassifier by default, on scaled data", (_script(OURS, "fits", "{round}"),),
        {f"fits-{name}": Goal(AT_MOST, limit, "sklearn") for name, limit in (
            ("iris", 0.5), ("breast_cancer", 0.3), ("digits", 0.2))},
    ),
    Trial(
        "grid", "GridSearchCV of 18 short fits on digits, two jobs; the search alone, first and again",
        (*_both("grid"), _script(NOTHING, "grid", NOTHING)),
        {"grid": Goal(AT_LEAST, 4.0, "sklearn"), "grid-first": None, "grid-again": Goal(AT_LEAST, 4.0, "sklearn")},
    ),
    *(
        Trial(
            f"first-step-{backend}", f"one training step, backend {backend}, beside import numpy",
            (_script(OURS, "first_step", backend), Process(BARE, ("-c", "import numpy"))),
            {f"first-step-{backend}": Goal(MORE, 0.5, BARE)}, quick=True,
        )
        for backend in ("numba", "auto")
    ),
    Trial(
        "help", "gpubp --help, beside an empty program", (_gpubp("--help"), Process(BARE, ("-c", "pass"))),
        {"help": Goal(MORE, 0.25, BARE)}, quick=True,
    ),
)  # fmt: skip


def select(names: list[str]) -> list[Trial]:
    """The trials of these names, each once; what is no name is taken as the beginning of some.

    Raises:
        UsageError: no trial's name begins so.
    """
    return named({trial.name: trial for trial in TRIALS}, names, "row")
