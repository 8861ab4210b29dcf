"""gpubp's Numba backend."""

from __future__ import annotations

import numpy as np

from gpubp.backends.cpu import backend as cpu  # noqa: F401  (importing Numba is part of importing the peer)
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers.plan import PlanTrainer


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> PlanTrainer:
    """Threads come from NUMBA_NUM_THREADS."""
    return PlanTrainer("numba", net, data, parameters)
