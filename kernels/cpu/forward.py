"""forward: z[b, o] = Σ_i a_prev[b, i] W[o, i] + bias[o], a[b, :] = σ(z[b, :])."""

from __future__ import annotations

import numpy as np
from numba import prange

from gpubp.kernels.cpu.compile import parallel_kernel
from gpubp.kernels.cpu.rows import add_product, apply_activation


@parallel_kernel
def _forward(a_prev_bi, w_io, bias_o, activation, z_bo, a_bo):
    for b in prange(len(a_prev_bi)):
        z_bo[b, :] = bias_o
        add_product(z_bo[b], a_prev_bi[b], w_io)
        apply_activation(z_bo[b], a_bo[b], activation)


def forward(a_prev_bi, w_oi, bias_o, activation, z_bo, a_bo) -> None:
    """z = a_prev Wᵀ + b and a = σ(z), (B, n_in) to (B, n_out); z and a may be one buffer."""
    # The transpose costs one pass over W and lets the product run along contiguous rows.
    w_io = np.ascontiguousarray(w_oi.T)
    _forward(a_prev_bi, w_io, bias_o, activation, z_bo, a_bo)
