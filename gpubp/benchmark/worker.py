"""One peer after another, in a process of its own: ``python -m gpubp.benchmark.worker``.

Started by gpubp.benchmark.process. JSON lines come in and go out, one answer for each: ``{"do": NAME, …}`` calls the
function of that name in ``TASKS`` with the other fields. It answers with a dictionary; ``{"refused": WHY}`` where
something needed is not there, ``{"failed": WHY}`` where gpubp says what went wrong. Any other error ends the process,
as does the end of its input. Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from gpubp.benchmark import clock, data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.process import end_with_parent
from gpubp.errors import BackendUnavailable, DataError, GpubpError, UsageError
from gpubp.support.machine import peak_mb, resident_mb, thread_pools

if TYPE_CHECKING:
    from gpubp.verification.report import Report

OURS = ("bench", "gpubp", "tests")  # packages that cannot be missing

Answer = dict[str, Any]
Task = Callable[..., Answer]


def main(tasks: dict[str, Task], requests: Iterable[str] | None = None) -> None:
    """Answer each line of ``requests`` on stdout; without them those of stdin, for as long as its parent lives."""
    if requests is None:
        end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not do so in between
    serve(tasks, sys.stdin if requests is None else requests, answers)


def serve(tasks: dict[str, Task], requests: Iterable[str], answers: TextIO) -> None:
    """Answer each line with one."""
    for line in requests:
        request = json.loads(line)
        print(json.dumps(answer(tasks[request.pop("do")], request)), file=answers, flush=True)


def answer(task: Task, request: dict[str, Any]) -> Answer:
    """The outcome of a task, or why there is none."""
    try:
        return task(**request)
    except (UsageError, BackendUnavailable, DataError) as error:
        return {"refused": str(error)}
    except GpubpError as error:
        return {"failed": str(error)}
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        return {"refused": f"{error.name} is not installed"}


class Present:
    """The peer that was built last, and the orders of its epochs."""

    trainer: Any = None
    orders: Iterator[np.ndarray]


def epoch_orders(seed: int, samples: int) -> Iterator[np.ndarray]:
    """The order of the samples (N,) in each epoch: what gpubp.fit draws from ``seed``, and what all peers take."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.permutation(samples)


def hello(module: str, options: dict[str, Any]) -> Answer:
    """Import a peer's library, and have ready what it runs on: what a process does once, before its first net."""
    laps = [time.perf_counter()]
    peer = importlib.import_module(module)
    laps.append(time.perf_counter())
    if hasattr(peer, "ready"):
        peer.ready(options)
    laps.append(time.perf_counter())
    return {"seconds": _between(laps, "import", "device"), "memory_mb": {"imports": resident_mb()}}


def build(
    module: str, net: dict[str, Any], samples: str, parameters: str, options: dict[str, Any], seed: int
) -> Answer:
    """Make a peer ready to train a net."""
    Present.trainer = None
    gc.collect()  # what the one before had on the device
    memory: dict[str, float | None] = {}
    laps = [time.perf_counter()]
    content = data.load(Path(samples))
    memory["data"] = resident_mb()
    laps.append(time.perf_counter())
    initial = data.load_parameters(Path(parameters))
    trainer = importlib.import_module(module).build(Net.from_json(net), content, initial, options)
    Present.trainer, Present.orders = trainer, epoch_orders(seed, len(content))
    laps.append(time.perf_counter())
    del content  # from here on only what the peer keeps is counted
    gc.collect()
    memory["build"] = resident_mb()
    pools = [
        {"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in thread_pools()
    ]
    return {
        **{name: getattr(trainer, name) for name in ("version", "details", "differs", "input_density")},
        "seconds": _between(laps, "data", "build"),
        "memory_mb": memory,
        "thread_pools": pools,
    }


def _between(laps: list[float], *names: str) -> dict[str, float]:
    return dict(zip(names, np.diff(laps).tolist(), strict=True))


def first(save: str) -> Answer:
    """Train the first epoch, with what compiles in it, and save the parameters after it."""
    trainer, order, losses = Present.trainer, next(Present.orders), list[float]()
    seconds = trainer.clock(lambda: losses.append(trainer.run_epoch(order)))[1]
    memory = {"first_epoch": resident_mb(), "peak": peak_mb()}
    data.save_parameters(Path(save), trainer.parameters())
    return {"seconds": seconds, "loss": losses[0], "memory_mb": memory}


def one_round(at_least: float) -> Answer:
    """Train epochs until they took ``at_least`` seconds.

    Answers their number, their seconds by the clock and by events of the device (None without), and the CPU seconds of
    all threads.
    """
    trainer = Present.trainer
    times: list[clock.Seconds] = []
    cpu = seconds = 0.0
    while not times or seconds < at_least:
        order = next(Present.orders)  # drawn outside the time
        before = time.process_time()
        times.append(trainer.clock(lambda order=order: trainer.run_epoch(order)))
        cpu += time.process_time() - before
        seconds += times[-1][1]
    events = [events for events, _ in times if events is not None]
    return {
        "epochs": len(times),
        "seconds": seconds,
        "events": sum(events) if events else None,
        "cpu_seconds": cpu,
        "memory_mb": {"peak": peak_mb()},
    }


def verify(samples: str) -> Answer:
    """Hold the next steps of a plan of gpubp's to the reference."""
    started = time.perf_counter()
    found = Present.trainer.verify(data.load(Path(samples)))
    return {"verification": {**verdict(found), "seconds": time.perf_counter() - started}}


def verdict(report: Report) -> Answer:
    """A verification for JSON; ``worst`` is the tensor nearest to its bound."""
    worst = report.worst
    return {
        "ok": report.ok,
        "steps": report.steps,
        "tensors": len(report.checks),
        "worst": worst.name if worst else None,
        "part_of_bound": worst.severity if worst else None,
        "wrong": [str(check) for check in report.checks if not check.ok],
    }


TASKS: dict[str, Task] = {
    "hello": hello, "build": build, "first": first, "round": one_round, "verify": verify,
}  # fmt: skip


if __name__ == "__main__":
    main(TASKS)
