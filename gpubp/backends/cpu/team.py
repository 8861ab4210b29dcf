"""Threads that wait in Python and work in compiled code, which gives the interpreter's lock free."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

Job = Callable[[], Any]
_call = operator.methodcaller("__call__")


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
            name = f"gpubp-{rank}"
            threading.Thread(target=_work, args=(orders, self._ready), name=name, daemon=True).start()
        weakref.finalize(self, _dismiss, self._orders)

    def run(self, jobs: Sequence[Job]) -> None:
        """Call the jobs, at most one a member, the first by this thread, and wait for all; one run at a time.

        Jobs of this thread that are no Python functions (a kernel bound by ``partial``) are started together with the
        others' or not at all: an interrupt cannot come in between and leave the others waiting.
        """
        if self._process != os.getpid():  # threads do not survive a fork, and a lock may have been held
            self._process, self._lock = os.getpid(), threading.Lock()
            self._start()
        with self._lock:
            orders = [partial(queue.put, job) for queue, job in zip(self._orders, jobs[1:], strict=False)]
            try:
                deque(map(_call, [*orders, jobs[0]]), maxlen=0)  # no bytecode in between
            finally:
                failures = self._collect(len(orders))
            if failures:
                raise failures[0]

    def share(self, count: int, work: Callable[[int, int, int], Any]) -> None:
        """work(rank, first, stop) by each member, on its part of ``count`` rows."""
        cuts = [count * rank // self.size for rank in range(self.size + 1)]
        self.run([partial(work, rank, *cuts[rank : rank + 2]) for rank in range(self.size)])

    def _collect(self, count: int) -> list[BaseException]:
        """Return what the others raised, once ``count`` of them are done; an interrupt meanwhile waits for that too."""
        answers: list[BaseException | None] = []
        interrupts: list[BaseException] = []
        while len(answers) < count:
            try:
                answers.append(self._ready.get())
            except KeyboardInterrupt as interrupt:
                interrupts.append(interrupt)
        return [answer for answer in answers if answer is not None] + interrupts


def _work(orders: SimpleQueue[Job | None], ready: SimpleQueue[BaseException | None]) -> None:
    while (job := orders.get()) is not None:
        try:
            job()
        except BaseException as failure:  # the caller raises it
            ready.put(failure)
        else:
            ready.put(None)
        del job  # or a plan would live as long as this thread waits


def _dismiss(orders: list[SimpleQueue[Job | None]]) -> None:
    for queue in orders:
        queue.put(None)
