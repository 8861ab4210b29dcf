"""What bench.gpu asks for, done in a process of its own: a kernel that hangs or breaks the device ends no more than it.

``python -m bench.gpu_worker``: JSON lines come in and go out, one answer for each. ``{"do": NAME, …}`` calls the
function of that name in ``TASKS`` with the other fields. It answers with a dictionary; ``{"refused": WHY}`` where
something needed is not there, ``{"failed": WHY}`` where gpubp says what went wrong. Any other error ends the process.
With such a line as its argument it answers that and ends.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import numpy as np

import gpubp
from gpubp import SGD
from gpubp.backends.plan import Problem
from gpubp.benchmark import data
from gpubp.benchmark.gpu_device import Device
from gpubp.benchmark.gpu_nets import GpuNet, Race
from gpubp.benchmark.peers.plan import PlanTrainer
from gpubp.benchmark.process import OURS, end_with_parent
from gpubp.benchmark.worker import epoch_orders, resident_mb
from gpubp.data import check_split
from gpubp.data.samples import prepare
from gpubp.errors import BackendUnavailable, DataError, GpubpError, UsageError
from gpubp.functions import LOSSES
from gpubp.kernels import cuda
from gpubp.network import Network

REPEATS = 7  # of what is timed; the median counts
SMALL_NETS = ((20, 40, 33, 10), (20, 23, 10))  # of which compute-sanitizer watches one

# To follow grid.cuh, whose barrier this is.
BARRIERS = """
extern "C" __global__ void __launch_bounds__(THREADS, 1) barriers(unsigned long long* arrived, long long count) {
    for (long long i = 0; i < count; ++i) grid_barrier(arrived);
}
"""
NOTHING = 'extern "C" __global__ void nothing(unsigned long long* unused) {}'


Answer = dict[str, Any]


def main() -> None:
    """Answer on stdout until there is nothing more to be answered."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not do so in between
    if not sys.argv[1:]:
        end_with_parent()
    serve(sys.argv[1:] or sys.stdin, answers)


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer each line with one."""
    for line in requests:
        request = json.loads(line)
        print(json.dumps(answer(request.pop("do"), request)), file=answers, flush=True)


def answer(task: str, request: dict[str, Any]) -> Answer:
    """What came of a task, or why nothing could."""
    try:
        return TASKS[task](**request)
    except (UsageError, BackendUnavailable, DataError) as error:
        return {"refused": str(error)}
    except GpubpError as error:
        return {"failed": str(error)}
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        return {"refused": f"{error.name} is not installed"}


# A contestant: one at a time, built, then asked for epochs.


class Contest:
    """What ``build`` has made, and the orders of its epochs."""

    trainer: Any = None
    orders: Iterator[np.ndarray]


def hello(module: str, options: dict[str, Any]) -> Answer:
    """A peer's library imported, and its device made ready: what a process does once, before its first net."""
    clock = [time.perf_counter()]
    peer = importlib.import_module(module)
    clock.append(time.perf_counter())
    peer.ready(options)
    clock.append(time.perf_counter())
    return {"seconds": dict(zip(("import", "device"), np.diff(clock).tolist(), strict=True))}


def build(
    module: str, net: dict[str, Any], samples: str, parameters: str, options: dict[str, Any], seed: int
) -> Answer:
    """A peer ready to train."""
    Contest.trainer = None
    gc.collect()  # what the one before had on the device
    peer = importlib.import_module(module)
    clock = [time.perf_counter()]
    content = data.load(Path(samples))
    clock.append(time.perf_counter())
    Contest.trainer = peer.build(
        GpuNet.from_json(net), content, data.load_parameters(Path(parameters)), options
    )
    Contest.orders = epoch_orders(seed, len(content))
    clock.append(time.perf_counter())
    return {
        "version": str(Contest.trainer.version),
        "details": Contest.trainer.details,
        "differs": Contest.trainer.differs,
        "seconds": dict(zip(("data", "build"), np.diff(clock).tolist(), strict=True)),
        "memory_mb": {"build": resident_mb()},
    }


