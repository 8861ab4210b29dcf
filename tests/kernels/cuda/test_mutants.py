"""Mutants of the CUDA kernels: without one of their barriers, or with one of their bounds a place off, each is caught.

All mutants are in one library, and a number chooses one when it runs: a barrier ``__syncthreads();`` becomes
``mutant != 7 ? __syncthreads() : void();``, a bound ``i < n`` becomes ``i < shift(8) + n``. Each runs in a process of
its own, since what it does to memory is anyone's guess. It is caught if the equipment reports it, if the process dies
or does not end, or if what it trains is not what NumPy does.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest

from gpubp.backends.numpy import ReferenceBackend
from gpubp.data.samples import Samples
from gpubp.kernels import cuda
from gpubp.optimizers import SGD, AdamW
from tests import param
from tests.cuda_host import fake_cupy, host_backend, missing_compiler
from tests.networks import MOMENTUM, random_problem

pytestmark = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))

BARRIER = re.compile(r"__syncthreads\(\);|__syncwarp\(\);|grid_barrier\(launch\.arrived.*\);")
BOUND = re.compile(r"(?<=[\w)\]]) (<=?|>=) (?=[\w(])")
IN_COMPILATION = re.compile("alignas|static_assert|constexpr")
SECONDS = 60  # of a processor, that a mutant may take

PRELUDE = """
extern "C" int mutant;
int mutant = -1;
inline long long shift(int number) { return mutant == number ? 1 : mutant == number + 1 ? -1 : 0; }
"""

PREFETCH = "asked for in advance or not, what is read is the same"
# Lines whose first bound may be one more (that of a prefetch, one less too), by the reason why nothing is computed
# otherwise.
REASONS = {
    "a panel more, of zeros": """
        for (int k0 = 0; k0 < k_count; k0 += DEPTH) {""",
    "one fetch more, that nothing reads": """
        if (k0 + DEPTH < k_count) {""",
    "where both are the same": """
        found[i] = wanted < last ? wanted : last;
        rows = rest < launch.batch ? rest : launch.batch;
        const int rows = rest < launch.batch ? rest : launch.batch;
        if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
        units = launch.n_hidden - first_unit < UNITS ? launch.n_hidden - first_unit : UNITS;""",
    "a line that is aligned ends with a piece": """
        take(held[i], from + (begin_of(i) + unsigned(at + WIDE <= pitch ? at : 0)));""",
    "what begins the next line is mended": """
        take(held[i], n, from[begin_of(i) + unsigned(at + n < pitch ? at + n : 0)]);""",
    "the array ends there, and so the compiler's loop": """
        for (int n = 0; n < WIDE; ++n) shared[i * STEP + n * PITCH] = held[i].numbers.x[n];""",
    "mended where nothing is outside": """
        if (inside >= WIDE && (ALONG_TERMS || terms > (COUNT - 1) * STEP)) return;""",
    "a tile or rows outside, of which nothing is kept": """
        for (int i = (blockIdx.x + gridDim.x - first % gridDim.x) % gridDim.x; i < count; i += gridDim.x)
        for (int m0 = blockIdx.x * ROW_BLOCK; m0 < m_count; m0 += gridDim.x * ROW_BLOCK)
        for (int n0 = 0; n0 < n_count; n0 += S::COLUMNS)
        for (index_t b0 = index_t(blockIdx.x) * ROW_BLOCK; b0 < rows; b0 += index_t(gridDim.x) * ROW_BLOCK)
        for (int b = 0; b < rows; b += Forward::ROWS)
        for (int i = 0; i < launch.n_in + 1; i += Gradient::COLUMNS)""",
    "all blocks have the same first of b₂": """
        if (blockIdx.x == 0 || own < room.bias2())""",
    "behind z₂ is a₂, written next": """
        for (int e = thread; e < outputs; e += THREADS) {""",
    "δ of a unit outside, whose sums no tile keeps": """
        if (h < units)""",
    PREFETCH: """
        const index_t stop = (first + launch.batch < launch.samples ? first + launch.batch : launch.samples) - first;
        for (index_t e = index_t(blockIdx.x) * THREADS + thread; e < stop * lines; e += index_t(gridDim.x) * THREADS)
        """,
}
SAME = {line.strip(): reason for reason, lines in REASONS.items() for line in lines.strip().splitlines()}


@dataclass(frozen=True)
class Mutant:
    plan: str
    number: int
    line: str
    what: str
    place: int = 0  # among the bounds of its line

    @property
    def is_same(self) -> bool:
        """Whether nothing is computed otherwise."""
        reason = SAME.get(self.line) if self.place == 0 else None
        return bool(reason) and (self.what.startswith("one more") or reason is PREFETCH)

    def __str__(self) -> str:
        return f"{self.plan}, {self.what}: {self.line}"


def mutated(plan: str) -> tuple[str, list[Mutant]]:
    """The plan's source with every mutant in it, and what they are; headers of both are mutated in the fused one's."""
    mutants: list[Mutant] = []
    lines = []
    mutate = device_only = tensor = False
    for line in cuda.source(FILES[plan]).splitlines():
        code, comment, rest = line.partition("//")
        if code.startswith("#line"):
            mutate = plan in ("fused", "3xtf32") or line.split('"')[1].rpartition("/")[2] not in cuda.EPOCH
        elif code.startswith("#if PRECISION != FLOAT32"):
            tensor = True
        elif code.startswith("#ifndef CUDA_ON_HOST"):
            device_only = True
        elif device_only and code.startswith("#endif"):
            device_only = False
        elif code.startswith("#"):
            device_only = device_only or (code.startswith("#else") and not tensor)
            tensor = tensor and not code.startswith(("#else", "#endif"))
        elif mutate and not device_only and tensor == (plan == "3xtf32") and not IN_COMPILATION.search(code):
            code = _with_mutants(code, plan, mutants)
        lines.append(code + comment + rest)
    return PRELUDE + "\n".join(lines), mutants


def _with_mutants(code: str, plan: str, mutants: list[Mutant]) -> str:
    line = code.strip()

    def barrier(match: re.Match) -> str:
        mutants.append(Mutant(plan, len(mutants), line, f"without {match[0]}"))
        return f"mutant != {mutants[-1].number} ? {match[0][:-1]} : void();"

    places = count()

    def bound(match: re.Match) -> str:
        number, place = len(mutants), next(places)
        for k, what in enumerate(("one more", "one less")):
            mutants.append(Mutant(plan, number + k, line, f"{what} at {match[1]} {place}", place))
        return f" {match[1]} shift({number}) + "

    return BOUND.sub(bound, BARRIER.sub(barrier, code))


# What runs each text: the plan of that name, or the fused one in that precision.
FILES = {"fused": cuda.EPOCH, "composed": cuda.OPERATIONS, "units": cuda.UNITS, "3xtf32": cuda.EPOCH}
TEXTS, MUTANTS = {}, []
for _plan in FILES:
    TEXTS[_plan], _mutants = mutated(_plan)
    MUTANTS += _mutants


BINARY = {"output": "sigmoid", "loss": "binary_cross_entropy"}


def net(sizes, batch, **options):
    return {"sizes": sizes, "batch": batch, "optimizer": MOMENTUM, **options}


# Between them, all that a launch can be asked for: layers shared by tiles of each size and by rows, softmax inside,
# one output, rows that fill no block of threads, more blocks than rows; terms that fill their panels, and one more;
# last batches of one sample, and of one less than the others; a batch that takes all of the working space.
ANY_NETS = [
    net((32, 48, 1), 130, hidden="relu", **BINARY),
    net((12, 40), 9, output="lecun_tanh", loss="cross_entropy", as_bytes=False),
    net((12, 40), 9, optimizer=AdamW(0.01)),
    net((40, 20, 35, 6), 44, hidden=["softmax", "sigmoid"], count=131, **BINARY),
    net((3, 5, 2), 1028, output="sigmoid", loss="quadratic", count=1028),
    net((33, 150, 130, 8), 43),
    net((150, 140, 130, 3), 70, hidden="softmax", output="softmax", loss="quadratic", optimizer=SGD(0.1)),
]

# One hidden layer, for 2, 4 and 8 units a block, the last of which has fewer.
UNITS_NETS = [
    net((30, 5, 8), 43),
    net((512, 10, 3), 44, count=131, **BINARY),
    net((40, 19, 33), 130, output="lecun_tanh", loss="quadratic", as_bytes=False),
    net((32, 24, 1), 43, optimizer=AdamW(0.01), **BINARY),
]
# In tiles of every shape on tensor cores.
TENSOR_NETS = [net((140, 150, 130, 7), 70, dtype=np.float32), net((40, 440, 39), 17, dtype=np.float32)]
NETS = {"fused": ANY_NETS, "composed": ANY_NETS, "units": UNITS_NETS, "3xtf32": TENSOR_NETS}


# Without --exhaustive: each barrier and some bounds of one plan, whose tiles come from the same header as all others.
SAMPLE = [m for m in MUTANTS if m.plan == "units" and (m.what.startswith("without") or m.number % 40 == 0)]
SAMPLE_NETS = {"units": UNITS_NETS[1:2]}
EVERY = [pytest.param(m, id=str(m), marks=[] if m in SAMPLE else pytest.mark.exhaustive) for m in MUTANTS]


def backend_of(plan):
    return host_backend("fused", plan) if plan in cuda.PRECISIONS else host_backend(plan)


@pytest.fixture(scope="module")
def nets(request):
    """The nets of each plan whose mutants are run."""
    return NETS if request.config.getoption("--exhaustive") else SAMPLE_NETS


@pytest.fixture(scope="module")
def mutants(nets):
    """The mutants of each plan, compiled once; plans made meanwhile run the one whose number is set."""
    # A plan's own files with its mutants; what else it needs, such as the units plan to evaluate, with another's.
    texts = {
        (plan, files): TEXTS[other] if other in nets else cuda.source(files)
        for plan in nets
        for other, files in FILES.items()
        if other != "3xtf32"
    }
    texts |= {(plan, FILES[plan]): TEXTS[plan] for plan in nets}
    current = ["fused"]
    libraries = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "source", lambda files=cuda.OPERATIONS: texts[current[0], files])

        def kept(path, _load=ctypes.CDLL):
            libraries.append(_load(path))
            return libraries[-1]

        patch.setattr(fake_cupy.ctypes, "CDLL", kept)
        numbers = {}
        for plan in nets:
            current[0], numbers[plan] = plan, []
            for options in nets[plan] if plan == "units" else nets[plan][:1]:  # units are compiled one by one
                backend_of(plan).plan(random_problem(**options))
                numbers[plan].append(ctypes.c_int.in_dll(libraries[-1], "mutant"))
        current[0] = "fused"
        yield numbers, current


@pytest.fixture(scope="module")
def expected(nets):
    """For each plan, what NumPy makes of its nets."""
    return {plan: [results(ReferenceBackend(), net) for net in some] for plan, some in nets.items()}


def results(backend, options):
    """All that a plan computes: arrays by name."""
    plan = backend.plan(random_problem(**options))
    found = {}
    cost, gradients = plan.gradients(np.arange(min(5, plan.batch_size)))
    found["gradients"] = np.concatenate([cost, *(p for pair in gradients for p in pair)], axis=None)
    stats = plan.run(np.arange(len(plan.samples)), np.full(-(-len(plan.samples) // plan.batch_size), 0.05))
    found["costs"], found["hits"] = stats.costs, stats.hits
    stats = plan.evaluate(plan.samples)
    found["evaluated"] = np.append(stats.costs, stats.hits)
    state = plan.state()  # as evaluation left it
    found["parameters"] = np.concatenate(state.parameters, axis=None)
    found["slots"] = np.concatenate([slot.ravel() for slots in state.slots for slot in slots] or [[]])
    inputs = 2 * np.random.default_rng(2).standard_normal((130, options["sizes"][0]))
    found["outputs"] = plan.predict(inputs)

    # Outputs far apart, two of them the same; the largest, the first of equals, is the target.
    state = plan.state()
    weights, bias = state.parameters[-2:]
    weights *= 1e4
    weights[0] *= 3  # so that the first of the next row is often larger than all of a row
    if len(bias) > 6:
        weights[6], bias[6] = weights[5], bias[5]
    plan.load_state(state)
    steep = plan.predict(inputs)
    targets = np.eye(len(bias))[steep.argmax(axis=1)]
    stats = plan.evaluate(plan.upload(Samples(inputs, targets, np.ones(len(inputs)))))
    found["steep outputs"], found["steep hits"] = steep, stats.hits
    return found


def is_right(plan, nets, expected, again) -> bool:
    """Whether all nets compute what is expected, ``again`` on other numbers of blocks and by other schedules."""
    for options, right in zip(nets[plan], expected[plan], strict=True):
        for blocks in (3, 5, 3) if again and plan == "fused" else (3,):
            fake_cupy.multiprocessors = blocks
            with np.errstate(all="ignore"):
                found = results(backend_of(plan), options)
            for name, wanted in right.items():
                if plan not in cuda.PRECISIONS:
                    np.testing.assert_allclose(found[name], wanted, rtol=1e-10, atol=1e-11, err_msg=name)
                elif name in ("gradients", "costs", "parameters", "outputs"):
                    assert np.linalg.norm(found[name] - wanted) <= 1e-4 * np.linalg.norm(wanted), name
    return True


@pytest.fixture(scope="module")
def survivors(mutants, nets, expected):
    """The mutants of which a process of its own finds nothing wrong; one process a core at a time."""
    running: dict[int, Mutant] = {}
    found = set()

    def wait() -> None:
        child, status = os.wait()
        mutant = running.pop(child)
        if status == 0:
            found.add(mutant)

    numbers, current = mutants
    for mutant in [*(Mutant(plan, -1, "", "none") for plan in nets), *(MUTANTS if nets is NETS else SAMPLE)]:
        current[0] = mutant.plan
        for plan, all_chosen in numbers.items():
            for chosen in all_chosen:
                chosen.value = mutant.number if plan == mutant.plan else -1
        if len(running) >= (os.cpu_count() or 1):
            wait()
        running[_start(mutant, nets, expected)] = mutant
    while running:
        wait()
    return found


def _start(mutant, nets, expected) -> int:
    """A process that runs the mutant that is chosen; it ends with 0 if all is right."""
    child = os.fork()
    if child:
        return child
    faulthandler.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # which ends it, however busy the machine is
    fake_cupy.seed = 0  # the same schedules whatever ran before
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(0 if is_right(mutant.plan, nets, expected, again=not mutant.is_same) else 1)
    except BaseException:
        os._exit(1)


@pytest.mark.parametrize("plan", [p if p in SAMPLE_NETS else param(p, always=False) for p in FILES])
def test_what_is_mutated_is_right_without_a_mutant(plan, survivors):
    assert Mutant(plan, -1, "", "none") in survivors


def test_every_barrier_and_bound_is_a_mutant():
    barriers = [m.plan for m in MUTANTS if m.what.startswith("without")]
    assert barriers.count("fused") == 4 + 2 + 2  # in tile, meet and sum
    assert barriers.count("composed") == 1  # in weight_grad
    assert barriers.count("units") == 7
    code = "\n".join(line.partition("//")[0] for line in cuda.source(cuda.EPOCH).splitlines())
    found = sum(m.what.startswith("one more") for m in MUTANTS if m.plan in ("fused", "3xtf32"))
    assert found > 0.9 * code.count(" < ")  # the others are the compiler's


@pytest.mark.parametrize("mutant", EVERY)
def test_a_mutant_is_caught(mutant, survivors):
    if mutant.is_same:
        assert mutant in survivors, "this one is caught, and need not be listed"
    else:
        assert mutant not in survivors
