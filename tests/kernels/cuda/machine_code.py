"""The machine code of the CUDA kernels, as NVIDIA's disassembler reads it, from the wheel nvidia-cuda-nvdisasm.

``python -m tests.kernels.cuda.machine_code`` writes the table of its instructions, ``kernels/cuda/machine_code.csv``.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from itertools import chain
from pathlib import Path

from gpubp.kernels import cuda
from tests.kernels.cuda import nvrtc

WHEEL = "nvidia-cuda-nvdisasm"
SOURCES = Path(cuda.__file__).parent


@cache
def version() -> str | None:
    """The wheel's version; None if it is not installed."""
    try:
        return metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        return None


@cache
def _disassembler() -> Path:
    (program,) = [f for f in metadata.files(WHEEL) or [] if f.name == "nvdisasm"]
    path = Path(str(program.locate()))
    if path.stat().st_mode & 0o100:
        return path
    # Unpacking a wheel need not keep the permission to run it.
    copy = Path(tempfile.mkdtemp()) / path.name
    shutil.copy(path, copy)
    copy.chmod(0o700)
    return copy


# Instructions ---------------------------------------------------------------------------------------------------

# Of an instruction's 128 bits, what the compiler tells the scheduler is in the upper word (Jia et al., "Dissecting the
# NVIDIA Volta GPU Architecture via Microbenchmarking", 2018): first bit, and how many.
STALL, WRITE, READ, WAIT = (41, 4), (46, 3), (49, 3), (52, 6)
BARRIERS = 6
NO_BARRIER = 7


@dataclass(frozen=True, eq=False)
class Instruction:
    """One instruction, with what the scheduler is told of it."""

    address: int
    guard: str  # the predicate, or ""
    name: str  # with all modifiers: LDS.128
    operands: str
    stall: int  # cycles before the warp's next
    write: int  # the barrier that is up until its result is there; NO_BARRIER if none
    read: int  # that is up until its operands have been read
    wait: tuple[int, ...]  # barriers that must be down before
    line: str  # of the source, "tile.cuh:299"; "" if it is not known

    @property
    def kind(self) -> str:
        """The name without modifiers."""
        return self.name.partition(".")[0]

    @property
    def target(self) -> str:
        """The label or function that it jumps to or calls, or ""."""
        found = re.search(r"`\((.*?)\)", self.operands)
        return found[1] if found else ""

    @property
    def called(self) -> str:
        """The name of the function that it calls, or ""."""
        return name_of(self.target) if self.kind == "CALL" and self.target else ""

    def __str__(self) -> str:
        return f"{self.guard} {self.name} {self.operands}".strip()


def _bits(word: int, place: tuple[int, int]) -> int:
    return word >> place[0] & (1 << place[1]) - 1


# A row with the address, the instruction and its lower word; one with the upper word; one with the source's line.
CODE = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*(.*?)\s*;?\s*/\* 0x[0-9a-f]{16} \*/$"
)
UPPER = re.compile(r"/\* 0x([0-9a-f]{16}) \*/")
LINE = re.compile(r'//## File "([^"]*)", line (\d+)')


# The last instruction of a block. A trap is the last of its warp, and below it stands what comes after no trap.
JUMPS = ("BRA", "BRX", "JMP", "EXIT", "RET", "BPT")


@dataclass(eq=False)
class Block:
    """A basic block."""

    labels: list[str] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    successors: list[Block] = field(
        default_factory=list, repr=False
    )  # of which a loop would never be told in full


@dataclass(eq=False)
class Loop:
    """A natural loop: all blocks from which its head is reached again without leaving it."""

    head: Block
    blocks: set[Block] = field(repr=False)
    inner: list[Loop] = field(default_factory=list)

    @property
    def instructions(self) -> list[Instruction]:
        return sorted((i for block in self.blocks for i in block.instructions), key=lambda i: i.address)

    def all(self) -> Iterator[Loop]:
        """This one and all within it, in the order of the code."""
        yield self
        for loop in self.inner:
            yield from loop.all()


@dataclass(eq=False)
class Function:
    """A function of a kernel that is not inlined; the kernel itself is one too."""

    symbol: str
    kernel: str
    blocks: list[Block] = field(repr=False)

    @property
    def name(self) -> str:
        return name_of(self.symbol)

    @property
    def instructions(self) -> list[Instruction]:
        return [i for block in self.blocks for i in block.instructions]

    @cached_property
    def loops(self) -> list[Loop]:
        """The outermost loops, in the order of the code."""
        return _loops(self.blocks)


TYPES = {"f": "float", "d": "double", "h": "unsigned char"}  # in a mangled name


