"""The ``cupy`` backend's plans for one hidden layer: whole epochs as one launch of ``units.cu``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.cuda.costs import MOST_PARTS
from gpubp.backends.cuda.device import Device
from gpubp.backends.cuda.epoch import EpochPlan, Layout
from gpubp.backends.operations import Array
from gpubp.backends.plan import Problem
from gpubp.errors import UsageError
from gpubp.kernels import cuda

PIECE = 16  # inputs, of which a slice has a multiple: four lanes read four each


@dataclass(frozen=True)
class Grid:
    """How a network is dealt to a launch of ``units.cu``: its clusters, and what a block's shared memory holds.

    places: what ``Launch`` is told of it, sizes and bytes from the beginning of shared memory.
    """

    units: int
    cluster: int
    clusters: int
    shared: int
    places: dict[str, int]
    dropout: bool = False

    @property
    def blocks(self) -> int:
        return self.cluster * self.clusters


class UnitsPlan(EpochPlan):
    """Training of a network with one hidden layer by ``units.cu``; ``epoch.cu`` evaluates it.

    Raises:
        UsageError: it is not for this network, or this GPU; the message says why.
        GpubpError: the kernel does not compile, or there is not enough memory.
    """

    name, cluster = "units", 1
    owners, of_units = "multiprocessors", "a block"  # in messages

    def __init__(self, device: Device, problem: Problem) -> None:
        found = self.deal(device, problem)
        if isinstance(found, str):
            raise UsageError(f"the {self.name} plan does not fit: {found}; choose the fused plan")
        super().__init__(device, problem)
        self._grid = found
        self._units_kernel = self.kernel(device, problem.dtype, found)
        output = self.layers[-1]
        parts = 2 * found.cluster * (1 << found.places["share_log2"]) * output.n_out * _up(found.clusters, 4)
        self._parts = self._device(parts, self.dtype)

    @classmethod
    def deal(cls, device: Device, problem: Problem) -> Grid | str:
        """How the network is dealt to blocks, or why it cannot be."""
        layers = problem.layers
        if len(layers) != 2:
            return f"it is for one hidden layer, not {len(layers) - 1}"
        if layers[0].activation == "softmax":
            return "its hidden layer cannot be softmax"
        if problem.dropout and problem.dropout.dropped[0]:
            return "it cannot drop inputs"
        if cls.cluster > 1 and (why := device.why_no_clusters()):
            return why
        n_hidden, why = layers[0].n_out, ""
        for units in cuda.UNITS_OF_A_CLUSTER:
            grid = of_shared_memory(problem, units, cls.cluster, device.shared_memory())
            if isinstance(grid, str):
                why = grid
                continue
            most = min(MOST_PARTS, cls.resident(device, problem.dtype, grid))
            if grid.clusters <= most:
                return grid
            why = f"{n_hidden} hidden units are more than the {units * most} that {most} {cls.owners} can own"
        return why

    @classmethod
    def resident(cls, device: Device, dtype: np.dtype, grid: Grid) -> int:
        """How many clusters the GPU holds at a time."""
        return device.multiprocessors()

    @classmethod
    def kernel(cls, device: Device, dtype: np.dtype, grid: Grid) -> Any:
        """The kernel that is compiled for such a grid, of which a block can be held."""
        own = grid.units, grid.cluster
        kernel = device.persistent_kernel("units", dtype, grid.shared, own, grid.dropout)
        device.resident_blocks(kernel.function, cuda.THREADS, grid.shared, cls.name, "fused")
        return kernel

    def describe(self) -> str:
        grid = self._grid
        return (
            f"{self.name} plan, whole epochs in one launch with one barrier a step, {grid.clusters} blocks own "
            f"{grid.units} hidden units each; {self.why}; {self.device.describe()}"
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
            "output_activation": output_activation, **self._grid.places, **self._of_dropout(),
            "dropped1": self._dropped[1], "last_room": 0,
        }  # fmt: skip
        grid = self._grid
        self.device.start_persistent(self._units_kernel, (grid.blocks,), launch | more, grid.shared)


class ClusterPlan(UnitsPlan):
    """The same on clusters of eight blocks, which share a layer's inputs as well: compute capability 9.0 and newer."""

    name, cluster = "cluster", max(cuda.CLUSTERS)
    owners, of_units = "clusters", f"a cluster of {max(cuda.CLUSTERS)} blocks"

    @classmethod
    def resident(cls, device: Device, dtype: np.dtype, grid: Grid) -> int:
        kernel = cls.kernel(device, dtype, grid)
        return device.resident_clusters(kernel.function, grid.cluster, cuda.ROW_THREADS, grid.shared)

    def describe(self) -> str:
        grid = self._grid
        return (
            f"cluster plan, whole epochs in one launch, {grid.clusters} clusters of {grid.cluster} blocks own "
            f"{grid.units} hidden units each; {self.why}; {self.device.describe()}"
        )


