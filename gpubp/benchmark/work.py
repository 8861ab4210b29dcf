"""Work of an epoch, to compute and to move, from the net's shapes alone: the axes of the roofline picture.

The picture is that of Williams, Waterman and Patterson, "Roofline" (2009): operations a second over operations a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gpubp.benchmark.nets import Net

ITEM_BYTES = 4  # float32


@dataclass(frozen=True)
class Work:
    """flops: floating-point operations, a multiply-add counting as two. moved: bytes."""

    flops: float
    moved: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.moved


def of_epoch(net: Net, samples: int, input_density: float = 1.0) -> Work:
    """An epoch of ``samples`` in mini-batches of ``net.batch``.

    Operations are those of the products a Wᵀ, δ W and δᵀ a, and of the update of each parameter;
    activations and losses, few beside them, are not counted. Bytes are those that every such operation would move if
    it read its operands and wrote its result once, in float32, and nothing stayed in a cache between two operations.

    input_density: the part of the inputs that the first layer's products are computed with.
    """
    steps = -(-samples // net.batch)
    flops, moved = 2.0 * steps * net.parameters, 0.0
    for i, (n_in, n_out) in enumerate(pairwise(net.layers)):
        inputs = n_in * (input_density if i == 0 else 1.0)
        weights = (n_in + 1) * n_out
        rows = samples * (inputs + n_out)
        flops += 2 * 2.0 * samples * inputs * n_out  # forward, gradient
        moved += (rows + steps * weights) + (rows + 2 * steps * weights)  # … whose update reads and writes W
        if i > 0:
            flops += 2.0 * samples * n_in * n_out
            moved += samples * (n_out + 2 * n_in) + steps * weights  # δ, a, δ of the layer before
    moved += 2 * samples * net.layers[-1]  # outputs and targets into δ
    return Work(flops, ITEM_BYTES * moved)
