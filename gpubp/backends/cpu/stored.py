"""Samples as the fused plan keeps them: which of their inputs are kept in which form, by how many are not 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpubp.backends.cpu.memory import zeros
from gpubp.backends.cpu.team import Team
from gpubp.data.inputs import a_thousand
from gpubp.data.mapped import is_mapped
from gpubp.data.samples import Samples, dense_inputs
from gpubp.data.sparse import is_sparse
from gpubp.kernels.cpu import entries, layout
from gpubp.kernels.cpu.entry import Packed
from gpubp.kernels.cpu.machine import LINE
from gpubp.support.shared import made_of

# Up to this density, the first layer takes the non-zero inputs of each sample; measured, the same for 32 to 512 units.
SPARSE_DENSITY = 0.4
# It takes them by column, where that is faster: neighbours are so alike that of three, any is not 0 in at most so many
# times the samples in which one is, and in at most so many of all; and batches have so many samples.
ALIKE, COLUMN_DENSITY, COLUMN_BATCH = 1.75, 0.7, 24
MOST_COLUMNS = 8192  # that there is room for, a whole row of each sample in work
LONGEST_SPARSE = 65535  # inputs that a record can count
LEAST_CHUNK_ROWS = (
    256  # samples that are in work at a time, at least, for evaluations after training in small batches
)


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
    unknown: str = ""  # why the density is, if it is

    def __len__(self) -> int:
        return self.count

    @cached_property
    def packed(self) -> Packed:
        """The data as an argument of kernels."""
        return Packed(self.data)


class Storage:
    """Keeps samples for networks of one dtype, whose targets take so many elements a row."""

    def __init__(self, dtype: np.dtype, team: Team, target_row: int) -> None:
        self.dtype, self.team, self._target_row = dtype, team, target_row

    def store(self, samples: Samples, room: int | None, batch: int = LEAST_CHUNK_ROWS) -> StoredSamples:
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
        if is_mapped(rows):
            return replace(dense, unknown="they are read from a file as they are needed")
        if room is None or n_in > LONGEST_SPARSE:
            return replace(dense, unknown=f"a row may have over {LONGEST_SPARSE:,} of them")
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

    def store_images(self, samples: Samples, batch: int) -> StoredSamples:
        """Images that are to be deformed: bytes as they are, taken by column where those are alike and few not 0."""
        n, n_in = samples.inputs.shape
        some = _thousand(samples.inputs)
        pitch = Form(_by_column(some, batch), n_in, 1).pitch
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
        n, n_out = samples.targets.shape
        width = self._target_row
        targets = zeros(n * width, self.dtype)
        targets.reshape(n, width)[:, :n_out] = samples.targets
        weight = np.ascontiguousarray(samples.sample_weight, self.dtype)
        none, no_bytes, no_starts = (np.empty(0, kind) for kind in (self.dtype, np.uint8, np.int64))
        weight = none if (weight == 1).all() else weight
        return layout.Data(no_bytes, none, no_starts, no_bytes, 0, 0, targets, weight)


def _thousand(inputs: Any) -> np.ndarray:
    """Which inputs are not 0, (n, n_in), in about a thousand samples from all over (N, n_in)."""
    some = a_thousand(inputs)
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
