"""verify(): a backend held to the reference on one network and data, operation by operation and end to end."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from gpubp import backends
from gpubp.backends.backend import Backend
from gpubp.backends.plan import Problem
from gpubp.data.inputs import shape_of
from gpubp.functions import LOSSES, lookup
from gpubp.network import Network
from gpubp.optimizers import SGD, Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.randomness.settings import Deform
from gpubp.verification.operations import Operations
from gpubp.verification.report import Report
from gpubp.verification.steps import VERIFY_ROWS, check_cut, check_evaluation, check_step


def verify(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    optimizer: Optimizer | None = None,
    dropout: float | Sequence[float] = 0.0,
    deform: Deform | None = None,
    sample_weight: np.ndarray | None = None,
    backend: str | Backend = "auto",
) -> Report:
    """Hold a backend to the reference on this network and data; the network is not changed.

    Biases that are 0, as those of a fresh network, are drawn for it, since one left out would not show.

    Checks each operation by itself on the same inputs; and of the backend's own plan the evaluation, a run of
    several steps, and two single steps (a full and a short batch) end to end. Takes the first 256 samples at most.

    Args:
        inputs: (N, n_in), uint8 or float. targets: (N,) labels or (N, n_out). sample_weight: (N,) or None.
        optimizer: of the step, by default SGD with momentum. dropout, deform: as ``fit`` takes them.

    Returns:
        A report: ``report.ok``, ``report.worst``, ``str(report)``.

    Raises:
        DataError, UsageError, BackendUnavailable: as ``fit`` does.
    """
    started = time.perf_counter()
    chosen, optimizer = backends.get(backend), optimizer or SGD(0.1, momentum=0.9)
    objective = lookup(LOSSES, loss, "loss")
    split = network.split(inputs, targets, objective, sample_weight)
    samples = network.prepare(split, objective).samples
    samples = samples.take(np.arange(min(len(samples), VERIFY_ROWS)))
    batch = max(1, len(samples) * 2 // 3)  # so that the last of two batches is a short one
    drawn = np.random.default_rng(0).standard_normal
    parameters = [
        (w, np.where(b == 0, 0.1 * drawn(b.shape), b).astype(b.dtype)) for w, b in network.parameters
    ]
    dropped = Dropout.of(dropout, len(network.layers), seed=0)
    deformation = Deformation.of(deform, samples.inputs, shape_of(network.inputs, inputs), seed=0)
    chances = dropped, deformation
    problem = Problem(network.layers, parameters, objective, optimizer, batch, samples, *chances)
    report = Report(f"{chosen.name} backend ({chosen.describe()}) on {network!r}, {len(samples)} samples")
    with chosen.limits():
        with np.errstate(all="ignore"):
            report.add(Operations(chosen, problem).run())
        plan = chosen.plan(problem)
        report.add(check_evaluation(plan, samples))
        order = np.random.default_rng(0).permutation(len(samples))
        report.add(check_cut(plan, order))
        for part in (order[:batch], order[batch:]):
            if len(part):
                report.add(check_step(plan, part, optimizer.lr).checks)
                report.steps += 1
    report.seconds = time.perf_counter() - started
    return report
