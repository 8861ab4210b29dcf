"""What NVIDIA's compiler makes of the kernels in the end: machine code, as the disassembler shows it."""

import csv
import os
import re
from types import SimpleNamespace

import pytest

from gpubp.kernels import cuda
from tests import param
from tests.kernels.cuda import machine_code, nvrtc
from tests.kernels.cuda.machine_code import NO_BARRIER, disassemble, line_text, name_of, straight, way
from tests.kernels.cuda.test_compile import UNITS

needs_wheels = pytest.mark.skipif(
    nvrtc.version() is None or machine_code.version() is None,
    reason=f"the wheels {nvrtc.WHEEL} and {machine_code.WHEEL} are not both installed",
)
pytestmark = needs_wheels

# The lines of the main loops, which do a product's sums: of a tile's panels and their vectors, and of units.
MAIN_LOOPS = "k0 < end", "k += GROUPS * VECTOR", "i += 16 * parts", "b += GROUPS"
# The least share of sums of those in which it is below MOST: small tiles, bytes that are turned into numbers on the
# way, and lines that are not aligned, which are copied one number at a time.
MOST = 0.6
LESS = {
    "forward<unsigned char>": 0.54,
    "hidden_gradient<unsigned char>": 0.5,
    "hidden_gradient_of_many<unsigned char>": 0.49,
    "tile<4, 4, 2, 16, 32, 2, unaligned> of Rows<float>, Columns<float>": 0.45,
    "tile<4, 4, 2, 16, 32, 2, unaligned> of Rows<float>, Rows<float>": 0.5,
    "tile<4, 4, 2, 16, 32, 2, unaligned> of Rows<unsigned char>, Rows<float>": 0.43,
    "tile<4, 4, 2, 16, 32, 2> of Rows<float>, Columns<float>": 0.5,
    "tile<4, 4, 2, 16, 32, 2> of Rows<float>, Rows<float>": 0.55,
    "tile<4, 4, 2, 16, 32, 2> of Rows<unsigned char>, Rows<float>": 0.5,
    "tile<4, 4, 2, 4, 8, 3, unaligned> of Rows<float>, Columns<float>": 0.44,
    "tile<4, 4, 2, 4, 8, 3, unaligned> of Rows<float>, Rows<float>": 0.46,
    "tile<4, 4, 2, 4, 8, 3, unaligned> of Rows<unsigned char>, Rows<float>": 0.42,
    "tile<4, 4, 2, 4, 8, 3> of Rows<float>, Columns<float>": 0.5,
    "tile<4, 4, 2, 4, 8, 3> of Rows<float>, Rows<float>": 0.5,
    "tile<4, 4, 2, 4, 8, 3> of Rows<unsigned char>, Rows<float>": 0.48,
    "tile<4, 4, 4, 16, 32, 3> of Columns<float>, Columns<float>": 0.55,
    "tile<4, 4, 4, 16, 32, 3> of Columns<float>, Columns<unsigned char>": 0.47,
    "tile<4, 4, 4, 16, 32, 3> of Rows<float>, Columns<float>": 0.55,
    "tile<4, 4, 4, 16, 32, 3> of Rows<float>, Rows<float>": 0.57,
    "tile<4, 4, 4, 16, 32, 3> of Rows<unsigned char>, Rows<float>": 0.47,
    "tile<8, 4, 4, 8, 16, 3, unaligned> of Columns<float>, Columns<unsigned char>": 0.53,
    "tile<8, 4, 4, 8, 16, 3, unaligned> of Rows<unsigned char>, Rows<float>": 0.55,
}


def code_of(body, parameters="float* x, int n", architecture="sm_90"):
    """The function that the compiler makes of a kernel."""
    source = f'extern "C" __global__ void known({parameters}) {{ {body} }}'
    function, *_ = disassemble(nvrtc.compile_kernels(source, ("--std=c++17",), architecture).cubin)
    return function


