"""The ``numba`` backend: launches of the compiled loops in gpubp.kernels.cpu."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.backend import HostBackend, check_rule
from gpubp.backends.plan import Plan, Problem
from gpubp.backends.threads import blas_threads, counted
from gpubp.data.samples import Samples
from gpubp.errors import UsageError
from gpubp.functions import LOSSES
from gpubp.network import Layer
from gpubp.optimizers import SGD

try:
    from gpubp.kernels import cpu  # before numba: it sets how threads wait

    import numba  # isort: skip

    _import_error: Exception | None = None
except Exception as error:  # a broken LLVM or a NumPy too new is a reason to report, not a traceback
    _import_error = error

# Numba's threads: their workqueue ends the process where two Python threads enter parallel loops at once.
_loops = threading.Lock()


def why_unavailable() -> str | None:
    """None if Numba works here, else why it does not and what to install."""
    if _import_error is not None:
        return f"numba cannot be imported ({_import_error}); try: python -m pip install --upgrade numba"
    try:
        numba.get_num_threads()
    except Exception as error:
        reason = " ".join(str(error).split())
        return f"numba has no threads ({reason}); unset NUMBA_THREADING_LAYER to let it choose"
    return None


def cache_folder() -> str | None:
    """Where compiled kernels are kept; None if they are not."""
    stats = getattr(cpu.gather, "stats", None)  # a plain function has none: NUMBA_DISABLE_JIT
    return stats and stats.cache_path


class NumbaBackend(HostBackend):
    """NumPy arrays and compiled loops; ``threads`` is by default what Numba has.

    Every network trains by the fused plan, unless the composed one is asked for: slower, and one step after the other
    to follow.

    Raises:
        UsageError: more threads than Numba can have, or no such plan.
    """

    name = "numba"
    plans = ("composed", "fused")
    threads: int

    def __init__(self, threads: int | None = None, plan: str = "auto", precision: str = "float32") -> None:
        super().__init__(numba.get_num_threads() if threads is None else threads, plan, precision)
        settings: Any = numba.config
        most = settings.NUMBA_NUM_THREADS
        if self.threads > most:
            raise UsageError(
                f"threads must be 1 to {most}, which is what Numba can have here, not {threads}; "
                f"NUMBA_NUM_THREADS={threads} in the environment would let it have more"
            )

    def describe(self) -> str:
        return f"Numba {numba.__version__}, {counted(self.threads)}"

    def limits(self) -> AbstractContextManager:
        # After every product of the verifier's, BLAS's threads would spin for milliseconds on the cores that these
        # loops need: 784-128-10 then trains in 115 ms instead of 78.
        return blas_threads(1)

    def plan(self, problem: Problem) -> Plan:
        from gpubp.backends.cpu.fused import FusedPlan

        if self.plan_kind == "composed":
            return super().plan(problem)
        return FusedPlan(self.describe(), self.threads, problem)

    def warm_up(self, dtype: str) -> Iterator[tuple[str, float]]:
        """Compile what training in ``dtype`` calls, or load it from the cache: yields what, and the seconds.

        What is left are the operations one by one, which only ``gpubp.verify`` calls.
        """
        for kind in ("uint8", dtype):
            started = time.perf_counter()
            for zeros in (0, 500):  # dense inputs, and inputs of which only those that are not 0 are kept
                self._train_a_little(np.dtype(dtype), np.dtype(kind), zeros)
            yield f"{dtype} network, {kind} inputs", time.perf_counter() - started

    def _train_a_little(self, dtype: np.dtype, kind: np.dtype, zeros: int) -> None:
        """All that a plan offers, once, on 4 samples of 512 inputs of this kind."""
        inputs = np.ones((4, 512), kind)
        inputs[:, :zeros] = 0
        targets = np.eye(4, 2, dtype=dtype)
        samples = Samples(inputs, targets, np.ones(4, dtype))
        layers = [Layer(512, 2, "softmax")]
        parameters = [(np.zeros((2, 512), dtype), np.zeros(2, dtype))]
        plan = self.plan(Problem(layers, parameters, LOSSES["cross_entropy"], SGD(0.1), 2, samples))
        plan.run(np.arange(4), np.array([0.1, 0.1]))
        plan.gradients(np.arange(2))
        plan.evaluate(plan.upload(samples))
        plan.predict(inputs)

    @contextmanager
    def _numba_threads(self) -> Iterator[None]:
        """Numba's parallel loops for this Python thread alone, on this backend's threads."""
        with _loops:
            usual = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                yield
            finally:
                numba.set_num_threads(usual)

    def gather(self, source, order, out):
        if source.dtype == np.uint8 and out.dtype != np.uint8:
            cpu.gather_bytes(source, order, out)
        elif source.ndim == 1:
            cpu.gather(source[:, None], order, out[:, None])
        else:
            cpu.gather(source, order, out)

    def forward(self, a_prev, weights, bias, activation, z, a):
        with self._numba_threads():
            cpu.forward(a_prev, weights, bias, kernels.ACTIVATIONS[activation.name], z, a)

    def output_delta(self, z, a, targets, sample_weight, activation, loss, delta, row_cost, row_hit):
        cpu.output_delta(
            z,
            a,
            targets,
            sample_weight,
            kernels.ACTIVATIONS[activation.name],
            kernels.LOSSES[loss.name],
            delta,
            row_cost,
            row_hit,
        )

    def hidden_delta(self, delta_next, weights_next, a, activation, delta):
        with self._numba_threads():
            cpu.hidden_delta(delta_next, weights_next, a, kernels.ACTIVATIONS[activation.name], delta)

    def weight_grad(self, delta, a_prev, grad_weights, grad_bias):
        with self._numba_threads():
            cpu.weight_grad(delta, a_prev, grad_weights, grad_bias)

    def update(self, parameter, gradient, slots, optimizer, coefficients):
        flat, grad = parameter.reshape(-1), gradient.reshape(-1)
        none = flat[:0]
        first, second = [*(slot.reshape(-1) for slot in slots), none, none][:2]
        c = np.array(coefficients, dtype=parameter.dtype)
        cpu.update(flat, grad, first, second, check_rule(optimizer), c)
