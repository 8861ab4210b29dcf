"""Deformed images on the device: what the kernels of ``deform.cu`` know of a deformation, and their working memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.backends.cuda.device import Device
from gpubp.backends.operations import Array
from gpubp.randomness.deform import COUNTERS, PURPOSE, Deformation
from gpubp.randomness.philox import seed_of

CLASSES = 256  # that can have limits of their own
MOST = 1 << 24  # numbers of working memory, or those of one image

Launch = tuple[
    str, tuple[Any, ...], tuple[int, int]
]  # a kernel's name, its arguments, and its rows and elements


class Deforming:
    """The tables of a deformation, and working memory for ``some`` images of a batch at a time, made once.

    Working memory has of each image the stream of random words, its noise smoothed down, and the sums of that smoothed
    across too; without a field, only the stream.
    """

    def __init__(self, device: Device, deformation: Deformation, batch: int) -> None:
        self.deformation, self.batch = deformation, batch
        self.elastic = bool(deformation.settings.alpha)
        self._counters, (rows, grid_columns) = deformation.blocks * COUNTERS, deformation.grid
        self._columns, self._grid_columns = 2 * deformation.noise[1], 2 * grid_columns  # of x and of y
        self._of_down, self._of_sums = (
            self.elastic * rows * columns for columns in (self._columns, self._grid_columns)
        )
        of_image = 4 * self._counters + self._of_down + self._of_sums
        self.some = max(1, min(batch, MOST // of_image))

        limits = deformation.limit_of(np.arange(CLASSES), CLASSES)
        tables = limits, deformation.turns, deformation.weights
        self._limits, self._turns, self._weights = (
            device.to_device(table.astype(np.int32)) for table in tables
        )
        self._stream = device.to_device(np.zeros(self.some * 4 * self._counters, np.uint32))
        self._down, self._sums = (
            device.to_device(np.zeros(max(1, self.some * size), np.int32))
            for size in (self._of_down, self._of_sums)
        )

    def serves(self, deformation: Deformation, batch: int) -> bool:
        """Whether it is of this deformation, and for as many images."""
        return self.deformation == deformation and self.batch >= batch

    def launches(
        self, source: Array, order: Array, step: int, classes: Array | None, out: Array
    ) -> Iterator[Launch]:
        """What is to be launched, one after the other, to deform up to ``some`` images."""
        made, rows = self.deformation, len(order)
        key = np.uint64(seed_of(made.key)), np.int32(PURPOSE), np.int64(step)
        yield "deform_draw", (order, *key, self._stream), (rows, self._counters)

        words, weights = np.int64(4 * self._counters), (self._weights, np.int32(len(made.weights)))
        columns, grid_columns = np.int32(self._columns), np.int32(self._grid_columns)
        if self.elastic:
            given = self._stream, words, *weights, columns, self._down
            yield "deform_down", given, (rows, self._of_down)
            given = self._down, *weights, columns, grid_columns, self._sums
            yield "deform_across", given, (rows, self._of_sums)

        by_class = (
            order if classes is None else classes,
            np.int32(classes is not None),
        )  # if 0, they are not read
        turned = *by_class, self._limits, self._turns, *map(np.int32, made.ranges)
        spacing = np.int32(made.spacing if self.elastic else 0)
        field = self._sums, np.int64(self._of_sums), grid_columns, spacing, made.scale
        given = source, order, self._stream, words, *turned, *field, np.int32(made.shape[1]), out
        yield "deform_pixels", given, (rows, out.shape[1])
