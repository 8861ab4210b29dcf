"""The ``numba`` backend: launches of the compiled loops in gpubp.kernels.cpu."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp import kernels
from gpubp.backends.base import Array, HostBackend, Plan, Samples
from gpubp.network import Layer
from gpubp.optimizers import Optimizer

try:
    from gpubp.kernels import cpu  # before numba: it sets how threads wait

    import numba  # isort: skip

    _import_error: Exception | None = None
except Exception as error:  # a broken LLVM or a NumPy too new is a reason to report, not a traceback
    _import_error = error


def why_unavailable() -> str | None:
    """None if Numba works here, else why it does not and what to install."""
    if _import_error is None:
        return None
    return f"numba cannot be imported ({_import_error}); try: python -m pip install --upgrade numba"


class NumbaBackend(HostBackend):
    """NumPy arrays, compiled loops, as many threads as Numba has."""

    name = "numba"

    def describe(self) -> str:
        threads = numba.get_num_threads()
        return f"Numba {numba.__version__}, {threads} thread{'s' if threads > 1 else ''}"

    def plan(
        self,
        layers: Sequence[Layer],
        parameters: Sequence[tuple[np.ndarray, np.ndarray]],
        loss: str,
        optimizer: Optimizer,
        batch_size: int,
        samples: Samples,
    ) -> Plan:
        from gpubp.backends.fused import FusedPlan

        threads = numba.get_num_threads()
        return FusedPlan(
            self.describe(), threads, layers, parameters, loss, optimizer, batch_size, samples
        )

    def gather(self, source: Array, order: Array, out: Array) -> None:
        if source.dtype == np.uint8 and out.dtype != np.uint8:
            cpu.gather_bytes(source, order, out)
        elif source.ndim == 1:
            cpu.gather(source[:, None], order, out[:, None])
        else:
            cpu.gather(source, order, out)

    def forward(
        self, a_prev: Array, weights: Array, bias: Array, activation: str, z: Array, a: Array
    ) -> None:
        cpu.forward(a_prev, weights, bias, kernels.ACTIVATIONS[activation], z, a)

    def output_delta(
        self,
        z: Array,
        a: Array,
        targets: Array,
        sample_weight: Array,
        activation: str,
        loss: str,
        delta: Array,
        row_cost: Array,
        row_hit: Array,
    ) -> None:
        cpu.output_delta(
            z,
            a,
            targets,
            sample_weight,
            kernels.ACTIVATIONS[activation],
            kernels.LOSSES[loss],
            delta,
            row_cost,
            row_hit,
        )

    def hidden_delta(
        self, delta_next: Array, weights_next: Array, a: Array, activation: str, delta: Array
    ) -> None:
        cpu.hidden_delta(delta_next, weights_next, a, kernels.ACTIVATIONS[activation], delta)

    def weight_grad(self, delta: Array, a_prev: Array, grad_weights: Array, grad_bias: Array) -> None:
        cpu.weight_grad(delta, a_prev, grad_weights, grad_bias)

    def update(
        self,
        parameter: Array,
        gradient: Array,
        slots: Sequence[Array],
        optimizer: Optimizer,
        coefficients: Sequence[float],
    ) -> None:
        c = np.array(coefficients, dtype=parameter.dtype)
        flat, grad = parameter.reshape(-1), gradient.reshape(-1)
        memory = [slot.reshape(-1) for slot in slots]
        if kernels.RULES[optimizer.kind] == kernels.RULES["sgd"]:
            cpu.sgd(flat, grad, memory[0] if memory else flat[:0], c)
        else:
            cpu.adam(flat, grad, *memory, c)
