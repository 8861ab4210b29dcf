"""gpubp's Numba backend, which deforms the images within its compiled steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.deformed.peers import DEFORM, OTHER_NUMBERS, SHAPE
from gpubp import backends
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers.plan import PlanTrainer
from gpubp.randomness.deform import Deformation


class DeformedTrainer(PlanTrainer):
    """One call of the plan an epoch."""

    differs = OTHER_NUMBERS

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.deformation = Deformation.of(DEFORM, data.inputs, SHAPE, SEED)
        super().__init__(backends.get("numba"), net, data, parameters, deformation=self.deformation)
        self.input_density = None  # deformed images have other zeros than those that were counted
        self.calls = 0

    def deformed(self, images: np.ndarray) -> np.ndarray:
        """Bytes (B, h·w) as a step trains on them, (B, h·w) float32 from 0 to 1."""
        assert self.deformation is not None
        self.calls += 1  # a step each
        made = self.deformation.images(images, np.arange(len(images)), self.calls)
        return made / np.float32(255)


def ready(options: dict[str, Any]) -> None:
    """Import what the backend needs."""
    backends.get("numba")


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> PlanTrainer:
    """Options: ``plain``, to leave the images as they are. Threads are those of the environment."""
    if options.get("plain"):
        return PlanTrainer(backends.get("numba"), net, data, parameters)
    return DeformedTrainer(net, data, parameters)
