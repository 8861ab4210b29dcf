"""The state of a run, written so that another process goes on from there bitwise: a model file and what training adds.

An .npz of :mod:`gpubp.formats.npz` with the parameters W1, b1, …; the optimizer's slots as velocity_W1, …; the best
epoch's parameters as best_W1, …; and the sums of the epoch in progress. Its header has the rest under "training".
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from gpubp.backends.plan import PlanState, Problem
from gpubp.data.dataset import Split
from gpubp.data.mapped import checksums, is_mapped
from gpubp.data.samples import Samples
from gpubp.data.sparse import is_sparse
from gpubp.distributed.ranks import Alone, Ranks
from gpubp.errors import DataError, UsageError
from gpubp.formats import npz
from gpubp.network import Network, tensor_names
from gpubp.optimizers import Schedule
from gpubp.support.checksums import crc32
from gpubp.support.hints import apart
from gpubp.training.history import Epoch
from gpubp.training.stopping import Best

OF_DATA = ("data", "validation data")  # in a run's identity: fingerprints, or None


@dataclass(frozen=True)
class Settings:
    """The settings of a run, besides its network, data and problem; ``batch_size`` may exceed the samples."""

    epochs: int
    batch_size: int
    schedule: Schedule
    seed: int
    shuffle: bool

    def header(self, problem: Problem) -> dict[str, Any]:
        """All that two runs must share to be the same; not the number of epochs, which may grow."""
        own = {name: value for name, value in asdict(self).items() if name != "epochs"}
        optimizer = {"kind": problem.optimizer.kind, **asdict(problem.optimizer)}
        dropout = problem.dropout and list(problem.dropout.rates)
        chances = {"dropout": dropout, "deform": problem.deformation and problem.deformation.to_dict()}
        return {"loss": problem.loss.name, "optimizer": optimizer, **chances, **own}


IN_HEADER = ("epoch", "step", "seconds", "elapsed", "generator")  # of a standing; its sums are arrays


@dataclass
class Standing:
    """The state of a run: the next step is ``step`` of ``epoch``, both counted from 0.

    ``costs`` and ``hits`` are sums of each step of this epoch, whose training has taken ``seconds`` so far, of
    ``elapsed`` in all before. ``generator`` is the state from which the epoch's order is drawn.
    """

    costs: np.ndarray
    hits: np.ndarray
    generator: Any
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    best: Best = field(default_factory=Best)

    def next_epoch(self, generator: Any) -> None:
        """Stand before the first step of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.elapsed, self.seconds = self.elapsed + self.seconds, 0.0
        self.costs[:], self.hits[:] = 0, 0
        self.generator = generator


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, besides its network: where the run stood, the plan's state and the epochs done."""

    standing: Standing
    state: PlanState
    epochs: list[Epoch]


def fingerprint(samples: Samples | Split, ranks: Ranks | None = None) -> str:
    """Identify data by the number of samples, and a checksum of all they hold.

    Inputs that are mapped from a file are read once, by each rank a share; all ranks are to call this.
    """
    x, together = samples.inputs, ranks or Alone()
    inputs = [x.data, x.indices, x.indptr] if is_sparse(x) else [x]
    if is_mapped(x):
        of_blocks = together.told(checksums(x, together.rank, together.size))
        inputs = [np.array(list(chain(*of_blocks)))]
    arrays = (*inputs, samples.targets, samples.sample_weight)
    return f"{len(samples)} samples, crc32 {crc32(array for array in arrays if array is not None):08x}"


def write(
    path: str | os.PathLike,
    network: Network,
    identity: dict[str, Any],
    checkpoint: Checkpoint,
    slots: tuple[str, ...],
    backend: str,
    recipe: dict[str, Any] | None,
) -> None:
    """Write a checkpoint, atomically. ``identity`` is what must be the same where it is resumed, the data among it."""
    standing, state = checkpoint.standing, checkpoint.state
    names = tensor_names(network.layers)
    arrays = {"epoch_costs": standing.costs, "epoch_hits": standing.hits}
    arrays |= dict(zip(names, state.parameters, strict=True))
    if standing.best.epoch:
        arrays |= {f"best_{name}": p for name, p in zip(names, standing.best.parameters, strict=True)}
    for name, of_parameter in zip(names, state.slots, strict=True):
        arrays |= {f"{slot}_{name}": array for slot, array in zip(slots, of_parameter, strict=True)}
    training = {
        **{key: identity[key] for key in OF_DATA},
        "settings": {key: value for key, value in identity.items() if key not in OF_DATA},
        "update_count": state.step,
        **{name: getattr(standing, name) for name in IN_HEADER},
        "best": [standing.best.value, standing.best.epoch] if standing.best.epoch else None,
        "history": [asdict(epoch) for epoch in checkpoint.epochs],
        "backend": backend,
        "recipe": recipe,
    }
    npz.write(path, {"network": npz.network_header(network), "training": training}, arrays)


def shape(network: Network) -> dict[str, Any]:
    """What two networks must share to have each other's parameters; what their inputs are, the data says."""
    return {
        name: value
        for name, value in npz.network_header(network).items()
        if name not in ("inputs", "outputs")
    }


def read_training(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """The part of a checkpoint's header about training, the header, and the arrays.

    Raises:
        DataError: no such file, damaged, or a model, from which training cannot go on.
    """
    header, arrays = npz.read(path, "checkpoint")
    if "training" not in header:
        raise DataError(
            f"{path} is a model without training state; it can be used but not resumed: give the run's checkpoint.npz"
        )
    return header["training"], header, arrays


def backend_of(path: str | os.PathLike | None) -> str | None:
    """The backend that wrote a checkpoint; None without one, or of a version that did not say. Raises as above."""
    return None if path is None else read_training(path)[0].get("backend")


def read(
    path: str | os.PathLike, network: Network, identity: dict[str, Any], slots: tuple[str, ...]
) -> Checkpoint:
    """The checkpoint of a run of this network with this ``identity``.

    Raises:
        DataError: as :func:`read_training` does, or a training state that is not complete.
        UsageError: it is of another run, data or network.
    """
    training, header, arrays = read_training(path)
    saved = npz.build_network(path, header, arrays)
    ours = {**identity, "network": shape(network)}
    of_data = {key: training.get(key) for key in OF_DATA}
    if None in (of_data["validation data"], ours["validation data"]):  # an older gpubp did not say
        ours["validation data"] = of_data["validation data"]
    theirs = {**training["settings"], **of_data, "network": shape(saved)}
    for key, value in ours.items():
        if (other := theirs.get(key)) != value:
            raise UsageError(f"{path} cannot be resumed here: its {key} is {apart(other, value)}")
    names = tensor_names(saved.layers)
    try:
        of_each = [tuple(arrays[f"{slot}_{name}"] for slot in slots) for name in names]
        state = PlanState([arrays[name] for name in names], of_each, training["update_count"])
        value, epoch = training["best"] or (None, 0)
        best = Best(epoch, value, [arrays[f"best_{name}"] for name in names if epoch])
        sums = arrays["epoch_costs"], arrays["epoch_hits"]
        standing = Standing(*sums, **{name: training[name] for name in IN_HEADER}, best=best)
        return Checkpoint(standing, state, [Epoch(**epoch) for epoch in training["history"]])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its training state is incomplete ({error})") from error