def first(save: str) -> Answer:
    """The first epoch, with what compiles in it; the parameters after it are saved."""
    order, losses = next(Contest.orders), []
    seconds = Contest.trainer.seconds(lambda: losses.append(Contest.trainer.run_epoch(order)))[1]
    data.save_parameters(Path(save), Contest.trainer.parameters())
    return {"seconds": seconds, "loss": losses[0]}


def rounds(at_least: float) -> Answer:
    """Epochs until they took ``at_least`` seconds: their number and seconds, by events and by the clock."""
    by_events: list[float | None] = []
    by_clock: list[float] = []
    while not by_clock or sum(by_clock) < at_least:
        order = next(Contest.orders)  # drawn outside the time
        events, clock = Contest.trainer.seconds(lambda order=order: Contest.trainer.run_epoch(order))
        by_events.append(events)
        by_clock.append(clock)
    events = None if None in by_events else sum(s for s in by_events if s is not None)
    return {"events": events, "seconds": sum(by_clock), "epochs": len(by_clock)}


# The parts about gpubp alone.


@cache
def device_of(host: bool) -> Device:
    return Device(host)


def facts(host: bool) -> Answer:
    """The device and what it is driven by; None for what cannot be known."""
    device = device_of(host)
    runtime = device.cp.cuda.runtime
    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: device.properties()["name"].decode(),
        "compute_capability": lambda: "{major}.{minor}".format(**device.properties()),
        "multiprocessors": lambda: device.properties()["multiProcessorCount"],
        "memory_gb": lambda: round(device.properties()["totalGlobalMem"] / 1e9, 1),
        "second_level_cache_mb": lambda: round(device.properties()["l2CacheSize"] / 1e6, 1),
        "driver_cuda": runtime.driverGetVersion,
        "runtime_cuda": runtime.runtimeGetVersion,
        "cupy": lambda: device.cp.__version__,
    }
    found: Answer = dict.fromkeys(asked)
    for name, ask in asked.items():
        with suppress(Exception):  # what is not known of a device is no reason to leave it
            found[name] = ask()
    return found


def plan_of_auto(host: bool, net: dict[str, Any]) -> Answer:
    """Which plan the backend makes of the net if left the choice."""
    chosen = GpuNet.from_json(net)
    few = data.Data(np.zeros((chosen.batch, chosen.layers[0]), np.float32), np.zeros(chosen.batch, np.int64))
    parameters = [p for pair in chosen.network().parameters for p in pair]
    plan = PlanTrainer(device_of(host).backend(), chosen, few, parameters, chosen.momentum)
    return {"plan": plan.details.partition(",")[0]}


def verify(host: bool, plan: str, precision: str, net: dict[str, Any], samples: str) -> Answer:
    """gpubp.verify: every operation, gradient and step against the reference."""
    chosen, content = GpuNet.from_json(net), data.load(Path(samples))
    report = gpubp.verify(
        chosen.network(),
        content.inputs,
        content.labels,
        loss=chosen.loss,
        optimizer=SGD(chosen.lr, chosen.momentum),
        backend=device_of(host).backend(plan, precision),
    )
    worst = report.worst
    assert worst is not None
    return {
        "ok": report.ok,
        "tensors": len(report.checks),
        "worst": worst.name,
        "part_of_bound": worst.severity,
        "seconds": report.seconds,
        "wrong": [str(check) for check in report.checks if not check.ok],
    }


def repeat(
    host: bool, plan: str, precision: str, net: dict[str, Any], samples: str, epochs: int, runs: int
) -> Answer:
    """Whether runs from one seed end in the same bits."""
    chosen, content = GpuNet.from_json(net), data.load(Path(samples))
    digests = []
    for _ in range(runs):
        network = chosen.network()
        history = gpubp.fit(
            network,
            content.inputs,
            content.labels,
            loss=chosen.loss,
            optimizer=SGD(chosen.lr, chosen.momentum),
            batch_size=chosen.batch,
            epochs=epochs,
            backend=device_of(host).backend(plan, precision),
            verify="off",
            seed=0,
        )
        digests.append(digest([p for pair in network.parameters for p in pair]))
    return {"same": len(set(digests)) == 1, "digests": digests, "loss": history["loss"][-1]}


