"""What a step of the CUDA kernels takes on an H100, by counting: their machine code through a simulated multiprocessor.

``python -m tests.kernels.cuda.estimate`` prints the phases of a step; ``… units --function tile`` shows the loops of a
kernel's functions, and ``… --file x.cubin`` those of any machine code.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

from gpubp.backends.cuda.epoch import EpochPlan
from gpubp.backends.cuda.units import Grid, of_shared_memory
from gpubp.kernels import cuda
from gpubp.optimizers import SGD
from tests.cuda_host import fake_cupy, host_backend
from tests.kernels.cuda import machine_code
from tests.kernels.cuda.machine_code import AGAIN, STAY, Function, Instruction, Loop, line_text, straight, way
from tests.kernels.cuda.nvrtc import MOST_SHARED
from tests.kernels.cuda.simulation import WARPS, Simulated, Step, round_of, simulate, step_of
from tests.networks import random_problem

GIGAHERTZ = 1.98
BARRIER, BARRIER_OF_A_BLOCK = 0.6, 0.004  # µs of a barrier of blocks, and more for each of them: assumed
BARRIER_OF_A_CLUSTER = 200  # cycles: assumed

# The net: its inputs are bytes that can be read by fours, the hidden layer is sigmoid, the output softmax with its own
# loss, and the rule plain SGD.
N_IN, N_HIDDEN, N_OUT, BATCH = 784, 128, 10, 128


@dataclass(frozen=True)
class Phase:
    """What a step goes through, and how, which the machine code does not tell: a function, or a round of a loop of it.

    Lines of the source are named by a part of their text.

    trips: rounds of each loop on its way whose line this is, in the order of the code; in what it calls, too.
    avoid: as for ``way``.
    over: branches that only so many warps, the first ones, do not take; behind STAY, branches that they do.
    rests: lines of unrolled loops' bodies, of which what stands beside the loop is for the rest of its rounds, which
        its trips include; else it counts as gone through.
    calls: how often it calls a function, where it is not as often as it stands there.
    reads: cycles of shared memory in these lines, where lanes read the same, or else by the width of a read.
    loop: the line of the loop, and which of those with it; None for all of the function.
    title: what it is called; else as the function.
    tile: of all the tiles it could compute, the one it does.
    """

    function: str
    trips: Mapping[str, Sequence[int]]
    avoid: Sequence[str] = ()
    over: Mapping[str, int] = field(default_factory=dict)
    rests: Sequence[str] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    reads: Mapping[str, int] = field(default_factory=dict)
    loop: tuple[str, int] | None = None
    title: str = ""
    tile: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.title or self.function


@dataclass(frozen=True)
class Kernel:
    """A step of the block that takes longest, with so many barriers of the grid's blocks.

    meet: so many blocks meet at each of these barriers. meanwhile: what is done while a block waits at the first of
    the barriers. clusters_meet: barriers of a cluster.
    """

    phases: Sequence[Phase]
    blocks: int
    barriers: int
    meet: int
    meanwhile: Sequence[Phase] = ()
    clusters_meet: int = 0


class StaleError(Exception):
    """The machine code is not as the table of trips has it."""

    def __init__(self, phase: Phase, what: str) -> None:
        table = f"{Path(__file__).parent.name}/{Path(__file__).name}"
        super().__init__(f"The table of trips in {table} does not fit the phase {phase.name}: {what}")


def is_of_a_barrier(instruction: Instruction) -> bool:
    """Whether what it takes is counted with the grid's barriers."""
    return instruction.line.startswith("grid.cuh:") and "prefetch" not in line_text(instruction.line)


def _region(phase: Phase, function: Function) -> Loop | Function:
    """All of the function, or the loop that the phase is a round of."""
    if phase.loop is None:
        return function
    text, which = phase.loop
    loops = [loop for outer in function.loops for loop in outer.all()]
    found = [loop for loop in loops if text in line_text(straight(loop)[-1].line)]
    if which >= len(found):
        raise StaleError(phase, f"{function.name} has {len(found)} loops with {text!r}")
    return found[which]


