"""gpubp's CuPy backend, on the GPU, beside peers that run on the processor."""

from __future__ import annotations

import numpy as np

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers.plan import PlanTrainer


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> PlanTrainer:
    """The samples are uploaded here; an epoch sends the order and gets the costs back."""
    return PlanTrainer("cupy", net, data, parameters)
