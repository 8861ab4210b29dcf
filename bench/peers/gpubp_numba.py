"""gpubp's Numba backend."""

from __future__ import annotations

import numpy as np

from gpubp.backends import cpu  # noqa: F401  (importing Numba is part of importing the peer)

from ..data import Data
from ..nets import Net
from .plan import PlanTrainer


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> PlanTrainer:
    """Threads come from NUMBA_NUM_THREADS."""
    return PlanTrainer("numba", net, data, parameters)