def trace(phase: Phase, functions: Sequence[Function], warp: int = 0) -> list[Step]:
    """All that a warp goes through in a phase: loops round by round, and what is called in its place."""
    named = [f for f in functions if f.name == phase.function]
    if len(named) != 1:
        raise StaleError(phase, f"of {', '.join(f.name for f in functions)}, {len(named)} have this name")
    by_symbol = {f.symbol: f for f in functions if f.kernel == named[0].kernel}
    over = [text for text, warps in phase.over.items() if warp >= warps]
    avoid = [
        *phase.avoid,
        *(f.name for f in functions if f.name.startswith("tile<") and f.name != phase.tile),
    ]
    used: set[str] = set()
    called_ones: set[str] = set()

    def of_region(function: Function, region: Loop | Function) -> list[Step]:
        left = {text: list(rounds) for text, rounds in phase.trips.items()}
        calls = dict(phase.calls)

        def rounds_of(loop: Loop) -> int:
            jump = straight(loop, avoid, over)[-1]
            if is_of_a_barrier(jump):
                return 1
            line = line_text(jump.line)
            text = next((text for text in left if text in line), None)
            if text is None or not left[text]:
                size = len(loop.instructions)
                what = f"{function.name} has one more loop, of {size} instructions: {jump.line}: {line}"
                raise StaleError(phase, what)
            used.add(text)
            return left[text].pop(0)

        def of(region: Loop | Function) -> list[Step]:
            steps: list[Step] = []
            items = way(region, avoid, over)
            in_loops = {i.line for item in items if isinstance(item, Loop) for i in item.instructions}
            for item in items:
                if isinstance(item, Loop):
                    rounds = rounds_of(item)
                    steps += of(item) * rounds if rounds else []
                    continue
                for i in item.instructions:
                    line = line_text(i.line)
                    is_rest = i.line in in_loops and any(text in line for text in phase.rests)
                    if is_rest or is_of_a_barrier(i):
                        continue
                    cycles = next(
                        (n for text, n in phase.reads.items() if text in line and i.kind == "LDS"), None
                    )
                    steps.append(step_of(i, cycles=cycles))
                    called = by_symbol.get(i.target) if i.kind == "CALL" else None
                    if called and calls.setdefault(called.name, sys.maxsize):
                        calls[called.name] -= 1
                        called_ones.add(called.name)
                        steps += of_region(called, called)
            return steps

        steps = of(region)
        for text, rounds in left.items():
            if rounds and len(rounds) < len(phase.trips[text]):
                raise StaleError(phase, f"{function.name} has {len(rounds)} fewer loops with {text!r}")
        return steps

    steps = of_region(named[0], _region(phase, named[0]))
    if phase.tile and phase.tile not in called_ones:
        raise StaleError(phase, f"it computes no {phase.tile}")
    if warp == 0 and (missing := set(phase.trips) - used):
        raise StaleError(phase, f"it has no loops with {', '.join(map(repr, sorted(missing)))}")
    return steps


def estimate(functions: Sequence[Function], phases: Sequence[Phase]) -> Iterator[tuple[Phase, Simulated]]:
    """Each phase, and how it goes."""
    for phase in phases:
        yield phase, simulate([trace(phase, functions, warp) for warp in range(WARPS)])


# How the kernels go -----------------------------------------------------------------------------------------------


