"""fit(): epochs over a backend's plan, with shuffling, validation, early stopping, checkpoints and verification."""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, SupportsIndex

import numpy as np

from gpubp import backends
from gpubp.backends.base import Backend, Plan, PlanState, StepStats
from gpubp.data import check_split
from gpubp.data.prepare import Prepared, prepare
from gpubp.data.sparse import is_sparse
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.formats import npz as checkpoint
from gpubp.functions import LOSSES, lookup
from gpubp.network import Network, tensor_names
from gpubp.optimizers import OPTIMIZERS, SGD, Optimizer, Schedule
from gpubp.training.progress import Progress, progress_for
from gpubp.verification.verify import (
    VERIFY_ROWS,
    Report,
    TensorCheck,
    VerificationError,
    check_cut,
    check_evaluation,
    check_step,
)

POLICIES = ("off", "first", "epoch", "step")
FIRST_STEPS = 3
VERIFY_SECONDS, VERIFY_SHARE = 0.2, 0.03  # what verifying one batch an epoch may cost: the larger of the two
CHUNK_SECONDS = 0.2  # how long a plan runs before Ctrl-C and the progress bar are looked after
CHECKPOINT_SECONDS = 5.0  # a checkpoint on disk is at most about this much older than the training


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Loss and accuracy are means over its batches, each before its update."""

    epoch: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass
class History:
    """A run, epoch by epoch. ``history["loss"]`` is a column; ``history.epochs`` are the rows.

    ``stopped`` is why the run ended: "done", "early stopping", "callback" or "interrupted"; the first
    ``resumed_epochs`` were trained before, by the run that a checkpoint was resumed from. Seconds are wall
    time of training alone; ``compile_seconds`` (a warm-up step that is undone) and ``verification.seconds``
    stand beside it. ``state`` is where the run left the optimizer, for another :func:`fit` to go on from.
    """

    backend: str = ""
    why_backend: str = ""
    device: str = ""
    plan: str = ""
    epochs: list[Epoch] = field(default_factory=list, repr=False)
    compile_seconds: float = 0.0
    stopped: str = "done"
    best_epoch: int | None = None
    resumed_epochs: int = 0
    verification: Report = field(default_factory=lambda: Report("training"))
    state: PlanState | None = field(default=None, repr=False)

    def __getitem__(self, column: str) -> list:
        return [getattr(epoch, column) for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name != "state"},
            "epochs": [asdict(e) for e in self.epochs],
            "verification": self.verification.to_dict(),
        }


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    ``monitor`` is "validation_loss" or "validation_accuracy". The best epoch's parameters are restored.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.monitor not in ("validation_loss", "validation_accuracy"):
            raise UsageError(
                f"cannot monitor {self.monitor!r}: choose validation_loss or validation_accuracy"
            )
        if self.patience < 1 or not self.min_delta >= 0:
            raise UsageError("early stopping needs a patience of 1 or more and a min_delta of 0 or more")

    def improved(self, value: float, best: float | None) -> bool:
        """Whether ``value`` beats the best so far."""
        if not np.isfinite(value):
            return False
        if best is None:
            return True
        gain = best - value if self.monitor == "validation_loss" else value - best
        return gain > self.min_delta


Callback = Callable[[Epoch, Network], object]


def fit(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    optimizer: Optimizer | None = None,
    batch_size: int = 128,
    epochs: int = 10,
    schedule: Schedule | None = None,
    sample_weight: np.ndarray | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Sequence[Callback] = (),
    backend: str | Backend = "auto",
    verify: str = "epoch",
    seed: int = 0,
    shuffle: bool = True,
    save_to: str | os.PathLike | None = None,
    resume: str | os.PathLike | None = None,
    state: PlanState | None = None,
    progress: bool | Progress = False,
    recipe: dict[str, Any] | None = None,
) -> History:
    """Train ``network`` in place by mini-batch gradient descent, and hold the backend to the reference as it goes.

    Args:
        inputs: (N, n_in), uint8 (scaled by 1/255) or float, or a sparse matrix of SciPy's.
        targets: (N,) class labels 0 … n_out−1, or (N, n_out) values.
        loss: a name of ``gpubp.functions.LOSSES``; the cost of a batch is its mean over the batch.
        optimizer: by default ``SGD(lr=0.1, momentum=0.9)``.
        batch_size: samples a step; the last batch of an epoch may be shorter and counts by its own mean.
        schedule: the factor on the learning rate over time; by default constant.
        sample_weight: (N,) factors on each sample's cost.
        validation: (inputs, targets) to evaluate after every epoch.
        early_stopping: an :class:`EarlyStopping`, or its patience; needs ``validation``.
        callbacks: each is called as callback(epoch, network) after every epoch; one that returns True ends the run.
        backend: "auto", "numpy", "numba", "cupy", or a Backend, such as ``gpubp.backends.get("numba", threads=2)``.
        verify: "first" (the first three steps and the first epoch's last), "epoch" (those and one batch of every
            epoch, while that costs at most 3% of the run or 0.2 s), "step" (every step), "off".
        seed: of the generator that shuffles; every backend sees the same batches.
        save_to: a checkpoint file, written as the run goes and at its end.
        resume: a checkpoint to go on from, bitwise as if never stopped; its data and recipe must be the same.
        state: ``history.state`` of a former run of this network with the same optimizer, whose velocities, moments
            and step count this one goes on with; the parameters are the network's own.
        progress: True for a progress bar on stderr (plain lines where that is no terminal).
        recipe: kept in the checkpoint, for whoever resumes it.

    Returns:
        The history. Ctrl-C ends the run cleanly: ``history.stopped`` is then "interrupted".

    Raises:
        UsageError, DataError, BackendUnavailable: before training starts.
        VerificationError: the backend computed something else than the equations say.
        GpubpError: the loss is no longer finite, or the checkpoint cannot be written.
    """
    _check_arguments(optimizer, schedule, validation, early_stopping, callbacks)
    settings = _Settings(
        loss=loss,
        optimizer=optimizer or SGD(lr=0.1, momentum=0.9),
        batch_size=_positive(batch_size, "batch_size"),
        epochs=_positive(epochs, "epochs"),
        schedule=schedule or Schedule(),
        seed=_positive(seed, "seed") if seed else 0,
        shuffle=bool(shuffle),
    )
    if verify not in POLICIES:
        raise UsageError(f"unknown verify policy {verify!r}: choose from {', '.join(POLICIES)}")
    if isinstance(early_stopping, int):
        early_stopping = EarlyStopping(patience=early_stopping)
    if early_stopping is not None and validation is None:
        raise UsageError("early stopping watches validation data; give validation=(inputs, targets)")
    _warn_of_clipping(network, loss)
    train = prepare(network, check_split(inputs, targets, sample_weight, name="training data"), loss)
    valid = None
    if validation is not None:
        valid = prepare(network, check_split(*validation, name="validation data"), loss, "validation data")
    if (
        early_stopping is not None
        and early_stopping.monitor == "validation_accuracy"
        and not train.classification
    ):
        raise UsageError("validation_accuracy needs class labels; monitor validation_loss instead")
    if not train.classification:
        network.classes = ()
    elif network.classes == ():
        network.classes = None

    shown = progress if isinstance(progress, Progress) else progress_for(quiet=not progress)
    usual = np.geterr()
    chosen = backends.get(backend)
    why = backends.choose(backend)[1] if isinstance(backend, str) else "given"
    # A run that diverges is reported once, by name, at the end of the epoch.
    with _until_interrupted() as interrupted, shown, np.errstate(all="ignore"), chosen.limits():
        training = _Training(network, settings, train, valid, chosen, why, verify, save_to, recipe)
        if resume is not None:
            training.resume(resume)
        elif state is not None:
            training.go_on_from(state)
        training.run(early_stopping, callbacks, shown, interrupted, usual)
    return training.history


def gradients(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    sample_weight: np.ndarray | None = None,
    backend: str | Backend = "auto",
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """The mean cost over all samples, as one batch, and its gradient: a list of (∂C/∂W, ∂C/∂b), host arrays.

    Arguments and errors are those of :func:`fit`; shapes are those of ``network.parameters``.
    """
    split = check_split(inputs, targets, sample_weight, name="data")
    samples = prepare(network, split, loss).samples
    chosen = backends.get(backend)
    with chosen.limits():
        plan = chosen.plan(network.layers, network.parameters, loss, SGD(), len(samples), samples)
        return plan.gradients(np.arange(len(samples)))


def _positive(value: Any, name: str) -> int:
    if isinstance(value, bool | str) or not isinstance(value, SupportsIndex) or int(value) < 1:
        raise UsageError(f"{name} must be a positive integer, not {value!r}")
    return int(value)


def _check_arguments(
    optimizer: Any, schedule: Any, validation: Any, early_stopping: Any, callbacks: Any
) -> None:
    """What Python would only trip over later, with a message about something else."""
    if not isinstance(optimizer, Optimizer | None):
        offered = ", ".join(f"gpubp.{cls.__name__}(…)" for cls in OPTIMIZERS.values())
        raise UsageError(f"optimizer must be one of {offered}, not {optimizer!r}")
    if not isinstance(schedule, Schedule | None):
        raise UsageError(f"schedule must be gpubp.Schedule(…), not {schedule!r}")
    if validation is not None and not (isinstance(validation, tuple | list) and len(validation) == 2):
        raise UsageError("validation must be a pair (inputs, targets)")
    if isinstance(early_stopping, bool) or not isinstance(early_stopping, EarlyStopping | int | None):
        raise UsageError(
            f"early_stopping must be gpubp.EarlyStopping(…) or a patience, not {early_stopping!r}"
        )
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UsageError("callbacks must be a list of functions")


def _warn_of_clipping(network: Network, loss: str) -> None:
    """Outputs that are no probabilities are clipped to (0, 1), where they learn nothing: seldom what was meant."""
    output = network.layers[-1].activation
    if lookup(LOSSES, loss, "loss").probabilities and output not in ("softmax", "sigmoid"):
        import warnings

        warnings.warn(
            f"{loss} takes outputs for probabilities; those of {output} outside (0, 1) are clipped and have no "
            f"gradient. Use output={LOSSES[loss].matched!r}",
            stacklevel=3,
        )


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """A question whether Ctrl-C was pressed since. A second Ctrl-C interrupts at once, as usual."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set  # only the main thread gets signals
        return
    usual = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, handler)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, usual)


