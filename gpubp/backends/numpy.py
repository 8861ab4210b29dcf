"""The ``numpy`` backend: the reference's five functions behind the contract, and a plan that is faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np

from gpubp import reference
from gpubp.backends.backend import HostBackend
from gpubp.backends.inplace import InPlacePlan
from gpubp.backends.plan import Plan, Problem
from gpubp.backends.threads import blas_threads, counted
from gpubp.model import labels_of


class ReferenceBackend(HostBackend):
    """NumPy on the host; ``threads`` are those of its BLAS.

    Every network trains by the in-place plan, unless the composed one is asked for, which is the reference's functions.
    """

    name = "numpy"
    plans = ("composed", "inplace")

    def describe(self) -> str:
        threads = "" if self.threads is None else f", {counted(self.threads)}"
        return f"NumPy {np.__version__}{threads}"

    def limits(self) -> AbstractContextManager:
        return nullcontext() if self.threads is None else blas_threads(self.threads)

    def plan(self, problem: Problem) -> Plan:
        if self.plan_kind == "composed":
            return super().plan(problem)
        return InPlacePlan(self.describe(), problem)

    def forward(self, a_prev, weights, bias, activation, z, a):
        z[...], a[...] = reference.forward(a_prev, weights, bias, activation)

    def output_delta(self, z, a, targets, sample_weight, activation, loss, delta, row_cost, row_hit):
        delta[...] = reference.output_delta(a, targets, sample_weight, activation, loss)
        row_cost[...] = reference.cost(z, a, targets, sample_weight, activation, loss)
        row_hit[...] = labels_of(a) == labels_of(targets)

    def hidden_delta(self, delta_next, weights_next, a, activation, delta, mask=None, order=None):
        factors = mask and mask.of(order, a.shape[1], a.dtype)
        delta[...] = reference.hidden_delta(delta_next, weights_next, a, activation, factors)

    def weight_grad(self, delta, a_prev, grad_weights, grad_bias):
        grad_weights[...], grad_bias[...] = reference.weight_grad(delta, a_prev)

    def update(self, parameter, gradient, slots, optimizer, coefficients):
        parameter[...], new_slots = reference.update(parameter, gradient, slots, optimizer, coefficients)
        for slot, new in zip(slots, new_slots, strict=True):
            slot[...] = new
