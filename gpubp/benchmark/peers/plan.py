"""A backend's plan, one call an epoch: gpubp without its trainer."""

from __future__ import annotations

import numpy as np

import gpubp
from gpubp import SGD, backends
from gpubp.backends.backend import Backend
from gpubp.backends.cpu.fused import StoredSamples
from gpubp.backends.plan import Problem
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.data import check_split
from gpubp.data.samples import prepare
from gpubp.functions import LOSSES
from gpubp.verification.report import Report
from gpubp.verification.steps import check_step


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
        loss = LOSSES[net.loss]
        split = check_split(data.inputs, data.labels)
        samples = prepare(split, self.network.sizes, self.network.dtype, loss).samples
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        self.batch = min(net.batch, len(data))
        self.backend = backends.get(backend)
        optimizer = SGD(net.lr, momentum)
        problem = Problem(self.network.layers, pairs, loss, optimizer, self.batch, samples)
        self.plan = self.backend.plan(problem)
        self.rates = np.full(-(-len(data) // self.batch), net.lr)
        self.details = self.plan.describe()

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
        count = len(data)
        batches = [np.arange(self.batch), np.arange(count - count % self.batch, count)]
        with self.backend.limits():
            for order in filter(len, batches):
                checks = check_step(self.plan, order, self.net.lr).checks
                report.add(checks)
                report.steps += bool(checks)
        return report
