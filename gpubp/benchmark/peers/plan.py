"""A backend's plan, one call an epoch: gpubp without its trainer."""

from __future__ import annotations

import numpy as np

import gpubp
from gpubp import SGD, backends
from gpubp.backends.base import Backend, Samples
from gpubp.backends.cpu.fused import StoredSamples
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.data import check_split
from gpubp.data.prepare import prepare
from gpubp.verification.verify import Report, check_step


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
        self.network = net.network()
        samples = self._prepared(data)
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        self.batch = min(net.batch, len(data))
        self.optimizer = SGD(net.lr, momentum)
        self.backend = backends.get(backend)
        layers = self.network.layers
        self.plan = self.backend.plan(layers, pairs, net.loss, self.optimizer, self.batch, samples)
        self.rates = np.full(-(-len(data) // self.batch), net.lr)
        self.details = self.plan.describe()

    def _prepared(self, data: Data) -> Samples:
        return prepare(self.network, check_split(data.inputs, data.labels), self.net.loss).samples

    @property
    def input_density(self) -> float:
        """The part of the inputs that the first layer's products are computed with: those that are not 0, or all."""
        stored = getattr(self.plan, "samples", None)
        return stored.density if isinstance(stored, StoredSamples) and len(stored.data.records) else 1.0

    def run_epoch(self, order: np.ndarray) -> float:
        return self.plan.run(order, self.rates).mean_cost

    def parameters(self) -> list[np.ndarray]:
        return self.plan.state().parameters

    def verify(self, data: Data) -> Report:
        """The plan's next steps, of a full batch and of the short last one, within the reference's bounds.

        From where training is now: gradients, cost, hits and the parameters after the update.
        """
        report = Report(f"{self.backend.name} backend, {self.details}")
        samples, count = self._prepared(data), len(data)
        batches = [np.arange(self.batch), np.arange(count - count % self.batch, count)]
        with self.backend.limits():
            for order in filter(len, batches):
                checks = check_step(
                    self.plan, self.network.layers, self.net.loss, self.optimizer, samples, order, self.net.lr
                ).checks
                report.add(checks)
                report.steps += bool(checks)
        return report
