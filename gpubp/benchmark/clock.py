"""The clocks of a benchmark: that on the wall, and the events of a GPU.

cupyx.profiler.benchmark is not used: its time on the host leaves out the wait for the device, and it needs CuPy, which
the stand-in of the tests is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Seconds = tuple[float | None, float]  # by events of the device, None without; by the clock on the wall
Clock = Callable[[Callable[[], object]], Seconds]


def wall(job: Callable[[], object]) -> Seconds:
    """The time of a job that waits for its end by itself."""
    started = time.perf_counter()
    job()
    return None, time.perf_counter() - started


@dataclass(frozen=True)
class Events:
    """The time of all that a job has the current stream do, from an idle device on.

    elapsed_ms: the milliseconds between two events of those that ``event`` makes.
    """

    event: Callable[[], Any]
    synchronize: Callable[[], object]
    elapsed_ms: Callable[[Any, Any], float]

    def __call__(self, job: Callable[[], object]) -> Seconds:
        start, stop = self.event(), self.event()
        self.synchronize()
        started = time.perf_counter()
        start.record()
        job()
        stop.record()
        stop.synchronize()
        clock = time.perf_counter() - started
        return self.elapsed_ms(start, stop) / 1e3, clock


def of_cupy(cp: Any) -> Clock:
    """The clock of cupy's device; its stand-in has no events."""
    if not hasattr(cp.cuda, "Event"):
        return wall
    return Events(cp.cuda.Event, lambda: cp.cuda.Device().synchronize(), cp.cuda.get_elapsed_time)
