"""What all tests share: the backends to run on, and small nets and data."""

from __future__ import annotations

import os
import signal
import sys
import warnings

import numpy as np
import pytest
from hypothesis import settings

from gpubp import backends
from gpubp.network import Network
from gpubp.training import passed
from tests.cuda_host import cuda_backend, why_no_cuda

# Compiled kernels and fibers take their time on the first example.
settings.register_profile("gpubp", deadline=None, max_examples=25, print_blob=True)
settings.load_profile("gpubp")


def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's may be ignored
    if config.getoption("--exhaustive"):
        os.environ["GPUBP_EXHAUSTIVE"] = "1"  # what `fewer` asks, also while test modules are imported


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="run also what takes long, as CI does")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--exhaustive"):
        skip = pytest.mark.skip(reason="takes long: python -m pytest --exhaustive runs it")
        for item in items:
            if item.get_closest_marker("exhaustive"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def nothing_verified_before(monkeypatch):
    """Every test's first run is verified as the first on a machine is."""
    monkeypatch.setattr(passed, "_passed", {})
    monkeypatch.setattr(passed, "_on_disk", lambda computed: 0)
    monkeypatch.setattr(passed, "_to_disk", lambda computed, steps: None)


BACKENDS = ("numpy", "numba", "cupy")
PLANS = (
    *BACKENDS,
    "numpy, composed",
    "cupy, composed",
)  # beside the plan that each backend makes if left the choice


def backend_by_name(name: str):
    """The backend; without GPUBP_TEST_GPU=1, cupy's is on its stand-in: the same Python side and the same .cu files."""
    name, _, plan = name.partition(", ")
    if name != "cupy":
        return backends.get(name, plan=plan or "auto")
    if why_no_cuda:
        pytest.skip(why_no_cuda)
    return cuda_backend(plan or "auto")


@pytest.fixture(params=PLANS)
def backend(request):
    return backend_by_name(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def small_net(sizes=(12, 9, 7, 4), hidden="tanh", output="softmax", dtype="float64", seed=1) -> Network:
    return Network(list(sizes), hidden=hidden, output=output, dtype=dtype, seed=seed)


def small_data(rng, n=50, n_in=12, n_out=4):
    return rng.standard_normal((n, n_in)), rng.integers(0, n_out, n)


@pytest.fixture
def no_clipping_warning():
    """For nets whose outputs are no probabilities under a loss that takes them for some, which fit warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are clipped and have no gradient")
        yield


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder; returns exit code, stdout and stderr."""
    from gpubp import cli

    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["gpubp", *map(str, args)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def ok(run):
    """Run a command that must succeed; returns its stdout."""

    def call(*args):
        code, out, err = run(*args)
        assert code == 0, err
        return out

    return call
