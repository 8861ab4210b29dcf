"""forward: z[b, o] = Σ_i a_prev[b, i] W[o, i] + bias[o], a[b, :] = σ(z[b, :])."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.product import ACTIVATE, product, rows_a_thread


def forward(a_prev_bi, w_oi, bias_o, activation, z_bo, a_bo) -> None:
    """z = a_prev Wᵀ + b and a = σ(z), (B, n_in) to (B, n_out); z and a may be one buffer."""
    # The transpose costs one pass over W and lets the product run along contiguous rows.
    w_io = np.ascontiguousarray(w_oi.T)
    product(a_prev_bi, w_io, bias_o[None, :], z_bo, rows_a_thread(len(z_bo)), ACTIVATE, activation, a_bo)
