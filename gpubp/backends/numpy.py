"""The ``numpy`` backend: the reference's five functions behind the contract."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from gpubp import reference
from gpubp.backends.backend import Array, HostBackend
from gpubp.backends.threads import blas_threads, counted
from gpubp.data.samples import as_inputs
from gpubp.functions import Activation, Loss
from gpubp.network import labels_of
from gpubp.optimizers import Optimizer


class ReferenceBackend(HostBackend):
    """NumPy on the host; ``threads`` are those of its BLAS."""

    name = "numpy"

    def describe(self) -> str:
        threads = "" if self.threads is None else f", {counted(self.threads)}"
        return f"NumPy {np.__version__} (the reference){threads}"

    def limits(self) -> AbstractContextManager:
        return nullcontext() if self.threads is None else blas_threads(self.threads)

    def gather(self, source: Array, order: Array, out: Array) -> None:
        out[...] = as_inputs(source[order], out.dtype)

    def forward(
        self, a_prev: Array, weights: Array, bias: Array, activation: Activation, z: Array, a: Array
    ) -> None:
        z[...], a[...] = reference.forward(a_prev, weights, bias, activation)

    def output_delta(
        self,
        z: Array,
        a: Array,
        targets: Array,
        sample_weight: Array,
        activation: Activation,
        loss: Loss,
        delta: Array,
        row_cost: Array,
        row_hit: Array,
    ) -> None:
        delta[...] = reference.output_delta(a, targets, sample_weight, activation, loss)
        row_cost[...] = reference.cost(z, a, targets, sample_weight, activation, loss)
        row_hit[...] = labels_of(a) == labels_of(targets)

    def hidden_delta(
        self, delta_next: Array, weights_next: Array, a: Array, activation: Activation, delta: Array
    ) -> None:
        delta[...] = reference.hidden_delta(delta_next, weights_next, a, activation)

    def weight_grad(self, delta: Array, a_prev: Array, grad_weights: Array, grad_bias: Array) -> None:
        grad_weights[...], grad_bias[...] = reference.weight_grad(delta, a_prev)

    def update(
        self,
        parameter: Array,
        gradient: Array,
        slots: Sequence[Array],
        optimizer: Optimizer,
        coefficients: Sequence[float],
    ) -> None:
        parameter[...], new_slots = reference.update(parameter, gradient, slots, optimizer, coefficients)
        for slot, new in zip(slots, new_slots, strict=True):
            slot[...] = new