PLANS = {plan.name: plan for plan in (ClusterPlan, UnitsPlan)}


def of_shared_memory(problem: Problem, units: int, cluster: int, most: int) -> Grid | str:
    """The grid of so many units a cluster, with what is fastest of what fits into ``most`` bytes, or why nothing does.

    At best a block holds two batches of its inputs as numbers, so that one is made ready while the other is used; else
    one of them; bytes are held as they are where numbers do not fit.
    """
    of_bytes = problem.samples.inputs.dtype == np.uint8
    least = 0
    for as_bytes, buffers in product((False, True) if of_bytes else (False,), (2, 1)):
        grid = lay_out(problem, units, cluster, buffers, as_bytes)
        if grid.shared <= most:
            return grid
        least = grid.shared
    return f"a block would need {least:,} bytes of shared memory, and there are {most:,}"


def lay_out(problem: Problem, units: int, cluster: int, buffers: int, as_bytes: bool) -> Grid:
    """The grid, with so many batches of inputs held, as bytes or as numbers."""
    (n_in, n_hidden, n_out), size = problem.sizes, problem.dtype.itemsize
    batch, slots = problem.batch_size, len(problem.optimizer.slots)
    of_bytes = problem.samples.inputs.dtype == np.uint8
    width = _up(-(-n_in // cluster), PIECE)
    share_log2 = (-(-batch // cluster) - 1).bit_length()
    share, input_parts_log2 = 1 << share_log2, _input_parts_log2(units, batch)
    # Neighbouring rows begin so far apart that eight of them, four numbers each, meet all banks of shared memory.
    x_pitch = _beside(width, 16, 128 if as_bytes else 32)
    copy = _up(units * width + units + n_out * units + n_out, 4)
    converted = of_bytes and not as_bytes
    pieces = {
        "x": buffers * batch * x_pitch * (1 if as_bytes else size),
        "raw": batch * x_pitch if converted else 0,
        "own": copy * (1 + slots) * size,
        "z1": (cluster * share << input_parts_log2) * units * size,
        "a1": share * units * size,
        "delta1": cluster * share * units * size,
        **dict.fromkeys(("delta2", "y"), (share + 1) * n_out * size),
        **dict.fromkeys(
            ("z2", "a2"), (share + 1) * n_out * size if n_out > cuda.output_lanes(cluster) else 0
        ),
        **dict.fromkeys(("row_weight", "row_costs", "row_hits"), (share + 1) * size),
        "gradient2": cluster * n_out * (units + 1) * size,
        "scores": 2 * cluster * 8,
        "step_coefficients": 2 * cuda.COEFFICIENTS * size,
        "orders": 4 * batch * 8,
        **dict.fromkeys(("mask1", "pull1"), share * units * size if problem.dropout else 0),
    }
    places, at = {}, cuda.HEAD_BYTES
    for name, taken in pieces.items():
        places[name] = at
        at += _up(taken, 16)
    sizes = {
        "slice": width,
        "share_log2": share_log2,
        "input_parts_log2": input_parts_log2,
        "x_pitch": x_pitch,
    }
    kind = {"buffers": buffers, "as_bytes": int(as_bytes), "copy": copy, "more_room": 0}
    clusters = -(-n_hidden // units)
    return Grid(units, cluster, clusters, at, places | sizes | kind, problem.dropout is not None)


def _input_parts_log2(units: int, batch: int) -> int:
    """Of the parts into which a block's warps share out its inputs, where the batch's rows leave some without work."""
    rows_of_a_warp, log2 = cuda.WARP // 4 * (32 // units), 3
    while log2 and (cuda.ROW_BLOCK >> log2) * rows_of_a_warp < batch:
        log2 -= 1
    return log2


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _beside(number: int, rest: int, of: int) -> int:
    """The first from ``number`` on that leaves ``rest`` if divided by ``of``."""
    return number + (rest - number) % of
