"""A multiprocessor of an H100 that runs machine code: a model, by what the compiler's stall counts and barriers say.

A warp issues in order, and waits for its stall count and for the barriers that an instruction names; a scheduler issues
one instruction a cycle, of any of its warps; a pipe takes each for some cycles. What is not in it: misses of the caches
for instructions and constants, conflicts of shared memory's banks, the second-level cache's bandwidth, other blocks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tests.kernels.cuda.machine_code import BARRIERS, NO_BARRIER, Instruction

WARPS, SCHEDULERS = 8, 4

# Cycles from an instruction to what waits for it. Shared memory and the two caches: about what Luo et al. measured,
# "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture", 2024; MUFU and SHFL: Jia et al. on Volta, 2018. The
# others are assumed.
SHARED, L1, L2 = 29, 38, 263
LATENCIES = {
    SHARED: "LDS LDSM",
    L1: "LDL",
    L2: "LD LDG LDGSTS",
    22: "MUFU",
    23: "SHFL",
    20: "STS ST STG STL RED REDG CCTL ERRBAR FENCE",
    30: "LDC ULDC LDCU S2R S2UR SYNCS REDUX",
    33: "HMMA DMMA",
    60: "ATOMS",
    200: "UCGABAR_WAIT",
    320: "ATOM ATOMG",
    500: "MEMBAR",
}
LATENCY = {kind: cycles for cycles, kinds in LATENCIES.items() for kind in kinds.split()}
OTHERS = 14  # such as DFMA and conversions
READING = 12  # until operands are read, and may be overwritten
MEETING = 22  # from the last warp's arrival at a barrier of the block on
QUEUE = 32  # cycles of work that are sent to memory ahead

# Pipes, and the cycles that each takes for a warp: a scheduler has 32 lanes for FFMA, of which 16 also do IMAD, 16 for
# most others, 4 for MUFU (CUDA C++ Programming Guide, "Throughput of native arithmetic instructions"). Memory is one.
MEMORY, FMA, HEAVY, LIGHT = "memory", "FMA", "IMAD", "the FMA pipe's other half"
PIPES = {
    MEMORY: "LDS LDSM STS STSM LD ST LDG STG LDL STL LDGSTS ATOM ATOMG ATOMS RED REDG SHFL",
    FMA: "FFMA FMUL FADD FFMA2 FMUL2 FADD2",
    HEAVY: "IMAD",
    "special": "MUFU I2F F2I I2I F2F FRND POPC FLO BREV I2FP",
    "double": "DFMA DMUL DADD DSETP",
    "tensor": "HMMA DMMA",
    "branch": "BRA BRX CALL RET EXIT BSSY BSYNC BAR NOP WARPSYNC DEPBAR LDGDEPBAR",
    "uniform": "R2UR S2UR",
}
PIPE = {kind: pipe for pipe, kinds in PIPES.items() for kind in kinds.split()}
CYCLES = {"special": 8, "tensor": 4, "branch": 1}  # of others 2


@dataclass(frozen=True)
class Step:
    """What the simulation has to know of an instruction."""

    kind: str
    pipe: str
    cycles: int
    latency: int
    stall: int
    write: int
    read: int
    wait: tuple[int, ...]
    few: tuple[int, int] | None  # DEPBAR: a barrier, and how many may still hold it up


@cache
def step_of(instruction: Instruction, near: bool = False, cycles: int | None = None) -> Step:
    """``near``: a generic address is of shared memory, or of what was just read; ``cycles`` that the pipe takes."""
    kind = instruction.kind
    pipe = PIPE.get(kind) or ("uniform" if kind.startswith("U") else "ALU")
    if pipe == MEMORY:
        wide = re.search(r"\.(64|128)\b", instruction.name)
        usual = int(wide[1]) // 32 if wide else 1  # 128 bytes a cycle
    else:
        usual = CYCLES.get(pipe, 2)
    few = re.match(r"SB(\d), (\w+)", instruction.operands) if kind == "DEPBAR" else None
    return Step(
        kind=kind,
        pipe=pipe,
        cycles=cycles or usual,
        latency=L1 if kind == "LD" and near else LATENCY.get(kind, OTHERS),
        stall=max(1, instruction.stall),
        write=instruction.write,
        read=instruction.read,
        wait=instruction.wait,
        few=(int(few[1]), int(few[2], 0)) if few else None,
    )


@dataclass
class Simulated:
    """How it went, in cycles: all of it, how long the pipes were busy, and what the first warp waited for."""

    cycles: float
    issued: float
    busy: Counter[str]
    waits: Counter[str]

    def use(self) -> dict[str, float]:
        """The part of the time in which schedulers issue, and in which each pipe is busy; the largest first."""
        of = {pipe: cycles if pipe == MEMORY else cycles / SCHEDULERS for pipe, cycles in self.busy.items()}
        of[FMA] = (of.get(FMA, 0) + of.pop(HEAVY, 0)) / 2
        of["issue"] = self.issued / SCHEDULERS
        return {name: n / self.cycles for name, n in sorted(of.items(), key=lambda item: -item[1])}

    def bound(self) -> str:
        """What is busy nearly all of the time, or else latency, with what the first warp waits for most."""
        name, part = next(iter(self.use().items()))
        return name if part > 0.75 or not self.waits else f"latency ({self.waits.most_common(1)[0][0]})"


class _Warp:
    def __init__(self, steps: Sequence[Step], number: int) -> None:
        self.steps, self.scheduler, self.number = steps, number % SCHEDULERS, number
        self.at = 0
        self.free, self.why = 0.0, "stall counts"  # when it may go on, but for barriers, and why not before
        self.issued = -1.0
        self.up: list[list[tuple[float, str]]] = [
            [] for _ in range(BARRIERS)
        ]  # for each barrier until when, and for what
        self.copies: list[float] = []  # when those from memory to shared memory are done

    def waits_until(self, step: Step) -> tuple[float, str]:
        """When its stall count and barriers let it issue, and which of them does last."""
        held = [(self.free, self.why)]
        for barrier in step.wait:
            held += self.up[barrier]
        if step.few:
            barrier, few = step.few
            held += sorted(self.up[barrier], reverse=True)[few:]
        return max(held, key=lambda one: one[0])

    def hold(self, step: Step, begins: float, now: float) -> None:
        """Holds up its barriers until the step's result is there and its operands are read."""
        for barrier in (*step.wait, *(step.few or ())[:1]):
            self.up[barrier] = [one for one in self.up[barrier] if one[0] > now]
        done = begins + step.latency
        if step.kind == "LDGSTS":
            self.copies.append(done)
        elif step.kind == "LDGDEPBAR":  # all copies up to here
            done = max([now, *self.copies])
            self.copies = [done]
        if step.write != NO_BARRIER:
            self.up[step.write].append((done, step.kind))
        if step.read != NO_BARRIER:
            self.up[step.read].append((begins + READING, f"{step.kind} to read"))


