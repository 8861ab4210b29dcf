"""The ``numba`` backend's own plan: whole epochs as one compiled call, on a team of threads."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import gpubp.kernels as kernels
from gpubp.backends.backend import check_rule
from gpubp.backends.cpu.deform import signed_seed, tables_of
from gpubp.backends.cpu.team import Team
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats, check_batch, check_order
from gpubp.backends.threads import counted
from gpubp.data.samples import Samples, byte_table, dense_inputs
from gpubp.data.sparse import is_sparse
from gpubp.kernels.cpu import entries, layout
from gpubp.kernels.cpu.deforming import NO_DEFORMING, lined
from gpubp.kernels.cpu.entry import Packed
from gpubp.kernels.cpu.machine import BYTES, LINE
from gpubp.randomness import philox
from gpubp.reference import Parameters
from gpubp.support.shared import made_of

# Up to this density, the first layer takes the non-zero inputs of each sample; measured, the same for 32 to 512 units.
SPARSE_DENSITY = 0.4
# It takes them by column, where that is faster: neighbours are so alike that of three, any is not 0 in at most so many
# times the samples in which one is, and in at most so many of all; and batches have so many samples.
ALIKE, COLUMN_DENSITY, COLUMN_BATCH = 1.75, 0.7, 24
MOST_COLUMNS = 8192  # that there is room for, a whole row of each sample in work
LONGEST_SPARSE = 65535  # inputs that a record can count
CHUNK_ROWS = 1024  # samples that are in work at a time, at most; larger batches are summed chunk by chunk
LEAST_CHUNK_ROWS = 256  # … and at least, for evaluations after training in small batches
SHARED_UNITS = 256  # from so many units on, threads share a layer by its units
# Multiply-adds of forward products, in a step and in an epoch, from which on a second thread pays: it has to be woken
# for each call, which takes as long as some millions of them, and waited for in each step.
SHARED_WORK, SHARED_EPOCH = 400_000, 20_000_000


class Form(NamedTuple):
    """How the records of non-zero inputs are written, as :class:`gpubp.kernels.cpu.layout.Data` has them."""

    by_column: bool
    n_in: int
    value_bytes: int

    @property
    def words(self) -> int:
        """Words of each record's bitmap; 0 without one."""
        return layout.map_words(self.n_in) if self.by_column else 0

    @property
    def pitch(self) -> int:
        """Bytes from one sample's inputs to the next, where they are taken by column; else 0."""
        return layout.pitch_of(self.n_in, self.value_bytes) if self.by_column else 0

    def size(self, count):
        """Bytes of a record of so many non-zero inputs."""
        if self.by_column:
            return 8 * self.words + count * self.value_bytes
        return layout.head_of(self.n_in) + count * (1 + self.value_bytes)

    def starts(self, counts: np.ndarray) -> np.ndarray:
        """Where the records of samples with so many non-zero inputs begin, (N + 1), each on a cache line."""
        starts = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(-(-self.size(counts.astype(np.int64)) // LINE) * LINE, out=starts[1:])
        return starts


@dataclass(frozen=True)
class StoredSamples:
    """N samples as the plan keeps them."""

    data: layout.Data
    count: int
    density: float
    most: int  # non-zero inputs of one sample, if they are listed
    work: np.ndarray  # (marks) mean non-zero inputs between two marks
    counted: bool = True  # whether the density is known

    def __len__(self) -> int:
        return self.count

    @cached_property
    def packed(self) -> Packed:
        """The data as an argument of kernels."""
        return Packed(self.data)


class Memory:
    """Offsets into one array, handed out on the boundaries of cache lines."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.size = dtype, 0

    def take(self, count: int) -> int:
        place = self.size
        self.size += whole_lines(count, self.dtype)
        return place

    def allocate(self) -> np.ndarray:
        """The array, zeros."""
        return zeros(self.size, self.dtype)


def whole_lines(count: int, dtype: np.dtype) -> int:
    """Elements of as many cache lines as ``count`` of them take."""
    line = LINE // dtype.itemsize
    return -(-count // line) * line


def zeros(count: int, dtype: np.dtype | type) -> np.ndarray:
    """A one-dimensional array that begins on a cache line."""
    return lined(count * np.dtype(dtype).itemsize).view(dtype)


def is_compiled(dtype: np.dtype, *, by_chance: bool = False) -> bool:
    """Whether :func:`gpubp.kernels.cpu.steps.steps` is, for ``dtype``: with dropout and deformed images, or without.

    All else takes little time to compile.
    """
    numbers, bytes_ = np.empty(0, dtype), np.empty(0, np.uint8)
    places, table = np.empty(0, np.int64), np.empty((0, 0), np.int64)
    chance = layout.Chance(0, bytes_, NO_DEFORMING, places, bytes_) if by_chance else 0
    net = layout.Net(
        numbers, table, table, 0, 0, 0, 0, places, bytes_, places, places, 0, 0, 0, 0, chance, *[0] * 9
    )
    data = layout.Data(bytes_, numbers, places, bytes_, 0, 0, numbers, numbers)
    sums, outputs = np.empty((0, 0)), np.empty((0, 0), dtype)
    return entries.steps.is_kept(net, data, places, 0, numbers, 0, 0, 0, 0, places, sums, table, outputs)


class FusedPlan(Plan):
    """Training as calls of :func:`gpubp.kernels.cpu.steps.steps`; nothing is allocated inside one."""

    def __init__(self, device: str, threads: int, problem: Problem) -> None:
        super().__init__(problem)
        self.device = device
        self._lanes = BYTES // self.dtype.itemsize
        self.team = Team(threads)
        if problem.deformation:
            self.samples = self._store_images(problem.samples)
        else:
            self.samples = self._store(problem.samples, room=self.layers[0].n_in, batch=self.batch_size)
        self._most = self.samples.most  # non-zero inputs that there is room for in each sample
        first, *others = (layer.n_in * layer.n_out for layer in self.layers)
        work = sum(others) + first * self.samples.density
        shared = self.batch_size * work >= SHARED_WORK and len(self.samples) * work >= SHARED_EPOCH
        self.threads = threads if shared else 1
        self._lay_out()
        listed = len(self.samples.data.records) > 0 and not self.samples.data.pitch
        plain = not self.optimizer.slots and not getattr(self.optimizer, "weight_decay", 0)
        self.by_sample = listed and plain and self.batch_size <= self.net.chunk
        for i, (weights, bias) in enumerate(problem.parameters):
            self._put(self.net.layers[i, layout.W], i, weights, bias)
        self._sync = Packed(np.zeros(layout.SYNC_SIZE, np.int64))
        self._no_coefficients = Packed(np.zeros(2, self.dtype))
        self._no_outputs = Packed(np.empty((0, 1), self.dtype))
        self._lock = threading.RLock()  # the working memory serves one call at a time

    def _row(self, n: int) -> int:
        """Elements from one row of n to the next: whole vectors, and where many, an odd number of them.

        Rows at distances of large powers of two would compete for the same few places of the cache.
        """
        vectors = -(-n // self._lanes)
        return (vectors if vectors < 16 else vectors | 1) * self._lanes

    def _size(self, i: int) -> int:
        """Elements of layer i's weights and biases, in rows."""
        return (self.layers[i].n_in + 1) * self._row(self.layers[i].n_out)

    def _lay_out(self) -> None:
        """Make the network's tables and memory, all zeros."""
        memory, team = Memory(self.dtype), self.threads
        chunk = min(max(self.batch_size, LEAST_CHUNK_ROWS), CHUNK_ROWS)
        table = np.zeros((len(self.layers), layout.LAYER_FIELDS), np.int64)
        rows = np.zeros((len(self.layers), team + 1), np.int64)
        widest = max(self._row(max(layer.n_in, layer.n_out)) for layer in self.layers)
        zero, one, quotients = memory.take(widest), memory.take(1), memory.take(256)
        self._quotients, dropout, bits = quotients, self.problem.dropout, Memory(np.dtype(np.uint8))
        factors = [memory.take(1) for _ in self.layers] if dropout else []
        left = memory.take(256) if dropout else quotients  # of bytes, where inputs are dropped
        a_prev = memory.take(chunk * self._row(self.layers[0].n_in))
        columns = layout.W, layout.GRADIENT, layout.SLOT1, layout.SLOT2
        table[:, columns] = -1
        for column in columns[
            : 2 + len(self.optimizer.slots)
        ]:  # all of a kind one after the other, as one vector
            for i in range(len(self.layers)):
                table[i, column] = memory.take(self._size(i))
        for i, layer in enumerate(self.layers):
            entry, row = table[i], self._row(layer.n_out)
            entry[layout.N_IN], entry[layout.N_OUT] = layer.n_in, layer.n_out
            entry[layout.VECTORS] = -(-layer.n_out // self._lanes)
            entry[layout.ACTIVATION] = kernels.ACTIVATIONS[layer.activation]
            wide = layer.n_out >= SHARED_UNITS and layer.activation != "softmax"
            entry[layout.BY_UNITS] = team > 1 and wide
            entry[layout.A_PREV], entry[layout.A_PREV_ROW] = a_prev, self._row(layer.n_in)
            entry[layout.ROW] = row
            entry[layout.A] = a_prev = memory.take(chunk * row)
            entry[layout.DELTA] = memory.take(chunk * row)
            if dropout and dropout.dropped[i]:
                entry[layout.DROPPED], entry[layout.FACTOR] = dropout.dropped[i], factors[i]
                entry[layout.KEPT_ROW] = -(-layer.n_in // philox.BLOCK) * layout.DRAW_BYTES
                entry[layout.KEPT] = bits.take(chunk * int(entry[layout.KEPT_ROW]))
                if i:
                    entry[layout.A_PREV] = memory.take(chunk * self._row(layer.n_in))
            rows[i] = self._share_rows(layer.n_in, i == 0)
        most = -(-self._most // self._lanes) * self._lanes
        inputs = memory.take(chunk * most)
        output_row = self._row(self.layers[-1].n_out)
        targets, weights = memory.take(chunk * output_row), memory.take(chunk + self._lanes)
        turned = [self._row(layer.n_out) for layer in self.layers if layer.activation == "softmax"]
        block = (max([*turned, output_row]) + 1) * self._lanes
        panel = max(layout.PANEL_BYTES, chunk * layout.WIDEST * BYTES) // self.dtype.itemsize
        scratch_size = layout.BLOCK_BYTES // self.dtype.itemsize + max(panel, 3 * block)
        scratch = memory.take(team * scratch_size)
        array = memory.allocate()
        array[one] = 1
        array[quotients : quotients + 256] = byte_table(self.dtype)
        if dropout:
            array[factors] = dropout.factors
            array[left : left + 256] = byte_table(self.dtype) * array[factors[0]]
        n_in = self.layers[0].n_in
        room = chunk * (n_in <= MOST_COLUMNS)  # samples that there is room for by column
        unfolded = team * room * layout.pitch_of(n_in, self.dtype.itemsize)
        words = layout.words_before(room, team, team)
        net = layout.Net(
            array, table, rows, chunk, zero, one, left, np.arange(chunk),
            zeros(unfolded + self._deformed_bytes(chunk), np.uint8),
            zeros(team * words * layout.BITS * layout.map_row(n_in), np.int64), np.zeros(team * words, np.int64), words,
            layout.map_words(n_in), layout.map_row(n_in), unfolded if self.problem.deformation else -1,
            self._chance(bits), inputs, most, targets, weights, scratch, scratch_size,
            kernels.LOSSES[self.problem.loss.name], check_rule(self.optimizer), team,
        )  # fmt: skip
        self._use(net)

    def _deformed_bytes(self, chunk: int) -> int:
        """Of so many deformed images, and a vector beyond; none where there are none."""
        n_in = self.layers[0].n_in
        pitch = self.samples.data.pitch or n_in
        return chunk * pitch + BYTES if self.problem.deformation else 0

    def _chance(self, bits: Memory) -> layout.Chance | int:
        """What dropout and deformed images take, with memory for so many bits."""
        dropout, deformation, classes = self.problem.dropout, self.problem.deformation, self.problem.classes
        if not self.problem.by_chance:
            return 0
        tables = tables_of(deformation) if deformation else NO_DEFORMING
        limits = np.empty(0, np.int64)
        if deformation and classes is not None:
            limits = deformation.limit_of(classes, len(classes))
        working = zeros(self.threads * tables.size, np.uint8)
        return layout.Chance(
            signed_seed(dropout.key) if dropout else 0, bits.allocate(), tables, limits, working
        )

    def _use(self, net: layout.Net) -> None:
        """Take this network, and for evaluations the same without dropout and deformed images."""
        self.net = net
        self._packed = self._whole = Packed(net)
        if self.problem.by_chance:
            layers = net.layers.copy()
            layers[:, layout.DROPPED] = 0
            layers[1:, layout.A_PREV] = layers[:-1, layout.A]
            self._whole = Packed(net._replace(layers=layers, table=self._quotients, deformed=-1))

    def _share_rows(self, n_in: int, first: bool) -> np.ndarray:
        """Return where each thread's rows of a layer's W begin, (threads + 1,), for an even share of the work."""
        unit = layout.MARK if first else layout.TILE_ROWS
        # a row that is always 0 is still updated
        work = self.samples.work + 0.5 if first else np.ones(-(-n_in // unit))
        done = np.concatenate([[0], np.cumsum(work)])
        cuts = np.searchsorted(done, done[-1] * np.arange(self.threads + 1) / self.threads - 1e-9)
        return np.minimum(cuts * unit, n_in)

    @property
    def kind(self) -> Hashable:
        data = self.samples.data
        return type(self), self.threads, len(data.records) > 0, data.pitch > 0, data.most_bytes > 0

    def describe(self) -> str:
        data = self.samples
        of_all = counted(self.threads)
        if self.threads < self.team.size:
            of_all = f"1 of {self.team.size} threads, since there is too little to share"
        first = "non-zero inputs only" if len(data.data.records) or data.data.pitch else "all inputs"
        first += ", by column" if data.data.pitch else ", W1 changed by each sample" if self.by_sample else ""
        many = f"a row may have over {LONGEST_SPARSE:,} of them"
        since = f"{data.density:.0%} are not 0" if data.counted else many
        return f"fused plan, whole epochs in one call, {first}, since {since}, on {of_all}; {self.device}"

    def run(self, order: np.ndarray, learning_rates: np.ndarray) -> StepStats:
        count = len(learning_rates)
        with self._lock:
            coefficients = self.coefficients(learning_rates)
            stats = self._run(self.samples, order, self.batch_size, count, coefficients, layout.TRAIN)
            self.step += count
            return stats

    def coefficients(self, learning_rates: np.ndarray) -> np.ndarray:
        """The optimizer's of the steps that come: of each those of weights and those of biases."""
        rates = learning_rates, self.step + 1
        of_weights = of_biases = self.optimizer.coefficients_of(*rates, decay=True)
        if getattr(self.optimizer, "weight_decay", 0):  # which biases never have
            of_biases = self.optimizer.coefficients_of(*rates, decay=False)
        return np.stack([of_weights, of_biases], axis=1).astype(self.dtype).reshape(-1)

    def stats_and_gradients(self, order: np.ndarray) -> tuple[StepStats, Parameters]:
        check_batch(len(order), self.batch_size)
        with self._lock:
            stats = self.sum_gradient(order, len(order))
            places = self.net.layers[:, layout.GRADIENT]
            return stats, [self._get(place, i) for i, place in enumerate(places)]

    def sum_gradient(self, order: np.ndarray, whole: int) -> StepStats:
        """Leave Σ ∂C/∂W over these samples, divided by ``whole`` of them, in the memory."""
        return self._run(self.samples, order, whole, 1, None, layout.GRADIENTS)

    def vector(self, column: int) -> np.ndarray:
        """All parameters, their gradients or a slot, by the column in the table of layers: one vector of memory."""
        first, last = self.net.layers[0, column], self.net.layers[-1, column]
        return self.net.memory[first : last + whole_lines(self._size(-1), self.dtype)]

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        n = inputs.shape[0]
        outputs = np.empty((n, self.layers[-1].n_out), self.dtype)
        samples = self._store(Samples(inputs, np.zeros_like(outputs), np.ones(n, self.dtype)), room=None)
        self._run(samples, np.arange(n), n, 1, None, layout.PREDICT, outputs)
        return outputs

    def upload(self, samples: Samples) -> StoredSamples:
        stored = self._store(samples, room=self.net.most)
        if stored.most > self.net.most:
            with self._lock:
                state, self._most = self.state(), stored.most
                self._lay_out()
                self.load_state(state)
        return stored

    def evaluate(self, samples: StoredSamples) -> StepStats:
        n = len(samples)
        return self._run(samples, np.arange(n), n, 1, None, layout.EVALUATE)

    def state(self) -> PlanState:
        parameters: list[np.ndarray] = []
        slots: list[tuple[np.ndarray, ...]] = []
        with self._lock:
            for i, entry in enumerate(self.net.layers):
                parameters += self._get(entry[layout.W], i)
                places = [entry[layout.SLOT1], entry[layout.SLOT2]][: len(self.optimizer.slots)]
                pairs = [self._get(place, i) for place in places]
                slots += [tuple(weights for weights, _ in pairs), tuple(bias for _, bias in pairs)]
            return PlanState(parameters, slots, self.step)

    def trained(self) -> list[tuple[np.ndarray, np.ndarray]]:
        with self._lock:
            return [self._get(entry[layout.W], i) for i, entry in enumerate(self.net.layers)]

    def load_state(self, state: PlanState) -> None:
        with self._lock:
            for i, entry in enumerate(self.net.layers):
                self._put(entry[layout.W], i, *state.parameters[2 * i : 2 * i + 2])
                places = [entry[layout.SLOT1], entry[layout.SLOT2]][: len(self.optimizer.slots)]
                for place, *pair in zip(places, *state.slots[2 * i : 2 * i + 2], strict=True):
                    self._put(place, i, *pair)
            self.step = state.step

    def _view(self, place: int, i: int) -> np.ndarray:
        """Layer i's (n_in + 1, n_out) at this place: transposed weights, and the bias as the last row."""
        layer, row = self.layers[i], self.net.layers[i, layout.ROW]
        rows = layer.n_in + 1
        return self.net.memory[place : place + rows * row].reshape(rows, row)[:, : layer.n_out]

    def _get(self, place: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        view = self._view(place, i)
        return np.array(view[:-1].T, order="C"), view[-1].copy()

    def _put(self, place: int, i: int, weights: np.ndarray, bias: np.ndarray) -> None:
        view = self._view(place, i)
        view[:-1] = weights.T
        view[-1] = bias

    def _run(
        self,
        samples: StoredSamples,
        order: np.ndarray,
        batch_size: int,
        count: int,
        coefficients: np.ndarray | None,
        mode: int,
        outputs: np.ndarray | None = None,
        only: int = layout.ALL,
    ) -> StepStats:
        order = np.ascontiguousarray(order, np.int64)
        check_order(order, len(samples))
        asked = self._no_outputs if outputs is None else outputs
        rule = self._no_coefficients if coefficients is None else coefficients
        costs, hits = (np.zeros((self.threads, count), kind) for kind in (np.float64, np.int64))
        net = self._packed if mode <= layout.GRADIENTS else self._whole
        jobs = [
            entries.steps.bind(
                net, samples.packed, order, batch_size, rule, self.step, mode, only, rank, self._sync, costs, hits,
                asked,
            )
            for rank in range(self.threads)
        ]  # fmt: skip
        with self._lock:
            if len(jobs) > 1:
                self.team.run(jobs)
            else:  # there is nobody to wait for
                jobs[0]()
        costs, hits = (sums[0] if len(jobs) == 1 else sums.sum(axis=0) for sums in (costs, hits))
        return StepStats(len(order), costs, hits)

    def _store(self, samples: Samples, *, room: int | None, batch: int = LEAST_CHUNK_ROWS) -> StoredSamples:
        """``samples`` with records of their non-zero inputs, if those are few and no list needs more than ``room``.

        Sparse inputs are kept as records alone, however many they are. Predictions have no room, None, and get none.
        ``batch`` samples will be in work at a time.
        """
        if is_sparse(samples.inputs) and room is not None:
            counts = np.diff(samples.inputs.indptr)
            if counts.max() <= LONGEST_SPARSE:
                return self._store_sparse(samples, counts, batch)
        n, n_in = samples.inputs.shape
        rows = dense_inputs(samples.inputs, self.dtype)
        inputs, data = rows.reshape(-1), self._data(samples)
        data = data._replace(bytes=inputs) if inputs.dtype == np.uint8 else data._replace(numbers=inputs)
        dense = StoredSamples(data, n, 1.0, 0, np.ones(-(-n_in // layout.MARK)))
        if room is None or n_in > LONGEST_SPARSE:
            return replace(dense, counted=False)
        counts = made_of(rows, "counts", lambda: self._counts(inputs, n, n_in))
        density, most = counts.sum() / inputs.size, int(counts.max())
        some = made_of(rows, "some", lambda: _thousand(rows))
        form = Form(_by_column(some, batch), n_in, inputs.itemsize)
        if not form.by_column and (density > SPARSE_DENSITY or most > room):
            return replace(dense, density=density)
        starts, records = made_of(rows, form, lambda: self._records(inputs, n_in, form, counts))
        limit = form.size(int((COLUMN_DENSITY if form.by_column else SPARSE_DENSITY) * n_in))
        worth = limit if np.diff(starts).max() > limit else 0
        data = data._replace(starts=starts, records=records, pitch=form.pitch, most_bytes=worth)
        return StoredSamples(data, n, density, 0 if form.by_column else most, _work(some))

    def _counts(self, inputs: np.ndarray, n: int, n_in: int) -> np.ndarray:
        """The non-zero inputs of each sample."""
        counts = np.zeros(n, np.int64)
        self.team.share(n, lambda _, first, stop: entries.count_inputs(inputs, n_in, first, stop, counts))
        return counts

    def _records(
        self, inputs: np.ndarray, n_in: int, form: Form, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the records of dense inputs begin, and the records."""
        starts = form.starts(counts)
        records = zeros(int(starts[-1]) + LINE, np.uint8)
        how = inputs, n_in, starts, records, form.words, inputs.itemsize
        self.team.share(len(counts), lambda _, first, stop: entries.write_records(*how, first, stop))
        return starts, records

    def _store_images(self, samples: Samples) -> StoredSamples:
        """Images that are to be deformed: bytes as they are, taken by column where those are alike and few not 0."""
        n, n_in = samples.inputs.shape
        some = _thousand(samples.inputs)
        pitch = Form(_by_column(some, self.batch_size), n_in, 1).pitch
        data = self._data(samples)._replace(
            bytes=np.ascontiguousarray(samples.inputs).reshape(-1), pitch=pitch
        )
        work = _work(some) if pitch else np.ones(-(-n_in // layout.MARK))
        return StoredSamples(data, n, float(some.mean()) if pitch else 1.0, 0, work)

    def _store_sparse(self, samples: Samples, counts: np.ndarray, batch: int) -> StoredSamples:
        """The records of sparse inputs, so many in each row; they are not kept in any other way."""
        x = samples.inputs
        n, n_in = x.shape
        indptr, columns = x.indptr.astype(np.int64, copy=False), x.indices.astype(np.int64, copy=False)
        values = np.ascontiguousarray(x.data, self.dtype)
        form = Form(n_in <= MOST_COLUMNS and _by_column(_thousand(x), batch), n_in, values.itemsize)
        starts = form.starts(counts)
        records = zeros(int(starts[-1]) + LINE, np.uint8)
        how = indptr, columns, values, n_in, starts, records, form.words
        self.team.share(n, lambda _, first, stop: entries.write_sparse_records(*how, first, stop))
        data = self._data(samples)._replace(starts=starts, records=records, pitch=form.pitch)
        most = 0 if form.by_column else max(int(counts.max()), 1)
        work = np.bincount(columns // layout.MARK, minlength=-(-n_in // layout.MARK)) / n
        return StoredSamples(data, n, len(values) / (n * n_in), most, work)

    def _data(self, samples: Samples) -> layout.Data:
        """Targets and sample weights as the kernels want them, without inputs."""
        n, n_out = len(samples), self.layers[-1].n_out
        width = self._row(n_out)
        targets = zeros(n * width, self.dtype)
        targets.reshape(n, width)[:, :n_out] = samples.targets
        weight = np.ascontiguousarray(samples.sample_weight, self.dtype)
        none, no_bytes, no_starts = (np.empty(0, kind) for kind in (self.dtype, np.uint8, np.int64))
        weight = none if (weight == 1).all() else weight
        return layout.Data(no_bytes, none, no_starts, no_bytes, 0, 0, targets, weight)


def _thousand(inputs: Any) -> np.ndarray:
    """Which inputs are not 0, (n, n_in), in about a thousand samples from all over (N, n_in)."""
    some = inputs[:: max(1, inputs.shape[0] // 1000)]
    if not is_sparse(some):
        return some != 0
    nonzero = np.zeros(some.shape, bool)
    nonzero[some.nonzero()] = True
    return nonzero


def _by_column(nonzero: np.ndarray, batch: int) -> bool:
    """Return True if the first layer is to take inputs by column in such batches, where these (n, n_in) are not 0."""
    (count, n_in), tile = nonzero.shape, layout.TILE_COLUMNS
    if batch < COLUMN_BATCH or not tile <= n_in <= MOST_COLUMNS:
        return False
    tiles = nonzero[:, : n_in // tile * tile].reshape(count, -1, tile)
    of_any, of_one = tiles.any(axis=2).mean(), tiles.mean()
    return bool(of_any < ALIKE * of_one and of_any <= COLUMN_DENSITY)


def _work(nonzero: np.ndarray) -> np.ndarray:
    """Mean inputs of a sample that are not 0 between two marks, (marks)."""
    return np.add.reduceat(nonzero.mean(axis=0), np.arange(0, nonzero.shape[1], layout.MARK))
