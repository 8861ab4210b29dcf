"""A backend's plan, one call an epoch: gpubp without its trainer."""

from __future__ import annotations

import numpy as np

import gpubp
from bench.data import Data
from bench.nets import Net
from gpubp import SGD, backends
from gpubp.backends.base import Backend
from gpubp.data import check_split
from gpubp.prepare import prepare


class PlanTrainer:
    """The samples stay as they are stored: images are bytes."""

    differs = ""

    def __init__(
        self,
        backend: str | Backend,
        net: Net,
        data: Data,
        parameters: list[np.ndarray],
        momentum: float = 0.0,
    ) -> None:
        self.version, self.net = gpubp.__version__, net
        network = net.network()
        samples = prepare(network, check_split(data.inputs, data.labels), net.loss).samples
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        batch = min(net.batch, len(data))
        optimizer = SGD(net.lr, momentum)
        self.plan = backends.get(backend).plan(network.layers, pairs, net.loss, optimizer, batch, samples)
        self.rates = np.full(-(-len(data) // batch), net.lr)
        self.details = self.plan.describe()

    def run_epoch(self, order: np.ndarray) -> float:
        return self.plan.run(order, self.rates).mean_cost

    def parameters(self) -> list[np.ndarray]:
        return self.plan.state().parameters
