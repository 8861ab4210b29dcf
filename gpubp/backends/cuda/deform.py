"""Deformed images on the device: what the kernels of ``deform.cu`` know of a deformation, and their working memory."""

from __future__ import annotations

import numpy as np

from gpubp.backends.cuda.device import Device
from gpubp.randomness.deform import COUNTERS, Deformation

CLASSES = 256  # that can have limits of their own
MOST = 1 << 24  # numbers of working memory, or those of one image


class Deforming:
    """The tables of a deformation, and working memory for some images of a batch, made once.

    The working memory has of each image the ``stream`` of random words, and the noise smoothed ``down`` and then across,
    the ``sums``; without a field, only the stream.
    """

    def __init__(self, device: Device, deformation: Deformation, batch: int) -> None:
        self.deformation, self.batch = deformation, batch
        self.counters = deformation.blocks * COUNTERS
        self.columns, self.grid_columns = 2 * deformation.noise[1], 2 * deformation.grid[1]
        elastic = bool(deformation.settings.alpha)
        self.spacing = deformation.spacing if elastic else 0
        of_down, of_sums = (elastic * deformation.grid[0] * n for n in (self.columns, self.grid_columns))
        self.sizes = of_down, of_sums
        self.some = max(1, min(batch, MOST // (4 * self.counters + of_down + of_sums)))

        limits = deformation.limit_of(np.arange(CLASSES), CLASSES)
        self.limits, self.turns, self.weights = (
            device.to_device(np.asarray(table, np.int32))
            for table in (limits, deformation.turns, deformation.weights)
        )
        self.stream = device.to_device(np.zeros(self.some * 4 * self.counters, np.uint32))
        self.down, self.sums = (
            device.to_device(np.zeros(max(1, self.some * size), np.int32)) for size in self.sizes
        )

    def serves(self, deformation: Deformation, batch: int) -> bool:
        """Whether it is of this deformation, and for as many images."""
        return self.deformation == deformation and self.batch >= batch
