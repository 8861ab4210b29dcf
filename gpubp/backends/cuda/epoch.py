"""The ``cupy`` backend's own plan: whole epochs as one launch of a kernel that stays on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.backend import check_rule
from gpubp.backends.composed import EVALUATION_ROWS
from gpubp.backends.cuda.costs import BARRIER_CYCLES, ROW_WEIGHTS, TILE_CYCLES, TILES
from gpubp.backends.cuda.device import Device
from gpubp.backends.operations import Array
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats, check_batch, check_order, pairs
from gpubp.data.samples import Samples, dense_inputs
from gpubp.kernels import cuda
from gpubp.randomness.philox import seed_of
from gpubp.reference import Parameters

ANY_LINES, ALIGNED_AS_ANY = 4, 6  # the tile for lines that are not aligned, and the one whose size it has
# Those of a block's rows of the batch, by whether lines are aligned: of up to so many columns, and of more.
NARROW = 32
ROWS = {True: (0, 1), False: (2, 3)}
LEAST_TERMS = 64  # of a part of a product's terms: about as many are in shared memory at once


@dataclass(frozen=True)
class DeviceSamples:
    """N samples on the device; ``numbers`` or ``bytes`` holds the inputs."""

    numbers: Array | None
    bytes: Array | None
    targets: Array
    sample_weight: Array
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Layout:
    """The table of layers for batches of some size, and how many blocks have work with it."""

    table: Array
    blocks: int


@dataclass(frozen=True)
class Products:
    """How blocks share the products of each layer, in batches of so many rows, and how many blocks that occupies."""

    rows: int
    layers: list[dict[str, int]]
    blocks: int


class EpochPlan(Plan):
    """Training as launches of ``epoch.cu``; nothing is allocated in one, and what it returns is read at its end."""

    def __init__(self, device: Device, problem: Problem) -> None:
        super().__init__(problem)
        self.device, self.products = device, device.precision
        self._dropped = problem.dropout.dropped if problem.dropout else (0,) * len(self.layers)
        dropout = any(self._dropped)
        self._shared = shared_bytes(len(self.layers), dropout)
        self._kernel = device.persistent_kernel("epoch", self.dtype, self._shared, dropout=dropout)
        self._resident = device.resident_blocks(
            self._kernel.function, cuda.THREADS, self._shared, "fused", "composed"
        )
        self._rule = check_rule(self.optimizer)
        self.samples = self.upload(problem.samples)

        self._parameters = sum(layer.n_out * (layer.n_in + 1) for layer in self.layers)
        self._rows = max(self.batch_size, EVALUATION_ROWS)
        shared = self._shared_products(self.batch_size), self._shared_products(self._rows, train=False)
        places = self._lay_out(shared)
        self._training, self._evaluation = (self._layout(places, products) for products in shared)
        memory = np.zeros(self._size, self.dtype)
        memory[: self._parameters] = np.hstack([p.reshape(-1) for pair in problem.parameters for p in pair])
        self._memory = device.to_device(memory)

        steps = -(-len(self.samples) // self.batch_size)
        self._order = self._device(len(self.samples), np.int64)
        self._coefficients = self._device(steps * 2 * cuda.COEFFICIENTS, self.dtype)
        self._costs, self._hits = self._device(steps, np.float64), self._device(steps, np.int64)
        self._no_outputs = self._device(1, self.dtype)
        if problem.dropout:
            factors = np.array(problem.dropout.factors)
            self._factors = device.to_device(factors.astype(self.dtype))
        self._none_arrived = np.zeros(cuda.COUNTER_DISTANCE * max(cuda.CLUSTERS), np.uint64)
        self._arrived = device.to_device(self._none_arrived)
        self._as_they_are = device.to_device(np.arange(1))  # an order, of as many as were ever evaluated

    def _device(self, count: int, dtype: Any) -> Array:
        return self.device.to_device(np.zeros(count, dtype))

    def _lay_out(self, shared: Sequence[Products]) -> list[dict[str, int]]:
        """Each layer's places in the memory, whose size this finds; the parameters and slots come first."""
        places, at = [], 0
        for layer in self.layers:
            places.append({"weights": at})
            at += layer.n_out * (layer.n_in + 1)
        self._gradient = at * (1 + len(self.optimizer.slots))
        at = _aligned(self._gradient + at)
        for i, (place, layer) in enumerate(zip(places, self.layers, strict=True)):
            parts = 0  # rows of z, which is kept where it is added up by rows
            if (
                layer is self.layers[-1]
                or layer.activation == "softmax"
                or self._dropped[i + 1]
                or any(p.layers[i]["splits"] > 1 for p in shared)
            ):
                parts = max(products.rows * products.layers[i]["splits"] for products in shared)
            for name, rows in (("z", parts), ("a", self._rows), ("delta", self._rows)):
                place[name] = at
                at += rows * _aligned(layer.n_out)
            place["taken"] = at
            if self._dropped[i]:  # the inputs of two steps in turn
                at += self.batch_size * _aligned(layer.n_in) * (1 if i else 2)
        self._row_cost, self._row_hit = at, at + self._rows
        self._size = at + 2 * self._rows
        return places

    def _shared_products(self, rows: int, train: bool = True) -> Products:
        """How blocks share the products of a step of so many rows; one that does not train drops nothing."""
        dropped = self._dropped if train else (0,) * len(self.layers)
        by_rows = [layer.n_in * layer.n_out <= ROW_WEIGHTS for layer in self.layers]
        shared = []
        blocks = dealt = weights = 0
        for i, layer in enumerate(self.layers):
            # What comes next adds up z's parts by rows, if it is by rows itself, as dropout is; else it takes a barrier
            # more.
            dropped_next = any(dropped[i + 1 : i + 2])
            next_by_rows = layer.activation == "softmax" or dropped_next or by_rows[i + 1 : i + 2] != [False]
            further = 0 if next_by_rows else BARRIER_CYCLES
            # Aligned lines begin at a multiple of four elements.
            aligned = layer.n_in % 4 == 0 and weights % 4 == 0
            weights += layer.n_out * (layer.n_in + 1)
            forward, forward_tiles, splits = self._tile(rows, layer.n_out, layer.n_in, aligned, further)
            back, back_tiles, _ = self._tile(rows, layer.n_in, layer.n_out, aligned)
            # A layer's activations are aligned, and so are inputs that fill their lines, or are written anew.
            lines = i > 0 or layer.n_in % 4 == 0 or dropped[0] > 0
            gradient, gradient_tiles, _ = self._tile(layer.n_out, layer.n_in, rows, lines)
            if by_rows[i]:
                forward, back = (ROWS[aligned][n > NARROW] for n in (layer.n_out, layer.n_in))
            shared.append({
                "by_rows": by_rows[i], "splits": 1 if by_rows[i] else splits,
                "forward_shape": forward, "back_shape": back, "gradient_shape": gradient, "dropped": dropped[i],
            })  # fmt: skip
            dealt += gradient_tiles + -(-layer.n_out // cuda.WARP)  # and the biases'
            if not by_rows[i]:
                blocks = max(blocks, forward_tiles, back_tiles)
        dealt += 1  # and the costs
        return Products(rows, shared, max(blocks, dealt, -(-rows // cuda.ROW_BLOCK)))

    def _layout(self, places: Sequence[dict[str, int]], products: Products) -> Layout:
        columns = cuda.layer_fields(self._kernel.dropout)
        table = np.zeros((len(self.layers), len(columns)), np.int64)
        for entry, layer, place, shared in zip(table, self.layers, places, products.layers, strict=True):
            row = {
                "n_in": layer.n_in,
                "n_out": layer.n_out,
                "pitch": _aligned(layer.n_out),
                "taken_pitch": _aligned(layer.n_in),
                "activation": kernels.ACTIVATIONS[layer.activation],
                **shared,
                **place,
            }
            entry[:] = [row[name] for name in columns]
        return Layout(self.device.to_device(table.reshape(-1)), min(products.blocks, self._resident))

    def _tile(
        self, m: int, n: int, k: int, aligned: bool, further: int | None = None
    ) -> tuple[int, int, int]:
        """What is fastest for an (m, n) product of k terms: the tiles' code, how many there are, and parts of terms.

        There is one part unless ``further`` says how many cycles more it takes to add several up.
        """
        sizes = TILES[self.dtype.name if self.products == "float32" else "tensor cores"]
        if not aligned:
            sizes = {ANY_LINES: sizes[ALIGNED_AS_ANY]}
        most = 1 if further is None else max(1, k // LEAST_TERMS)

        def tiles(shape: int, splits: int) -> int:
            rows, columns, _ = sizes[shape]
            return -(-m // (16 * rows)) * -(-n // (16 * columns)) * splits

        def cycles(choice: tuple[int, int]) -> float:
            shape, splits = choice
            of_a_tile = TILE_CYCLES + sizes[shape][2] * -(-k // splits)
            return -(-tiles(*choice) // self._resident) * of_a_tile + (further or 0) * (splits > 1)

        shape, splits = min(((shape, splits) for splits in range(1, most + 1) for shape in sizes), key=cycles)
        return shape, tiles(shape, splits), splits

    def describe(self) -> str:
        return (
            f"fused plan, whole epochs in one launch of {self._training.blocks} blocks of {cuda.THREADS} threads; "
            f"{self.why}; {self.device.describe()}"
        )

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        count = len(learning_rates)
        table = np.zeros((count, 2, cuda.COEFFICIENTS), self.dtype)
        for k, decay in enumerate((True, False)):  # weights, biases
            of_kind = self.optimizer.coefficients_of(learning_rates, self.step + 1, decay=decay)
            table[:, k, : of_kind.shape[1]] = of_kind
        coefficients = self.device.to_device(table.reshape(-1), out=self._coefficients[: table.size])
        stats = self._launch(self.samples, self._upload_order(order), "train", self._training, coefficients)
        self.step += count
        return stats

    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        check_batch(len(order), self.batch_size)
        order = self._upload_order(order)
        stats = self._launch(self.samples, order, "gradients", self._training, self._coefficients)
        return stats, pairs(self._split(self._download(self._gradient)))

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        n, n_out = inputs.shape[0], self.layers[-1].n_out
        targets = np.zeros((n, n_out), self.dtype)
        samples = self.upload(Samples(inputs, targets, np.ones(n, self.dtype)))
        outputs = self._device(n * n_out, self.dtype)
        self._evaluate(samples, "predict", outputs)
        return self.device.to_host(outputs).reshape(n, n_out)

    def upload(self, samples: Samples) -> DeviceSamples:
        as_bytes = samples.inputs.dtype == np.uint8
        inputs = self.device.to_device(dense_inputs(samples.inputs, self.dtype).reshape(-1))
        return DeviceSamples(
            None if as_bytes else inputs,
            inputs if as_bytes else None,
            self.device.to_device(np.ascontiguousarray(samples.targets, self.dtype).reshape(-1)),
            self.device.to_device(np.ascontiguousarray(samples.sample_weight, self.dtype)),
            len(samples),
        )

    def evaluate(self, samples: DeviceSamples) -> StepStats:
        return self._evaluate(samples, "evaluate", self._no_outputs)

    def _evaluate(self, samples: DeviceSamples, mode: str, outputs: Array) -> StepStats:
        if len(self._as_they_are) < len(samples):
            self._as_they_are = self.device.to_device(np.arange(len(samples)))
        order = self._as_they_are[: len(samples)]
        return self._launch(samples, order, mode, self._evaluation, self._coefficients, outputs)

    def state(self) -> PlanState:
        parameters = self._split(self._download(0))
        places = range(self._parameters, self._gradient, self._parameters)
        kinds = [self._split(self._download(place)) for place in places]
        slots = list(zip(*kinds, strict=True)) if kinds else [() for _ in parameters]
        return PlanState(parameters, slots, self.step)

    def load_state(self, state: PlanState) -> None:
        self._set(0, state.parameters)
        for k in range(len(self.optimizer.slots)):
            self._set((1 + k) * self._parameters, [slots[k] for slots in state.slots])
        self.step = state.step

    def _download(self, place: int) -> np.ndarray:
        return self.device.to_host(self._memory[place : place + self._parameters])

    def _set(self, place: int, arrays: Sequence[np.ndarray]) -> None:
        flat = np.concatenate([array.reshape(-1) for array in arrays])
        self.device.to_device(flat, out=self._memory[place : place + self._parameters])

    def _split(self, flat: np.ndarray) -> list[np.ndarray]:
        """[W₁, b₁, W₂, b₂, …] of all parameters in one array."""
        shapes = [shape for layer in self.layers for shape in ((layer.n_out, layer.n_in), (layer.n_out,))]
        parts = np.split(flat, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _upload_order(self, order: np.ndarray) -> Array:
        check_order(order, len(self.samples))
        return self.device.to_device(order, out=self._order[: len(order)])

    def _launch(
        self,
        samples: DeviceSamples,
        order: Array,
        mode: str,
        layout: Layout,
        coefficients: Array,
        outputs: Array | None = None,
    ) -> StepStats:
        batch = self._rows if mode in ("evaluate", "predict") else self.batch_size
        count = -(-len(order) // batch)
        costs, hits = self._costs, self._hits
        if count > len(costs):  # only where more is evaluated than was trained on
            costs, hits = self._device(count, np.float64), self._device(count, np.int64)
        self.device.to_device(self._none_arrived, out=self._arrived)
        launch = {
            "memory": self._memory, "parameters": self._parameters, "gradient": self._gradient,
            "numbers": samples.numbers, "bytes": samples.bytes, "targets": samples.targets,
            "sample_weight": samples.sample_weight, "order": order, "samples": len(order), "steps": count,
            "coefficients": coefficients, "costs": costs, "hits": hits, "arrived": self._arrived, "batch": batch,
            "mode": cuda.MODES[mode], "loss": kernels.LOSSES[self.problem.loss.name], "rule": self._rule,
            "slots": len(self.optimizer.slots), "room": 0,
        }  # fmt: skip
        self._start(mode, layout, launch, self._no_outputs if outputs is None else outputs)
        to_host = self.device.to_host
        return StepStats(len(order), to_host(costs[:count]), to_host(hits[:count]))

    def _start(self, mode: str, layout: Layout, launch: dict[str, Any], outputs: Array) -> None:
        """Launch the kernel that is for this mode; ``launch`` is what all of them are told."""
        more = {
            "layers": layout.table, "layer_count": len(self.layers), "row_cost": self._row_cost,
            "row_hit": self._row_hit, "outputs": outputs, **self._of_dropout(),
        }  # fmt: skip
        self.device.start_persistent(self._kernel, (layout.blocks,), launch | more, self._shared)

    def _of_dropout(self) -> dict[str, Any]:
        """What a launch is told of dropout, if there is some."""
        dropout = self.problem.dropout
        if dropout is None:
            return {}
        return {"key": seed_of(dropout.key), "step": self.step, "factors": self._factors}


def shared_bytes(layers: int, dropout: bool = False) -> int:
    """Shared memory of a block, for a network of so many layers."""
    return cuda.HEAD_BYTES + cuda.PRODUCT_BYTES + layers * cuda.layer_bytes(dropout)


def _aligned(numbers: int) -> int:
    """Round up to a multiple of four: what begins after them can be read by four at a time."""
    return -(-numbers // 4) * 4
