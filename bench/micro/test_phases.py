"""Each phase of the fused plan's training step, with what it achieves beside the machine's measured peaks."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import backends
from gpubp.backends.plan import Problem
from gpubp.benchmark import peaks
from gpubp.data.samples import Samples
from gpubp.functions import LOSSES
from gpubp.kernels.cpu import layout
from gpubp.network import Network
from gpubp.optimizers import SGD

SAMPLES, BATCH = 8192, 128
NETS = {"784-128-10": [784, 128, 10], "784-512-512-10": [784, 512, 512, 10]}
# density, and inputs in a row that are 0 or not together
INPUTS = {"as sparse as MNIST, in runs": (0.19, 7), "as sparse, at random": (0.19, 1), "dense": (1.0, 1)}


@pytest.fixture(scope="module", params=[(n, x) for n in NETS for x in INPUTS], ids=", ".join)
def plan(request):
    name, inputs = request.param
    density, run = INPUTS[inputs]
    rng = np.random.default_rng(0)
    sizes = NETS[name]
    x = rng.integers(1, 256, (SAMPLES, sizes[0])).astype(np.uint8)
    zero = rng.random((SAMPLES, -(-sizes[0] // run))) >= density
    x[np.repeat(zero, run, axis=1)[:, : sizes[0]]] = 0
    y = np.eye(sizes[-1], dtype=np.float32)[rng.integers(0, sizes[-1], SAMPLES)]
    net = Network(sizes, hidden="relu", output="softmax", seed=0)
    samples = Samples(x, y, np.ones(SAMPLES, np.float32))
    loss = LOSSES["cross_entropy"]
    return backends.get("numba").plan(Problem(net.layers, net.parameters, loss, SGD(1e-6), BATCH, samples))


def phases(plan) -> dict[str, tuple[int, int, int]]:
    """name → (number, operations, bytes) of an epoch: those that must be done, and what must be touched once a step.

    Bytes are those of the batch's inputs, activations and δ, and of the weights.
    """
    layers, nonzero = plan.layers, plan.samples.density
    inputs = [layers[0].n_in * nonzero] + [layer.n_in for layer in layers[1:]]
    n = SAMPLES
    table = {"gather": (layout.phase(layout.GATHER, 0), 0, n * layers[0].n_in * nonzero)}
    for i, layer in enumerate(layers):
        weights, rows = layer.n_in * layer.n_out * (n // BATCH), n * (inputs[i] + layer.n_out)
        flops, updates = 2 * n * inputs[i] * layer.n_out, 2 * weights
        table[f"forward {i + 1}"] = (layout.phase(layout.FORWARD, i), flops, 4 * (rows + weights))
        gradient = layout.phase(layout.WEIGHT_GRAD, i)
        table[f"gradient and update {i + 1}"] = (gradient, flops + updates, 4 * (rows + 2 * weights))
        if i:
            moved = 4 * (n * (layer.n_in + layer.n_out) + weights)
            back = layout.phase(layout.HIDDEN_DELTA, i - 1)
            table[f"back {i}"] = (back, 2 * n * layer.n_in * layer.n_out, moved)
    table["output"] = (layout.phase(layout.OUTPUT_DELTA, 0), 0, 8 * n * layers[-1].n_out)
    return table


@pytest.mark.parametrize("phase", ["whole step", "gather", "forward 1", "gradient and update 1", "forward 2",
                                   "back 1", "gradient and update 2", "output"])  # fmt: skip
def test_phase(benchmark, plan, phase):
    table = phases(plan)
    sums = (layout.ALL, sum(row[1] for row in table.values()), sum(row[2] for row in table.values()))
    number, operations, touched = table.get(phase, sums)
    order = np.random.default_rng(1).permutation(SAMPLES)
    count = SAMPLES // BATCH
    coefficients = np.tile(np.array([1e-6, 0, 0, 0], np.float32), 2 * count)

    def run():
        plan._run(plan.samples, order, BATCH, count, coefficients, layout.TRAIN, only=number)

    plan._run(plan.samples, order, BATCH, count, coefficients, layout.TRAIN)
    benchmark.group = plan.describe()
    benchmark(run)
    if benchmark.stats:
        seconds, threads = benchmark.stats["median"], plan.threads
        benchmark.extra_info |= {
            "GFLOP/s": round(operations / seconds / 1e9, 1),
            "GFLOP/s at most": round(peaks.flops_per_second(threads) / 1e9, 1),
            "GB/s": round(touched / seconds / 1e9, 1),
            "GB/s from memory at most": round(peaks.bytes_per_second(threads) / 1e9, 1),
        }