def rows(text):
    return list(csv.DictReader(text.splitlines()[1:]))


def written():
    return machine_code.TABLE.read_text()


# How it is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_what_reads_a_loaded_number_waits_for_the_barrier_of_the_load(architecture):
    function = code_of("x[threadIdx.x] = x[threadIdx.x] * 3;", architecture=architecture)
    (load,) = [i for i in function.instructions if i.kind == "LDG"]
    (product,) = [i for i in function.instructions if i.kind == "FMUL"]
    (store,) = [i for i in function.instructions if i.kind == "STG"]
    assert load.write != NO_BARRIER
    assert load.write in product.wait
    assert product.write == NO_BARRIER  # of fixed latency: the stall counts up to its reader are that
    between = [i for i in function.instructions if product.address <= i.address < store.address]
    assert 4 <= sum(i.stall for i in between) <= 8


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_dependent_sums_are_four_cycles_apart(architecture):
    function = code_of(
        "float a = x[0], b = x[1];" + "a = a * b + b;" * 30 + "x[0] = a;", architecture=architecture
    )
    sums = [i for i in function.instructions if i.kind == "FFMA"]
    assert len(sums) == 30
    assert {i.stall for i in sums[:-1]} == {4}


def test_nested_loops_are_found_with_what_is_in_them():
    body = """
#pragma unroll 1
    for (int i = 0; i < n; ++i) {
        float a = x[i];
#pragma unroll 1
        for (int j = 0; j < n; ++j) a = a * a + 1;
#pragma unroll 1
        for (int j = 0; j < i; ++j) a += x[j];
        x[i] = a;
    }"""
    (outer,) = code_of(body).loops
    first, second = outer.inner
    assert not first.inner
    assert not second.inner
    assert [machine_code.counted(loop.instructions)["fma"] for loop in (first, second)] == [1, 0]
    assert [machine_code.counted(loop.instructions)["ldg"] for loop in (first, second)] == [0, 1]
    assert machine_code.counted(straight(outer))["stg"] == 1
    assert machine_code.counted(straight(outer))["fma"] == 0
    assert len(list(outer.all())) == 3


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_nothing_comes_after_a_trap(architecture):
    """What stands below one may be anything, a place before all loops too."""
    function = code_of(
        "for (int i = 0; i < n; ++i) if (x[i] < 0) __trap(); x[n] = 1;", architecture=architecture
    )
    traps = [block for block in function.blocks if block.instructions[-1].kind == "BPT"]
    assert traps
    assert not any(block.successors for block in traps)


def test_a_way_is_the_longest_that_avoids_what_it_is_told():
    function = code_of("""
#pragma unroll 1
    for (int i = 0; i < n; ++i) {
        if (i % 3 == 0) {
            __threadfence(); x[n + i] = x[n - i] * x[3 * i] + x[5 * i] * x[7 * i] * x[9 * i];
        } else {
            x[2 * i] = __expf(x[i]);
        }
    }""")
    (loop,) = function.loops
    longest, other = straight(loop), straight(loop, ["MEMBAR"])
    assert any(i.kind == "MEMBAR" for i in longest)
    assert not any(i.kind == "MEMBAR" for i in other)
    assert any(i.kind == "MUFU" for i in other)
    assert way(function)[-1].instructions[-1].kind == "EXIT"
    assert loop in way(function)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("units", "units"),
        ("$units$_ZNK5Block7forwardEPKxi", "forward"),
        ("$epoch$_ZN4Step6updateERK6LaunchxPKff", "update"),
        (
            "$epoch$_Z4tileI5ShapeILi8ELi8ELi16ELi2ELi8ELi2ELb1EE7OperandILb1EhES2_ILb1EfEE4SumsT0_T1_7Producti",
            "tile<8, 8, 16, 2, 8, 2> of Rows<unsigned char>, Rows<float>",
        ),
        (
            "$epoch$_Z4tileI11TensorShapeILi1ELi4ELi4ELi8ELi3ELb0EE7OperandILb0EfES3_E4SumsT0_T1_7Producti",
            "tile<Tensor1, 4, 4, 8, 3, unaligned> of Columns<float>, Columns<float>",
        ),
        ("$units$__internal_0_$__cuda_sm20_div_u64", "__cuda_sm20_div_u64"),
    ],
)
def test_a_function_is_called_what_it_is_in_the_source(symbol, name):
    assert name_of(symbol) == name