def name_of(symbol: str) -> str:
    """What a function's symbol says of it: its name, its types, and a tile's shape and operands."""
    own = symbol.rpartition("$")[2]
    if not own.startswith("_Z"):
        return own
    name = _names(own)[-1]
    if types := re.search(rf"{name}I([fdh]+)E", own):
        return f"{name}<{', '.join(TYPES[letter] for letter in types[1])}>"
    shape = re.search(r"(Tensor)?ShapeI((?:Li\d+E)+)Lb([01])EE", own)
    if shape is None:
        return name
    numbers = ", ".join(re.findall(r"Li(\d+)E", shape[2])) + ("" if shape[3] == "1" else ", unaligned")
    # The second operand may be of the first's template, S2_ I…, or the very same type, S3_.
    found = re.findall(r"(?:7Operand|S\d?_)ILb([01])E([fdh])E", own)
    operands = [f"{('Columns', 'Rows')[int(along)]}<{TYPES[letter]}>" for along, letter in found]
    return f"{name}<{shape[1] or ''}{numbers}> of {operands[0]}, {operands[-1]}"


def _names(mangled: str) -> list[str]:
    """The names that begin a mangled symbol, such as ``_ZNK5Block7forwardEPKxi``."""
    at = re.match("_?ZN?K?", mangled).end()
    names = []
    while length := re.match(r"\d+", mangled[at:]):
        start = at + length.end()
        at = start + int(length[0])
        names.append(mangled[start:at])
    return names


def disassemble(cubin: bytes) -> list[Function]:
    """All functions of a compiled text, in the order of the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        call = [str(_disassembler()), "-c", "-hex", "-g", file.name]
        ran = subprocess.run(call, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"nvdisasm reads no machine code: {ran.stderr.strip() or ran.stdout.strip()}")
    return list(_functions(ran.stdout))


def _functions(text: str) -> Iterator[Function]:
    kernel, symbols = "", set(re.findall(r"\.type\s+(\S+),@function", text))
    function: Function | None = None
    line = ""
    for row in text.splitlines():
        row = row.strip()
        if section := re.match(r"\.section\s+(?:\.text\.)?([^,\s]+)", row):
            if function:
                yield _linked(function)
            kernel, function = section[1], None
        elif row.endswith(":") and row[:-1] in symbols:
            if function:
                yield _linked(function)
            function = Function(row[:-1], kernel, [Block()])
            line = ""
        elif function is None:
            continue
        elif row.endswith(":"):
            if function.blocks[-1].instructions:
                function.blocks.append(Block())
            function.blocks[-1].labels.append(row[:-1])
        elif place := LINE.match(row):
            line = f"{Path(place[1]).name}:{place[2]}"
        elif found := CODE.search(row):
            pending = found
        elif upper := UPPER.match(row):
            word = int(upper[1], 16)
            instruction = Instruction(
                int(pending[1], 16),
                (pending[2] or "").strip(),
                pending[3],
                pending[4],
                _bits(word, STALL),
                _bits(word, WRITE),
                _bits(word, READ),
                tuple(b for b in range(BARRIERS) if _bits(word, WAIT) >> b & 1),
                line,
            )
            function.blocks[-1].instructions.append(instruction)
            if instruction.kind in JUMPS:
                function.blocks.append(Block())
    if function:
        yield _linked(function)


def _linked(function: Function) -> Function:
    """The function with the successors of each block, without blocks that nothing reaches."""
    blocks = [block for block in function.blocks if block.instructions]
    of_label = {label: block for block in blocks for label in block.labels}
    for block, below in zip(blocks, [*blocks[1:], None], strict=True):
        last = block.instructions[-1]
        if last.kind == "BRX":
            targets = re.findall(r"\.L_x_\d+", last.operands)
        else:
            targets = [last.target] if last.kind in ("BRA", "JMP") else []
        block.successors = [of_label[target] for target in targets if target in of_label]
        if below and goes_on(last):
            block.successors.append(below)
    reached: set[Block] = set()
    ahead = blocks[:1]
    while ahead:
        block = ahead.pop()
        if block not in reached:
            reached.add(block)
            ahead += block.successors
    function.blocks = [block for block in blocks if block in reached]
    return function


def goes_on(last: Instruction) -> bool:
    """Whether what stands below a block's last instruction may come next."""
    if last.kind not in JUMPS:
        return True
    # A branch may have its predicate among the operands, as in BRA.U UP0, or be for warps that have parted.
    is_conditional = re.match(r"BRA\.(DIV|CONV)|.*\bU?P\d,", f"{last.name} {last.operands}")
    return bool(last.guard or is_conditional)


