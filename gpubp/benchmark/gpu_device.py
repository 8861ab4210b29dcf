"""The GPU as a worker of bench.gpu sees it: cupy, or its stand-in on the host, and the clock of the device."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import backends
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.errors import BackendUnavailable

Seconds = tuple[float | None, float]  # by events of the device, if it has any; by the clock


def by_clock(job: Callable[[], object]) -> Seconds:
    """The time of a job that waits for its end by itself."""
    started = time.perf_counter()
    job()
    return None, time.perf_counter() - started


class Device:
    """``cp`` is cupy. On the host there are no events, streams or graphs.

    Raises:
        BackendUnavailable: no GPU or no CuPy; on the host, no C++ compiler.
    """

    def __init__(self, host: bool) -> None:
        self.host = host
        if host:
            equipment = importlib.import_module("tests.cuda_host")
            reason, name = equipment.missing_compiler, "tests.cuda_host.fake_cupy"
        else:
            reason, name = backends.why_unavailable("cupy"), "cupy"
        if reason:
            raise BackendUnavailable(reason)
        self.cp: Any = importlib.import_module(name)

    def backend(self, plan: str = "auto", precision: str = "float32") -> CupyBackend:
        return CupyBackend(module=self.cp, plan=plan, precision=precision)

    def prepare(self) -> None:
        """Have the device ready: its context is made when it is first used."""
        self.backend().to_device(np.zeros(1))
        self.synchronize()

    def properties(self) -> dict[str, Any]:
        runtime = self.cp.cuda.runtime
        return runtime.getDeviceProperties(runtime.getDevice())

    def synchronize(self) -> None:
        if not self.host:
            self.cp.cuda.Device().synchronize()

    def seconds(self, job: Callable[[], object]) -> Seconds:
        """The time of all that ``job`` has the current stream do, from an idle device on."""
        if self.host:
            return by_clock(job)
        self.synchronize()
        start, stop = self.cp.cuda.Event(), self.cp.cuda.Event()
        started = time.perf_counter()
        start.record()
        job()
        stop.record()
        stop.synchronize()
        clock = time.perf_counter() - started
        return self.cp.cuda.get_elapsed_time(start, stop) / 1e3, clock
