"""Who does the trials: threads or processes of this machine, or a Dask cluster; joblib's, all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from gpubp.errors import GpubpError, UsageError
from gpubp.experiments.recipe import RunSettings
from gpubp.network import Network
from gpubp.support.optional import need
from gpubp.sweeps.trial import Abandoned, DataRoom, Outcome, Trial, Watch, train

KINDS = "threads, processes or dask:ADDRESS"

Result = tuple[Trial, Outcome | None, Network | None]  # without an outcome: the trial was abandoned
WatchOf = Callable[[Trial], Watch]


@dataclass(frozen=True)
class Engine:
    """What ``--engine`` says: a kind, and of a cluster the address of its scheduler.

    Threads share the data of this process, and can be watched as they go; what runs elsewhere has data of its own, and
    says how a trial went when it is over.

    Raises:
        UsageError: a kind that there is not.
    """

    kind: str
    address: str = ""

    @classmethod
    def of(cls, text: str) -> Engine:
        kind, _, address = text.partition(":")
        if kind not in ("threads", "processes", "dask") or bool(address) != (kind == "dask"):
            raise UsageError(f"--engine is {KINDS}, not {text!r}")
        return cls(kind, address)

    @property
    def here(self) -> bool:
        """Whether trials run in this process."""
        return self.kind == "threads"

    @contextmanager
    def ready(self) -> Iterator[int | None]:
        """Hold the engine ready; yields how many trials a cluster does at a time, None of this machine.

        Raises:
            GpubpError: the cluster does not answer, or its library is not installed.
        """
        with ExitStack() as stack:
            if self.kind == "dask":
                client = stack.enter_context(self._client())
                workers = client.scheduler_info(n_workers=-1)["workers"].values()
                if not workers:
                    raise GpubpError(f"the Dask cluster at {self.address} has no workers")
                yield sum(worker["nthreads"] for worker in workers)
            else:
                yield None

    def _client(self) -> AbstractContextManager[Any]:
        try:
            return need("distributed", "cluster").Client(self.address, timeout="10s")
        except (OSError, ValueError, TimeoutError) as error:
            raise GpubpError(f"no Dask scheduler answers at {self.address}: {error}") from error

    def results(
        self,
        trials: Iterator[Trial],
        jobs: int,
        run: RunSettings,
        verify: str,
        room: DataRoom,
        watch_of: WatchOf,
    ) -> Generator[Result, None, None]:
        """What came of each trial, as they end, ``jobs`` of them at a time; the next is asked for when it can begin.

        Raises:
            concurrent.futures.BrokenExecutor: a process was ended.
        """
        from joblib import Parallel, delayed, parallel_config

        backend = {"threads": "threading", "processes": "loky", "dask": "dask"}[self.kind]
        calls = (
            delayed(_result)(
                trial, run, verify, watch_of(trial), *((room, None) if self.here else (None, expected))
            )
            for trial, expected in self._expecting(trials, room)
        )
        with parallel_config(backend, n_jobs=jobs):
            yield from Parallel(return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)(calls)

    def _expecting(self, trials: Iterator[Trial], room: DataRoom) -> Iterator[tuple[Trial, str | None]]:
        """Trials, each with the fingerprint of the data that another process is to find."""
        for trial in trials:
            try:
                yield trial, None if self.here or trial.refused else room.fingerprint(trial.recipe)
            except GpubpError:  # which the trial itself will tell of
                yield trial, None


def _result(
    trial: Trial, run: RunSettings, verify: str, watch: Watch, room: DataRoom | None, expected: str | None
) -> Result:
    if room is None and threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal sends Ctrl-C to all; who has started it sees to it
    try:
        watch.check()
        return trial, *train(trial, run, verify, watch, room, expected)
    except Abandoned:
        return trial, None, None
