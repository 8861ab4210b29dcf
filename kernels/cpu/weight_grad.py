"""weight_grad (BP4, BP3): ∂C/∂W[o, i] = Σ_b δ[b, o] a_prev[b, i] / B, ∂C/∂b[o] = Σ_b δ[b, o] / B."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.product import NOTHING, product, rows_a_thread


def weight_grad(delta_bo, a_prev_bi, grad_w_oi, grad_bias_o) -> None:
    """∂C/∂W = δᵀ a_prev / B, (n_out, n_in), and ∂C/∂b = Σ δ / B, (n_out,)."""
    scaled_ob = np.ascontiguousarray((delta_bo / delta_bo.dtype.type(len(delta_bo))).T)
    start = np.zeros((1, a_prev_bi.shape[1]), a_prev_bi.dtype)
    product(scaled_ob, a_prev_bi, start, grad_w_oi, rows_a_thread(len(grad_w_oi)), NOTHING, 0, grad_w_oi)
    np.sum(scaled_ob, axis=1, out=grad_bias_o)