@dataclass(frozen=True)
class _Settings:
    """What determines a run, besides data and network."""

    loss: str
    optimizer: Optimizer
    batch_size: int
    epochs: int
    schedule: Schedule
    seed: int
    shuffle: bool

    def header(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "optimizer": {"kind": self.optimizer.kind, **asdict(self.optimizer)},
            "batch_size": self.batch_size,
            "schedule": asdict(self.schedule),
            "seed": self.seed,
            "shuffle": self.shuffle,
        }


class _Training:
    """One run of fit: what it needs, and where it stands."""

    def __init__(
        self,
        network: Network,
        settings: _Settings,
        train: Prepared,
        valid: Prepared | None,
        chosen: Backend,
        why: str,
        verify: str,
        save_to: str | os.PathLike | None,
        recipe: dict[str, Any] | None,
    ) -> None:
        self.network, self.settings, self.verify = network, settings, verify
        self.samples, self.classification = train.samples, train.classification
        self.save_to, self.recipe = save_to, recipe
        self.steps_per_epoch = -(-len(self.samples) // settings.batch_size)
        self.history = History(chosen.name, why, chosen.describe())
        self.plan: Plan = chosen.plan(
            network.layers,
            network.parameters,
            settings.loss,
            settings.optimizer,
            min(settings.batch_size, len(self.samples)),
            self.samples,
        )
        self.history.plan = self.plan.describe()
        self.validation_samples = None if valid is None else valid.samples
        self.validation = None if valid is None else self.plan.upload(valid.samples)
        self._warm_up()

        self.rng = np.random.default_rng(settings.seed)
        self.epoch, self.step = 0, 0  # the next step is this one of this epoch
        self.first_epoch, self.steps_done = 0, 0  # by this process, which may have resumed another's run
        self.costs, self.hits = self._empty_sums()
        self.seconds = 0.0  # of the epoch so far
        self.elapsed = 0.0  # of all training so far
        self.best: tuple[float, int, list[np.ndarray]] | None = None  # value, epoch, parameters
        self._epoch_rng_state = self.rng.bit_generator.state
        self._steps_a_second = 0.0
        self._saved_at = time.perf_counter()
        self._data_checksum: int | None = None

    def _empty_sums(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.steps_per_epoch), np.zeros(self.steps_per_epoch, np.int64)

    def _two_batches(self) -> tuple[np.ndarray, np.ndarray]:
        """The samples of a full and, if there is one, a short batch, and a different learning rate for each."""
        n, size = len(self.samples), self.settings.batch_size
        order = np.arange(min(size + n % size, n))
        return order, self.settings.optimizer.lr * np.array([1.0, 0.5])[: -(-len(order) // size)]

    def _warm_up(self) -> None:
        """Compile all that a run needs, on a full and a short batch, and undo what that changed."""
        started = time.perf_counter()
        before = self.plan.state()
        order, rates = self._two_batches()
        self.plan.gradients(order[: self.settings.batch_size])
        self.plan.run(order, rates)
        if self.validation is not None:
            self.plan.evaluate(self.validation)
        self.plan.load_state(before)
        self.history.compile_seconds = time.perf_counter() - started

    def run(
        self,
        early_stopping: EarlyStopping | None,
        callbacks: Sequence[Callback],
        shown: Progress,
        interrupted: Callable[[], bool],
        usual: Any,
    ) -> None:
        """Train from where this stands to the end of the last epoch, or until something stops it."""
        shown.start(self.settings.epochs, len(self.samples), self.history)
        if self.verify != "off":
            self._verify_plan()
        while self.epoch < self.settings.epochs:
            if early_stopping is not None and self._out_of_patience(early_stopping):
                self.history.stopped = "early stopping"
                break
            if not self._run_epoch(shown, interrupted):
                self.history.stopped = "interrupted"
                break
            epoch = self._finish_epoch()
            shown.epoch(epoch)
            if early_stopping is not None:
                self._remember_best(early_stopping, epoch)
            if callbacks:
                self._download()
                with np.errstate(**usual):
                    answers = [callback(epoch, self.network) for callback in callbacks]
                if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
                    self.history.stopped = "callback"
                    break
        if (
            early_stopping is not None
            and self.history.stopped == "done"
            and self._out_of_patience(early_stopping)
        ):
            self.history.stopped = "early stopping"
        self.save()
        if early_stopping is not None and self.best is not None and self.history.stopped != "interrupted":
            self._restore_best()
        self._download()

    def _run_epoch(self, shown: Progress, interrupted: Callable[[], bool]) -> bool:
        """The rest of the present epoch; False if interrupted before its end."""
        self._epoch_rng_state = self.rng.bit_generator.state
        n, size = len(self.samples), self.settings.batch_size
        order = self.rng.permutation(n) if self.settings.shuffle else np.arange(n)
        while self.step < self.steps_per_epoch:
            if interrupted():
                self.rng.bit_generator.state = self._epoch_rng_state  # a resumed run draws this epoch again
                return False
            steps = self._next_chunk()
            rates = self.settings.optimizer.lr * self.settings.schedule.factors(
                self.epoch * self.steps_per_epoch + self.step,
                steps,
                self.steps_per_epoch,
                self.settings.epochs,
            )
            batch = order[self.step * size : (self.step + steps) * size]
            self._account(self._run_steps(batch, rates), steps)
            shown.advance(len(batch))
            if time.perf_counter() - self._saved_at > CHECKPOINT_SECONDS:
                self.save()
        return True

    def _next_chunk(self) -> int:
        """How many steps to run in one call: up to the next step to verify, and about CHUNK_SECONDS long."""
        if self._to_verify(self.step):
            return 1
        steps = max(1, int(self._steps_a_second * CHUNK_SECONDS))
        stop = min(self.step + steps, self.steps_per_epoch)
        return next((s for s in range(self.step, stop) if self._to_verify(s)), stop) - self.step

    def _to_verify(self, step: int) -> bool:
        if self.verify == "off" or self.verify == "step":
            return self.verify == "step"
        last = self.steps_per_epoch - 1
        if self.epoch == self.first_epoch:
            return self.steps_done + step - self.step < FIRST_STEPS or step == last
        if self.steps_done < FIRST_STEPS or self.verify == "first":
            return self.steps_done + step - self.step < FIRST_STEPS
        # The short last batch every other epoch, and any other in between.
        chosen = last if self.epoch % 2 else (self.epoch // 2 * 7919) % self.steps_per_epoch
        return step == chosen and self._within_budget()

    def _within_budget(self) -> bool:
        """Whether one more verification, at the mean cost so far, keeps to what they may cost."""
        report = self.history.verification
        mean = report.seconds / max(report.steps, 1)
        return report.seconds + mean <= max(VERIFY_SECONDS, VERIFY_SHARE * self.elapsed)

    def _run_steps(self, batch: np.ndarray, rates: np.ndarray) -> StepStats:
        if len(rates) == 1 and self._to_verify(self.step):
            return self._run_verified(batch, float(rates[0]))
        started = time.perf_counter()
        stats = self.plan.run(batch, rates)
        seconds = time.perf_counter() - started
        self._steps_a_second = len(rates) / max(seconds, 1e-9)
        self.seconds += seconds
        return stats

    def _run_verified(self, batch: np.ndarray, lr: float) -> StepStats:
        started = time.perf_counter()
        step = check_step(
            self.plan,
            self.network.layers,
            self.settings.loss,
            self.settings.optimizer,
            self.samples,
            batch,
            lr,
        )
        self.seconds += step.seconds
        self.history.verification.steps += bool(step.checks)
        self._report(step.checks, time.perf_counter() - started - step.seconds, step.before)
        return step.stats

    def _report(self, checks: list[TensorCheck], seconds: float, before: PlanState) -> None:
        """Add to the run's report; on a failure go back to the state before it, save that, and raise."""
        report = self.history.verification
        report.title = f"{self.history.backend} backend, epoch {self.epoch + 1}, step {self.step + 1}"
        report.add(checks)
        report.seconds += seconds
        if report.ok:
            return
        self.plan.load_state(before)
        self._download()
        self.save()
        saved = f"\nThe model before that step was saved in {self.save_to}." if self.save_to else ""
        raise VerificationError(report, saved)

    def _verify_plan(self) -> None:
        """What a plan must keep to besides single steps: runs of several, and evaluation."""
        started = time.perf_counter()
        before = self.plan.state()
        checks = check_cut(self.plan, *self._two_batches(), self.settings.batch_size)
        if self.validation_samples is not None:
            few = self.validation_samples.take(np.arange(min(len(self.validation_samples), VERIFY_ROWS)))
            checks += check_evaluation(self.plan, self.network.layers, self.settings.loss, few, before.layers)
        self._report(checks, time.perf_counter() - started, before)

    def _account(self, stats: StepStats, steps: int) -> None:
        self.costs[self.step : self.step + steps] = stats.costs
        self.hits[self.step : self.step + steps] = stats.hits
        self.step += steps
        self.steps_done += steps

    def _finish_epoch(self) -> Epoch:
        n = len(self.samples)
        loss, accuracy = float(self.costs.sum()) / n, int(self.hits.sum()) / n
        validation = None if self.validation is None else self.plan.evaluate(self.validation)
        lr = self.settings.optimizer.lr * float(
            self.settings.schedule.factors(
                (self.epoch + 1) * self.steps_per_epoch - 1, 1, self.steps_per_epoch, self.settings.epochs
            )[0]
        )
        epoch = Epoch(
            self.epoch + 1,
            loss,
            accuracy if self.classification else None,
            None if validation is None else validation.mean_cost,
            None if validation is None or not self.classification else validation.accuracy,
            lr,
            self.seconds,
        )
        if not np.isfinite(loss):
            self._download()
            raise GpubpError(
                f"the loss is {loss} after epoch {epoch.epoch}: training has diverged: lower the learning rate "
                f"(it is {lr:g}), or scale the inputs"
            )
        self.history.epochs.append(epoch)
        self.elapsed += self.seconds
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.costs, self.hits = self._empty_sums()
        self._epoch_rng_state = self.rng.bit_generator.state
        return epoch

    def _remember_best(self, early_stopping: EarlyStopping, epoch: Epoch) -> None:
        value = getattr(epoch, early_stopping.monitor)
        if early_stopping.improved(value, self.best[0] if self.best else None):
            self.best = value, epoch.epoch, self.plan.state().parameters
            self.history.best_epoch = epoch.epoch

    def _out_of_patience(self, early_stopping: EarlyStopping) -> bool:
        best_epoch = self.best[1] if self.best else 0
        return self.epoch - best_epoch >= early_stopping.patience

    def _restore_best(self) -> None:
        assert self.best is not None
        state = self.plan.state()
        self.plan.load_state(PlanState(self.best[2], state.slots, state.step))

    def _download(self) -> None:
        self.history.state = self.plan.state()
        self.network.parameters = self.history.state.layers

    def go_on_from(self, state: PlanState) -> None:
        """Take over another run's optimizer, but not its parameters."""
        own = self.plan.state()
        shapes = [[[slot.shape for slot in slots] for slots in s.slots] for s in (own, state)]
        if shapes[0] != shapes[1]:
            raise UsageError("the state is of another network or optimizer than this run's")
        self.plan.load_state(PlanState(own.parameters, state.slots, state.step))

    # Checkpoints

    def save(self) -> None:
        """Write the checkpoint, if one was asked for."""
        if self.save_to is None:
            return
        state, names = self.plan.state(), tensor_names(self.network.layers)
        arrays = {"epoch_costs": self.costs, "epoch_hits": self.hits}
        arrays |= dict(zip(names, state.parameters, strict=True))
        if self.best is not None:
            arrays |= {f"best_{name}": p for name, p in zip(names, self.best[2], strict=True)}
        for name, slots in zip(names, state.slots, strict=True):
            for kind, slot in zip(self.settings.optimizer.slots, slots, strict=True):
                arrays[f"{kind}_{name}"] = slot
        header = {
            "network": checkpoint.network_header(self.network),
            "training": {
                "settings": self.settings.header(),
                "data": self._fingerprint(),
                "update_count": state.step,
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "elapsed": self.elapsed,
                "generator": self._epoch_rng_state,
                "best": None if self.best is None else list(self.best[:2]),
                "history": [asdict(epoch) for epoch in self.history.epochs],
                "recipe": self.recipe,
            },
        }
        checkpoint.write(self.save_to, header, arrays)
        self._saved_at = time.perf_counter()

    def _fingerprint(self) -> str:
        """Which training data this is: the number of samples, and a checksum of all they hold."""
        if self._data_checksum is None:
            self._data_checksum = 0
            x = self.samples.inputs
            inputs = [x.data, x.indices, x.indptr] if is_sparse(x) else [x]
            for array in (*inputs, self.samples.targets, self.samples.sample_weight):
                self._data_checksum = zlib.crc32(array.reshape(-1).view(np.uint8), self._data_checksum)
        return f"{len(self.samples)} samples, crc32 {self._data_checksum:08x}"

    def resume(self, path: str | os.PathLike) -> None:
        """Stand where the checkpoint stood."""
        header, arrays = checkpoint.read(path, "checkpoint")
        saved = checkpoint.build_network(path, header, arrays)
        training = header.get("training")
        if training is None:
            raise DataError(f"{path} is a model without training state; it can be used but not resumed")
        self._require_same(path, saved, training)
        names = tensor_names(saved.layers)
        try:
            slots = [
                tuple(arrays[f"{slot}_{name}"] for slot in self.settings.optimizer.slots) for name in names
            ]
            state = PlanState([arrays[name] for name in names], slots, training["update_count"])
            self.epoch, self.step = training["epoch"], training["step"]
            self.seconds, self.elapsed = training["seconds"], training["elapsed"]
            self.costs, self.hits = arrays["epoch_costs"], arrays["epoch_hits"]
            self.rng.bit_generator.state = self._epoch_rng_state = training["generator"]
            self.history.epochs = [Epoch(**epoch) for epoch in training["history"]]
            self.history.resumed_epochs, self.first_epoch = len(self.history), self.epoch
            if training["best"] is not None:
                value, epoch = training["best"]
                self.best = value, epoch, [arrays[f"best_{name}"] for name in names]
                self.history.best_epoch = epoch
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: its training state is incomplete ({error})") from error
        self.plan.load_state(state)

    def _require_same(self, path: str | os.PathLike, saved: Network, training: dict[str, Any]) -> None:
        ours = {
            **self.settings.header(),
            "data": self._fingerprint(),
            "network": checkpoint.network_header(self.network),
        }
        theirs = {
            **training["settings"],
            "data": training.get("data"),
            "network": checkpoint.network_header(saved),
        }
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise UsageError(
                    f"{path} cannot be resumed here: its {key} is {theirs.get(key)!r}, not {value!r}"
                )
