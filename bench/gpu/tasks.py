"""Tasks of bench.gpu, done in a process of its own: a kernel that hangs or breaks the device ends no more than it.

``python -m bench.gpu.tasks`` is gpubp.benchmark.worker with more tasks. ``cupy`` is the module that the backend is made
with: CuPy, or on the host its stand-in. With a line as its argument it answers that and ends.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import gpubp
from bench.gpu import micro
from bench.gpu.nets import Race
from gpubp import SGD, Adam, Schedule
from gpubp.backends.cuda import build, cubins
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.benchmark import clock, data, worker
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers.plan import PlanTrainer, cupy_backend, cupy_of, make_plan, prepared
from gpubp.benchmark.worker import Answer
from gpubp.errors import BackendUnavailable, UsageError
from gpubp.kernels import cuda
from gpubp.network import Network

REPEATS = 7  # of what is timed; the median counts
SMALL_NETS = ((20, 40, 33, 10), (20, 23, 10))  # of which compute-sanitizer watches one

PHASES = re.compile(r"enum Phase \{([^}]*)\}")  # of a kernel that can count the cycles of each


@cache
def module(cupy: str) -> Any:
    """CuPy or its stand-in.

    Raises:
        BackendUnavailable: no GPU or no CuPy; on the host, no C++ compiler.
    """
    found = cupy_of({"cupy": cupy})
    if reason := getattr(found, "missing_compiler", None):
        raise BackendUnavailable(reason)
    return found


def backend(cupy: str, plan: str = "auto", precision: str = "float32") -> CupyBackend:
    module(cupy)
    return cupy_backend({"cupy": cupy, "plan": plan, "precision": precision})


def need_gpu(cupy: str, why: str) -> None:
    """Raises UsageError on the host."""
    if cupy != "cupy":
        raise UsageError(f"needs a GPU: {why}")


def facts(cupy: str) -> Answer:
    """The device and what it is driven by; None for what cannot be known."""
    cp = module(cupy)
    runtime = cp.cuda.runtime

    def properties() -> dict[str, Any]:
        return runtime.getDeviceProperties(runtime.getDevice())

    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: properties()["name"].decode(),
        "compute_capability": lambda: "{major}.{minor}".format(**properties()),
        "multiprocessors": lambda: properties()["multiProcessorCount"],
        "memory_gb": lambda: round(properties()["totalGlobalMem"] / 1e9, 1),
        "second_level_cache_mb": lambda: round(properties()["l2CacheSize"] / 1e6, 1),
        "driver_cuda": runtime.driverGetVersion,
        "runtime_cuda": runtime.runtimeGetVersion,
        "cupy": lambda: cp.__version__,
    }
    found: Answer = dict.fromkeys(asked)
    for name, ask in asked.items():
        with suppress(Exception):  # what is not known of a device is no reason to leave it
            found[name] = ask()
    with suppress(Exception):  # nor is what its driver does not tell, or a library that is not installed
        found |= driver() if cupy == "cupy" else {}
    return found


def driver() -> dict[str, Any]:
    """The driver of the first GPU, its clocks in MHz, the limit of its power and its temperature, as NVML has them."""
    import pynvml

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    return {
        "driver_version": pynvml.nvmlSystemGetDriverVersion(),
        "clock_mhz": pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
        "clock_at_most_mhz": pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
        "power_limit_w": pynvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3,
        "temperature_c": pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    }


def build_ahead(cupy: str, ahead: str, dtypes: list[str]) -> Answer:
    """Fill $GPUBP_CUBINS with all kernels for this device: from the folder ``ahead``, or compiled beside each other."""
    cp, chosen = module(cupy), backend(cupy)
    stand_in = {} if cupy == "cupy" else {"compile": cp.compile_ahead, "compiler": cp.__version__}
    architecture, started = chosen.architecture(), time.perf_counter()
    kinds = [np.dtype(name) for name in dtypes]
    count, compiled = build.build(cubins.folder(), (architecture,), kinds, ahead=Path(ahead), **stand_in)
    seconds = time.perf_counter() - started
    return {"architecture": architecture, "binaries": count, "compiled": compiled, "seconds": seconds}


def few_samples(net: Net) -> data.Data:
    return data.Data(np.zeros((net.batch, net.layers[0]), np.float32), np.zeros(net.batch, np.int64))


def trainer(chosen: CupyBackend, net: Net, samples: data.Data) -> PlanTrainer:
    return PlanTrainer(chosen, net, samples, [p for pair in net.network().parameters for p in pair])


class Watched(CupyBackend):
    """Keeps what its plans ask of the device for the kernels that stay on it."""

    def __init__(self, cupy: str, plan: str, precision: str) -> None:
        super().__init__(module(cupy), plan, precision)
        self.asked: list[dict[str, Any]] = []

    def resident_blocks(self, kernel, threads, shared, plan="fused", other="composed"):
        occupancy = self._cp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor
        of_one = occupancy(kernel.kernel.ptr, threads, shared)
        found = {
            "kernel": plan,
            "threads": threads,
            "shared_bytes": shared,
            "blocks_a_multiprocessor": of_one,
        }
        for name in ("num_regs", "local_size_bytes"):
            found[name] = getattr(kernel, name, None)  # the stand-in has none
        self.asked.append(found | {"resident_blocks": of_one * self.multiprocessors()})
        return super().resident_blocks(kernel, threads, shared, plan, other)

    def resident_clusters(self, function, blocks, block, shared):
        count = super().resident_clusters(function, blocks, block, shared)
        self.asked[-1]["resident_clusters"] = count  # of the kernel whose blocks were asked for just before
        return count


def resident(cupy: str, plan: str, precision: str, net: dict[str, Any]) -> Answer:
    """How many blocks of each persistent kernel of a plan the device holds."""
    watched, chosen = Watched(cupy, plan, precision), Net.from_json(net)
    trainer(watched, chosen, few_samples(chosen))
    return {"kernels": watched.asked}


def plan_of_auto(cupy: str, net: dict[str, Any]) -> Answer:
    """Which plan the backend makes of the net if left the choice."""
    chosen = Net.from_json(net)
    return {"plan": trainer(backend(cupy), chosen, few_samples(chosen)).details.partition(",")[0]}


def by_chance(net: Net, plan: str, inputs: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The inputs, and what ``fit`` and ``verify`` are told of dropout and deformed images.

    Only the composed plan deforms images, which are square.
    """
    given: dict[str, Any] = {"dropout": net.dropout or 0.0}
    if net.deform is None or plan != "composed":
        return inputs, given
    side = math.isqrt(net.layers[0])
    return inputs.reshape(-1, side, side), given | {"deform": net.deform}


