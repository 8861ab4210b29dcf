"""hidden_delta (BP2): δ[b, n] = (Σ_o δ_next[b, o] W_next[o, n]) σ'(z[b, n])."""

from __future__ import annotations

from gpubp.kernels.cpu.compile import PARALLEL_WORK, serial_and_parallel
from gpubp.kernels.cpu.rows import add_product, pull_back
from numba import prange


def _hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn):
    for b in prange(len(a_bn)):
        delta_bn[b, :] = 0
        add_product(delta_bn[b], delta_next_bo[b], w_next_on)
        pull_back(delta_bn[b], a_bn[b], activation)


_serial, _parallel = serial_and_parallel(_hidden_delta)


def hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn) -> None:
    """δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n); softmax takes its Jacobian product."""
    run = _parallel if len(a_bn) * w_next_on.size >= PARALLEL_WORK else _serial
    run(delta_next_bo, w_next_on, a_bn, activation, delta_bn)
