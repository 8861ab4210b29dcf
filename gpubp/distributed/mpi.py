"""Ranks that exchange by MPI, through mpi4py, and processes that mpiexec started without being told what for.

Source: Message Passing Interface Forum, MPI: A Message-Passing Interface Standard, version 4.0, 2021.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from gpubp.distributed.ranks import Alone, Ranks
from gpubp.errors import INTERRUPTED, GpubpError, UsageError
from gpubp.support.machine import own_cores

LINE = 64  # bytes of a cache line
ROOM_LEFT = 16 << 20  # bytes of shared memory that the library has for itself
ALONE = "no"  # what --distributed says of processes that have nothing to do with each other
PATIENCE = 10.0  # seconds that a rank which failed waits for the others to fail too
# How many processes a launcher has started, and which of them this is: MPICH and its kin, Open MPI, Slurm's srun.
LAUNCHED = (
    ("PMI_SIZE", "PMI_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


class Shared:
    """Memory that all ranks of one machine have: for each a room to write in, which the others read.

    A vector so goes from rank to rank in one copy, or none, where MPI's messages take two or three. There are two
    rooms of each, used in turn. So whoever writes into one has been waited for by all since they last read it.
    """

    def __init__(self, mpi: Any, comm: Any) -> None:
        self._mpi, self._comm, self._rank = mpi, comm, comm.Get_rank()
        self._window: Any = None
        self.size = 0  # bytes of a room
        self._rooms: list[list[np.ndarray]] = []  # by turn, and by rank
        self._turn = 0

    @staticmethod
    def has_room(size: int, ranks: int) -> bool:
        """Whether there is memory to share for so many ranks with vectors of so many bytes, as far as can be told."""
        try:
            found = os.statvfs("/dev/shm")
        except (AttributeError, OSError):
            return True
        return found.f_bavail * found.f_frsize > 2 * ranks * size + ROOM_LEFT

    def exchange(self, vector: np.ndarray, written: Sequence[slice]) -> list[np.ndarray]:
        """Every rank's vector, of the same length on all, as it is where they have written."""
        self._make(vector.nbytes)
        self._turn = 1 - self._turn
        found = [room[: vector.nbytes].view(vector.dtype) for room in self._rooms[self._turn]]
        for part in written:
            found[self._rank][part] = vector[part]
        self._window.Sync()
        self._comm.Barrier()
        self._window.Sync()
        return found

    def _make(self, size: int) -> None:
        """Rooms of at least so many bytes, on the boundaries of cache lines."""
        if size <= self.size:
            return
        self.free()
        self.size = -(-size // LINE) * LINE
        window = self._mpi.Win.Allocate_shared(2 * self.size + LINE, 1, comm=self._comm)
        window.Lock_all()
        whole = [self._whole(window, rank) for rank in range(self._comm.Get_size())]
        self._rooms = [[room[turn * self.size :][: self.size] for room in whole] for turn in range(2)]
        self._window = window

    def _whole(self, window: Any, rank: int) -> np.ndarray:
        memory = np.frombuffer(window.Shared_query(rank)[0], np.uint8)
        return memory[-memory.ctypes.data % LINE :]

    def free(self) -> None:
        """Give the memory back; all ranks together."""
        if self._window is not None:
            self._rooms = []
            self._window.Unlock_all()
            self._window.Free()
            self._window, self.size = None, 0


class MpiRanks(Ranks):
    """The ranks of an mpi4py communicator, which is duplicated: what else is sent over it does not disturb.

    All its ranks must make this together.
    """

    def __init__(self, comm: Any) -> None:
        super().__init__()
        self._mpi = _mpi()
        self._comm, self._failing = comm.Dup(), comm.Dup()
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        on_this = comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.neighbours, self.place = on_this.Get_size(), on_this.Get_rank()
        on_this.Free()
        self.hosts = int(self.all(np.array([self.place == 0])).sum())
        self._inside = False
        self._shared = Shared(self._mpi, self._comm) if self.neighbours == self.size > 1 else None

    def free(self) -> None:
        """Give back what MPI has of these ranks; all of them together."""
        if self._shared is not None:
            self._shared.free()
        self._comm.Free()
        self._failing.Free()

    def describe(self) -> str:
        library = self._mpi.Get_library_version().split("\n")[0].partition(",")[0]
        library = " ".join(library.replace("\0", "").replace("Version:", "").split())
        return f"{self.size} rank{'s' if self.size > 1 else ''} by {library}"

    def _all(self, array: np.ndarray) -> np.ndarray:
        found = np.empty((self.size, *array.shape), array.dtype)
        self._comm.Allgather(np.ascontiguousarray(array), found)
        return found

    def _share_memory(self, size: int) -> bool:
        """Whether vectors of so many bytes go through shared memory: where all ranks have some, and enough of it."""
        shared = self._shared
        if shared is not None and size > shared.size and not self.decide(Shared.has_room(size, self.size)):
            shared.free()
            self._shared = None
        return self._shared is not None

    def _deal(self, vector: np.ndarray, cuts: Sequence[int]) -> Sequence[np.ndarray]:
        first, stop = cuts[self.rank], cuts[self.rank + 1]
        if self._share_memory(vector.nbytes):
            assert self._shared is not None
            theirs = self._shared.exchange(vector, [slice(first), slice(stop, None)])
            theirs[self.rank] = vector
            return [each[first:stop] for each in theirs]
        counts, own = np.diff(cuts), stop - first
        found = np.empty((self.size, own), vector.dtype)
        each = [own] * self.size, [own * rank for rank in range(self.size)]
        self._comm.Alltoallv([vector, (counts, cuts[:-1])], [found, each])
        return list(found)

    def _spread(self, vector: np.ndarray, cuts: Sequence[int]) -> None:
        if self._share_memory(vector.nbytes):
            assert self._shared is not None
            pieces = [slice(*pair) for pair in pairwise(cuts)]
            theirs = self._shared.exchange(vector, [pieces[self.rank]])
            for rank, piece in enumerate(pieces):
                if rank != self.rank:
                    vector[piece] = theirs[rank][piece]
            return
        self._comm.Allgatherv(self._mpi.IN_PLACE, [vector, (np.diff(cuts), cuts[:-1])])

    @contextmanager
    def together(self) -> Iterator[None]:
        if self._inside or self.size == 1:
            yield
            return
        self._inside = True
        try:
            with warnings.catch_warnings():
                if self.rank:
                    warnings.simplefilter("ignore")  # rank 0 has them too
                yield
        except BaseException as error:
            self._tell(error)
            raise
        finally:
            self._inside = False

    def _tell(self, error: BaseException) -> None:
        """Wait for the others, who have the same error, to leave too. After one that they do not have, end the job."""
        waiting, started = self._failing.Ibarrier(), time.monotonic()
        patience = 0.5 if isinstance(error, KeyboardInterrupt) else PATIENCE
        while not waiting.Test():
            if time.monotonic() - started > patience:
                self._abort(error)
            time.sleep(0.01)

    def _abort(self, error: BaseException) -> None:
        where, code = f"rank {self.rank} on {self._mpi.Get_processor_name()}", 1
        if isinstance(error, GpubpError):
            code = error.exit_code
            print(f"error: {where}: {error}", file=sys.__stderr__, flush=True)
        elif isinstance(error, KeyboardInterrupt):
            code = INTERRUPTED
            print(f"interrupted: {where}", file=sys.__stderr__, flush=True)
        else:
            print(f"error: {where} failed:", file=sys.__stderr__)
            traceback.print_exception(error, file=sys.__stderr__)
        self._comm.Abort(code)


def ranks_of(distributed: Any) -> Ranks:
    """The ranks that ``distributed`` means: "mpi", an mpi4py communicator, ranks as they are, or None for one process.

    Raises:
        UsageError: none of these.
        GpubpError: MPI is not installed.
    """
    if distributed is None:
        return Alone()
    if isinstance(distributed, Ranks):
        return distributed
    if isinstance(distributed, str):
        if distributed != "mpi":
            raise UsageError(f"a run is distributed by mpi, not {distributed!r}")
        return _ranks_of_communicator(_mpi().COMM_WORLD)
    if not all(hasattr(distributed, name) for name in ("Alltoallv", "Allgatherv", "Ibarrier", "Dup")):
        raise UsageError(
            f'distributed must be an mpi4py communicator, such as MPI.COMM_WORLD, or "mpi", not {distributed!r}'
        )
    return _ranks_of_communicator(distributed)


def _ranks_of_communicator(comm: Any) -> MpiRanks:
    """Those made of it before, kept as an attribute: a script may train a thousand networks."""
    known = comm.Get_attr(_key())
    if known is None:
        known = MpiRanks(comm)
        comm.Set_attr(_key(), known)
    return known


@cache
def _key() -> int:
    """The key of an attribute of communicators, which goes with them."""

    def free(comm: Any, key: int, ranks: MpiRanks) -> None:
        ranks.free()

    return _mpi().Comm.Create_keyval(delete_fn=free)


def _mpi() -> Any:
    """mpi4py's MPI, which starts MPI where that is not done. Raises GpubpError without it, or without a library."""
    try:
        return import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise GpubpError(
            f'MPI cannot be loaded ({reason}): python -m pip install "gpubp[mpi]", which has mpi4py and MPICH'
        ) from error


def refuse_many_alone(ranks: Ranks) -> None:
    """Refuse to be one of many processes that would each do the whole of what is asked.

    Raises:
        UsageError: a launcher of MPI's or Slurm's has started several, and they are not ranks of one run. Only the
            first of them tells.
    """
    for size, rank in LAUNCHED:
        count = os.environ.get(size, "")
        if not count.isdecimal():
            continue
        if int(count) > 1 == ranks.size:
            if os.environ.get(rank, "0") != "0":
                raise SystemExit(UsageError.exit_code)
            if isinstance(ranks, MpiRanks):
                raise UsageError(
                    f"{count} processes were started, but by a launcher that {ranks.describe()} does not know, so that "
                    "each is alone: start them with the mpiexec of that library, or have mpi4py load the launcher's "
                    "(MPI4PY_LIBMPI)"
                )
            raise UsageError(
                f"{count} processes were started, and each would train the whole network by itself: add --distributed "
                f"mpi to train it together, or --distributed {ALONE} if each is to train one of its own"
            )
        return  # the innermost launcher's word counts


def threads_each(ranks: Ranks) -> int:
    """The threads of each rank, so that all on this machine take a core each: theirs may be bound to different ones."""
    own, host = own_cores(), platform.node()
    here = [cores for name, cores in ranks.told([host, own]) if name == host]
    together = {core for cores in here for core in cores}
    return max(1, min(len(own), len(together) // len(here)))
