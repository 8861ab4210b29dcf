"""What NVIDIA's own compiler says of the kernels, for each kind of GPU they are for."""

import csv
import re
from collections import Counter

import numpy as np
import pytest

from gpubp.kernels import COEFFICIENTS, cuda
from tests import param
from tests.kernels.cuda import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.version() is None, reason=f"the wheel {nvrtc.WHEEL} is not installed")

# The job that runs without --exhaustive.
UNITS = (cuda.UNITS, np.dtype("float32"), "float32", 4, "sm_90")


def rows(text):
    return list(csv.DictReader(text.splitlines()[1:]))


def written():
    return nvrtc.TABLE.read_text()


def test_the_table_is_of_these_very_sources_and_has_every_kernel_and_architecture():
    """So that not all of it must be compiled anew."""
    source = nvrtc.heading().partition("source")[2].strip()
    assert written().splitlines()[0].endswith(source), "run: python -m tests.kernels.cuda.nvrtc"
    found = rows(written())
    kernels = [*cuda.KERNELS, *cuda.PERSISTENT]
    assert {row["kernel"] for row in found} == set(kernels)
    # In two dtypes; epoch in two more precisions, units for three numbers of units a block.
    assert len(found) == (len(kernels) * 2 + 2 + 2 * 2) * len(nvrtc.ARCHITECTURES)
    assert_no_spills(found)


def assert_no_spills(found):
    assert [row for row in found if row["spilled_bytes"] != "0"] == []
    assert [row for row in found if row["resident_threads"] == "0"] == []


@pytest.mark.parametrize(
    "jobs", [[UNITS], param(nvrtc.jobs(nvrtc.ARCHITECTURES), always=False)], ids=["units", "all"]
)
def test_the_table_is_what_the_compiler_says(jobs):
    """Of one kernel and kind of GPU, or all; another version of the compiler may have other figures."""
    found = rows(nvrtc.table(jobs))
    assert_no_spills(found)
    if written().splitlines()[0] + "\n" == nvrtc.heading():
        table = rows(written())
        for row in found:
            assert row in table
        assert len(found) == len(table if len(jobs) > 1 else jobs)


# What a tile's inner loop and its fetches are made of, in PTX; what becomes of registers, the table says ----------


def tiles(files, dtype, precision="float32", units=None):
    """For each tile of a product: its shape, and its basic blocks, each as the count of its instructions."""
    ptx = nvrtc.compiled(files, np.dtype(dtype), precision, units, "sm_90").ptx
    for function in re.split(r"\n(?=\.func|\.visible)", ptx):
        head, _, body = function.partition("\n{\n")
        shape = re.search(r"tileI\d+(?:Tensor)?ShapeI((?:Li\d+E)+)E", head)
        if not shape or not body:
            continue
        blocks = re.split(r"\n\$\w+:|\bbra[.\w]* \S+;|\bbar\.sync[^;]*;|\bcall[^;]*;", body)
        instruction = re.compile(r"^\s*(?:@!?%\w+ )?([a-z]\w*(?:\.\w+)*)", re.MULTILINE)
        numbers = [int(n) for n in re.findall(r"\d+", shape[1])]
        yield numbers, [Counter(instruction.findall(block)) for block in blocks]


def count_of(start, block):
    return sum(n for name, n in block.items() if name.startswith(start))


def loads(block):
    return {name[3:]: n for name, n in block.items() if re.match(r"ld\.(?!local|param)", name)}


