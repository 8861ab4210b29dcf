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

from gpubp.backends.cuda.units import ClusterPlan
from gpubp.backends.numpy import ReferenceBackend
from gpubp.data.samples import Samples
from gpubp.kernels import cuda
from gpubp.optimizers import SGD, AdamW
from gpubp.randomness.settings import Deform
from tests import param
from tests.cuda_host import fake_cupy, host_backend, missing_compiler
from tests.networks import MOMENTUM, random_problem

pytestmark = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))

BARRIER = re.compile(
    r"__syncthreads\(\);|__syncwarp\(\);|cluster_barrier\(\);|grid_barrier\(launch\.arrived.*\);"
    r"|barrier_of\(launch\.arrived.*, (?P<meanwhile>\w+)\);|\bwait<.*>\(\);|\bcommit\(\);"
)
BOUND = re.compile(r"(?<=[\w)\]]) (<=?|>=) (?=[\w(])")
IN_COMPILATION = re.compile(
    r"alignas|static_assert|constexpr|sizeof\(T\) < 4|\[UNITS < GROUPS|byte_of\(word, k\)"
)
BEGINS = (
    "cluster_begins"  # on the host, where a launch's blocks all begin together, no one waits for that in vain
)
SECONDS = 60  # of a processor, that a mutant may take

PRELUDE = """
extern "C" int mutant;
int mutant = -1;
inline long long shift(int number) { return mutant == number ? 1 : mutant == number + 1 ? -1 : 0; }
"""