def _loops(blocks: Sequence[Block]) -> list[Loop]:
    """Loops by their back edges, which go to a block that all ways to them go through."""
    before: dict[Block, list[Block]] = {block: [] for block in blocks}
    for block in blocks:
        for after in block.successors:
            before[after].append(block)
    dominators = {block: set(blocks) for block in blocks}
    dominators[blocks[0]] = {blocks[0]}
    changed = True
    while changed:
        changed = False
        for block in blocks[1:]:
            found = {block} | set.intersection(*(dominators[b] for b in before[block]))
            changed = changed or found != dominators[block]
            dominators[block] = found
    loops: dict[Block, Loop] = {}
    for block in blocks:
        for head in block.successors:
            if head in dominators[block]:
                loop = loops.setdefault(head, Loop(head, {head}))
                ahead = [block]
                while ahead:
                    inside = ahead.pop()
                    if inside not in loop.blocks:
                        loop.blocks.add(inside)
                        ahead += before[inside]
    outermost = []
    order = {block: n for n, block in enumerate(blocks)}
    by_size = sorted(loops.values(), key=lambda loop: (len(loop.blocks), order[loop.head]))
    for n, loop in enumerate(by_size):
        around = next((other for other in by_size[n + 1 :] if loop.head in other.blocks), None)
        (around.inner if around else outermost).append(loop)
    for inner in (outermost, *(loop.inner for loop in by_size)):
        inner.sort(key=lambda loop: order[loop.head])
    return outermost


# Ways -----------------------------------------------------------------------------------------------------------

RARE = ("slowpath", "__internal", "__cuda_sm")  # functions for numbers of rare sizes


def is_rare(instruction: Instruction) -> bool:
    """Whether it calls a function for what hardly occurs."""
    return instruction.kind == "CALL" and any(name in instruction.target for name in RARE)


@cache
def line_text(place: str) -> str:
    """What stands in a line, "tile.cuh:299", of the kernels' sources; "" of other files."""
    name, _, number = place.rpartition(":")
    path = SOURCES / name
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[int(number) - 1].strip() if int(number) <= len(lines) else ""


STAY, AGAIN = "stay in ", "again at "


def way(region: Loop | Function, avoid: Sequence[str] = (), over: Sequence[str] = ()) -> list[Block | Loop]:
    """A way through a function, or once through a loop; loops within are one item each.

    Conditional branches in lines that have a text of ``over`` are taken, or behind STAY, are not, or behind AGAIN, are
    but for the first; none is taken for lanes that have parted. Of the ways left it is one that goes least through
    blocks that have an instruction with a text of ``avoid``, or consist of such lines; of these the longest: what
    stands under a condition is done.
    """
    inner = region.inner if isinstance(region, Loop) else region.loops
    head = region.head if isinstance(region, Loop) else region.blocks[0]
    blocks = region.blocks if isinstance(region, Loop) else set(region.blocks)
    item_of: dict[Block, Block | Loop] = {block: block for block in blocks}
    item_of |= {block: loop for loop in inner for block in loop.blocks}

    def of(item: Block | Loop) -> set[Block]:
        return item.blocks if isinstance(item, Loop) else {item}

    def after(item: Block | Loop) -> list[Block | Loop]:
        ahead = [s for block in of(item) for s in taken(block) if s in blocks and s is not head]
        return [item_of[s] for s in ahead if s not in of(item)]

    def stands_above(block: Block, text: str) -> bool:
        """Whether a branch in a line with this text does."""
        lasts = [other.instructions[-1] for other in blocks]
        return any(
            last.kind == "BRA"
            and last.address < block.instructions[0].address
            and text in line_text(last.line)
            for last in lasts
        )

    def taken(block: Block) -> list[Block]:
        last = block.instructions[-1]
        if "BRA.DIV" in str(
            last
        ):  # to where the lanes of a warp that have parted shuffle; here they have not
            return block.successors[1:]
        if last.kind == "BRA" and len(block.successors) > 1:
            line = line_text(last.line)
            again = [text.removeprefix(AGAIN) for text in over if text.startswith(AGAIN)]
            is_again = any(text in line and stands_above(block, text) for text in again)
            if is_again or any(text in line for text in over):
                return block.successors[:1]
            if any(text.removeprefix(STAY) in line for text in over if text.startswith(STAY)):
                return block.successors[1:]
        return block.successors

    def is_last(item: Block | Loop) -> bool:
        if isinstance(region, Loop):
            return any(head in block.successors for block in of(item))
        return any(block.instructions[-1].kind in ("EXIT", "RET") for block in of(item))

    def all_of(item: Block | Loop) -> list[Instruction]:
        if isinstance(item, Block):
            return item.instructions
        return [i for within in way(item, avoid, over) for i in all_of(within)]

    def weight(item: Block | Loop) -> tuple[int, int]:
        code = all_of(item)
        if any(is_rare(i) or any(text in one for text in avoid for one in (str(i), i.called)) for i in code):
            return -len(code), len(code)
        # Instructions move a little way into their neighbours' blocks, so that most of a block must be of such lines.
        of_lines = sum(any(text == i.line or text in line_text(i.line) for text in avoid) for i in code)
        return -of_lines if of_lines > 0.75 * len(code) else 0, len(code)

    best: dict[
        Block | Loop, tuple[int, int, list[Block | Loop]]
    ] = {}  # the way from an item on, after its weight
    start = item_of[head]
    stack = [(start, iter(after(start)))]
    seen = {start}
    while stack:  # what comes after an item is known before it
        item, rest = stack[-1]
        if following := next((other for other in rest if other not in seen), None):
            seen.add(following)
            stack.append((following, iter(after(following))))
            continue
        stack.pop()
        ways = [best[other] for other in after(item) if other in best]
        if is_last(item):
            ways.append((0, 0, []))
        if ways:
            bad, size, items = max(ways, key=lambda found: found[:2])
            own_bad, own_size = weight(item)
            best[item] = (bad + own_bad, size + own_size, [item, *items])
    return best[start][2]


