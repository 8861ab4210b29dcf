"""hidden_delta (BP2): δ[b, n] = (Σ_o δ_next[b, o] W_next[o, n]) σ'(z[b, n])."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.product import PULL_BACK, product, rows_a_thread


def hidden_delta(delta_next_bo, w_next_on, a_bn, activation, delta_bn) -> None:
    """δ = (δ_next W_next) ⊙ σ'(z), (B, n_next) back to (B, n); softmax takes its Jacobian product."""
    start = np.zeros((1, delta_bn.shape[1]), delta_bn.dtype)
    product(
        delta_next_bo, w_next_on, start, delta_bn, rows_a_thread(len(delta_bn)), PULL_BACK, activation, a_bn
    )
