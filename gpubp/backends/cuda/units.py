"""The ``cupy`` backend's plan for one hidden layer: whole epochs as one launch of ``units.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.cuda.costs import MOST_PARTS
from gpubp.backends.cuda.device import Device
from gpubp.backends.cuda.epoch import EpochPlan, Layout
from gpubp.backends.operations import Array
from gpubp.backends.plan import Problem
from gpubp.kernels import cuda


class UnitsPlan(EpochPlan):
    """Training of a network with one hidden layer by ``units.cu``, one barrier a step; ``epoch.cu`` evaluates it.

    It is for networks of which ``why_no_units`` has nothing to say.
    """

    def __init__(self, device: Device, problem: Problem) -> None:
        super().__init__(device, problem)
        hidden, output = self.layers
        self._units = units_of_a_block(device, hidden.n_out)
        self._units_blocks = -(-hidden.n_out // self._units)
        self._units_shared = units_bytes(problem, self._units)
        self._units_kernel = device.persistent_kernel("units", self.dtype, self._units_shared, self._units)
        device.resident_blocks(
            self._units_kernel.function, cuda.THREADS, self._units_shared, "units", "fused"
        )
        self._parts = self._device(2 * self._units_blocks * self.batch_size * output.n_out, self.dtype)

    def describe(self) -> str:
        return (
            f"units plan, whole epochs in one launch with one barrier a step, {self._units_blocks} blocks own "
            f"{self._units} hidden units each; {self.why}; {self.device.describe()}"
        )

    def _start(self, mode: str, layout: Layout, launch: dict[str, Any], outputs: Array) -> None:
        if mode in ("evaluate", "predict"):
            super()._start(mode, layout, launch, outputs)
            return
        hidden, output = self.layers
        activation, output_activation = (kernels.ACTIVATIONS[layer.activation] for layer in self.layers)
        more = {
            "weights1": 0, "weights2": hidden.n_out * (hidden.n_in + 1), "parts": self._parts, "n_in": hidden.n_in,
            "n_hidden": hidden.n_out, "n_out": output.n_out, "activation": activation,
            "output_activation": output_activation, "more_room": 0,
        }  # fmt: skip
        self.device.start_persistent(
            self._units_kernel, (self._units_blocks,), launch | more, self._units_shared
        )


def why_no_units(device: Device, problem: Problem) -> str | None:
    """None if the units plan can train the network, else why not."""
    layers = problem.layers
    if len(layers) != 2:
        return f"it is for one hidden layer, not {len(layers) - 1}"
    if layers[0].activation == "softmax":
        return "its hidden layer cannot be softmax"
    units = units_of_a_block(device, layers[0].n_out)
    most = device.multiprocessors()
    if layers[0].n_out > units * most:
        return f"{layers[0].n_out} hidden units are more than the {units * most} that {most} multiprocessors can own"
    needed, there_is = units_bytes(problem, units), device.shared_memory()
    if needed > there_is:
        return f"a block would need {needed:,} bytes of shared memory, and there are {there_is:,}"
    return None


def units_of_a_block(device: Device, n_hidden: int) -> int:
    """Return the fewest that keep the blocks, whose parts of z are added up, to MOST_PARTS, else the most there are."""
    most = min(MOST_PARTS, device.multiprocessors())
    of_a_block = cuda.UNITS_OF_A_BLOCK
    return next((units for units in of_a_block if -(-n_hidden // units) <= most), of_a_block[-1])


def units_bytes(problem: Problem, units: int) -> int:
    """Shared memory of a block of ``units.cu``: panels, what it owns with its slots, and its part of a batch."""
    n_in, n_out, dtype = problem.layers[0].n_in, problem.layers[1].n_out, problem.dtype
    panels = cuda.DEPTH * (units + 4 + (2 if dtype == np.float32 else 1) * cuda.THREADS + 4)
    own = (units * (n_in + 1 + n_out) + n_out) * (1 + len(problem.optimizer.slots))
    part = problem.batch_size * (2 * units + 3 * n_out + 2)
    return cuda.HEAD_BYTES + (panels + own + part) * dtype.itemsize
