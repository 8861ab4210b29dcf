"""Ranks that are threads of one process, which take turns: what they compute is what processes would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.distributed.ranks import Ranks


class Left(Exception):
    """Another rank has failed, and exchanges no more."""


class Group:
    """What the threads share. One has its ``turn`` at a time, until it has to wait for the others."""

    def __init__(self, size: int) -> None:
        self.size, self.turn = size, threading.Condition(threading.Lock())
        self.given: dict[int, np.ndarray] = {}
        self.found: list[np.ndarray] = []
        self.exchanges, self.failed = 0, False

    def exchange(self, rank: int, array: np.ndarray) -> list[np.ndarray]:
        """A copy of every rank's array."""
        self.given[rank], before = array.copy(), self.exchanges
        if len(self.given) == self.size:
            self.found = [self.given.pop(other) for other in range(self.size)]
            self.exchanges += 1
            self.turn.notify_all()
        else:
            self.turn.wait_for(lambda: self.exchanges > before or self.failed, timeout=120)
            if self.exchanges == before:
                raise Left
        return self.found


class ThreadRanks(Ranks):
    """One of the threads of a group."""

    def __init__(self, group: Group, rank: int) -> None:
        super().__init__()
        self.group, self.rank, self.size, self.neighbours, self.place = (
            group,
            rank,
            group.size,
            group.size,
            rank,
        )

    def describe(self) -> str:
        return f"{self.size} threads"

    def _all(self, array: np.ndarray) -> np.ndarray:
        return np.stack(self.group.exchange(self.rank, array))

    def _deal(self, vector: np.ndarray, cuts: Sequence[int]) -> Sequence[np.ndarray]:
        piece = slice(*cuts[self.rank : self.rank + 2])
        return [theirs[piece] for theirs in self.group.exchange(self.rank, vector)]

    def _spread(self, vector: np.ndarray, cuts: Sequence[int]) -> None:
        for rank, theirs in enumerate(self.group.exchange(self.rank, vector)):
            piece = slice(*cuts[rank : rank + 2])
            vector[piece] = theirs[piece]


def on_ranks(size: int, work: Callable[[Ranks], Any], kind: type[ThreadRanks] = ThreadRanks) -> list[Any]:
    """What ``work`` gives or raises on each of so many ranks."""
    group = Group(size)
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        with group.turn:
            try:
                found[rank] = work(kind(group, rank))
            except Exception as error:
                found[rank], group.failed = error, True
                group.turn.notify_all()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