def vectors(numbers, dtype):
    """The loads that read so many numbers of a term: the name of each, and how many."""
    wide = min(numbers, 16 // np.dtype(dtype).itemsize)
    of_many = f"v{wide}." if wide > 1 else ""
    return Counter({f"shared.{of_many}f{8 * np.dtype(dtype).itemsize}": numbers // wide})


@pytest.mark.parametrize(
    ("files", "dtype", "units", "shapes"),
    [
        param(cuda.EPOCH, "float32", None, 5 + 4 + 4, always=False),  # by rows too, but for gradients
        param(cuda.UNITS, "float32", 2, 2, always=False),
        (cuda.UNITS, "float32", 4, 2),
        param(cuda.UNITS, "float32", 8, 2, always=False),
    ],
)
def test_an_inner_loop_reads_shared_memory_by_vectors_and_nothing_else(files, dtype, units, shapes):
    found = list(tiles(files, dtype, units=units))
    assert len(found) >= shapes
    for (m, n, _, groups), blocks in found:
        terms = cuda.DEPTH // groups
        (inner,) = [block for block in blocks if loads(block) and count_of("fma", block) == m * n * terms]
        one = vectors(m, dtype) + vectors(n, dtype)  # of each term
        assert loads(inner) == {name: count * terms for name, count in one.items()}


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
def test_tensor_cores_are_fed_from_shared_memory_alone(precision):
    found = tiles(cuda.EPOCH, "float32", precision)
    tensor = [(m, n, block) for (m, n, *_), blocks in found for block in blocks if count_of("mma", block)]
    assert len(tensor) == 3 * 3  # of forward, back and gradients
    for m, n, block in tensor:
        assert count_of("mma", block) == cuda.DEPTH // 8 * m * n * (3 if precision == "3xtf32" else 1)
        assert loads(block) == {"shared.f32": cuda.DEPTH // 8 * (4 * m + 2 * n)}


@pytest.mark.parametrize(
    ("files", "units"),
    [param(cuda.EPOCH, None, always=False), (cuda.UNITS, 4), param(cuda.UNITS, 8, always=False)],
    ids=lambda given: str(given)[-9:],
)
def test_a_panel_is_asked_for_at_once_and_waits_for_nothing(files, units):
    """Its bytes, by four where lines are aligned, are in one block without a branch, and nothing there uses them."""
    panels = 0
    for (m, n, rows_of_threads, groups), blocks in tiles(files, "float32", units=units):
        rows, columns = m * rows_of_threads, n * cuda.THREADS // groups // rows_of_threads
        pieces = [max(1, side * cuda.DEPTH // 4 // cuda.THREADS) for side in (rows, columns)]
        # Bytes, numbers, bytes that are not aligned.
        for kind, count in (("u32", 1), ("v4.u32", 1), ("u8", 4)):
            asking = [block for block in blocks if set(loads(block)) == {kind}]
            found = [loads(block)[kind] for block in asking]
            assert all(found.count(pieces_of_side * count) >= 2 for pieces_of_side in pieces), (kind, found)
            for block in asking:
                assert not count_of(("cvt.rn", "fma", "mul.f", "mul.ftz", "sub.f", "sub.ftz", "st."), block)
        panels += 2
    assert panels >= 4


def test_the_coefficients_are_in_the_order_of_the_structures():
    """The kernels of whole epochs take a step's numbers for one of these."""
    text = cuda.source(("rules.cuh",))
    for of_kind in {*COEFFICIENTS.values()}:
        fields = re.search(rf"struct {of_kind.__name__} {{ real ([\w, ]+); }};", text)
        assert fields[1].split(", ") == list(of_kind._fields)


def test_a_source_that_does_not_compile_is_reported_with_its_place():
    broken = cuda.source(cuda.EPOCH).replace("place] = gradient;", "place] = unknown;")
    with pytest.raises(RuntimeError, match=r'kernels/cuda/epoch\.cu.*"?unknown'):
        nvrtc.compile_kernels(broken, cuda.options("float32"), "sm_90")


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "resident"),
    [
        (32, 0, 256, 2048),
        (64, 0, 256, 1024),
        (255, 16 << 10, 256, 256),
        (16, 100 << 10, 32, 64),
        (40, 0, 1024, 1024),
    ],
)
def test_resident_threads_of_an_h100(registers, shared, threads, resident):
    """As NVIDIA's occupancy calculator has them."""
    assert nvrtc.resident_threads("sm_90", registers, shared, threads) == resident
