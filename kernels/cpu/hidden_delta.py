"""hidden_delta (BP2): δ[b, n] = (Σ_o δ_next[b, o] W_next[o, n]) σ'(z[b, n])."""

from __future__ import annotations

from numba import prange

from gpubp.kernels.cpu.compile import parallel_kernel
from gpubp.kernels.cpu.rows import add_product, pull_back


@parallel_kernel
def _hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn):
    for b in prange(len(a_bn)):
        delta_bn[b, :] = 0
        add_product(delta_bn[b], delta_next_bo[b], w_next_on)
        pull_back(delta_bn[b], a_bn[b], activation)


def hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn) -> None:
    """δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n); softmax takes its Jacobian product."""
    _hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn)