def test_a_disassembler_that_may_not_be_run_is_copied_to_where_it_may(tmp_path, monkeypatch):
    """Not every installer keeps a file's permissions."""
    file = tmp_path / "nvdisasm"
    file.write_bytes(b"program")
    file.chmod(0o600)
    listed = SimpleNamespace(name=file.name, locate=lambda: file)
    monkeypatch.setattr(machine_code.metadata, "files", lambda wheel: [listed])
    found = machine_code._disassembler.__wrapped__()
    assert found != file
    assert os.access(found, os.X_OK)
    assert found.read_bytes() == b"program"


def test_what_is_no_machine_code_is_refused():
    with pytest.raises(RuntimeError, match="nvdisasm reads no machine code"):
        disassemble(b"not this")


# The table ------------------------------------------------------------------------------------------------------


def test_the_table_is_of_these_very_sources_and_has_every_kernel_and_architecture():
    source = nvrtc.heading().partition("source")[2].strip()
    assert written().splitlines()[0].endswith(source), "run: python -m tests.kernels.cuda.machine_code"
    keys = ("kernel", "dtype", "precision", "units", "cluster", "dropout", "architecture")
    found = {tuple(row[key] for key in keys) for row in rows(written())}
    of_resources = list(csv.DictReader(nvrtc.TABLE.read_text().splitlines()[1:]))
    assert found == {tuple(row[key] for key in keys) for row in of_resources}


@pytest.mark.parametrize(
    "jobs", [[UNITS], param(nvrtc.jobs(nvrtc.ARCHITECTURES), always=False)], ids=["units", "all"]
)
def test_the_table_is_what_the_compiler_and_the_disassembler_say(jobs):
    """Of one kernel and kind of GPU, or all; another version of the compiler may have other figures."""
    found = rows(machine_code.table(jobs))
    if written().splitlines()[0] + "\n" == nvrtc.heading():
        table = rows(written())
        of_job = {name: str(value) for name, value in nvrtc.columns_of(*UNITS[1:]).items()}
        expected = table if len(jobs) > 1 else [row for row in table if of_job.items() <= row.items()]
        assert found == expected


@pytest.fixture(scope="module", params=cuda.PERSISTENT)
def loops(request):
    """The innermost loops of a persistent kernel that multiply and add, on every architecture."""
    found = [row for row in rows(written()) if row["kernel"] == request.param and row["loop"]]
    assert found
    return found


def test_a_loop_that_multiplies_knows_the_memory_that_it_reads_and_writes(loops):
    """Generic instructions find out with each address, and local memory is where registers are not enough."""
    assert [row for row in loops if any(int(row[name]) for name in ("ld", "st", "ldl", "stl"))] == []


def test_most_of_a_main_loop_is_sums():
    least = {}
    for row in rows(written()):
        if row["kernel"] in cuda.PERSISTENT and any(text in line_text(row["loop"]) for text in MAIN_LOOPS):
            phase = row["phase"]
            least[phase] = min(least.get(phase, 1), float(row["fma_share"]))
    assert {re.match(r"\w+", phase)[0] for phase in least} == {
        *("tile", "forward", "hidden_gradient", "hidden_gradient_of_many"),
    }
    below = {phase: share for phase, share in least.items() if share < MOST}
    assert below.keys() == LESS.keys()
    assert [phase for phase, share in below.items() if share < LESS[phase]] == []
