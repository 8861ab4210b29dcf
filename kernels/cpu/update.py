"""update: the optimizer's rule on one parameter, flat, in place."""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.blocks import BLOCK, move
from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.rowwise import update_rows
from gpubp.kernels.cpu.vector import BYTES


@kernel
def update(parameter_i, gradient_i, first_i, second_i, rule, c):
    """W and its slots by one of the rules with these coefficients; a slot that the rule has not is of length 0."""
    lanes = BYTES // parameter_i.itemsize
    memory = np.zeros(4 * BLOCK, parameter_i.dtype)
    w, g, slot1, slot2 = 0, BLOCK, 2 * BLOCK, 3 * BLOCK
    for at in range(0, len(parameter_i), BLOCK):
        count = min(BLOCK, len(parameter_i) - at)
        move(parameter_i, at, memory, w, count)
        move(gradient_i, at, memory, g, count)
        move(first_i, at, memory, slot1, min(count, len(first_i)))
        move(second_i, at, memory, slot2, min(count, len(second_i)))
        update_rows(
            memory, w, BLOCK, g, BLOCK, slot1 if len(first_i) > 0 else -1, slot2,
            1, (count + lanes - 1) // lanes, rule, c, 0,
        )  # fmt: skip
        move(memory, w, parameter_i, at, count)
        move(memory, slot1, first_i, at, min(count, len(first_i)))
        move(memory, slot2, second_i, at, min(count, len(second_i)))
