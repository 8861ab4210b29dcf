"""The ``numba`` backend's own plan: whole epochs as one compiled call, on a team of threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpubp import kernels
from gpubp.backends.base import Plan, PlanState, Samples, StepStats
from gpubp.backends.team import Team
from gpubp.errors import UsageError
from gpubp.kernels.cpu import inner, steps
from gpubp.kernels.cpu.vector import BYTES
from gpubp.network import Layer
from gpubp.optimizers import Optimizer

# Up to this density, the first layer works on the non-zero inputs only.
SPARSE_DENSITY = 0.4
CHUNK_ROWS = 1024  # samples that are in work at a time, at most; larger batches are summed chunk by chunk
EVALUATION_ROWS = 256  # … and at least, where they are only evaluated
COLUMN_UNITS = 256  # from so many units on, threads share a layer by its units
SHARED_WORK = 60_000  # multiply-adds in a step, from which on a second thread pays


@dataclass(frozen=True)
class StoredSamples:
    """N samples as the plan keeps them."""

    data: steps.Data
    count: int
    density: float

    def __len__(self) -> int:
        return self.count


class Memory:
    """Offsets into one array, handed out on the boundaries of cache lines."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.size = dtype, 0

    def take(self, count: int) -> int:
        place = self.size
        lanes = 64 // self.dtype.itemsize
        self.size += -(-count // lanes) * lanes
        return place

    def allocate(self) -> np.ndarray:
        """The array, zeros, aligned to cache lines."""
        raw = np.zeros(self.size * self.dtype.itemsize + 64, np.uint8)
        shift = -raw.ctypes.data % 64
        return raw[shift : shift + self.size * self.dtype.itemsize].view(self.dtype)


class FusedPlan(Plan):
    """Training as calls of :func:`gpubp.kernels.cpu.steps.steps`; nothing is allocated inside one."""

    def __init__(
        self,
        device: str,
        threads: int,
        layers: Sequence[Layer],
        parameters: Sequence[tuple[np.ndarray, np.ndarray]],
        loss: str,
        optimizer: Optimizer,
        batch_size: int,
        samples: Samples,
    ) -> None:
        self.device, self.layers, self.loss, self.optimizer = device, list(layers), loss, optimizer
        self.batch_size = batch_size
        self.dtype = parameters[0][0].dtype
        self.step = 0
        self._lanes = BYTES // self.dtype.itemsize
        work = batch_size * sum(layer.n_in * layer.n_out for layer in layers)
        self.team = Team(threads if work >= SHARED_WORK else 1)
        self.samples = self.upload(samples)
        self._net = self._lay_out()
        for i, (weights, bias) in enumerate(parameters):
            self._put(self._net.layers[i, steps.W], i, weights, bias)
        self._sync = np.zeros(steps.SYNC_SIZE, np.int64)

    def _row(self, n: int) -> int:
        """Elements from one row of n to the next: whole vectors, and where many, an odd number of them.

        Rows at distances of large powers of two would compete for the same few places of the cache.
        """
        vectors = -(-n // self._lanes)
        return (vectors if vectors < 16 else vectors | 1) * self._lanes

    def _lay_out(self) -> steps.Net:
        memory, team = Memory(self.dtype), self.team.size
        chunk = min(max(self.batch_size, EVALUATION_ROWS), CHUNK_ROWS)
        table = np.zeros((len(self.layers), steps.LAYER_FIELDS), np.int64)
        rows = np.zeros((len(self.layers), team + 1), np.int64)
        widest = max(self._row(max(layer.n_in, layer.n_out)) for layer in self.layers)
        zero, one = memory.take(widest), memory.take(1)
        a_prev = memory.take(chunk * self._row(self.layers[0].n_in))
        for i, layer in enumerate(self.layers):
            entry, row = table[i], self._row(layer.n_out)
            entry[steps.N_IN], entry[steps.N_OUT] = layer.n_in, layer.n_out
            entry[steps.VECTORS] = -(-layer.n_out // self._lanes)
            entry[steps.ACTIVATION] = kernels.ACTIVATIONS[layer.activation]
            entry[steps.BY_COLUMNS] = (
                team > 1 and layer.n_out >= COLUMN_UNITS and layer.activation != "softmax"
            )
            entry[steps.A_PREV], entry[steps.A_PREV_ROW] = a_prev, self._row(layer.n_in)
            entry[steps.ROW] = row
            size = (layer.n_in + 1) * row
            entry[steps.W], entry[steps.GRADIENT] = memory.take(size), memory.take(size)
            slots = [memory.take(size) for _ in self.optimizer.slots] + [-1, -1]
            entry[steps.SLOT1], entry[steps.SLOT2] = slots[:2]
            entry[steps.A] = a_prev = memory.take(chunk * row)
            entry[steps.DELTA] = memory.take(chunk * row)
            rows[i] = self._share_rows(layer.n_in, i == 0)
        starts = self.samples.data.starts
        most = int(np.diff(starts).max()) if len(starts) else 0
        most = -(-most // self._lanes) * self._lanes
        inputs = memory.take(chunk * most)
        scratch_size = (steps.DEPTH * inner.TILE_VECTORS + steps.BLOCK_ROWS * inner.WIDEST) * self._lanes
        scratch = memory.take(team * scratch_size)
        array = memory.allocate()
        array[one] = 1
        return steps.Net(
            array, table, rows, chunk, zero, one, inputs, most, scratch, scratch_size,
            kernels.LOSSES[self.loss], kernels.RULES[self.optimizer.kind], team,
        )  # fmt: skip

    def _share_rows(self, n_in: int, first: bool) -> np.ndarray:
        """Where each thread's rows of a layer's W begin, (threads + 1,), for an even share of the work."""
        team = self.team.size
        data = self.samples.data
        unit = steps.MARK if first else inner.TILE_ROWS
        parts = -(-n_in // unit)
        work = np.ones(parts)
        if first and len(data.columns):
            marks = data.marks.reshape(-1, parts + 1)[:: max(1, len(self.samples) // 1000)]
            work = np.diff(marks, axis=1).mean(axis=0) + 0.5  # a row that is always 0 is still updated
        done = np.concatenate([[0], np.cumsum(work)])
        cuts = np.searchsorted(done, done[-1] * np.arange(team + 1) / team - 1e-9)
        return np.minimum(cuts * unit, n_in)

    def describe(self) -> str:
        first = "non-zero inputs only" if len(self.samples.data.columns) else "dense inputs"
        threads = self.team.size
        return (
            f"fused plan, whole epochs in one call, {first} (density {self.samples.density:.2f}), "
            f"{threads} thread{'s' if threads > 1 else ''}, on {self.device}"
        )

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        count = len(learning_rates)
        rows = [
            self.optimizer.coefficients_of(learning_rates, self.step + 1, decay=decay)
            for decay in (True, False)
        ]
        coefficients = np.stack(rows, axis=1).astype(self.dtype).reshape(-1)
        stats = self._run(self.samples, order, self.batch_size, count, coefficients, steps.TRAIN)
        self.step += count
        return stats

    def gradients(self, order: np.ndarray) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
        if len(order) > self.batch_size:
            raise UsageError(f"gradients of {len(order)} samples from a plan whose batches have {self.batch_size}")
        stats = self._run(self.samples, order, len(order), 1, self._no_coefficients(), steps.GRADIENTS)
        places = self._net.layers[:, steps.GRADIENT]
        return stats.mean_cost, [self._get(place, i) for i, place in enumerate(places)]

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        n = len(inputs)
        outputs = np.empty((n, self.layers[-1].n_out), self.dtype)
        samples = self._store(
            Samples(inputs, np.zeros((n, self.layers[-1].n_out), self.dtype), np.ones(n, self.dtype)),
            sparse=False,
        )
        self._run(samples, np.arange(n), n, 1, self._no_coefficients(), steps.PREDICT, outputs)
        return outputs

    def upload(self, samples: Samples) -> StoredSamples:
        return self._store(samples, sparse=True)

    def evaluate(self, samples: StoredSamples) -> StepStats:
        n = len(samples)
        return self._run(samples, np.arange(n), n, 1, self._no_coefficients(), steps.EVALUATE)

    def state(self) -> PlanState:
        parameters, slots = [], []
        for i, entry in enumerate(self._net.layers):
            parameters += self._get(entry[steps.W], i)
            places = [entry[steps.SLOT1], entry[steps.SLOT2]][: len(self.optimizer.slots)]
            pairs = [self._get(place, i) for place in places]
            slots += [tuple(weights for weights, _ in pairs), tuple(bias for _, bias in pairs)]
        return PlanState(parameters, slots, self.step)

    def load_state(self, state: PlanState) -> None:
        for i, entry in enumerate(self._net.layers):
            self._put(entry[steps.W], i, *state.parameters[2 * i : 2 * i + 2])
            for place, weights, bias in zip(
                (entry[steps.SLOT1], entry[steps.SLOT2]), *state.slots[2 * i : 2 * i + 2], strict=False
            ):
                self._put(place, i, weights, bias)
        self.step = state.step

    def _view(self, place: int, i: int) -> np.ndarray:
        """Layer i's (n_in + 1, n_out) at this place: transposed weights, and the bias as the last row."""
        layer, row = self.layers[i], self._net.layers[i, steps.ROW]
        rows = layer.n_in + 1
        return self._net.memory[place : place + rows * row].reshape(rows, row)[:, : layer.n_out]

    def _get(self, place: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        view = self._view(place, i)
        return np.array(view[:-1].T, order="C"), view[-1].copy()

    def _put(self, place: int, i: int, weights: np.ndarray, bias: np.ndarray) -> None:
        view = self._view(place, i)
        view[:-1] = weights.T
        view[-1] = bias

    def _no_coefficients(self) -> np.ndarray:
        return np.zeros(2, self.dtype)

    def _run(
        self,
        samples: StoredSamples,
        order: np.ndarray,
        batch_size: int,
        count: int,
        coefficients: np.ndarray,
        mode: int,
        outputs: np.ndarray | None = None,
        only: int = -1,
    ) -> StepStats:
        order = np.ascontiguousarray(order, np.int64)
        if len(order) and not 0 <= order.min() <= order.max() < len(samples):
            raise IndexError(f"samples {order.min()} … {order.max()} of {len(samples)}")
        if outputs is None:
            outputs = np.empty((0, 1), self.dtype)
        costs = np.zeros((self.team.size, count))
        hits = np.zeros((self.team.size, count), np.int64)

        def work(rank: int) -> None:
            steps.steps(
                self._net, samples.data, order, batch_size, coefficients, mode, only, rank, self._sync,
                costs[rank], hits[rank], outputs,
            )  # fmt: skip

        self.team.run(work)
        return StepStats(len(order), costs.sum(axis=0), hits.sum(axis=0))

    def _store(self, samples: Samples, *, sparse: bool) -> StoredSamples:
        n, n_in = samples.inputs.shape
        n_out = self.layers[-1].n_out
        as_bytes = samples.inputs.dtype == np.uint8
        inputs = np.ascontiguousarray(samples.inputs, None if as_bytes else self.dtype).reshape(-1)
        none = np.empty(0, self.dtype)
        width = -(-n_out // self._lanes) * self._lanes
        targets = np.zeros((n, width), self.dtype)
        targets[:, :n_out] = samples.targets
        data = steps.Data(
            inputs if as_bytes else np.empty(0, np.uint8),
            none if as_bytes else inputs,
            np.empty(0, np.int64),
            np.empty(0, np.uint16),
            np.empty(0, np.uint8),
            none,
            np.empty(0, np.uint16),
            math.ceil(SPARSE_DENSITY * n_in),
            targets.reshape(-1),
            samples.targets.argmax(axis=1),
            np.ascontiguousarray(samples.sample_weight, self.dtype),
        )
        if not sparse:
            return StoredSamples(data, n, 1.0)
        starts = np.zeros(n + 1, np.int64)
        self._each_part(n, lambda first, stop: steps.count_columns(inputs, n_in, starts, first, stop))
        np.cumsum(starts, out=starts)
        density = starts[-1] / max(inputs.size, 1)
        if density > SPARSE_DENSITY:
            return StoredSamples(data, n, density)
        kind = np.uint16 if n_in < 1 << 16 else np.int32
        columns, values = np.empty(starts[-1], kind), np.empty(starts[-1], inputs.dtype)
        marks = np.empty(n * (-(-n_in // steps.MARK) + 1), kind)
        self._each_part(
            n,
            lambda first, stop: steps.keep_columns(
                inputs, n_in, starts, columns, values, marks, first, stop
            ),
        )
        data = data._replace(starts=starts, columns=columns, marks=marks)
        data = data._replace(**{"byte_values" if as_bytes else "number_values": values})
        return StoredSamples(data, n, density)

    def _each_part(self, n: int, work) -> None:
        """work(first, stop) on each thread's part of n samples."""
        size = self.team.size
        self.team.run(lambda rank: work(n * rank // size, n * (rank + 1) // size))
