"""What NVIDIA's own compiler says of the kernels, for each kind of GPU they are for."""

import csv
import re
from collections import Counter

import numpy as np
import pytest

from gpubp.backends.cuda import epoch
from gpubp.kernels import COEFFICIENTS, cuda
from tests import param
from tests.kernels.cuda import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.version() is None, reason=f"the wheel {nvrtc.WHEEL} is not installed")

# The job that runs without --exhaustive.
UNITS = (cuda.UNITS, np.dtype("float32"), "float32", (8, 8), False, "sm_90")


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
    # In two dtypes, and those that stay with dropout and without; epoch in two more precisions, units for three numbers
    # of units and with clusters, or without.
    assert len(found) == len(cuda.KERNELS) * 2 * 3 + 2 * ((2 + 2) * 3 + 2 * 3 * (3 + 2))
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


def blocks_of(body):
    """A function's basic blocks, each as the count of its instructions."""
    instruction = re.compile(r"^\s*(?:@!?%\w+ )?([a-z]\w*(?:\.\w+)*)", re.MULTILINE)
    for block in re.split(r"\n\$\w+:|\bbra[.\w]* \S+;|\bbar\.sync[^;]*;|\bcall[^;]*;", body):
        yield Counter(instruction.findall(block))


def count_of(start, block):
    return sum(n for name, n in block.items() if name.startswith(start))


def loads(block):
    return {name[3:]: n for name, n in block.items() if re.match(r"ld\.(?!local|param)", name)}


@pytest.mark.parametrize(
    ("function", "fma"), [("forwardIf", 128), ("15hidden_gradientIf", 64)], ids=["forward", "gradient"]
)
def test_the_inner_loops_of_units_read_shared_memory_by_vectors(function, fma):
    """4 rows × 8 units × 4 inputs; and two rows of 8 units × 4 inputs."""
    ptx = nvrtc.compiled(*UNITS).ptx
    parts = [part.partition("\n{\n") for part in re.split(r"\n(?=\.func|\.visible)", ptx)]
    (body,) = [body for head, _, body in parts if function in head and body]
    (inner,) = [block for block in blocks_of(body) if count_of("fma", block) == fma]
    assert set(loads(inner)) <= {"shared.v4.f32", "const.s32"}  # pitches
    assert loads(inner)["shared.v4.f32"] == (4 + 8 if fma == 128 else 2 * (1 + 2))


# Of epoch: its tiles of every shape, for operands that lie in each way.


