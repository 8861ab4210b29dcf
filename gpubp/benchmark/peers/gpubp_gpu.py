"""gpubp's plans in bench.gpu: one call an epoch, on the GPU or, for comparison, by Numba on the same machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import backends
from gpubp.backends.base import Backend
from gpubp.benchmark.data import Data
from gpubp.benchmark.gpu_device import Device, by_clock
from gpubp.benchmark.gpu_nets import GpuNet
from gpubp.benchmark.peers.plan import PlanTrainer


class GpuTrainer(PlanTrainer):
    """The time is that of ``plan.run``: the order goes to the device, and costs and hits come back."""

    def __init__(
        self, device: Device | None, backend: Backend, net: GpuNet, data: Data, parameters: list[np.ndarray]
    ) -> None:
        super().__init__(backend, net, data, parameters, net.momentum)
        self.seconds = by_clock if device is None else device.seconds


def ready(options: dict[str, Any]) -> None:
    """Raises BackendUnavailable: no GPU, or no Numba."""
    if options["plan"] is None:
        backends.get("numba")
    else:
        Device(options["host"]).prepare()


def build(net: GpuNet, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> GpuTrainer:
    """options: ``plan`` of the cupy backend, or None for Numba; ``precision`` of its products; ``host``."""
    if options["plan"] is None:
        return GpuTrainer(None, backends.get("numba"), net, data, parameters)
    device = Device(options["host"])
    backend = device.backend(options["plan"], options["precision"])
    return GpuTrainer(device, backend, net, data, parameters)