STEPS = "one less is as many steps"
EITHER = "one more or less is the same"
FEW = "there are no more clusters here; tests/backends/cuda/test_persistent.py has some"
TOO_FEW = "no launch is too small by one block, and by more it stops: tests/backends/cuda/test_persistent.py"
# Lines whose first bound may be one more (of some, one less), by the reason why nothing is computed otherwise.
REASONS = {
    "a round more, that nothing reads": """
        for (int first = 0; first < of.splits; first += AT_ONCE) {
        if (first + i < of.splits) parts[i] = *reinterpret_cast<const Numbers<COUNT>*>(z + (first + i) * part_of_z(of));
        for (int e0 = threadIdx.y * WARP + threadIdx.x; e0 < count; e0 += AHEAD * THREADS) {
        if (group < PARTS) put<true>(tiles + group * ROWS * PITCH);""",
    "all threads have as many": """
        inside[i] = e < count && m < product.m_count && n < product.n_count;""",
    "where both are the same": """
        const int rest = (ALONG_TERMS ? term_count : row_count) - at, inside = rest < 0 ? 0 : least(rest, PIECE);
        const int rows = rest < launch.batch ? rest : launch.batch;
        if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
        template <class T> constexpr __host__ __device__ T least(T a, T b) { return b < a ? b : a; }""",
    "a term beyond the last, of which the other operand is 0": """
        to[e] = e < inside ? from[e] : 0;""",
    "the array ends there, and so the compiler's loop": """
        for (int i = 0; i < COEFFICIENTS; ++i) c[i] = coefficients[i];
        for (int n = 0; n < HALF; ++n) out.x[n] = kept[n];
        for (int m = 0; m < M; ++m) x[m] = held<Held>(step) + min(top + m * between + row0, rows - 1) * launch.x_pitch;
        for (int u = 0; u < UNITS; ++u) sum += a.x[u] * w.x[u];
        for (int u = 0; u < UNITS; ++u) sums[u] += deltas.x[u];
        for (int u = 0; u < UNITS; ++u)
        for (int n = 0; n < KEPT; ++n) kept.x[n] = sums[n];
        for (int n = 0; n < COUNT; ++n) step_sgd(parameter.x[n], gradient.x[n], sgd);
        for (int k = 0; k < AT_ONCE; ++k) gradient.x[k] = kept.x[n + k];
        for (int i = 0; i < COUNT; ++i) sum.x[i] += more.x[i];
        for (int j = 0; j < WIDE; ++j) x[i + j][v] = rows.x[j];
        for (int v = 0; v < VECTOR; ++v) some.x[v] = apply(of.activation, some.x[v]);
        for (int v = 0; v < VECTOR; ++v) sum.x[v] *= slope(activation, a.x[v]);
        for (int v = 0; v < VECTOR; ++v) sum.x[v] = apply(activation, sum.x[v] + biases.x[v]);
        for (int v = 0; v < VECTOR; ++v) x[i][v] = terms.x[v];""",
    "a tile or rows outside, of which nothing is kept": """
        for (int i = first_of(dealt) * run; i < tiles.count; i += (i + 1) % run ? 1 : (int(gridDim.x) - 1) * run + 1)
        for (int i = first_of(dealt); i < count; i += gridDim.x) {
        for (index_t b0 = index_t(blockIdx.x) * ROW_BLOCK; b0 < now().rows; b0 += index_t(gridDim.x) * ROW_BLOCK)
        for (int top = 0; top < rows; top += M * between) {
        for (int top = 0; top < mine; top += ROWS_AT_ONCE) {
        for (int i = threadIdx.y * gridDim.x + blockIdx.x; i < all; i += ROW_BLOCK * gridDim.x) {""",
    "a column beyond the last, of which nothing is read": """
        for (int n = threadIdx.x * VECTOR; n < of.n_out; n += WARP * VECTOR) {
        if (bias && o + v < n_out) of.x[v] = bias[o + v];
        if (n + v < of.n_out) sum.x[v] += bias[v];
        if (o < of.n_out)""",
    "a counter of which no element is there": """
        for (int c = first; first_of(c) < count; c += between) {""",
    "of no step there are no rows": """
        if (step < launch.steps)
        if (step >= launch.steps) return;""",
    "one copy more, that nothing reads": """
        for (int b = thread(); b < rows_of(step); b += THREADS)
        for (int step = 0; step < 3; ++step) fetch_order(step);
        for (int row = thread(); row < mine; row += THREADS)""",
    "the row to spare": """
        const bool is_row = top + thread() / OUTPUT_LANES < mine;""",
    "all clusters have the same first of b₂": """
        if (cluster() == 0 || own < bias2()) set(own, place);""",
    "what is beyond the slots is not read, or written over": """
        for (int slot = 0; slot <= launch.slots; ++slot) {""",
    EITHER: """
        for (int e = thread(); e < numbers; e += THREADS) own[e] = 0;
        for (int e = thread(); e < words; e += THREADS) at<unsigned>(launch.x)[e] = 0;
        for (int k = 0; k < 4; ++k)
        real largest = at < count ? row[at] : -1 / real(0);""",
    "a row outside, whose place nothing reads": """
        if (row >= rows) continue;""",
    "sixteen are taken at a time": """
        for (int c = 0; c < clusters(); c += 16) {""",
    FEW: """
        for (int k = 0; k < 16; ++k) sum += found[k / 4].x[k % 4];""",
    TOO_FEW: """
        if (clusters() * UNITS < launch.n_hidden) __trap();""",
    STEPS: """
        for (int n = 0; n < KEPT; n += 4) {
        for (int n = 0; n < KEPT; n += AT_ONCE) {
        if (GROUPS == 1 && i >= inputs_here()) continue;
        for (int i = 0; i < COUNT; i += WIDE) {
        for (int k = 0; k < TERMS; k += GROUPS * VECTOR) {""",
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
        if reason is EITHER:
            return True
        less = reason in (STEPS, FEW, TOO_FEW)
        return bool(reason) and self.what.startswith("one less" if less else "one more")

    def __str__(self) -> str:
        return f"{self.plan}, {self.what}: {self.line}"


NOT_COMPILED = "profile.cuh"  # but to count cycles
OF_UNITS = "vectors.cuh"  # what epoch.cu includes of it has no bounds
OF_DROPOUT = "random.cuh"
# Of epoch.cu and what it includes, what is compiled for one of the texts only.
SECTIONS = {"#if PRECISION != FLOAT32": "3xtf32", "#if DROPOUT": "dropout"}


def mutated(plan: str) -> tuple[str, list[Mutant]]:
    """The plan's source with every mutant in it, and what they are; headers of both are mutated in the fused one's."""
    mutants: list[Mutant] = []
    lines = []
    mutate = device_only = False
    of_file = section = None
    for line in cuda.source(FILES[plan]).splitlines():
        code, comment, rest = line.partition("//")
        if code.startswith("#line"):
            name = line.split('"')[1].rpartition("/")[2]
            of_file = "dropout" if name == OF_DROPOUT else "fused"
            of_fused = name in cuda.EPOCH and name != OF_UNITS
            mutate = name != NOT_COMPILED and of_fused == (plan in ("fused", *SECTIONS.values()))
        elif code in SECTIONS:
            section = SECTIONS[code]
        elif code.startswith("#ifndef CUDA_ON_HOST"):
            device_only = True
        elif device_only and code.startswith("#endif"):
            device_only = False
        elif code.startswith("#"):
            device_only = device_only or (code.startswith("#else") and not section)
            section = None if code.startswith(("#else", "#endif")) else section
        elif (
            mutate
            and not device_only
            and (plan in ("composed", "cluster") or plan == (section or of_file))
            and not (IN_COMPILATION.search(code) or BEGINS in code)
        ):
            code = _with_mutants(code, plan, mutants)
        lines.append(code + comment + rest)
    return PRELUDE + "\n".join(lines), mutants


def _with_mutants(code: str, plan: str, mutants: list[Mutant]) -> str:
    line = code.strip()

    def barrier(match: re.Match) -> str:
        mutants.append(Mutant(plan, len(mutants), line, f"without {match[0]}"))
        instead = f"{match['meanwhile']}();" if match["meanwhile"] else "void();"
        return f"mutant != {mutants[-1].number} ? {match[0][:-1]} : {instead}"

    places = count()

    def bound(match: re.Match) -> str:
        number, place = len(mutants), next(places)
        for k, what in enumerate(("one more", "one less")):
            mutants.append(Mutant(plan, number + k, line, f"{what} at {match[1]} {place}", place))
        return f" {match[1]} shift({number}) + "

    return BOUND.sub(bound, BARRIER.sub(barrier, code))


# What runs each text: the plan of that name, or the fused one in that precision.
FILES = {"fused": cuda.EPOCH, "composed": cuda.OPERATIONS, "cluster": cuda.UNITS}
FILES |= dict.fromkeys(SECTIONS.values(), cuda.EPOCH)
KERNELS = {"fused": "epoch", "composed": "forward", "cluster": "units"}  # one of the text
KERNELS |= dict.fromkeys(SECTIONS.values(), "epoch")
TEXTS, MUTANTS = {}, []
for _plan in FILES:
    TEXTS[_plan], _mutants = mutated(_plan)
    MUTANTS += _mutants


BINARY = {"output": "sigmoid", "loss": "binary_cross_entropy"}


def net(sizes, batch, **options):
    return {"sizes": sizes, "batch": batch, "optimizer": MOMENTUM, **options}


# Between them, all that a launch can be asked for: layers shared by tiles of each size and by rows, softmax inside,
# one output, rows that fill no block of threads, more blocks than rows; terms that fill their panels, and one more;
# last batches of one sample, and of one less than the others; a batch that takes all of the working space; terms that
# blocks share, in more parts than are added up at once.
ANY_NETS = [
    net((64, 48, 1), 130, hidden="relu", **BINARY),
    net((12, 40), 9, output="lecun_tanh", loss="cross_entropy", as_bytes=False),
    net((12, 40), 9, optimizer=AdamW(0.01)),
    net((40, 20, 35, 6), 44, hidden=["softmax", "sigmoid"], count=131, **BINARY),
    net((3, 5, 2), 1028, output="sigmoid", loss="quadratic", count=1028),
    net((33, 150, 130, 8), 43),
    net((150, 140, 130, 3), 70, hidden="softmax", output="softmax", loss="quadratic", optimizer=SGD(0.1)),
    net((300, 24, 4), 9),
    net((1100, 15, 3), 9, output="lecun_tanh", loss="quadratic"),
    net((1032, 40), 9, **BINARY),
]

# One hidden layer on up to four clusters of two blocks, for 4, 8 and 16 units each, of which the last has fewer or as
# many, or on one; inputs whose lines are aligned to 16, to 4 and to no bytes, of a few and of many a block, the last of
# which has one; held as numbers or bytes, two batches or one of them; batches that fill their blocks and do not.
UNITS_NETS = [
    net((30, 16, 8), 64, count=150),
    net((528, 4, 3), 44, count=131, optimizer=SGD(0.1), hidden="relu", **BINARY),
    net(
        (33, 27, 33),
        60,
        hidden="sigmoid",
        output="lecun_tanh",
        loss="quadratic",
        as_bytes=False,
        memory=100_000,
    ),
    net((132, 56, 1), 43, optimizer=AdamW(0.01), memory=76_000, **BINARY),
    net((40, 30, 3), 64, dropout=0.5, count=200),
]
CLUSTER, CLUSTERS = 2, 4
# In tiles of every shape on tensor cores.
TENSOR_NETS = [net((140, 150, 130, 7), 70, dtype=np.float32), net((40, 440, 39), 17, dtype=np.float32)]
# Inputs and hidden layers that are dropped, of more numbers than a counter's and than a warp's counters give; in parts
# and by rows, softmax too; so many numbers that some are the very first or last that drop.
DROPPED_NETS = [
    net((300, 150, 9), 43, dropout=[0.3, 0.5], **BINARY),
    net((140, 20, 135, 6), 44, hidden=["softmax", "sigmoid"], count=131, dropout=[0.2, 0.5, 0.7], **BINARY),
    net((33, 40), 9, dropout=[0.5], as_bytes=False),
]
# Images that are deformed: by a field of every second pixel whose noise needs a stream's last counter, by one of every
# pixel, and by none; more classes than have limits of their own.
DEFORMED_NETS = [
    net((63, 20, 5), 43, deform=Deform(alpha=15, sigma=3, rotation=9), shape=(7, 9)),
    net(
        (63, 257), 43, deform=Deform(alpha=9, sigma=1.5, rotation_by_class={255: 90}), shape=(9, 7), count=400
    ),
    net((63, 20, 5), 9, deform=Deform(rotation=20, shear=0.1), shape=(9, 7)),
]
NETS = {"fused": ANY_NETS, "composed": [*ANY_NETS, DROPPED_NETS[0], *DEFORMED_NETS], "cluster": UNITS_NETS}
NETS |= {"3xtf32": TENSOR_NETS, "dropout": DROPPED_NETS}


# Without --exhaustive: each barrier and some bounds of one plan, whose tiles come from the same header as all others.
SAMPLE = [m for m in MUTANTS if m.plan == "cluster" and (m.what.startswith("without") or m.number % 40 == 0)]
SAMPLE_NETS = {"cluster": [*UNITS_NETS[:2], UNITS_NETS[-1]]}
EVERY = [pytest.param(m, id=str(m), marks=[] if m in SAMPLE else pytest.mark.exhaustive) for m in MUTANTS]


def problem(memory=232_448, **options):
    """The problem, and a device whose blocks have so much shared memory."""
    fake_cupy.shared_memory = memory
    return random_problem(**options)


def backend_of(plan):
    if plan in SECTIONS.values():
        return host_backend("fused", plan if plan in cuda.PRECISIONS else "float32")
    return host_backend(plan)


@pytest.fixture(scope="module")
def nets(request):
    """The nets of each plan whose mutants are run."""
    return NETS if request.config.getoption("--exhaustive") else SAMPLE_NETS


@pytest.fixture(scope="module")
def mutants(nets):
    """The mutants of each plan, compiled once; plans made meanwhile run the one whose number is set."""
    # A plan's own files with its mutants; what else it needs, such as the cluster plan to evaluate, with another's.
    texts = {
        (plan, files): TEXTS[other] if other in nets else cuda.source(files)
        for plan in nets
        for other, files in FILES.items()
        if other not in SECTIONS.values()
    }
    texts |= {(plan, FILES[plan]): TEXTS[plan] for plan in nets}
    current = ["fused"]
    libraries = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClusterPlan, "cluster", CLUSTER)
        patch.setattr(fake_cupy, "blocks_of_clusters", CLUSTERS * CLUSTER)
        patch.setattr(fake_cupy, "shared_memory", fake_cupy.shared_memory)
        patch.setattr(cuda, "source", lambda files=cuda.OPERATIONS: texts[current[0], files])

        def kept(path, _load=ctypes.CDLL):
            libraries.append(_load(path))
            return libraries[-1]

        patch.setattr(fake_cupy.ctypes, "CDLL", kept)
        numbers = {}
        for plan in nets:
            current[0], numbers[plan] = plan, []
            for options in (
                nets[plan] if plan == "cluster" else nets[plan][:1]
            ):  # units are compiled one by one
                backend_of(plan).plan(problem(**options))
                library = next(lib for lib in libraries[::-1] if hasattr(lib, f"launch_{KERNELS[plan]}"))
                numbers[plan].append(ctypes.c_int.in_dll(library, "mutant"))
        current[0] = "fused"
        yield numbers, current