def digest(arrays: list[np.ndarray]) -> str:
    """A short name for the very bits of arrays."""
    text = hashlib.sha256()
    for array in arrays:
        text.update(np.ascontiguousarray(array).tobytes())
    return text.hexdigest()[:16]


def race(host: bool, plan: str, train: str, test: str, rules: dict[str, Any], seed: int) -> Answer:
    """Seconds of training until the test accuracy is first as high as each target; all else is timed apart."""
    settings = Race.from_json(rules)
    device, optimizer, schedule = device_of(host), settings.optimizer(), settings.schedule()
    samples, tests = data.load(Path(train)), data.load(Path(test))

    def prepared(content: data.Data) -> Any:
        split = check_split(content.inputs, content.labels)
        return prepare(split, network.sizes, network.dtype, LOSSES[settings.loss]).samples

    network = Network(
        settings.layers,
        hidden=settings.hidden,
        output=settings.output,
        init=settings.init,
        seed=seed,
        dtype="float32",
    )
    few = prepared(data.Data(samples.inputs[: settings.batch], samples.labels[: settings.batch]))
    to_train, to_test = prepared(samples), prepared(tests)

    def plan_on(samples: Any) -> Any:
        loss = LOSSES[settings.loss]
        return backend.plan(
            Problem(network.layers, network.parameters, loss, optimizer, settings.batch, samples)
        )

    started = time.perf_counter()
    backend = device.backend(plan)
    warm_up = plan_on(few)
    warm_up.run(np.arange(len(few)), np.array([settings.lr]))
    warm_up.evaluate(warm_up.upload(few))
    device.synchronize()
    compile_seconds = time.perf_counter() - started

    started = time.perf_counter()
    trained = plan_on(to_train)
    uploaded = trained.upload(to_test)
    device.synchronize()
    upload_seconds = time.perf_counter() - started

    steps, rng = -(-len(to_train) // settings.batch), np.random.default_rng(seed)
    training = evaluation = 0.0
    accuracies: list[float] = []
    reached: dict[str, float | None] = {f"{target:g}": None for target in settings.targets}
    for number in range(settings.epochs):
        started = time.perf_counter()
        rates = settings.lr * schedule.factors(number * steps, steps, steps, settings.epochs)
        trained.run(rng.permutation(len(to_train)), rates)
        training += time.perf_counter() - started
        started = time.perf_counter()
        accuracies.append(trained.evaluate(uploaded).accuracy)
        evaluation += time.perf_counter() - started
        for target in settings.targets:
            if accuracies[-1] >= target and reached[f"{target:g}"] is None:
                reached[f"{target:g}"] = training
    return {
        "reached_s": reached,
        "accuracies": accuracies,
        "training_s": training,
        "evaluation_s": evaluation,
        "upload_s": upload_seconds,
        "compile_s": compile_seconds,
    }


def train_a_little(host: bool, plan: str) -> Answer:
    """A few steps of the first small net that the plan takes, for compute-sanitizer to watch."""
    device, rng = device_of(host), np.random.default_rng(0)
    if not host:
        device.cp.cuda.set_allocator(None)  # a pool would hide what is written beyond an array
    inputs, labels = rng.integers(0, 256, (90, 20), np.uint8), rng.integers(0, 10, 90)
    for sizes in SMALL_NETS:
        network = Network(sizes, hidden="relu", output="softmax", seed=0, dtype="float32")
        try:
            gpubp.fit(
                network,
                inputs,
                labels,
                batch_size=32,
                epochs=1,
                validation=(inputs, labels),
                backend=device.backend(plan),
                verify="off",
            )
        except UsageError:
            if sizes == SMALL_NETS[-1]:
                raise
            continue  # a plan need not take every net
        break
    parameters = [p for pair in network.parameters for p in pair]
    return {"digests": {"-".join(map(str, sizes)): digest(parameters)}}


# Microbenchmarks.


@cache
def barriers(host: bool) -> Any:
    """The kernel of barriers; its launch is cooperative."""
    code, options = (
        cuda.source(("functions.cuh", "grid.cuh")) + BARRIERS,
        ("--std=c++17", *cuda.definitions(np.float32)),
    )
    module = device_of(host).cp.RawModule(code=code, options=options, enable_cooperative_groups=True)
    return module.get_function("barriers")


def empty_launch(host: bool) -> Callable[[], object]:
    """A launch of a kernel that does nothing."""
    device = device_of(host)
    kernel = device.cp.RawModule(code=NOTHING).get_function("nothing")
    unused = device.backend().to_device(np.zeros(1, np.uint64))
    return lambda: kernel((1,), (cuda.WARP,), (unused,))


def median_seconds(device: Device, job: Callable[[], object]) -> tuple[float, float]:
    """The median over REPEATS of the device's time, where there are no events the clock's, and of the clock's."""
    device.seconds(job)  # warms up
    times = [device.seconds(job) for _ in range(REPEATS)]
    return median(clock if events is None else events for events, clock in times), median(
        clock for _, clock in times
    )


def barrier(host: bool, blocks: int, count: int) -> Answer:
    """A barrier of the whole grid: the time of ``count`` of them less that of none, over their number."""
    device, kernel = device_of(host), barriers(host)
    backend = device.backend()
    resident = backend.resident_blocks(kernel, cuda.THREADS, 0)
    if blocks > resident:
        raise UsageError(f"the device holds {resident} blocks at a time")
    none = np.zeros(1, np.uint64)
    arrived = backend.to_device(none)

    def seconds(number: int) -> float:
        def launch() -> None:
            kernel((blocks,), (cuda.WARP, cuda.ROW_BLOCK), (arrived, np.int64(number)))

        return median_seconds(device, launch)[0]  # the counter may go on from a multiple of the grid

    return {"us": (seconds(count) - seconds(0)) / count * 1e6}


def launch_cost(host: bool, count: int) -> Answer:
    """Empty launches one after the other: what it takes the host to ask for one, which is longer than the launch."""
    device, launch = device_of(host), empty_launch(host)
    asking: list[float] = []

    def launches() -> None:
        started = time.perf_counter()
        for _ in range(count):
            launch()
        asking.append(time.perf_counter() - started)

    median_seconds(device, launches)
    return {"host_us": median(asking) / count * 1e6}


def graph_gap(host: bool, count: int) -> Answer:
    """A node of a CUDA graph of empty kernels, one after the other: what a further one adds."""
    if host:
        raise UsageError("needs a GPU: there are no CUDA graphs on the host")
    device, launch = device_of(host), empty_launch(host)
    stream = device.cp.cuda.Stream(non_blocking=True)

    def seconds(nodes: int) -> float:
        with stream:
            stream.begin_capture()
            for _ in range(nodes):
                launch()
            graph = stream.end_capture()
            return median_seconds(device, graph.launch)[0]

    launch()  # loads the kernel, which a capture does not allow
    return {"us": (seconds(1 + count) - seconds(1)) / count * 1e6}


def copy(host: bool, megabytes: int) -> Answer:
    """A large copy on the device, counting the bytes read and those written."""
    if host:
        raise UsageError("needs a GPU: the host's memory is not the device's")
    device, size = device_of(host), megabytes * 10**6
    numbers = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    source, target = (device.backend().to_device(numbers) for _ in range(2))
    seconds, _ = median_seconds(device, lambda: target.data.copy_from_device_async(source.data, size))
    return {"gb_per_s": 2 * size / seconds / 1e9}


def product(host: bool, size: int) -> Answer:
    """A large square product of float32 by cuBLAS, a multiply-add counting as two operations."""
    device, rng = device_of(host), np.random.default_rng(0)
    to_device = device.backend("composed").to_device
    a, b, out = (to_device(rng.random((size, size), np.float32)) for _ in range(3))
    seconds, _ = median_seconds(device, lambda: device.cp.matmul(a, b, out=out))
    return {"tflop_per_s": 2 * size**3 / seconds / 1e12}


TASKS: dict[str, Callable[..., Answer]] = {
    task.__name__: task
    for task in (
        hello,
        build,
        first,
        rounds,
        facts,
        plan_of_auto,
        verify,
        repeat,
        race,
        train_a_little,
        barrier,
        launch_cost,
        graph_gap,
        copy,
        product,
    )
}


if __name__ == "__main__":
    main()
