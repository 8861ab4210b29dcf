"""What the ranks of a run exchange and agree on, whatever carries it: MPI between processes, or nothing for one alone.

Every rank does the same calls in the same order. What a clock or a file of one machine would decide differently on
another is rank 0's to decide. Nothing is pickled: what is told is JSON.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.errors import GpubpError, UsageError


@dataclass
class Traffic:
    """What a rank has exchanged: bytes sent to others, and the seconds of it all, waiting for others included."""

    sent: int = 0
    seconds: float = 0.0


class Ranks(ABC):
    """Ranks 0 … ``size`` − 1, as ``rank`` sees them.

    ``hosts`` is the number of machines, ``neighbours`` that of the ranks on this one.
    """

    rank = 0
    size = 1
    hosts = 1
    neighbours = 1
    place = 0  # of this rank among its neighbours

    def __init__(self) -> None:
        self.traffic = Traffic()

    @abstractmethod
    def describe(self) -> str:
        """How many ranks there are, and what carries their exchange, in a few words."""

    @abstractmethod
    def _all(self, array: np.ndarray) -> np.ndarray:
        """Every rank's array of this shape and dtype, (size, …)."""

    @abstractmethod
    def _deal(self, vector: np.ndarray, cuts: Sequence[int]) -> Sequence[np.ndarray]:
        """This rank's piece of every rank's vector, each (its elements,), to be read before the next exchange."""

    @abstractmethod
    def _spread(self, vector: np.ndarray, cuts: Sequence[int]) -> None:
        """Put every rank's own piece of the vector in its place on all."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what all ranks do: one that fails alone ends the others too, who would wait for it for ever."""
        yield

    def all(self, array: np.ndarray) -> np.ndarray:
        """Every rank's array of this shape and dtype, (size, …)."""
        with self._measured(array.nbytes * (self.size - 1)):
            return self._all(array)

    def deal(self, vector: np.ndarray, cuts: Sequence[int]) -> Sequence[np.ndarray]:
        """Every rank's vector (L,) in pieces: rank r is given the elements cuts[r] … cuts[r+1] of each.

        They are to be read before the next exchange.
        """
        own = cuts[self.rank + 1] - cuts[self.rank]
        with self._measured((len(vector) - own) * vector.itemsize):
            return self._deal(vector, cuts)

    def spread(self, vector: np.ndarray, cuts: Sequence[int]) -> None:
        """The other way round: rank r's elements cuts[r] … cuts[r+1] of its vector become those of all."""
        own = cuts[self.rank + 1] - cuts[self.rank]
        with self._measured(own * vector.itemsize * (self.size - 1)):
            self._spread(vector, cuts)

    def told(self, value: Any) -> list[Any]:
        """What every rank says: a value that JSON has."""
        if self.size == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self.all(np.array([len(text)]))[:, 0]
        room = np.zeros(lengths.max(), np.uint8)
        room[: len(text)] = text
        rows = self.all(room)
        return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]

    def decide(self, value: Any) -> Any:
        """Rank 0's value, which JSON has, on all."""
        return self.told(value if self.rank == 0 else None)[0]

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(self.all(np.array([flag])).any())

    def seconds_since(self, started: float) -> float:
        """By rank 0's clock, on all: what is decided by it then is the same everywhere."""
        seconds = np.array([time.perf_counter() - started])
        return float(self.all(seconds)[0, 0])

    def on_first(self, work: Callable[[], Any]) -> Any:
        """What it gives on rank 0, which alone does it; None on the others. Raises its GpubpError on all."""
        found, error = None, None
        if self.rank == 0:
            try:
                found = work()
            except GpubpError as failure:
                error = failure
        said = self.decide(None if error is None else [str(error), error.exit_code])
        if error is not None:
            raise error
        if said is not None:
            raise _failed(*said)
        return found

    def check_same(self, facts: dict[str, Any]) -> None:
        """Refuse ranks that differ in any of these facts, which JSON has.

        Raises:
            UsageError: names the fact, and says what it is on which ranks.
        """
        found = self.told(facts)
        for name in found[0]:
            values = [json.dumps(theirs.get(name), sort_keys=True) for theirs in found]
            other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
            if other is not None:
                raise UsageError(
                    f"the ranks cannot train one network, for they differ in {name}: {values[0]} on rank 0, and "
                    f"{values[other]} on rank {other}"
                )

    @contextmanager
    def _measured(self, sent: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.traffic.seconds += time.perf_counter() - started
        self.traffic.sent += sent


class Alone(Ranks):
    """One process, which has nobody to exchange with."""

    def describe(self) -> str:
        return "one process"

    def _all(self, array: np.ndarray) -> np.ndarray:
        return array[None]

    def _deal(self, vector: np.ndarray, cuts: Sequence[int]) -> Sequence[np.ndarray]:
        return [vector]

    def _spread(self, vector: np.ndarray, cuts: Sequence[int]) -> None:
        pass


def _failed(message: str, exit_code: int) -> GpubpError:
    """Another rank's error."""
    error = GpubpError(message)
    error.exit_code = exit_code
    return error


def tree_sum(rows: Sequence[np.ndarray] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Σ of one or more arrays as a tree: neighbours in pairs, then the pairs, and so on; what has no neighbour waits.

    It goes into ``out``, if given. Of 2^k arrays that are themselves sums of 2^j in this way, it has the bits of the
    sum of all 2^(j + k) of them.
    """
    level = list(rows)
    while len(level) > 2:
        pairs = [a + b for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    if len(level) == 2:
        return np.add(level[0], level[1], out=out)
    if out is None:
        return level[0]
    out[...] = level[0]
    return out
