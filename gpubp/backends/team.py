"""Threads that wait in Python and work in compiled code, which gives the interpreter's lock free."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = Callable[[int], Any]


class Team:
    """``size`` threads, the caller's among them, that run a function together.

    They are the team's own: members may wait for each other inside the function, which no shared pool allows.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._start()

    def _start(self) -> None:
        self._orders: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in range(1, self.size)]
        self._ready: SimpleQueue[BaseException | None] = SimpleQueue()
        for rank, orders in enumerate(self._orders, start=1):
            threading.Thread(
                target=_work, args=(rank, orders, self._ready), name=f"gpubp-{rank}", daemon=True
            ).start()
        weakref.finalize(self, _dismiss, self._orders)

    def run(self, job: Job) -> None:
        """Call job(rank) on every member, rank 0 being this thread, and wait for all; one run at a time."""
        with self._lock:
            if self._process != os.getpid():  # threads do not survive a fork
                self._process = os.getpid()
                self._start()
            for orders in self._orders:
                orders.put(job)
            failures = []
            try:
                job(0)
            finally:
                failures = [failure for failure in (self._ready.get() for _ in self._orders) if failure]
            if failures:
                raise failures[0]


def _work(rank: int, orders: SimpleQueue[Job | None], ready: SimpleQueue[BaseException | None]) -> None:
    while (job := orders.get()) is not None:
        try:
            job(rank)
        except BaseException as failure:  # the caller raises it
            ready.put(failure)
        else:
            ready.put(None)
        del job  # or a plan would live as long as this thread waits


def _dismiss(orders: list[SimpleQueue[Job | None]]) -> None:
    for queue in orders:
        queue.put(None)
