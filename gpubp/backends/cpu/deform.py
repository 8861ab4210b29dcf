"""Deformed images by the compiled kernel: its tables made, and its rows shared by a team."""

from __future__ import annotations

import numpy as np

from gpubp.backends.cpu.team import Team
from gpubp.kernels.cpu import deforming, entries
from gpubp.kernels.cpu.entry import Packed
from gpubp.randomness import philox
from gpubp.randomness.deform import PURPOSE, Deformation

SHARED = 32  # images, from which on it is worth waking other threads


def signed_seed(key: tuple[int, int]) -> int:
    """The seed of a key as kernels take it, whose whole numbers of 64 bits have a sign."""
    return int(np.uint64(philox.seed_of(key)).astype(np.int64))


def tables_of(deformation: Deformation) -> deforming.Deforming:
    """What the kernel is to know of a deformation."""
    return deforming.layout(
        shape=deformation.shape,
        grid=deformation.grid,
        noise=deformation.noise,
        spacing=deformation.spacing,
        blocks=deformation.blocks,
        key=signed_seed(deformation.key),
        purpose=PURPOSE,
        turns=deformation.turns,
        weights=deformation.weights,
        scale=float(deformation.scale),
        ranges=deformation.ranges,
    )


class Deformer:
    """Deforms images by a team, in working memory that is made once."""

    def __init__(self, deformation: Deformation, team: Team) -> None:
        self.deformation, self.team = deformation, team
        self.tables = tables_of(deformation)
        self._packed = Packed(self.tables)
        self.memory = deforming.lined(team.size * self.tables.size)
        self.none = np.zeros(0, np.int64)

    def images(
        self, source: np.ndarray, order: np.ndarray, step: int, classes: np.ndarray | None = None
    ) -> np.ndarray:
        """The images source[order] (N, n_in) deformed at a step, (B, n_in) uint8; ``classes`` (N,) are the source's."""
        limits = self.none if classes is None else self.deformation.limit_of(classes[order], len(order))
        out = np.empty((len(order), source.shape[1]), np.uint8)
        order = np.ascontiguousarray(order, np.int64)
        given = self._packed, source.reshape(-1), order, limits, step, out.reshape(-1), self.memory

        def work(rank: int, first: int, stop: int) -> None:
            entries.deform_rows(*given, rank * self.tables.size, first, stop)

        if len(order) < SHARED:
            work(0, 0, len(order))
        else:
            self.team.share(len(order), work)
        return out