def verify_net(cupy: str, plan: str, precision: str, net: dict[str, Any], samples: str) -> Answer:
    """gpubp.verify: every operation, gradient and step against the reference."""
    chosen, content = Net.from_json(net), data.load(Path(samples))
    inputs, chances = by_chance(chosen, plan, content.inputs)
    report = gpubp.verify(
        chosen.network(), inputs, content.labels, loss=chosen.loss, optimizer=SGD(chosen.lr, chosen.momentum),
        backend=backend(cupy, plan, precision), **chances,
    )  # fmt: skip
    return {**worker.verdict(report), "seconds": report.seconds}


def repeat(
    cupy: str, plan: str, precision: str, net: dict[str, Any], samples: str, epochs: int, runs: int
) -> Answer:
    """Check that runs from one seed end in the same bits."""
    chosen, content = Net.from_json(net), data.load(Path(samples))
    inputs, chances = by_chance(chosen, plan, content.inputs)
    digests = []
    for _ in range(runs):
        network, optimizer = chosen.network(), SGD(chosen.lr, chosen.momentum)
        history = gpubp.fit(
            network, inputs, content.labels, loss=chosen.loss, optimizer=optimizer, batch_size=chosen.batch,
            epochs=epochs, backend=backend(cupy, plan, precision), verify="off", seed=0, **chances,
        )  # fmt: skip
        digests.append(digest(network))
    return {"same": len(set(digests)) == 1, "digests": digests, "loss": history["loss"][-1]}