def straight(
    region: Loop | Function, avoid: Sequence[str] = (), over: Sequence[str] = ()
) -> list[Instruction]:
    """The instructions of the way, without the loops within."""
    return [i for item in way(region, avoid, over) if isinstance(item, Block) for i in item.instructions]


# The table ------------------------------------------------------------------------------------------------------

TABLE = SOURCES / "machine_code.csv"
FMA = ("FFMA", "FFMA2", "DFMA", "HMMA", "DMMA")
# Columns by what is counted in them: loads, stores and copies by the kind of memory; ld and st are generic, of any.
COUNTED = {
    "fma": FMA,
    "ldg": ("LDG",),
    "stg": ("STG",),
    "lds": ("LDS", "LDSM"),
    "sts": ("STS", "STSM", "STAS"),
    "ldgsts": ("LDGSTS",),
    "ldc": ("LDC", "ULDC", "LDCU"),
    "ldl": ("LDL",),
    "stl": ("STL",),
    "ld": ("LD",),
    "st": ("ST",),
    "atomics": ("ATOM", "ATOMG", "ATOMS", "RED", "REDG"),
    "fences": ("MEMBAR", "FENCE"),
}
COLUMNS = (
    *("kernel", "dtype", "precision", "units", "cluster", "dropout", "architecture", "phase", "loop"),
    *("instructions", "stalls", *COUNTED, "way", "way_fma", "fma_share"),
)


def counted(code: Sequence[Instruction]) -> dict[str, int]:
    """How many instructions there are of each kind, and the sum of their stall counts."""
    kinds = Counter(i.kind for i in code)
    of = {name: sum(kinds[kind] for kind in some) for name, some in COUNTED.items()}
    return {"instructions": len(code), "stalls": sum(i.stall for i in code), **of}


@cache
def functions(files: tuple[str, ...], *job) -> list[Function]:
    """The functions of these files, compiled as the backend does: a dtype and all else that a job has."""
    return disassemble(nvrtc.compiled(files, *job).cubin)


def rows(files, dtype, precision, *rest) -> Iterator[dict[str, object]]:
    """A row for each function, and in float32 for each innermost loop that multiplies and adds.

    A loop's share of these is that of its longest way.
    """
    given = nvrtc.columns_of(dtype, precision, *rest)
    of = functions(files, dtype, precision, *rest)
    for function in sorted(of, key=lambda function: (function.kernel, function.name)):
        if any(name in function.symbol for name in RARE):
            continue
        all_of_it = counted(function.instructions)
        one = {"kernel": function.kernel, **given, "phase": function.name}
        yield {**one, **all_of_it, "fma_share": f"{all_of_it['fma'] / all_of_it['instructions']:.2f}"}
        if dtype.name != "float32" or precision != "float32":
            continue
        for loop in (loop for outer in function.loops for loop in outer.all() if not loop.inner):
            code = straight(loop)
            if fma := counted(code)["fma"]:
                on_its_way = {"way": len(code), "way_fma": fma, "fma_share": f"{fma / len(code):.2f}"}
                yield {**one, "loop": code[-1].line, **counted(loop.instructions), **on_its_way}


def table(some: Sequence[tuple]) -> str:
    """The CSV of these jobs' machine code."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = chain.from_iterable(pool.map(lambda job: list(rows(*job)), some))
    out = io.StringIO()
    out.write(nvrtc.heading())
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


if __name__ == "__main__":
    TABLE.write_text(table(nvrtc.jobs(nvrtc.ARCHITECTURES)))
