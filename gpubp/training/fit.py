"""fit(): a network trained in place by a backend's plan, and held to the reference as it goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import numpy as np

from gpubp import backends
from gpubp.backends import Wanted
from gpubp.backends.backend import Backend
from gpubp.backends.plan import PlanState, Problem
from gpubp.backends.work import Work
from gpubp.data.dataset import Split, not_finite
from gpubp.data.inputs import BYTES, UNKNOWN, Inputs, a_thousand, kind_of, names_of, shape_of, size_of
from gpubp.data.mapped import is_mapped, share_of_rows
from gpubp.distributed.backend import backend_for
from gpubp.distributed.mpi import ranks_of
from gpubp.distributed.ranks import Ranks
from gpubp.errors import DataError, GpubpError, TrainingWarning, UsageError
from gpubp.functions import LOSSES, Loss, lookup
from gpubp.model import CLASSES, VALUES
from gpubp.network import Network
from gpubp.optimizers import OPTIMIZERS, SGD, Optimizer, Schedule
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.randomness.settings import Deform
from gpubp.reference import Parameters
from gpubp.support.warning import warn_caller
from gpubp.training import checkpoint
from gpubp.training.checkpoint import Settings
from gpubp.training.history import History
from gpubp.training.interrupts import until_interrupted
from gpubp.training.loop import Callback, Loop
from gpubp.training.progress import Progress, progress_for
from gpubp.training.stopping import EarlyStopping

DARK = 127  # images have brighter pixels than this


def fit(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    optimizer: Optimizer | None = None,
    dropout: float | Sequence[float] = 0.0,
    deform: Deform | None = None,
    batch_size: int = 128,
    epochs: int = 10,
    schedule: Schedule | None = None,
    sample_weight: np.ndarray | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Sequence[Callback] = (),
    backend: str | Wanted | Backend = "auto",
    verify: str = "epoch",
    seed: int = 0,
    shuffle: bool = True,
    save_to: str | os.PathLike | None = None,
    resume: str | os.PathLike | None = None,
    state: PlanState | None = None,
    progress: bool | Progress = False,
    recipe: dict[str, Any] | None = None,
    distributed: Any = None,
    parts: int | None = None,
) -> History:
    """Train ``network`` in place by mini-batch gradient descent, and hold the backend to the reference as it goes.

    Args:
        inputs: (N, n_in), uint8 (scaled by 1/255) or numbers (taken as they are), or a sparse matrix of SciPy's; of
            the kind that the network learned from before, if it did, and so must the validation's be.
        targets: (N,) class labels 0 … n_out−1, or (N, n_out) values; where there is one output and neither it nor
            the loss is for probabilities, numbers (N,) are values, whole ones too.
        loss: a name of ``gpubp.functions.LOSSES``; the cost of a batch is its mean over the batch.
        optimizer: by default ``SGD(lr=0.1, momentum=0.9)``.
        dropout: the rate at which each step drops activations of the hidden layers, one for all or one each; or one
            more, the first of which is the inputs': [0.2, 0.5, 0.5] of a network of two hidden layers. Training alone
            has it (:mod:`gpubp.randomness.dropout`): evaluation, predictions and saved networks have none.
        deform: a :class:`gpubp.Deform`: how each step deforms the images of its batch anew, which are bytes of shape
            (N, height, width), or rows of pixels where the network knows their shape. Training alone has it
            (:mod:`gpubp.randomness.deform`).
        batch_size: samples a step; the last batch of an epoch may be shorter and counts by its own mean.
        schedule: the factor on the learning rate over time; by default constant.
        sample_weight: (N,) factors on each sample's cost.
        validation: (inputs, targets) to evaluate after every epoch.
        early_stopping: an :class:`EarlyStopping`, or its patience; needs ``validation``.
        callbacks: each is called as callback(epoch, network) after every epoch; one that returns True ends the run. An
            object whose ``reads_network`` is false spares it the copy of the parameters.
        backend: "numpy", "numba", "cupy", or a Backend, such as ``gpubp.backends.get("numba", threads=2)``; "auto" is
            the one that :func:`gpubp.backends.choose` takes for this much work.
        verify: "first" (the first three steps and the first epoch's last), "epoch" (those and one batch of every
            epoch, while that costs at most 3% of the run or 0.2 s), "step" (every step), "off".
        seed: of the generator that shuffles, of dropout and of deformations; every backend sees the same batches, and
            drops and deforms the same. A second call with the same seed repeats all three: to go on with a network,
            give another seed, or the ``state`` of the run before, whose steps count on.
        save_to: a checkpoint file, written as the run goes and at its end.
        resume: a checkpoint to go on from, bitwise as if never stopped; its data and recipe must be the same.
        state: ``history.state`` of a former run of this network with the same optimizer, whose velocities, moments
            and step count this one goes on with; the parameters are the network's own.
        progress: True for a progress bar on stderr (plain lines where that is no terminal).
        recipe: kept in the checkpoint, for whoever resumes it.
        distributed: an mpi4py communicator, or "mpi" for all processes that mpiexec started: they train the network
            together, each on its part of every mini-batch, and each must call this with the same arguments. Rank 0
            alone shows progress and writes the checkpoint; the history and the network are the same on all.
        parts: cuts each mini-batch into so many parts, a power of two, whose gradients are added in the same order
            wherever they are computed: the weights have the same bits on any number of ranks that divides it, and on
            one. By default each rank has one part.

    Returns:
        The history. Ctrl-C ends the run cleanly: ``history.stopped`` is then "interrupted". A run that went nowhere
        has a word on it in ``history.warnings``, which is warned of as a :class:`gpubp.errors.TrainingWarning`.

    Raises:
        UsageError, DataError, BackendUnavailable: before training starts.
        VerificationError: the backend computed something else than the equations say.
        GpubpError: the loss is no longer finite, or the checkpoint cannot be written.
    """
    ranks = ranks_of(distributed)
    with ranks.together():
        if not isinstance(network, Network):
            raise UsageError(f"what is trained is a gpubp.Network, not {type(network).__name__}")
        _check_arguments(optimizer, schedule, validation, early_stopping, callbacks)
        objective = lookup(LOSSES, loss, "loss")
        counts = _positive(epochs, "epochs"), _positive(batch_size, "batch_size")
        seed = _positive(seed, "seed") if seed else 0
        settings = Settings(*counts, schedule or Schedule(), seed, bool(shuffle))
        if isinstance(early_stopping, int):
            early_stopping = EarlyStopping(patience=early_stopping)
        if early_stopping is not None and validation is None:
            raise UsageError("early stopping watches validation data; give validation=(inputs, targets)")
        _warn_of_clipping(network, objective)
        how: dict[str, Any] = {"name": "training data", "look_through_mapped": False}
        split = network.split(inputs, targets, objective, sample_weight, **how)
        _look_through_mapped(split.inputs, ranks)
        learned = _learned(network.inputs, inputs, split)
        train = network.prepare(split, objective, "training data")
        watched = None
        if validation is not None:
            wanted, of_targets = validation[1], names_of(targets)
            if names_of(wanted) or len(of_targets) > 1:  # one column of targets needs no name
                wanted = Inputs(names=of_targets).arranged(wanted, "validation targets")
            named = names_of(inputs) or names_of(validation[0])
            # One word on columns without names is enough.
            like = learned if named else replace(learned, names=())
            held = network.split(validation[0], wanted, objective, name="validation data", like=like)
            watched = network.prepare(held, objective, "validation data", like=learned).samples
        by_accuracy = early_stopping is not None and early_stopping.monitor == "validation_accuracy"
        if by_accuracy and not train.classification:
            raise UsageError("validation_accuracy needs class labels; monitor validation_loss instead")
        deformation = Deformation.of(deform, train.samples.inputs, learned.shape, settings.seed)
        _refuse_classes(deformation, train.classification, network.sizes[-1])
        if network.inputs.kind == UNKNOWN:
            _warn_of_dark_images(split.inputs)
        network.inputs = learned
        if not train.classification:
            network.meaning = VALUES
        elif network.meaning.kind != "classes":
            network.meaning = CLASSES

        shown = progress if isinstance(progress, Progress) else progress_for(quiet=not progress)
        if ranks.rank:
            shown = Progress()
        usual = np.geterr()
        optimizer = optimizer or SGD(lr=0.1, momentum=0.9)
        dropped = Dropout.of(dropout, len(network.layers), settings.seed)
        size, held_out = min(settings.batch_size, len(train.samples)), 0 if watched is None else len(watched)
        of_work = len(train.samples), size, settings.epochs, held_out
        work = Work.of(network, *of_work, dropped, deforms=deformation is not None)
        if not isinstance(backend, Backend):  # else it is chosen, and a checkpoint need not be read for that
            backend = backend_for(ranks, backend, parts, work=work, before=checkpoint.backend_of(resume))
        chances = dropped, deformation
        problem = Problem(
            network.layers, network.parameters, objective, optimizer, size, train.samples, *chances
        )
        watching = train.classification, watched, early_stopping
        # A run that diverges is reported once, by name, at the end of the epoch.
        with (
            until_interrupted(one_of_many=ranks.size > 1) as interrupted,
            shown,
            np.errstate(all="ignore"),
            backend.limits(),
        ):
            loop = Loop(network, problem, settings, backend, verify, *watching, save_to, recipe, ranks, parts)
            goes_on = (
                "a checkpoint" if resume is not None else "a state" if state is not None else "the start"
            )
            loop.compare_ranks(goes_on)
            loop.warm_up()
            if resume is not None:
                loop.resume(resume)
            elif state is not None:
                loop.go_on_from(state)
            loop.compare_standing()
            try:
                loop.run(callbacks, shown, interrupted, usual)
            except GpubpError as error:
                if loop.has_news:
                    error.history = loop.history
                raise
    for said in loop.history.warnings if ranks.rank == 0 else ():
        warn_caller(said, TrainingWarning)
    return loop.history


def gradients(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    sample_weight: np.ndarray | None = None,
    backend: str | Backend = "auto",
) -> tuple[float, Parameters]:
    """The mean cost over all samples, as one batch, and its gradient: a list of (∂C/∂W, ∂C/∂b), host arrays.

    Arguments and errors are those of :func:`fit`; shapes are those of ``network.parameters``.
    """
    objective = lookup(LOSSES, loss, "loss")
    split = network.split(inputs, targets, objective, sample_weight)
    samples = network.prepare(split, objective).samples
    chosen = backends.get(backend, work=Work.of(network, len(samples), len(samples), 1))
    problem = Problem(network.layers, network.parameters, objective, SGD(), len(samples), samples)
    with chosen.limits():
        return chosen.plan(problem).gradients(np.arange(len(samples)))


def _positive(value: Any, name: str) -> int:
    if isinstance(value, bool | str) or not isinstance(value, SupportsIndex) or int(value) < 1:
        raise UsageError(f"{name} must be a positive integer, not {value!r}")
    return int(value)


def _check_arguments(
    optimizer: Any, schedule: Any, validation: Any, early_stopping: Any, callbacks: Any
) -> None:
    """Refuse what Python would only trip over later, with a message about something else."""
    if not isinstance(optimizer, Optimizer | None):
        offered = ", ".join(f"gpubp.{cls.__name__}(…)" for cls in OPTIMIZERS.values())
        raise UsageError(f"optimizer must be one of {offered}, not {optimizer!r}")
    if not isinstance(schedule, Schedule | None):
        raise UsageError(f"schedule must be gpubp.Schedule(…), not {schedule!r}")
    if validation is not None and not (isinstance(validation, tuple | list) and len(validation) == 2):
        raise UsageError("validation must be a pair (inputs, targets)")
    if isinstance(early_stopping, bool) or not isinstance(early_stopping, EarlyStopping | int | None):
        raise UsageError(f"early_stopping must be an EarlyStopping or a patience, not {early_stopping!r}")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UsageError("callbacks must be a list of functions")


def _refuse_classes(deformation: Deformation | None, classification: bool, outputs: int) -> None:
    """Refuse rotation by classes that there are none of."""
    if deformation is None or not deformation.by_class:
        return
    if not classification:
        raise UsageError("rotation_by_class goes by class labels, and these targets are values")
    count = max(outputs, 2)  # one output tells two classes apart
    strange = [str(label) for label, _ in deformation.settings.rotation_by_class if label >= count]
    if strange:
        raise UsageError(
            f"rotation_by_class names class {' and '.join(strange)}, and there are the classes 0 to {count - 1}"
        )


def _warn_of_clipping(network: Network, loss: Loss) -> None:
    """Warn of outputs that are no probabilities: clipped to (0, 1) they learn nothing, which is seldom meant."""
    output = network.layers[-1].activation
    if loss.probabilities and output not in ("softmax", "sigmoid"):
        warn_caller(
            f"{loss.name} takes outputs for probabilities; those of {output} outside (0, 1) are clipped and have no "
            f"gradient. Use output={loss.matched!r}"
        )


def _look_through_mapped(inputs: Any, ranks: Ranks) -> None:
    """Refuse NaN and infinity in training inputs that are mapped from a file, of which each rank reads its share."""
    if not is_mapped(inputs):
        return
    name, rows = "training data", share_of_rows(len(inputs), ranks.rank, ranks.size)
    own = next(filter(None, (not_finite(inputs[some], name, some.start) for some in rows)), None)
    if said := next(filter(None, ranks.told(own)), None):
        raise DataError(said)


def _learned(before: Inputs, inputs: Any, split: Split) -> Inputs:
    """What a network has learned from after these inputs, of which ``split`` has those that were checked."""
    return replace(
        before,
        kind=kind_of(split.inputs),
        names=before.names or names_of(inputs),
        shape=shape_of(before, inputs),
        size=before.size or size_of(split.inputs),
    )


def _warn_of_dark_images(inputs: Any) -> None:
    """Warn of bytes that are hardly those of images: a table's, say, whose numbers are so small that they fit."""
    if is_mapped(inputs):
        inputs = a_thousand(inputs)
    if kind_of(inputs) == BYTES and (largest := inputs.max()) <= DARK:
        warn_caller(
            f"an array of uint8 is taken for images and scaled by 1/255, but the largest of these is {largest}: if "
            "they are not images, convert them with .astype('float32'); an estimator takes a DataFrame for numbers"
        )