def ceil(count: int, of: int) -> int:
    """How many of these it takes."""
    return -(-count // of)


def unrolled(count: int, by: int = 4) -> tuple[int, int]:
    """Rounds of a loop that is unrolled by so many, and of the one for its rest."""
    return count // by, count % by


# Of a training step by plain SGD: the ways through update().
PLAIN_SGD = {f"{STAY}if (launch.slots > 0)": 0, f"{STAY}if (launch.mode == GRADIENTS)": 0}
PLAIN_SGD_HERE = {"parameter -= c.lr * (gradient": 0}  # whose own work is done by then
MATCHED = {"if (activation == SOFTMAX)": 0, "if (loss == CROSS_ENTROPY && activation == SOFTMAX)": 0}
# What steps() is a template of, in the order of the code.
INSTANCES = ("float, float", "unsigned char, unsigned char", "unsigned char, float")


def units(own: int = 4, cluster: int = 1) -> Kernel:
    """``units.cu``, of which clusters of so many blocks own so many units each.

    A block holds two batches of numbers, or if the inputs are not shared out, one of bytes.
    """
    problem = random_problem((N_IN, N_HIDDEN, N_OUT), BATCH, dtype=np.float32, optimizer=SGD(0.1))
    grid = of_shared_memory(problem, own, cluster, MOST_SHARED["sm_90"])
    assert isinstance(grid, Grid)
    places, threads = grid.places, cuda.THREADS
    inputs, share = places["slice"], 1 << places["share_log2"]
    parts, lanes = 1 << places["input_parts_log2"], cuda.output_lanes(cluster)
    held = "unsigned char" if places["as_bytes"] else "float"
    kind = f"unsigned char, {held}"
    ahead = places["buffers"] > 1
    rows_of_lanes = ceil(share, threads // lanes)
    pieces = ceil(BATCH * ceil(inputs, 16), threads)
    rows_of_a_thread = ceil(BATCH, cuda.WARP // 4)
    main = {"step < launch.steps": (1,)}
    forward = {
        "top < rows": (ceil(BATCH, 32 // own * 8 * WARPS // parts),),
        "i < end": (ceil(inputs, 16 * parts),),
    }
    activate = {
        "e < mine * UNITS": (ceil(share * own, threads),),
        "part < parts": (parts,),
    }
    outputs_of_a_lane = ceil(N_OUT, lanes)
    each_output = {"row += ROWS_AT_ONCE": (rows_of_lanes,), "o += OUTPUT_LANES": (outputs_of_a_lane,)}
    get_ready = each_output | {"row += THREADS": (1,), "k < 2 * COEFFICIENTS": (1,)}
    output = {"top < mine": (rows_of_lanes,), "c < clusters()": (ceil(grid.clusters, 16),)}
    in_registers = {f"{STAY}launch.n_out > OUTPUT_LANES": 0}
    if outputs_of_a_lane > 1:
        output |= {"n += LANES": 8 * (outputs_of_a_lane - 1,), "c < clusters()": 2 * output["c < clusters()"]}
        in_registers = {"launch.n_out > OUTPUT_LANES": 0}
    many = "_of_many" if inputs > threads else ""
    rows_of_a_thread = BATCH if many else rows_of_a_thread
    back = {
        "e < numbers": (ceil(N_OUT * (own + 1), threads // 2 - cuda.WARP),),
        "b < mine": (*unrolled(share)[:1],),
    }
    gradient = {
        "first < inputs_here()": (ceil(inputs, (4 * threads if many else 16 * WARPS)),),
        "b < rows": (ceil(rows_of_a_thread, 2),),
    }
    others = {"b < rows": (ceil(BATCH, cuda.WARP),)}
    phases = (
        Phase("units", main, calls=dict.fromkeys(CALLED, 0)),
        Phase(f"forward<{held}>", forward, reads={"ws = read<4>(": 1}),
        Phase("activate", activate),
        Phase("put_part", each_output),
        Phase("output", output, over=MATCHED | in_registers),
        Phase("back", back, ("sums.x[", "value += __shfl", "e < mine * UNITS")),
        Phase("other_gradients", others, ("launch.scores", "launch.costs"), PLAIN_SGD | PLAIN_SGD_HERE),
        Phase(f"hidden_gradient{many}<{held}>", gradient, over=PLAIN_SGD, reads={"deltas = read<UNITS>(": 2}),
    )
    meanwhile = [Phase("get_ready", get_ready)]
    if held == "float":
        meanwhile.append(Phase(f"settle<{kind}>", {"row < rows": (pieces,)}))
    meanwhile.append(Phase(f"fetch<{kind}>", {"row < rows": (pieces,)}))
    meanwhile.append(Phase("fetch_order", {"b < rows_of(step)": (ceil(BATCH, threads),)}))
    return Kernel(
        phases,
        grid.blocks,
        1,
        grid.clusters,
        meanwhile=meanwhile if ahead else (),
        clusters_meet=2 * (cluster > 1),
    )


# Of ``epoch.cu``, what a step does not go through: other activations and losses, rows of more outputs than lanes; and
# of an update other rules, gradients into memory, and weights that are not aligned.
OTHERS = "TANH", "case RELU", "LEAKY_RELU"
OTHER_OUTPUTS = *OTHERS, "n += LANES", "loss_gradient(", "log1p(", "difference", "p == a", "lanes_argmax"
OTHER_UPDATES = (
    *("rule == ADAM", "c.beta", "c.rate", "direction", "gradient += c.decay", "slots > ", "Parameters<1>"),
    *("one.", "mode == GRADIENTS", "launch.gradient + place"),
)
# A thread has one vector of sums, and none of the second that the loop asks for with it.
ONCE = {f"{how}if (!inside[i]) continue": 0 for how in (STAY, AGAIN)}
SUMMED = (
    "p < of.parts",
    "add(sum, ",
    "sum.x[i] += more.x[i]",
)  # the lines in which a tile's parts are added up


@dataclass(frozen=True)
class Tile:
    """A shape of a tile in ``epoch.cu``, by the numbers that it is named by."""

    m: int
    n: int
    rows_of_threads: int
    groups: int
    vectors: int
    stages: int

    @property
    def rows(self) -> int:
        return self.m * self.rows_of_threads

    @property
    def columns(self) -> int:
        return self.n * cuda.THREADS // self.groups // self.rows_of_threads

    def trips(self, terms: int, splits: int = 1) -> dict[str, Sequence[int]]:
        """Of the loops over the panels of the largest part of so many terms, and over the sums."""
        panels, vectors = ceil(terms, 4 * self.vectors), self.rows * self.columns // 4
        assert vectors <= cuda.THREADS, "each thread has one at most"
        parts = 0, ceil(max(1, self.groups // 2) - 1, 4)  # sixteen at a time, and then four
        return {
            "int i = first_of(dealt) * run": (1,),
            "k0 < end": (ceil(panels, splits),),
            "e0 < count": (1,),
            "p < of.parts": parts,
        }

    def of(self, a: str, b: str) -> str:
        """The function's name, for these operands."""
        numbers = self.m, self.n, self.rows_of_threads, self.groups, self.vectors, self.stages
        return f"tile<{', '.join(map(str, numbers))}> of {a}, {b}"


def tiles() -> dict[int, Tile]:
    """The shapes of float32 by their code, for lines that are aligned."""
    text = (machine_code.SOURCES / "epoch.cu").read_text(encoding="utf-8")
    of_rows, _, rest = text.partition("#if REAL_BITS == 64")
    others = rest.partition("#elif PRECISION == FLOAT32")[2].partition("#else")[0]
    found = re.findall(r"DO\((\d), Shape<([\d, ]+)>\)", of_rows + others)
    return {int(code): Tile(*map(int, numbers.split(","))) for code, numbers in found}


def epoch() -> Kernel:
    """``epoch.cu``, as its plan shares out a step for 132 multiprocessors: the second layer goes by rows.

    A block's share of each phase is one tile or one row a warp; of the gradients it is one of the first layer's. All
    but tiles is inlined into the kernel, of whose loops these phases are rounds.
    """
    problem = random_problem((N_IN, N_HIDDEN, N_OUT), BATCH, dtype=np.float32, optimizer=SGD(0.1))
    with mock.patch.object(fake_cupy, "multiprocessors", 132):
        plan = host_backend("fused").plan(problem)
    assert isinstance(plan, EpochPlan)
    products = plan._shared_products(BATCH)
    first, second = products.layers
    assert (first["by_rows"], second["by_rows"]) == (False, True)
    shapes = tiles()
    forward, gradient = shapes[first["forward_shape"]], shapes[first["gradient_shape"]]
    of_rows, back = shapes[second["forward_shape"]], shapes[second["back_shape"]]
    parts, numbers, rows = first["splits"], "Columns<float>", "Rows<float>"
    each_row, elsewhere = "b0 < now().rows", {"b0 < now().rows": (0,)}
    in_parts = (*OTHERS, "if (bias", "apply(", "switch (activation)", "exp(-z)")
    phases = (
        Phase(
            "epoch",
            forward.trips(N_IN, parts) | elsewhere,
            in_parts,
            ONCE,
            rests=SUMMED,
            loop=("forward(i);", 0),
            title="forward of layer 1",
            tile=forward.of("Rows<unsigned char>", rows),
        ),
        Phase(
            "epoch",
            {"n += WARP * VECTOR": (ceil(N_HIDDEN, cuda.WARP * 4),), "first < of.splits": (ceil(parts, 8),)},
            OTHERS,
            loop=(each_row, 0),
            title="activate_rows",
        ),
        Phase(
            "epoch",
            of_rows.trips(N_HIDDEN) | elsewhere,
            in_parts,
            ONCE,
            rests=SUMMED,
            loop=("forward(i);", 0),
            title="forward of layer 2",
            tile=of_rows.of(rows, rows),
        ),
        Phase("epoch", {"first < of.splits": (1,)}, OTHER_OUTPUTS, loop=(each_row, 1), title="output"),
        Phase(
            "epoch",
            back.trips(N_OUT) | elsewhere,
            OTHERS,
            ONCE,
            rests=SUMMED,
            loop=("back(i);", 0),
            title="back",
            tile=back.of(rows, numbers),
        ),
        Phase(
            "epoch",
            gradient.trips(BATCH) | {"i < count; i += gridDim.x": (0,)},
            OTHER_UPDATES,
            {"if (aligned) {": 0, **ONCE},
            rests=SUMMED,
            loop=("i < launch.layer_count; ++i) {", 0),
            title="gradients",
            tile=gradient.of(numbers, "Columns<unsigned char>"),
        ),
    )
    return Kernel(phases, products.blocks, 3, products.blocks)


# Functions that the main loop calls, which are phases of their own.
CALLED = (
    *(
        "load",
        "store",
        "fetch_order",
        "activate",
        "put_part",
        "get_ready",
        "output",
        "back",
        "other_gradients",
    ),
    *(
        f"{name}<{kind}>"
        for name in ("forward", "hidden_gradient", "hidden_gradient_of_many")
        for kind in ("float", "unsigned char")
    ),
    *(f"{name}<{kind}>" for name in ("fetch", "settle") for kind in INSTANCES),
)
STEPS: Mapping[str, Callable[..., Kernel]] = {"units": units, "epoch": epoch}


# What is printed --------------------------------------------------------------------------------------------------


def counts(code: Sequence[Instruction]) -> str:
    """How many instructions, of which kinds."""
    of = machine_code.counted(code)
    kinds = Counter(i.kind for i in code)
    named = {name.upper(): n for name, n in of.items() if name not in ("instructions", "stalls", "fma")}
    named |= {kind: kinds[kind] for kind in ("SHFL", "MUFU", "BAR", "CALL")}
    some = "".join(f", {n} {name}" for name, n in named.items() if n)
    return f"{len(code)} instructions, {of['fma']} FMA ({of['fma'] / len(code):.0%}){some}"


def show(function: Function, avoid: Sequence[str], near: bool) -> None:
    """A function's loops, with what a round of each takes."""
    print(f"{function.name}: {counts(function.instructions)}")
    print(f"  without its loops: {counts(straight(function, avoid))}")
    depth = dict.fromkeys(function.loops, 1)
    for loop in (loop for outer in function.loops for loop in outer.all()):
        depth |= dict.fromkeys(loop.inner, depth[loop] + 1)
        whole, body = loop.instructions, straight(loop, avoid)
        found = round_of(body, near)
        use = ", ".join(f"{name} {part:.0%}" for name, part in list(found.use().items())[:4])
        waits = ", ".join(f"{what} {n:.0f}" for what, n in found.waits.most_common(4) if n > 0.5)
        margin = "  " * depth[loop]
        print(
            f"{margin}loop {whole[0].address:#x} to {whole[-1].address:#x}, {body[-1].line}: {len(whole)} instructions"
        )
        print(f"{margin}  its way: {counts(body)}; stall counts {sum(i.stall for i in body)}")
        print(f"{margin}  a round of {WARPS} warps: {found.cycles:.0f} cycles, {found.bound()}; busy: {use}")
        print(f"{margin}  cycles that a warp waits for: {waits}")


def show_step(name: str, kernel: Kernel, functions: Sequence[Function]) -> None:
    """Each phase of a step, the grid's barriers, and their sum."""
    print(f"{name}, {N_IN}-{N_HIDDEN}-{N_OUT}, batches of {BATCH}: {kernel.blocks} blocks of {WARPS} warps")
    print(f"  a step {step_time(kernel, functions, print):54.2f} µs")


def step_time(kernel: Kernel, functions: Sequence[Function], tell: Callable[[str], None] = str) -> float:
    """Microseconds of a step; each part is told in a line."""

    def time_of(phases: Sequence[Phase]) -> float:
        """Of these, one after the other."""
        whole = 0.0
        for phase, found in estimate(functions, phases):
            time = microseconds(found.cycles)
            whole += time
            tell(f"  {phase.name:38} {found.cycles:6.0f} cycles {time:6.2f} µs, {found.bound()}")
        return whole

    total = time_of(kernel.phases)
    if kernel.clusters_meet:
        total += (barriers := kernel.clusters_meet * microseconds(BARRIER_OF_A_CLUSTER))
        tell(f"  {kernel.clusters_meet} barriers of a cluster, assumed {barriers:33.2f} µs")
    total += (barriers := kernel.barriers * (BARRIER + BARRIER_OF_A_BLOCK * kernel.meet))
    tell(f"  {kernel.barriers} barriers of {kernel.meet} blocks, assumed {barriers:32.2f} µs")
    if kernel.meanwhile:
        tell("  meanwhile:")
        late = max(0.0, time_of(kernel.meanwhile) - barriers / kernel.barriers)
        total += late
        tell(f"  longer than a barrier by {late:36.2f} µs")
    return total


def microseconds(cycles: float) -> float:
    """At the H100's clock."""
    return cycles / GIGAHERTZ / 1000


def functions_of(kernel: str, own: tuple[int, int], architecture: str = "sm_90") -> list[Function]:
    """The functions of a kernel in float32."""
    of_a_block = own if kernel == "units" else None
    files, dtype = cuda.PERSISTENT[kernel], np.dtype(np.float32)
    return machine_code.functions(files, dtype, "float32", of_a_block, False, architecture)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="estimate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "kernels", nargs="*", metavar="kernel", help=f"of {', '.join(STEPS)}; without one, all"
    )
    parser.add_argument("--units", type=int, default=8, help="that a cluster of the kernel units owns")
    parser.add_argument("--cluster", type=int, default=8, help="its blocks")
    parser.add_argument("--function", help="show the loops of functions that have this in their name")
    parser.add_argument("--file", type=Path, help="show the loops of this machine code, a .cubin")
    parser.add_argument(
        "--avoid", action="append", default=[], help="ways without such, as LD.E.U8 or tile.cuh:12"
    )
    parser.add_argument(
        "--shared", action="store_true", help="of loops: generic addresses are of shared memory"
    )
    parser.add_argument("--architecture", default="sm_90", help="of the loops")
    given = parser.parse_args(arguments)
    kernels = given.kernels or list(STEPS)
    if unknown := set(kernels) - set(STEPS):
        parser.error(f"no table of trips is for {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    if given.file is None and given.function is None:
        try:
            for kernel in kernels:
                own = (given.units, given.cluster) if kernel == "units" else ()
                show_step(kernel, STEPS[kernel](*own), functions_of(kernel, (given.units, given.cluster)))
        except StaleError as error:
            sys.exit(str(error))
        return
    if given.file:
        functions = machine_code.disassemble(given.file.read_bytes())
    else:
        functions = [
            f
            for kernel in kernels
            for f in functions_of(kernel, (given.units, given.cluster), given.architecture)
        ]
    part = given.function or ""
    if not (found := [f for f in functions if part in f.name or part in f.symbol]):
        sys.exit(f"No function has {part!r} in its name; there are {', '.join(f.name for f in functions)}")
    for function in found:
        show(function, given.avoid, given.shared)


if __name__ == "__main__":
    main()
