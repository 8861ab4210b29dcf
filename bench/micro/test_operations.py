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
def arrays(backend):
    rng = np.random.default_rng(1)

    def device(*shape):
        return backend.to_device(rng.standard_normal(shape).astype(np.float32))

    return {
        "a_prev": device(BATCH, N_IN),
        "weights": device(N_OUT, N_IN),
        "bias": device(N_OUT),
        "z": device(BATCH, N_OUT),
        "a": device(BATCH, N_OUT),
        "delta": device(BATCH, N_OUT),
        "delta_prev": device(BATCH, N_IN),
        "grad_weights": device(N_OUT, N_IN),
        "grad_bias": device(N_OUT),
        "velocity": device(N_OUT, N_IN),
        "targets": backend.to_device(np.eye(N_OUT, dtype=np.float32)[rng.integers(0, N_OUT, BATCH)]),
        "weight": backend.to_device(np.ones(BATCH, np.float32)),
        "cost": device(BATCH),
        "hit": backend.to_device(np.zeros(BATCH, np.uint8)),
    }


def call(backend, operation, x):
    """The operation on the arrays, to its end."""
    optimizer = SGD(1e-6, momentum=0.9)
    if operation == "forward":
        backend.forward(x["a_prev"], x["weights"], x["bias"], ACTIVATIONS["sigmoid"], x["a"], x["a"])
        out = x["a"]
    elif operation == "output_delta":
        backend.output_delta(
            x["z"],
            x["a"],
            x["targets"],
            x["weight"],
            ACTIVATIONS["softmax"],
            LOSSES["cross_entropy"],
            x["delta"],
            x["cost"],
            x["hit"],
        )
        out = x["cost"]
    elif operation == "hidden_delta":
        backend.hidden_delta(x["delta"], x["weights"], x["a_prev"], ACTIVATIONS["relu"], x["delta_prev"])
        out = x["delta_prev"]
    elif operation == "weight_grad":
        backend.weight_grad(x["delta"], x["a_prev"], x["grad_weights"], x["grad_bias"])
        out = x["grad_bias"]
    else:
        c = optimizer.coefficients(1e-6, 1, decay=True)
        backend.update(x["weights"], x["grad_weights"], [x["velocity"]], optimizer, c)
        out = x["bias"]
    backend.to_host(out[:1])  # waits for a device


@pytest.mark.parametrize("operation", kernels.OPERATIONS)
def test_operation(benchmark, backend, arrays, operation):
    call(backend, operation, arrays)
    benchmark.group = operation
    products = operation in ("forward", "hidden_delta", "weight_grad")
    benchmark(call, backend, operation, arrays)
    if products and benchmark.stats:
        median = benchmark.stats["median"]
        benchmark.extra_info["multiply-adds/s"] = BATCH * N_IN * N_OUT / median
