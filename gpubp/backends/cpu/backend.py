"""The ``numba`` backend: launches of the compiled loops in gpubp.kernels.cpu."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache, cached_property
from importlib.metadata import version

import numpy as np

import gpubp.kernels as kernels
from gpubp.backends.backend import HostBackend, check_rule
from gpubp.backends.cpu.team import Team
from gpubp.backends.plan import Plan, Problem
from gpubp.backends.share import Share
from gpubp.backends.threads import blas_threads, counted
from gpubp.data.samples import Samples, as_inputs
from gpubp.errors import BackendUnavailable, UsageError
from gpubp.functions import LOSSES
from gpubp.network import Layer
from gpubp.optimizers import SGD
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.support.machine import cores

try:
    from gpubp.backends.cpu import fused
    from gpubp.backends.cpu.deform import Deformer
    from gpubp.backends.cpu.share import FusedShare
    from gpubp.kernels.cpu import entries
    from gpubp.kernels.cpu.layout import padded, turned, turned_back

    _import_error: BaseException | None = None
except Exception as error:  # LLVM cannot be loaded
    _import_error = error

SHARED_PRODUCT = 4_000_000  # multiply-adds of one product, from which on it is worth waking other threads


def why_unavailable() -> str | None:
    """None if Numba works here, or its kernels are compiled, else why it does not and what to install."""
    if _import_error is not None:
        return _told(_import_error)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "NUMBA_DISABLE_JIT is set, so that Numba compiles nothing; unset it"
    threads = os.environ.get("NUMBA_NUM_THREADS") or "1"
    if not threads.isdecimal() or int(threads) == 0:
        return f"NUMBA_NUM_THREADS must be 1 or more, not {threads!r}; set it right, or unset it"
    return None if is_compiled(np.dtype(np.float32)) else why_no_compiler()


def is_compiled(dtype: np.dtype, *, by_chance: bool = False) -> bool:
    """Whether the kernels that train in ``dtype`` are compiled: with dropout and deformed images, or without."""
    return _import_error is None and fused.is_compiled(dtype, by_chance=by_chance)


@cache
def why_no_compiler() -> str | None:
    """None if Numba can be imported, which takes a while."""
    try:
        from numba import njit  # noqa: F401
    except (Exception, SystemExit) as error:  # a broken LLVM or a NumPy too new: no reason for a traceback
        return _told(error)
    return None


@cache
def _version() -> str:
    return version("numba")


def _told(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"numba cannot be imported ({reason}); try: python -m pip install --upgrade numba"


def most_threads() -> int:
    """The threads that Numba would use, by default one a core. Its own are never started, whatever their layer."""
    return int(os.environ.get("NUMBA_NUM_THREADS") or cores())


class NumbaBackend(HostBackend):
    """NumPy arrays and compiled loops; ``threads`` is by default NUMBA_NUM_THREADS, which is one a core.

    Every network trains by the fused plan, unless the composed one is asked for: slower, and one step after the other
    to follow.

    Raises:
        UsageError: more threads than Numba can have, or no such plan.
    """

    name = "numba"
    plans = ("composed", "fused")
    threads: int

    def __init__(self, threads: int | None = None, plan: str = "auto", precision: str = "float32") -> None:
        most = most_threads()
        super().__init__(most if threads is None else threads, plan, precision)
        if self.threads > most:
            raise UsageError(
                f"threads must be 1 to {most}, the most that Numba can use here, not {threads}; "
                f"NUMBA_NUM_THREADS={threads} in the environment would let it have more"
            )

    def describe(self) -> str:
        return f"Numba {_version()}, {counted(self.threads)}"

    def limits(self) -> AbstractContextManager:
        # After every product of the verifier's, BLAS's threads would spin for milliseconds on the cores that these
        # loops need: 784-128-10 then trains in 115 ms instead of 78.
        return blas_threads(1)

    def plan(self, problem: Problem) -> Plan:
        there = is_compiled(problem.dtype, by_chance=problem.by_chance)
        if not there and (reason := why_no_compiler()):
            raise BackendUnavailable(f"backend 'numba' cannot run here: {reason}")
        if self.plan_kind == "composed":
            return super().plan(problem)
        return fused.FusedPlan(self.describe(), self.threads, problem)

    def share(self, problem: Problem) -> Share:
        plan = self.plan(problem)
        return FusedShare(plan) if isinstance(plan, fused.FusedPlan) else super().share(problem)

    def warm_up(self, dtype: str) -> Iterator[tuple[str, float]]:
        """Compile what training in ``dtype`` calls, or load it from the cache: yields what, and the seconds.

        What is left are the operations one by one, which only ``gpubp.verify`` calls.
        """
        for kind in ("uint8", dtype):
            started = time.perf_counter()
            for zeros in (0, 500):  # dense inputs, and inputs of which only those that are not 0 are kept
                self._train_a_little(np.dtype(dtype), np.dtype(kind), zeros)
            yield f"{dtype} network, {kind} inputs", time.perf_counter() - started
        started = time.perf_counter()
        self._train_a_little(np.dtype(dtype), np.dtype(dtype), 0, dropout=0.5)
        yield f"{dtype} network, dropout and deformed images", time.perf_counter() - started

    def _train_a_little(self, dtype: np.dtype, kind: np.dtype, zeros: int, dropout: float = 0.0) -> None:
        """All that a plan offers, once, on 4 samples of 512 inputs of this kind."""
        inputs = np.ones((4, 512), kind)
        inputs[:, :zeros] = 0
        samples = Samples(inputs, np.eye(4, 2, dtype=dtype), np.ones(4, dtype))
        parameters = [(np.zeros((2, 512), dtype), np.zeros(2, dtype))]
        how = LOSSES["cross_entropy"], SGD(0.1), 2
        dropped = Dropout.of([dropout], layers=1, seed=0)
        plan = self.plan(Problem([Layer(512, 2, "softmax")], parameters, *how, samples, dropped))
        plan.run(np.arange(4), np.array([0.1, 0.1]))
        plan.gradients(np.arange(2))
        plan.evaluate(plan.upload(samples))
        plan.predict(inputs)

    _deforms: Deformer | None = None

    @cached_property
    def _team(self) -> Team:
        return Team(self.threads)

    def _multiply(self, a: np.ndarray, b: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """C = start + a b, (M, K) and (K, N) to (M, N), its rows shared by the team."""
        a, b, n = np.ascontiguousarray(a), padded(b), b.shape[1]
        c, row = np.empty((len(a), b.shape[1]), a.dtype), np.zeros(b.shape[1], a.dtype)
        if start is not None:
            row[:n] = start
        given = a.reshape(-1), b.reshape(-1), row, c.reshape(-1), *b.shape
        if a.size * n < SHARED_PRODUCT:  # the team would take longer to wake than to multiply
            entries.multiply(*given, 0, len(a))
        else:
            self._team.share(len(a), lambda _, first, stop: entries.multiply(*given, first, stop))
        return c[:, :n]

    def deform(self, source, order, deformation, step, classes, out):
        out[...] = as_inputs(self._deformer(deformation).images(source, order, step, classes), out.dtype)

    def _deformer(self, deformation: Deformation) -> Deformer:
        """Of the last deformation there was, whose tables and working memory are there."""
        if self._deforms is None or self._deforms.deformation != deformation:
            self._deforms = Deformer(deformation, self._team)
        return self._deforms

    def forward(self, a_prev, weights, bias, activation, z, a):
        z[...] = self._multiply(a_prev, weights.T, bias)
        blocks = turned(z)
        entries.activate_blocks(blocks.reshape(-1), z.shape[1], kernels.ACTIVATIONS[activation.name])
        a[...] = turned_back(blocks, len(a))

    def output_delta(self, z, a, targets, sample_weight, activation, loss, delta, row_cost, row_hit):
        n, room = z.shape[1], np.zeros((len(z), 2), z.dtype)
        blocks = turned(np.hstack([z, a, targets, delta, sample_weight[:, None], room]))
        entries.output_blocks(
            blocks.reshape(-1), n, kernels.ACTIVATIONS[activation.name], kernels.LOSSES[loss.name]
        )
        rows = turned_back(blocks, len(z))
        delta[...], row_cost[...], row_hit[...] = rows[:, 3 * n : 4 * n], rows[:, -2], rows[:, -1]

    def hidden_delta(self, delta_next, weights_next, a, activation, delta, mask=None, order=None):
        gradient = self._multiply(delta_next, weights_next)
        if mask is not None:
            self.drop(gradient, mask, order, gradient)
        blocks = turned(np.hstack([gradient, a]))
        entries.pull_back_blocks(blocks.reshape(-1), a.shape[1], kernels.ACTIVATIONS[activation.name])
        delta[...] = turned_back(blocks, len(a))[:, : a.shape[1]]

    def weight_grad(self, delta, a_prev, grad_weights, grad_bias):
        scaled = np.ascontiguousarray((delta / delta.dtype.type(len(delta))).T)
        grad_weights[...] = self._multiply(scaled, a_prev)
        np.sum(scaled, axis=1, out=grad_bias)

    def update(self, parameter, gradient, slots, optimizer, coefficients):
        memory = padded(np.zeros((4, parameter.size), parameter.dtype))
        for row, array in zip(memory, (parameter, gradient, *slots), strict=False):
            row[: array.size] = array.reshape(-1)
        c = np.array(coefficients, parameter.dtype)
        entries.update_padded(memory.reshape(-1), len(slots), check_rule(optimizer), c)
        for array, row in zip((parameter, *slots), memory[[0, 2, 3]], strict=False):
            array[...] = row[: array.size].reshape(array.shape)
