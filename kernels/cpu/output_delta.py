"""output_delta (BP1): δ[b, :] = w[b] (∇ₐC ⊙ σ'(z))[b, :], with the cost of each row and whether it was a hit."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.blocks import move, turn_rows, turn_rows_back
from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.turned import output_of
from gpubp.kernels.cpu.vector import BYTES


@kernel
def output_delta(z_bn, a_bn, y_bn, weight_b, activation, loss, delta_bn, cost_b, hit_b):
    """δ (B, n), and cost and hit (B,), for one of the losses; as many rows at a time as a vector has lanes."""
    n, lanes = a_bn.shape[1], BYTES // a_bn.itemsize
    block = n * lanes
    memory = np.zeros(4 * block + 3 * lanes, a_bn.dtype)
    z, a, y, delta, weight = 0, block, 2 * block, 3 * block, 4 * block
    cost, hit = weight + lanes, weight + 2 * lanes
    for b in range(0, len(a_bn), lanes):
        rows, place = min(lanes, len(a_bn) - b), b * n
        turn_rows(z_bn.reshape(-1), place, rows, n, memory, z)
        turn_rows(a_bn.reshape(-1), place, rows, n, memory, a)
        turn_rows(y_bn.reshape(-1), place, rows, n, memory, y)
        move(weight_b, b, memory, weight, rows)
        output_of(memory, z, a, y, delta, n, weight, cost, hit, activation, loss)
        turn_rows_back(memory, delta, delta_bn.reshape(-1), place, rows, n)
        move(memory, cost, cost_b, b, rows)
        for k in range(rows):
            hit_b[b + k] = memory[hit + k] > 0
