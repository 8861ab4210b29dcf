"""Threads: how many a backend may use, and several Python threads that use one process's backends at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numba
import numpy as np
import pytest

import gpubp
from gpubp import backends
from gpubp.backends.cpu import backend as cpu
from gpubp.backends.threads import blas_threads, libraries
from gpubp.errors import UsageError
from gpubp.functions import ACTIVATIONS
from tests import fewer
from tests.conftest import small_data, small_net
from tests.networks import problem_of, samples_of

MOST = cpu.most_threads()


def blas() -> set[int]:
    """The threads that NumPy's BLAS has just now; empty if it is one that cannot be asked, such as Accelerate."""
    return {pool["num_threads"] for pool in libraries().info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_threads_are_a_positive_integer(name, threads):
    with pytest.raises(UsageError, match=f"threads must be 1 or more, not {threads!r}"):
        backends.get(name, threads=threads)


def test_more_than_numba_can_have_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match=f"threads must be 1 to {MOST}, .*NUMBA_NUM_THREADS={MOST + 1}"):
        backends.get("numba", threads=MOST + 1)


def test_a_gpu_takes_no_threads(monkeypatch):
    monkeypatch.setattr(backends, "choose", lambda *_: ("cupy", "named"))
    with pytest.raises(UsageError, match="backend 'cupy' runs elsewhere: choose numba or numpy"):
        backends.get("auto", threads=1)


def test_a_backend_that_is_there_takes_no_other_threads():
    with pytest.raises(UsageError, match="already has its threads"):
        backends.get(backends.get("numpy"), threads=1)


def test_a_backend_says_how_many_threads_it_uses(rng):
    device = backends.get("numba", threads=1)
    assert device.describe().endswith(", 1 thread")
    assert backends.get("numpy", threads=2).describe().endswith(", 2 threads")
    assert "thread" not in backends.get("numpy").describe()
    net, data = small_net((200, 100, 10), dtype="float32"), small_data(rng, 300, 200, 10)
    history = gpubp.fit(net, *data, epochs=1, backend=device, verify="off")
    assert "on 1 thread; Numba" in history.plan
    assert history.device == device.describe()


def test_by_default_there_are_as_many_as_numba_may_have(monkeypatch):
    assert backends.get("numba").threads == MOST
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(MOST + 1))
    assert backends.get("numba").threads == MOST + 1
    for wrong in ("none", "0", "-1"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", wrong)
        assert backends.why_unavailable("numba").startswith(
            f"NUMBA_NUM_THREADS must be 1 or more, not {wrong!r}"
        )


@pytest.mark.parametrize(("size", "shared"), [(8, False), (160, True)])
def test_operations_keep_to_the_threads(size, shared, rng):
    """Members of a team are the caller and threads that are started for it, if the products are worth it."""
    x, found = rng.standard_normal((size, size)).astype(np.float32), []
    for threads in (1, MOST):
        device, before = backends.get("numba", threads=threads), threading.active_count()
        results = [x.copy() for _ in range(4)]
        device.forward(x, x, x[0], ACTIVATIONS["relu"], *results[:2])
        device.hidden_delta(x, x, x, ACTIVATIONS["relu"], results[2])
        device.weight_grad(x, x, results[3], x[0].copy())
        assert threading.active_count() - before == (threads - 1 if shared else 0)
        found.append(np.stack(results).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("device", [backends.get("numba"), backends.get("numpy", threads=1)])
def test_blas_has_one_thread_while_a_run_is_on(device, rng):
    usual, seen = blas(), []
    options = {"epochs": 2, "verify": "off", "callbacks": [lambda *_: seen.append(blas())]}
    gpubp.fit(small_net(dtype="float32"), *small_data(rng), backend=device, **options)
    assert seen == [{1} if usual else set()] * 2
    assert blas() == usual


def test_blas_has_its_own_number_again_after_runs_that_overlap():
    usual = blas()
    with ExitStack() as second:
        with blas_threads(1):
            second.enter_context(blas_threads(1))
        assert blas() == ({1} if usual else set())
    assert blas() == usual


def test_without_compilation_there_is_no_numba(monkeypatch):
    assert backends.why_unavailable("numba") is None
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert backends.why_unavailable("numba").startswith("NUMBA_DISABLE_JIT is set")
    assert backends.choose("auto")[0] == "numpy"


# Several Python threads at once


def work(seed: int) -> list[np.ndarray]:
    """A gradient and a short training of a net of its own, by the plan that fit takes, and by single operations."""
    rng = np.random.default_rng(seed)
    x, y = small_data(rng, n=64 + seed, n_in=60, n_out=10)
    net = small_net((60, 80 + seed, 10), seed=seed, dtype="float32")
    _, found = gpubp.gradients(net, x, y, backend="numba")
    problem = problem_of(net, samples_of(net, x, y), batch=16, optimizer=gpubp.Adam())
    plan = backends.get("numba", plan="composed").plan(problem)
    plan.run(np.arange(64), np.full(4, 0.01))
    gpubp.fit(net, x, y, batch_size=16, epochs=2, backend="numba", verify="first")
    arrays = [array for pair in (*found, *net.parameters) for array in pair]
    return [*arrays, *plan.state().parameters]


def together(jobs) -> list:
    """The results of functions that are called at the same time."""
    start = threading.Barrier(len(jobs))

    def call(job):
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(call, job) for job in jobs]]


def compare_threads() -> None:
    """In a process of its own, for a clash of threads in compiled code would end it."""
    alone = [work(seed) for seed in range(4)]
    for _ in range(fewer(2, 5)):
        np.testing.assert_equal(together([lambda seed=seed: work(seed) for seed in range(4)]), alone)
    with pytest.raises(ValueError, match="not initialized"):
        numba.threading_layer()  # Numba's own threads were never started
    print("the same on", cpu.NumbaBackend().threads)


def test_python_threads_get_what_each_gets_alone():
    # The layer, which few machines have, is that of Numba's own threads.
    settings = {**os.environ, "NUMBA_THREADING_LAYER": "tbb", "NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-c", f"import {__name__} as tests; tests.compare_threads()"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["the", "same", "on", "2"]


@pytest.fixture
def plan(rng):
    """A fused plan that gives other Python threads a chance whenever its own threads are done."""
    net = small_net(dtype="float32")
    samples = samples_of(net, *small_data(rng, n=64))
    made = backends.get("numba").plan(problem_of(net, samples, batch=16, optimizer=gpubp.Adam()))
    run = made.team.run

    def slow(job):
        run(job)
        time.sleep(0.005)

    made.team.run = slow
    return made


def test_one_plan_of_several_python_threads_trains_every_step(plan):
    start, rates, order = plan.state(), np.full(2, 0.01), np.arange(32)
    for _ in range(6):
        plan.run(order, rates)
    expected = plan.state()
    plan.load_state(start)
    together([lambda: plan.run(order, rates)] * 6)
    got = plan.state()
    assert got.step == expected.step == 12
    np.testing.assert_equal(got.parameters, expected.parameters)


def test_one_plan_answers_several_python_threads(plan, rng):
    x = rng.standard_normal((40, 12))
    asked = [lambda k=k: plan.gradients(np.arange(k, k + 8))[1] for k in range(4)]
    asked += [lambda k=k: [(plan.predict(x[k : k + 9]),)] for k in range(4)]
    for _ in range(3):
        np.testing.assert_equal(together(asked), [ask() for ask in asked])