@pytest.fixture(scope="module")
def expected(nets):
    """For each plan, what NumPy makes of its nets."""
    return {plan: [results(ReferenceBackend(), net) for net in some] for plan, some in nets.items()}


def results(backend, options):
    """All that a plan computes: arrays by name."""
    plan = backend.plan(problem(**options))
    found = {}
    cost, gradients = plan.gradients(np.arange(min(5, plan.batch_size)))
    found["gradients"] = np.concatenate([cost, *(p for pair in gradients for p in pair)], axis=None)
    order, size = np.arange(len(plan.samples)), plan.batch_size
    steps = -(-len(order) // size)
    # In two launches, of which the second goes on with what the first has left.
    runs = [
        plan.run(some, np.full(-(-len(some) // size), 0.05)) for some in np.split(order, [size]) if len(some)
    ]
    assert sum(len(stats.costs) for stats in runs) == steps
    found["costs"], found["hits"] = (
        np.concatenate([getattr(r, name) for r in runs]) for name in ("costs", "hits")
    )
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
        for blocks in (3, 9, 3) if again and plan in ("fused", "dropout") else (3,):
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
    # In tile with its commit and wait, meet, bias_gradients, sum, and before each step.
    assert barriers.count("fused") == 5 + 2 + 2 + 2 + 2 + 2
    assert barriers.count("composed") == 1  # in weight_grad
    assert barriers.count("cluster") == 11
    assert barriers.count("dropout") == 1  # in activate_rows
    code = "\n".join(line.partition("//")[0] for line in cuda.source(cuda.EPOCH).splitlines())
    found = sum(m.what.startswith("one more") for m in MUTANTS if FILES[m.plan] is cuda.EPOCH)
    assert found > 0.9 * code.count(" < ")  # the others are the compiler's


@pytest.mark.parametrize("mutant", EVERY)
def test_a_mutant_is_caught(mutant, survivors):
    if mutant.is_same:
        assert mutant in survivors, "this one is caught, and need not be listed"
    else:
        assert mutant not in survivors
