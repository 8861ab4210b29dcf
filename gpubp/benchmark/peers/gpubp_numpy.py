"""gpubp's NumPy backend: the reference, written for reading."""

from __future__ import annotations

import numpy as np

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers.plan import PlanTrainer


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> PlanTrainer:
    """Threads are those of NumPy's BLAS, from the environment."""
    return PlanTrainer("numpy", net, data, parameters)
