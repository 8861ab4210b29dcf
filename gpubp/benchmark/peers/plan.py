"""A backend's plan, one call an epoch: gpubp without its trainer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

import gpubp
from gpubp import SGD, backends
from gpubp.backends.backend import Backend
from gpubp.backends.cpu.stored import StoredSamples
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.backends.plan import Plan, Problem
from gpubp.benchmark import clock
from gpubp.benchmark.clock import Clock
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Trainer
from gpubp.data import check_split
from gpubp.data.samples import Samples
from gpubp.errors import BackendUnavailable
from gpubp.functions import LOSSES
from gpubp.network import Network
from gpubp.optimizers import Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.verification.report import Report
from gpubp.verification.steps import check_step


def prepared(network: Network, data: Data, loss: str) -> Samples:
    """The samples as a plan takes them."""
    split = check_split(data.inputs, data.labels)
    return network.prepare(split, LOSSES[loss]).samples


def make_plan(
    backend: Backend,
    network: Network,
    loss: str,
    optimizer: Optimizer,
    batch: int,
    samples: Samples,
    deformation: Deformation | None = None,
) -> Plan:
    """The backend's plan for the network, from its parameters on."""
    of_network = network.layers, network.parameters, LOSSES[loss]
    return backend.plan(Problem(*of_network, optimizer, batch, samples, deformation=deformation))


class PlanTrainer(Trainer):
    """The samples stay as they are stored: images are bytes. An epoch sends their order, and gets the costs back."""

    def __init__(
        self,
        backend: Backend,
        net: Net,
        data: Data,
        parameters: list[np.ndarray],
        clock: Clock = clock.wall,
        deformation: Deformation | None = None,
    ) -> None:
        self.version, self.net, self.backend, self.clock = gpubp.__version__, net, backend, clock
        self.network = net.network()
        self.network.parameters = list(zip(parameters[::2], parameters[1::2], strict=True))
        self.batch = min(net.batch, len(data))
        self.optimizer = SGD(net.lr, net.momentum)
        problem = net.loss, self.optimizer, self.batch, prepared(self.network, data, net.loss), deformation
        self.plan = make_plan(backend, self.network, *problem)
        self.rates = np.full(-(-len(data) // self.batch), net.lr)
        self.details = self.plan.describe()
        stored = getattr(self.plan, "samples", None)
        if isinstance(stored, StoredSamples) and len(stored.data.records):
            self.input_density = stored.density  # the first layer's products leave out inputs that are 0

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


def cupy_of(options: dict[str, Any]) -> Any:
    """The module that the cupy backend is made with: CuPy, or its stand-in.

    Raises:
        BackendUnavailable: CuPy is missing or finds no GPU.
    """
    name = options.get("cupy", "cupy")
    if name == "cupy" and (reason := backends.why_unavailable("cupy")):
        raise BackendUnavailable(reason)
    return import_module(name)


def cupy_backend(options: dict[str, Any]) -> CupyBackend:
    """The backend on a GPU with the plan and precision that the options name. Raises as :func:`cupy_of`."""
    plan, precision = options.get("plan", "auto"), options.get("precision", "float32")
    return CupyBackend(module=cupy_of(options), plan=plan, precision=precision)


def ready(options: dict[str, Any]) -> None:
    """Import what the backend needs, and have its device ready.

    Raises:
        BackendUnavailable: it cannot run here.
    """
    if options.get("backend", "cupy") == "cupy":
        cupy_backend(options).to_device(np.zeros(1))
        cupy_of(options).cuda.runtime.deviceSynchronize()
    else:
        backends.get(options["backend"])


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> PlanTrainer:
    """Options: ``backend``, its ``plan``. Threads are those of the environment."""
    if options["backend"] == "cupy":
        return PlanTrainer(cupy_backend(options), net, data, parameters, clock.of_cupy(cupy_of(options)))
    return PlanTrainer(backends.get(options["backend"]), net, data, parameters)
