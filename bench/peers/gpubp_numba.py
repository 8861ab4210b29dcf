"""gpubp's Numba backend."""

from __future__ import annotations

import numpy as np

from bench.data import Data
from bench.nets import Net
from bench.peers.plan import PlanTrainer
from gpubp.backends import cpu  # noqa: F401  (importing Numba is part of importing the peer)


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> PlanTrainer:
    """Threads come from NUMBA_NUM_THREADS."""
    return PlanTrainer("numba", net, data, parameters)
