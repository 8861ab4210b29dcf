"""What a rank does: ``python -m bench.ranks.worker TASK FILE``, both JSON; rank 0 writes the answer into the file.

A task has a ``kind``, which is a function here, and its arguments. Threads are those that the environment gives.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import gpubp
from gpubp import backends
from gpubp.backends.plan import Plan, Problem
from gpubp.data import check_split
from gpubp.distributed.mpi import ranks_of
from gpubp.distributed.plan import DistributedPlan
from gpubp.distributed.ranks import Ranks
from gpubp.functions import LOSSES
from gpubp.network import Network
from gpubp.optimizers import SGD

RATE = 0.01


def problem(layers: list[int], batch: int, samples: int) -> Problem:
    """A network with ReLUs and its training on so many images, those of mnist-sample again and again, with margins."""
    split = gpubp.load_data("mnist-sample", quiet=True).train
    rows = np.arange(samples) % len(split)
    inputs = np.zeros((samples, layers[0]), np.uint8)
    inputs[:, : split.inputs.shape[1]] = split.inputs[rows]
    network, loss = Network(layers, hidden="relu", output="softmax", seed=1), LOSSES["cross_entropy"]
    prepared = network.prepare(check_split(inputs, split.targets[rows]), loss).samples
    return Problem(network.layers, network.parameters, loss, SGD(RATE, momentum=0.9), batch, prepared)


def epochs(
    ranks: Ranks,
    layers: list[int],
    batch: int,
    samples: int,
    parts: int | None,
    count: int,
    plain: bool,
) -> dict[str, Any]:
    """Seconds of epochs, and of the exchanges in each; ``plain`` without what makes it one of several."""
    given, backend = problem(layers, batch, samples), backends.get("numba")
    plan: Plan = backend.plan(given) if plain else DistributedPlan(backend, given, ranks, parts)
    order, steps = np.random.default_rng(0).permutation(samples), -(-samples // batch)
    rates = np.full(steps, RATE)
    plan.run(order[: 10 * batch], rates[:10])  # compiles
    seconds, exchanges = [], []
    for _ in range(count):
        before, started = ranks.traffic.seconds, time.perf_counter()
        plan.run(order, rates)
        seconds.append(time.perf_counter() - started)
        exchanges.append(ranks.traffic.seconds - before)
    return {"seconds": seconds, "exchanges": exchanges, "steps": steps, "plan": plan.describe()}


def shares(ranks: Ranks, layers: list[int], batch: int, of: list[int]) -> dict[str, Any]:
    """Seconds that one rank on one thread takes for its share of a step, for each of these numbers of ranks."""
    given = problem(layers, batch, max(4 * batch, 1024))
    share = backends.get("numba").share(given)
    length, order = len(share.parameters), np.random.default_rng(0).permutation(len(given.samples))
    gradients, updates = {}, {}
    for count in of:
        rows = max(batch // count, 1)
        gradients[count] = _median(ranks, partial(share.sum_gradient, order[:rows], batch))
        stop = length // count // share.unit * share.unit
        updates[count] = _median(ranks, partial(share.update, 0, stop, RATE))
    return {"gradients": gradients, "updates": updates, "size": share.parameters.nbytes}


def link(ranks: Ranks, sizes: list[int]) -> dict[str, Any]:
    """Seconds of an exchange both ways of vectors of so many bytes between all ranks."""
    found = {}
    for size in sizes:
        vector = np.zeros(size // 4, np.float32)
        cuts = [len(vector) * rank // ranks.size for rank in range(ranks.size + 1)]

        found[size] = _median(ranks, partial(_both_ways, ranks, vector, cuts))
    return {"seconds": found}


def _both_ways(ranks: Ranks, vector: np.ndarray, cuts: list[int]) -> None:
    pieces = ranks.deal(vector, cuts)
    vector[cuts[ranks.rank] : cuts[ranks.rank + 1]] = pieces[0]
    ranks.spread(vector, cuts)


def _median(ranks: Ranks, work: Callable[[], object]) -> float:
    """Median seconds, of five times or as many as 0.3 s have; on all ranks as often as on the first."""
    work()
    started, taken = time.perf_counter(), []
    work()
    once = time.perf_counter() - started
    for _ in range(ranks.decide(max(5, min(200, int(0.3 / max(once, 1e-6)))))):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


KINDS: dict[str, Callable[..., dict[str, Any]]] = {kind.__name__: kind for kind in (epochs, shares, link)}


def main(text: str, file: str) -> None:
    task = json.loads(text)
    ranks = ranks_of("mpi" if task.pop("distributed") else None)
    answer = KINDS[task.pop("kind")](ranks, **task)
    if ranks.rank == 0:
        Path(file).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