def product_tiles(dtype, precision="float32", dropout=False):
    """For each: its shape's name and numbers, whether lines are aligned and inputs are bytes, and its blocks."""
    ptx = nvrtc.compiled(cuda.EPOCH, np.dtype(dtype), precision, None, dropout, "sm_90").ptx
    for function in re.split(r"\n(?=\.func|\.visible)", ptx):
        head, _, body = function.partition("\n{\n")
        shape = re.search(r"4tileI\d+((?:Tensor)?Shape)I((?:Li\d+E)+)Lb([01])EE(\w+)", head)
        if not shape or not body:
            continue
        numbers = [int(n) for n in re.findall(r"\d+", shape[2])]
        of_bytes = bool(re.search(r"Lb[01]Eh", shape[4]))
        yield shape[1], numbers, shape[3] == "1", of_bytes, [*blocks_of(body)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_multiplies_what_it_reads_from_shared_memory_by_vectors(dtype):
    vector = 16 // np.dtype(dtype).itemsize
    found = list(product_tiles(dtype))
    # Forward and back by rows, of any lines too; and tiles for gradients as well. Inputs are bytes or numbers.
    assert len(found) == 4 * 3 + (5 if dtype == "float32" else 4) * 5
    for _, (m, n, _, groups, vectors, _), _, _, blocks in found:
        slices = vectors // groups
        (inner,) = [block for block in blocks if count_of("fma", block) >= m * n * vector]
        count = count_of("fma", inner) // (m * n * vector)  # of slices in the loop's body
        assert count in (2, slices)
        # Of a slice, VECTOR terms of M + N rows, or as many vectors of rows of VECTOR terms.
        wide = f"v{vector}.f{8 * 16 // vector}"
        assert loads(inner) == {f"shared.{wide}": count * (m + n)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
def test_tensor_cores_are_fed_from_shared_memory_alone(precision):
    found = [tile for tile in product_tiles("float32", precision) if tile[0] == "TensorShape"]
    assert len(found) == 4 * 5
    for _, (m, n, _, vectors, _), _, _, blocks in found:
        (inner,) = [block for block in blocks if count_of("mma", block)]
        slices = vectors * 4 // 8
        assert count_of("mma", inner) == slices * m * n * (3 if precision == "3xtf32" else 1)
        assert loads(inner) == {"shared.f32": slices * (4 * m + 2 * n)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_panels_of_aligned_lines_are_copied_asynchronously_and_by_no_thread(dtype):
    """Sixteen bytes of numbers at a time, or four bytes; all else that is read of memory is the samples' order."""
    for _, _, aligned, of_bytes, blocks in product_tiles(dtype):
        all_of_it = sum(blocks, Counter())
        copies = {"cp.async.cg.shared.global", *(["cp.async.ca.shared.global"] if of_bytes else [])}
        if aligned:
            assert {name for name in all_of_it if name.startswith("cp.async.c")} - {
                "cp.async.commit_group"
            } == copies
            assert {name for name in loads(all_of_it) if not name.startswith("shared")} <= {
                "global.u64",
                "global.u32",
            }


@pytest.mark.exhaustive
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", "float32"), ("float64", "float32"), ("float32", "3xtf32")]
)
def test_nothing_is_read_without_knowing_of_which_memory_or_is_local(dtype, precision, dropout):
    ptx = nvrtc.compiled(cuda.EPOCH, np.dtype(dtype), precision, None, dropout, "sm_90").ptx
    of_any = re.findall(
        r"^\s*(?:@!?%\w+ )?((?:ld|st)\.(?!global|shared|const|param|relaxed)[\w.]+)", ptx, re.MULTILINE
    )
    assert of_any == []


def test_the_plan_counts_on_the_tiles_that_there_are():
    code = cuda.source(("epoch.cu",))
    rows, *kinds = (text.partition("#")[0] for text in re.split(r"#define (?:ROW|TILE)_SHAPES", code)[1:])
    found = []
    for text in (rows, *kinds):
        sizes = {}
        for number, tensor, given in re.findall(r"DO\((\d+), (Tensor)?Shape<([\d, ]+)", text):
            m, n, down, groups = [int(x) for x in given.split(",")[:4]]
            across = cuda.THREADS // cuda.WARP // down if tensor else cuda.THREADS // groups // down
            sizes[int(number)] = (16 * m * down, 8 * n * across) if tensor else (m * down, n * across)
        found.append(sizes)
    for narrow, wide in epoch.ROWS.values():
        assert found[0][narrow] == (cuda.ROW_BLOCK, epoch.NARROW)
        assert found[0][wide] > found[0][narrow]
    for kind, sizes in zip(("float64", "float32", "tensor cores"), found[1:], strict=True):
        tiles = {code: (16 * rows, 16 * columns) for code, (rows, columns, _) in epoch.TILES[kind].items()}
        assert sizes == tiles | {epoch.ANY_LINES: tiles[epoch.ALIGNED_AS_ANY]}


def test_the_coefficients_are_in_the_order_of_the_structures():
    """The kernels of whole epochs take a step's numbers for one of these."""
    text = cuda.source(("rules.cuh",))
    for of_kind in {*COEFFICIENTS.values()}:
        fields = re.search(rf"struct {of_kind.__name__} {{ real ([\w, ]+); }};", text)
        assert fields[1].split(", ") == list(of_kind._fields)


def test_a_source_that_does_not_compile_is_reported_with_its_place():
    broken = cuda.source(cuda.EPOCH).replace("sum.x[v] += bias[v]", "sum.x[v] += unknown")
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