def digest(network: Network) -> str:
    """A short name for the very bits of a network's parameters."""
    bits = b"".join(array.tobytes() for pair in network.parameters for array in pair)
    return hashlib.sha256(bits).hexdigest()[:16]


def stopwatch(cupy: str) -> Callable[[], float]:
    """Each call waits for the device, and gives the seconds since the call before."""
    synchronize, last = module(cupy).cuda.runtime.deviceSynchronize, time.perf_counter()

    def lap() -> float:
        nonlocal last
        synchronize()
        before, last = last, time.perf_counter()
        return last - before

    return lap


def race(cupy: str, plan: str, train: str, test: str, rules: dict[str, Any], seed: int) -> Answer:
    """Seconds of training until the test accuracy is first as high as each target; all else is timed apart."""
    settings = Race.from_json(rules)
    network, optimizer = settings.network(seed), Adam(settings.lr)
    schedule = Schedule(settings.schedule, warmup=settings.warmup)
    samples, tests = data.load(Path(train)), data.load(Path(test))
    contents = samples.first(settings.batch), samples, tests
    few, to_train, to_test = (prepared(network, content, settings.loss) for content in contents)
    problem = network, settings.loss, optimizer, settings.batch

    lap, found = stopwatch(cupy), dict.fromkeys(("training_s", "evaluation_s", "upload_s", "compile_s"), 0.0)
    chosen = backend(cupy, plan)
    warm_up = make_plan(chosen, *problem, few)
    warm_up.run(np.arange(len(few)), np.array([settings.lr]))
    warm_up.evaluate(warm_up.upload(few))
    found["compile_s"] = lap()
    trained = make_plan(chosen, *problem, to_train)
    uploaded = trained.upload(to_test)
    found["upload_s"] = lap()

    steps, rng = -(-len(to_train) // settings.batch), np.random.default_rng(seed)
    accuracies: list[float] = []
    reached: dict[str, float | None] = {f"{target:g}": None for target in settings.targets}
    for number in range(settings.epochs):
        rates = settings.lr * schedule.factors(number * steps, steps, steps, settings.epochs)
        trained.run(rng.permutation(len(to_train)), rates)
        found["training_s"] += lap()
        accuracies.append(trained.evaluate(uploaded).accuracy)
        found["evaluation_s"] += lap()
        for target in settings.targets:
            if accuracies[-1] >= target and reached[f"{target:g}"] is None:
                reached[f"{target:g}"] = found["training_s"]
    return {"reached_s": reached, "accuracies": accuracies, **found}


def train_a_little(cupy: str, plan: str) -> Answer:
    """A few steps of the first small net that the plan takes, for compute-sanitizer to watch."""
    rng = np.random.default_rng(0)
    if cupy == "cupy":
        module(cupy).cuda.set_allocator(None)  # a pool would hide what is written beyond an array
    inputs, labels = rng.integers(0, 256, (90, 20), np.uint8), rng.integers(0, 10, 90)
    for sizes in SMALL_NETS:
        network = Network(sizes, hidden="relu", output="softmax", seed=0, dtype="float32")
        try:
            gpubp.fit(
                network, inputs, labels, batch_size=32, epochs=1, validation=(inputs, labels),
                backend=backend(cupy, plan), verify="off",
            )  # fmt: skip
            break
        except UsageError:  # a plan need not take every net
            if sizes == SMALL_NETS[-1]:
                raise
    return {"digests": {"-".join(map(str, sizes)): digest(network)}}


COUNTED = """
extern "C" __global__ void phases(unsigned long long* cycles) { hand_over<PHASES>(cycles); }
"""


class Profiled(CupyBackend):
    """Compiles with -DPROFILE the kernels that can count the cycles of their phases, and keeps their counters.

    Such a kernel's source has ``enum Phase { NAME, …, PHASES }`` and counts by profile.cuh.
    """

    def __init__(self, cupy: str, plan: str, precision: str) -> None:
        super().__init__(module(cupy), plan, precision)
        self.counters: dict[str, tuple[list[str], Any]] = {}

    def _load(self, source, options, cooperative, names):
        found = PHASES.search(source)
        if found is None:
            return super()._load(source, options, cooperative, names)
        made = self._cp.RawModule(
            code=source + COUNTED, options=(*options, "-DPROFILE"), enable_cooperative_groups=cooperative
        )
        *phases, _ = re.findall(r"\w+", found[1])
        self.counters[names[0]] = [name.lower() for name in phases], made.get_function("phases")
        return made, [made.get_function(name) for name in names]

    def cycles(self) -> dict[str, dict[str, int]]:
        """Of each kernel, those of each phase since this was last asked."""
        found = {}
        for kernel, (phases, counter) in self.counters.items():
            sums = self.to_device(np.zeros(len(phases), np.uint64))
            self.start(counter, (1,), (cuda.WARP,), (sums,))
            found[kernel] = dict(zip(phases, map(int, self.to_host(sums)), strict=True))
        return found


def phases(cupy: str, plan: str, precision: str, net: dict[str, Any], samples: str) -> Answer:
    """The cycles of each phase of an epoch's steps, as one thread of each kernel counts them."""
    profiled, chosen, content = Profiled(cupy, plan, precision), Net.from_json(net), data.load(Path(samples))
    trained, order = trainer(profiled, chosen, content), np.arange(len(content))
    if not profiled.counters:
        raise UsageError("its kernels count no phases")
    trained.run_epoch(order)  # warms up
    profiled.cycles()
    trained.run_epoch(order)
    steps = len(trained.rates)
    of_a_step = {
        kernel: {phase: cycles / steps for phase, cycles in counted.items()}
        for kernel, counted in profiled.cycles().items()
        if any(counted.values())
    }
    return {"steps": steps, "cycles_a_step": of_a_step}


# Microbenchmarks.


@cache
def micro_module(
    cupy: str,
    file: str,
    cooperative: bool,
    dtype: str = "float32",
    precision: str = "float32",
    units: tuple[int, int] | None = None,
) -> Any:
    """A file of micro.FILES compiled."""
    options = cuda.options(np.dtype(dtype), precision, units)
    return module(cupy).RawModule(
        code=micro.source(file), options=options, enable_cooperative_groups=cooperative
    )


def empty_launch(cupy: str) -> Callable[[], object]:
    """A launch of a kernel that does nothing."""
    kernel = micro_module(cupy, "micro.cu", False).get_function("nothing")
    unused = backend(cupy).to_device(np.zeros(1, np.uint64))
    return lambda: kernel((1,), (cuda.WARP,), (unused,))


def median_seconds(cupy: str, job: Callable[[], object]) -> float:
    """The median over REPEATS of the device's time; where there are no events, of the clock's."""
    seconds = clock.of_cupy(module(cupy))
    seconds(job)  # warms up
    times = [seconds(job) for _ in range(REPEATS)]
    return median(wall if events is None else events for events, wall in times)


def micro_kernel(cupy: str, kernel: dict[str, Any], blocks: int, count: int) -> Answer:
    """A kernel of micro.cu: the time and the cycles of ``count`` less those of none, over their number."""
    asked, chosen = micro.Kernel(**kernel), backend(cupy)
    units = tuple(asked.units) if asked.units else None  # of which JSON makes a list
    if units and (why := chosen.why_no_clusters()):
        raise UsageError(why)
    made = micro_module(cupy, asked.file, not units, asked.dtype, asked.precision, units)
    function = made.get_function(asked.name)
    shared, none_arrived = cuda.HEAD_BYTES + asked.shared, np.zeros(1, np.uint64)
    if function.max_dynamic_shared_size_bytes < shared:
        function.max_dynamic_shared_size_bytes = shared
    resident = chosen.resident_blocks(function, cuda.THREADS, shared)
    if units:
        resident = units[1] * chosen.resident_clusters(function, units[1], cuda.ROW_THREADS, shared)
    if blocks > resident:
        raise UsageError(f"the device holds {resident} blocks at a time")
    arrived, cycles = chosen.to_device(none_arrived), chosen.to_device(np.zeros(1, np.int64))
    memory = chosen.to_device(np.zeros(micro.MEMORY, asked.dtype))

    def measured(number: int) -> tuple[float, int]:
        def launch() -> None:
            chosen.to_device(none_arrived, out=arrived)
            arguments = arrived, memory, np.int64(number), cycles
            function((blocks,), cuda.ROW_THREADS, arguments, shared_mem=shared)

        return median_seconds(cupy, launch), int(chosen.to_host(cycles)[0])

    (seconds, some), (overhead, none) = measured(count), measured(0)
    return {"us": (seconds - overhead) / count * 1e6, "cycles": (some - none) / count}


def launch_cost(cupy: str, count: int) -> Answer:
    """Empty launches one after the other: what it takes the host to ask for one, which is longer than the launch."""
    launch = empty_launch(cupy)
    asking: list[float] = []

    def launches() -> None:
        started = time.perf_counter()
        for _ in range(count):
            launch()
        asking.append(time.perf_counter() - started)

    median_seconds(cupy, launches)
    return {"host_us": median(asking) / count * 1e6}


def graph_gap(cupy: str, count: int) -> Answer:
    """A node of a CUDA graph of empty kernels, one after the other: what a further one adds."""
    need_gpu(cupy, "there are no CUDA graphs on the host")
    launch = empty_launch(cupy)
    stream = module(cupy).cuda.Stream(non_blocking=True)

    def seconds(nodes: int) -> float:
        with stream:
            stream.begin_capture()
            for _ in range(nodes):
                launch()
            graph = stream.end_capture()
            return median_seconds(cupy, graph.launch)

    launch()  # loads the kernel, which a capture does not allow
    return {"us": (seconds(1 + count) - seconds(1)) / count * 1e6}


def copy(cupy: str, megabytes: int) -> Answer:
    """A large copy on the device, counting the bytes read and those written."""
    need_gpu(cupy, "the host's memory is not the device's")
    size = megabytes * 10**6
    numbers = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    source, target = (backend(cupy).to_device(numbers) for _ in range(2))
    seconds = median_seconds(cupy, lambda: target.data.copy_from_device_async(source.data, size))
    return {"gb_per_s": 2 * size / seconds / 1e9}


def product(cupy: str, size: int) -> Answer:
    """A large square product of float32 by cuBLAS, a multiply-add counting as two operations."""
    rng, to_device = np.random.default_rng(0), backend(cupy, "composed").to_device
    a, b, out = (to_device(rng.random((size, size), np.float32)) for _ in range(3))
    seconds = median_seconds(cupy, lambda: module(cupy).matmul(a, b, out=out))
    return {"tflop_per_s": 2 * size**3 / seconds / 1e12}


OWN = (
    facts, build_ahead, resident, plan_of_auto, verify_net, repeat, race, train_a_little, phases, micro_kernel,
    launch_cost, graph_gap, copy, product,
)  # fmt: skip
TASKS = worker.TASKS | {task.__name__: task for task in OWN}


if __name__ == "__main__":
    worker.main(TASKS, sys.argv[1:] or None)
