"""The ``numba`` backend's own plan: whole epochs as one compiled call, on a team of threads."""

from __future__ import annotations

import threading
from collections.abc import Hashable

import numpy as np

import gpubp.kernels as kernels
from gpubp.backends.backend import check_rule
from gpubp.backends.cpu.deform import signed_seed, tables_of
from gpubp.backends.cpu.memory import Memory, whole_lines, zeros
from gpubp.backends.cpu.stored import LEAST_CHUNK_ROWS, MOST_COLUMNS, Storage, StoredSamples
from gpubp.backends.cpu.team import Team
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats, check_batch, check_order
from gpubp.backends.threads import counted
from gpubp.data.samples import Samples, byte_table
from gpubp.kernels.cpu import entries, layout
from gpubp.kernels.cpu.deforming import NO_DEFORMING
from gpubp.kernels.cpu.entry import Packed
from gpubp.kernels.cpu.machine import BYTES
from gpubp.randomness import philox
from gpubp.reference import Parameters

CHUNK_ROWS = 1024  # samples that are in work at a time, at most; larger batches are summed chunk by chunk
SHARED_UNITS = 256  # from so many units on, threads share a layer by its units
# Multiply-adds of forward products, in a step and in an epoch, from which on a second thread pays: it has to be woken
# for each call, which takes as long as some millions of them, and waited for in each step.
SHARED_WORK, SHARED_EPOCH = 400_000, 20_000_000


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
        self._storage = Storage(self.dtype, self.team, self._row(self.layers[-1].n_out))
        if problem.deformation:
            self.samples = self._storage.store_images(problem.samples, self.batch_size)
        else:
            self.samples = self._storage.store(problem.samples, self.layers[0].n_in, self.batch_size)
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
        # All of a kind lie one after the other, as one vector.
        for column in columns[: 2 + len(self.optimizer.slots)]:
            for i in range(len(self.layers)):
                table[i, column] = memory.take(self._size(i))
        for i, layer in enumerate(self.layers):
            entry, row = table[i], self._row(layer.n_out)
            entry[layout.N_IN], entry[layout.N_OUT] = layer.n_in, layer.n_out
            entry[layout.VECTORS] = -(-layer.n_out // self._lanes)
            entry[layout.ACTIVATION] = kernels.ACTIVATIONS[layer.activation]
            wide = layer.n_out >= SHARED_UNITS and layer.activation != "softmax"
            entry[layout.SHAREABLE], entry[layout.BY_UNITS] = wide, team > 1 and wide
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
        since = data.unknown or f"{data.density:.0%} are not 0"
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
        given = Samples(inputs, np.zeros_like(outputs), np.ones(n, self.dtype))
        samples = self._storage.store(given, None)
        self._run(samples, np.arange(n), n, 1, None, layout.PREDICT, outputs)
        return outputs

    def upload(self, samples: Samples) -> StoredSamples:
        stored = self._storage.store(samples, self.net.most)
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

    def get(self, memory: np.ndarray, place: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        """A copy of layer i's W and b, or what else is for each, which lie there in memory."""
        view = self._view(memory, place, i)
        return np.array(view[:-1].T, order="C"), view[-1].copy()

    def put(self, memory: np.ndarray, place: int, i: int, weights: np.ndarray, bias: np.ndarray) -> None:
        """The other way round."""
        view = self._view(memory, place, i)
        view[:-1], view[-1] = weights.T, bias

    def _view(self, memory: np.ndarray, place: int, i: int) -> np.ndarray:
        """Layer i's (n_in + 1, n_out) at this place: transposed weights, and the bias as the last row."""
        layer, row = self.layers[i], self.net.layers[i, layout.ROW]
        rows = layer.n_in + 1
        return memory[place : place + rows * row].reshape(rows, row)[:, : layer.n_out]

    def _get(self, place: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.get(self.net.memory, place, i)

    def _put(self, place: int, i: int, weights: np.ndarray, bias: np.ndarray) -> None:
        self.put(self.net.memory, place, i, weights, bias)

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
