"""weight_grad (BP4, BP3): ∂C/∂W[o, i] = Σ_b δ[b, o] a_prev[b, i] / B, ∂C/∂b[o] = Σ_b δ[b, o] / B."""

from __future__ import annotations

import numpy as np
from numba import prange

from gpubp.kernels.cpu.compile import parallel_kernel
from gpubp.kernels.cpu.rows import add_product


@parallel_kernel
def _weight_grad(delta_ob, a_prev_bi, grad_w_oi, grad_bias_o):
    b_count = len(a_prev_bi)
    size = grad_bias_o.dtype.type(b_count)
    for o in prange(len(grad_bias_o)):
        grad_w_oi[o, :] = 0
        add_product(grad_w_oi[o], delta_ob[o], a_prev_bi)
        for i in range(grad_w_oi.shape[1]):
            grad_w_oi[o, i] /= size
        total = grad_bias_o.dtype.type(0)
        for b in range(b_count):
            total += delta_ob[o, b]
        grad_bias_o[o] = total / size


def weight_grad(delta_bo, a_prev_bi, grad_w_oi, grad_bias_o) -> None:
    """∂C/∂W = δᵀ a_prev / B, (n_out, n_in), and ∂C/∂b = Σ δ / B, (n_out,)."""
    _weight_grad(np.ascontiguousarray(delta_bo.T), a_prev_bi, grad_w_oi, grad_bias_o)
