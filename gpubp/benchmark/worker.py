"""One peer on one net, in a process of its own: ``python -m gpubp.benchmark.worker MODULE``.

Started by gpubp.benchmark.process. JSON lines come in and go out, one answer for each:

- the job ``{"net", "data", "parameters", "threads", "seed"}``: import, load, build; answers what it cost;
- ``{"do": "first", "save": PATH}``: the first epoch; answers its time and loss, and saves the parameters after it;
- ``{"do": "round", "seconds": S}``: as many whole epochs as it takes to fill S seconds; answers their sum;
- ``{"do": "verify", "data"}``, to a plan of gpubp's: holds its next steps to the reference; answers what came of it.

Ends at the end of its input. Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpubp.benchmark import data
from gpubp.benchmark.nets import Net


def main() -> None:
    """Answer on stdout until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not do so in between
    serve(sys.argv[1], sys.stdin, answers)


def serve(module: str, requests: TextIO, answers: TextIO) -> None:
    """Build what the first line of ``requests`` says with the peer in ``module``, then do what the others say."""

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    job = json.loads(requests.readline())
    trainer, samples, about = build(module, job)
    answer(about)
    orders = epoch_orders(job["seed"], samples)
    for line in requests:
        request = json.loads(line)
        if request["do"] == "first":
            answer(first_epoch(trainer, orders, Path(request["save"])))
        elif request["do"] == "verify":
            answer({"verification": verification(trainer, data.load(Path(request["data"])))})
        else:
            answer(one_round(trainer, orders, request["seconds"]))


def epoch_orders(seed: int, samples: int) -> Iterator[np.ndarray]:
    """The order of the samples (N,) in each epoch: what gpubp.fit draws from ``seed``, and what all peers take."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.permutation(samples)


def build(module: str, job: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
    """The peer ready to train, its number of samples, and the answer to the job."""
    clock = [time.perf_counter()]
    peer = importlib.import_module(module)
    memory = {"imports": resident_mb()}
    clock.append(time.perf_counter())

    net = Net(**{**job["net"], "layers": tuple(job["net"]["layers"])})
    samples = data.load(Path(job["data"]))
    memory["data"] = resident_mb()
    clock.append(time.perf_counter())

    trainer = peer.build(net, samples, data.load_parameters(Path(job["parameters"])), job["threads"])
    clock.append(time.perf_counter())
    count = len(samples)
    del samples  # from here on only what the peer keeps is counted
    gc.collect()
    memory["build"] = resident_mb()
    seconds = dict(zip(("import", "data", "build"), np.diff(clock).tolist(), strict=True))
    about = {
        "version": str(trainer.version),
        "details": trainer.details,
        "differs": trainer.differs,
        "input_density": getattr(trainer, "input_density", 1.0),
        "seconds": seconds,
        "memory_mb": memory,
        "thread_pools": thread_pools(),
    }
    return trainer, count, about


def first_epoch(trainer: Any, orders: Iterator[np.ndarray], path: Path) -> dict[str, Any]:
    """Train one epoch and save the parameters."""
    order = next(orders)
    started = time.perf_counter()
    loss = trainer.run_epoch(order)
    seconds = time.perf_counter() - started
    memory = {"first_epoch": resident_mb(), "peak": peak_mb()}
    data.save_parameters(path, trainer.parameters())
    return {"seconds": seconds, "loss": loss, "memory_mb": memory}


def one_round(trainer: Any, orders: Iterator[np.ndarray], at_least: float) -> dict[str, Any]:
    """Epochs until they took ``at_least`` seconds; their seconds, CPU seconds of all threads, and number."""
    seconds, cpu, epochs = 0.0, 0.0, 0
    while epochs == 0 or seconds < at_least:
        order = next(orders)  # drawn outside the time
        before, started = time.process_time(), time.perf_counter()
        trainer.run_epoch(order)
        seconds += time.perf_counter() - started
        cpu += time.process_time() - before
        epochs += 1
    return {"seconds": seconds, "cpu_seconds": cpu, "epochs": epochs, "memory_mb": {"peak": peak_mb()}}


def verification(trainer: Any, samples: data.Data) -> dict[str, Any]:
    """What came of holding the trainer's plan to the reference; ``worst`` is the tensor nearest to its bound."""
    started = time.perf_counter()
    report = trainer.verify(samples)
    worst = report.worst
    return {
        "ok": report.ok,
        "steps": report.steps,
        "tensors": len(report.checks),
        "worst": worst.name if worst else None,
        "part_of_bound": worst.severity if worst else None,
        "wrong": [str(check) for check in report.checks if not check.ok],
        "seconds": time.perf_counter() - started,
    }


def thread_pools() -> list[dict[str, Any]]:
    """The BLAS and OpenMP libraries that are loaded, with their threads; XLA's pool is not among them."""
    from threadpoolctl import threadpool_info

    return [
        {"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in threadpool_info()
    ]


def resident_mb() -> float | None:
    """Memory in RAM now, MB; None where the system does not tell as Linux does."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def peak_mb() -> float | None:
    """The most memory that was in RAM at once, MB; None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage counts what the parent had when it started this
        high_water = next(
            (line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None
        )
        if high_water is not None:
            return round(int(high_water.split()[1]) * 1024 / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


if __name__ == "__main__":
    main()
