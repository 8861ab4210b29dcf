"""The five operations on every backend that can run here, each checked against the reference before it is timed."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import backends, kernels
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.network import Network
from gpubp.optimizers import SGD

BATCH, N_IN, N_OUT = 128, 784, 128
AVAILABLE = [name for name, reason in backends.available().items() if reason is None]


@pytest.fixture(scope="module", params=AVAILABLE)
def backend(request):
    """A backend that agrees with the reference on the net being timed."""
    import gpubp

    rng = np.random.default_rng(0)
    chosen = backends.get(request.param)
    x, y = rng.random((BATCH, N_IN)), rng.integers(0, 10, BATCH)
    report = gpubp.verify(Network([N_IN, N_OUT, 10]), x, y, backend=chosen)
    assert report.ok, str(report)
    return chosen


@pytest.fixture(scope="module")
def calls(backend):
    """Each operation on its arrays, to its end."""
    rng, optimizer = np.random.default_rng(1), SGD(1e-6, momentum=0.9)

    def device(*shape):
        return backend.to_device(rng.standard_normal(shape).astype(np.float32))

    a_prev, weights, bias = device(BATCH, N_IN), device(N_OUT, N_IN), device(N_OUT)
    z, a, delta, cost = device(BATCH, N_OUT), device(BATCH, N_OUT), device(BATCH, N_OUT), device(BATCH)
    delta_prev, velocity = device(BATCH, N_IN), device(N_OUT, N_IN)
    grad_weights, grad_bias = device(N_OUT, N_IN), device(N_OUT)
    targets = backend.to_device(np.eye(N_OUT, dtype=np.float32)[rng.integers(0, N_OUT, BATCH)])
    weight, hit = backend.to_device(np.ones(BATCH, np.float32)), backend.to_device(np.zeros(BATCH, np.uint8))
    sigmoid, relu, softmax = (ACTIVATIONS[name] for name in ("sigmoid", "relu", "softmax"))
    c, loss = optimizer.coefficients(1e-6, 1, decay=True), LOSSES["cross_entropy"]
    todo = {
        "forward": (a, a_prev, weights, bias, sigmoid, a, a),
        "output_delta": (cost, z, a, targets, weight, softmax, loss, delta, cost, hit),
        "hidden_delta": (delta_prev, delta, weights, a_prev, relu, delta_prev),
        "weight_grad": (grad_bias, delta, a_prev, grad_weights, grad_bias),
        "update": (weights, weights, grad_weights, [velocity], optimizer, c),
    }

    def call(operation):
        out, *arguments = todo[operation]
        getattr(backend, operation)(*arguments)
        backend.to_host(out[:1])  # waits for a device

    return call


@pytest.mark.parametrize("operation", kernels.OPERATIONS)
def test_operation(benchmark, calls, operation):
    calls(operation)
    benchmark.group = operation
    benchmark(calls, operation)
    if operation in ("forward", "hidden_delta", "weight_grad") and benchmark.stats:
        benchmark.extra_info["multiply-adds/s"] = BATCH * N_IN * N_OUT / benchmark.stats["median"]