def simulate(traces: Sequence[Sequence[Step]]) -> Simulated:
    """Each warp of a block, of which each goes through its steps."""
    warps = [_Warp(steps, number) for number, steps in enumerate(traces)]
    turn = [0.0] * SCHEDULERS  # when a scheduler may issue again
    free: Counter[tuple[int, str]] = Counter()  # when a scheduler's pipe is
    memory = finish = 0.0
    busy: Counter[str] = Counter()
    waits: Counter[str] = Counter()

    def ready(warp: _Warp) -> tuple[float, str]:
        step, s = warp.steps[warp.at], warp.scheduler
        pipe = min(free[s, HEAVY], free[s, LIGHT]) if step.pipe == FMA else free[s, step.pipe]
        if step.pipe == MEMORY:
            pipe = memory - QUEUE
        until = [warp.waits_until(step), (turn[s], "its turn"), (pipe, f"{step.pipe} to be free")]
        return max(until, key=lambda one: one[0])

    running, meeting = list(warps), []
    when = {warp: ready(warp) for warp in warps}
    while running:
        warp = min(running, key=lambda one: (when[one][0], one.issued, one.number))
        if when[warp] != (found := ready(warp)):  # another has issued meanwhile
            when[warp] = found
            continue
        now, reason = found
        step, s = warp.steps[warp.at], warp.scheduler
        if warp.number == 0:
            waits[reason] += now - warp.issued - 1
        busy[step.pipe] += step.cycles
        turn[s] = now + 1
        begins = now
        if step.pipe == MEMORY:
            memory = max(now, memory) + step.cycles
            begins = memory - 1
        else:
            pipe = step.pipe
            if pipe == FMA:
                pipe = HEAVY if free[s, HEAVY] <= now else LIGHT
            free[s, pipe] = now + step.cycles
        warp.hold(step, begins, now)
        warp.issued, warp.free, warp.why = now, now + step.stall, "stall counts"
        warp.at += 1
        finish = max(finish, warp.free)
        if warp.at == len(warp.steps):
            running.remove(warp)
        elif step.kind == "BAR":
            running.remove(warp)
            meeting.append(warp)
        else:
            when[warp] = ready(warp)
        if meeting and not running:
            for other in meeting:
                other.free, other.why = now + MEETING, "other warps"
            running, meeting = meeting, []
            when |= {other: ready(other) for other in running}
    return Simulated(finish, sum(map(len, traces)), busy, waits)


ROUNDS = 12


def round_of(body: Sequence[Instruction], near: bool = False) -> Simulated:
    """One round of a loop, of all warps, once it goes as it always will."""
    steps = [step_of(i, near) for i in body]
    few, many = (simulate([steps * rounds] * WARPS) for rounds in (ROUNDS, 2 * ROUNDS))

    def of_one(more: Counter[str], less: Counter[str]) -> Counter[str]:
        return Counter({name: (n - less[name]) / ROUNDS for name, n in more.items()})

    return Simulated(
        (many.cycles - few.cycles) / ROUNDS,
        (many.issued - few.issued) / ROUNDS,
        of_one(many.busy, few.busy),
        of_one(many.waits, few.waits),
    )
