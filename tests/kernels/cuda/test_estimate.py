"""The simulated multiprocessor is held to code whose time is known, and the estimate of a step to what it counts."""

from dataclasses import replace
from functools import cache

import pytest

from tests import param
from tests.cuda_host import missing_compiler
from tests.kernels.cuda import nvrtc
from tests.kernels.cuda.estimate import (
    BATCH,
    N_HIDDEN,
    N_IN,
    STEPS,
    StaleError,
    functions_of,
    main,
    step_time,
    trace,
)
from tests.kernels.cuda.machine_code import straight
from tests.kernels.cuda.simulation import MEMORY, WARPS, round_of, simulate, step_of
from tests.kernels.cuda.test_machine_code import code_of, needs_wheels

pytestmark = needs_wheels

# Cycles of an H100: from a sum to one that needs it, and from a read of shared memory, or of the second-level cache.
SUM, SHARED, L2 = 4, 29, 260
# A warp's 16 bytes a lane are 512 bytes, of which shared memory gives 128 a cycle.
WIDE = 4


def loop_of(body, before="", after=""):
    """The instructions of a loop with this body."""
    source = f"""
    __shared__ __align__(16) int s[4096];
    {before}
#pragma unroll 1
    for (int i = 0; i < n; ++i) {{ {body} }}
    {after}"""
    (loop,) = code_of(source).loops
    return straight(loop)


def alone(code, rounds=20):
    """Cycles of a round, where one warp goes."""
    steps = [step_of(i) for i in code]
    few, many = simulate([steps * rounds]), simulate([steps * 2 * rounds])
    return (many.cycles - few.cycles) / rounds


def count_of(kind, code):
    return sum(i.kind == kind for i in code)


def test_a_chain_of_sums_takes_four_cycles_each_of_one_warp_or_two_a_scheduler():
    code = loop_of("a = a * b + b;" * 64, "float a = x[0], b = x[1];", "x[0] = a;")
    assert count_of("FFMA", code) == 64
    assert alone(code) == pytest.approx(64 * SUM, rel=0.1)
    found = round_of(code)
    assert found.cycles == pytest.approx(64 * SUM, rel=0.1)
    assert found.bound() == "latency (stall counts)"


def test_sums_that_do_not_need_each_other_take_a_cycle_each_of_a_scheduler():
    names = "abcdefgh"
    before = "float y = x[8], " + ", ".join(f"{name} = x[{k}]" for k, name in enumerate(names)) + ";"
    sums = "".join(f"{name} = {name} * y + y;" for name in names)
    code = loop_of(sums * 16, before, f"x[0] = {' + '.join(names)};")
    assert count_of("FFMA", code) == 128
    found = round_of(code)
    assert found.cycles == pytest.approx(128 * 2, rel=0.1)  # of its two warps
    assert found.bound() == "issue"
    assert found.use()["FMA"] > 0.9
    assert alone(code) == pytest.approx(128, rel=0.1)


def test_whole_numbers_take_two_cycles_each_of_a_scheduler():
    names = "abcdefgh"
    before = "".join(f"int {name} = s[{k}];" for k, name in enumerate(names))
    steps = "".join(f"{name} = {name} >> 1 ^ i;" for name in names)
    code = loop_of(steps * 8, before, f"s[0] = {' + '.join(names)};")
    logic = [i for i in code if i.kind in ("LOP3", "SHF")]
    assert len(logic) == 128
    assert round_of(code).cycles == pytest.approx(2 * 2 * 128, rel=0.1)


def test_a_chain_of_reads_of_shared_memory_takes_their_latency_each():
    code = loop_of("j = s[j];" * 16, "int j = threadIdx.x; s[j] = n - j; __syncthreads();", "x[0] = j;")
    assert count_of("LDS", code) == 16
    # Between two of them an address is made of a number.
    assert 16 * SHARED <= alone(code) <= 16 * (SHARED + 8)
    assert round_of(code).bound() == "latency (LDS)"


def test_wide_reads_of_shared_memory_take_four_cycles_of_all_warps():
    names = [f"a{k}" for k in range(8)]
    code = loop_of(
        "const int4* v = reinterpret_cast<const int4*>(s) + (threadIdx.x ^ i) % 512;"
        + "".join(f"const int4 {name} = v[{32 * k}];" for k, name in enumerate(names))
        + "".join(f"j ^= {name}.x ^ {name}.y ^ {name}.z ^ {name}.w;" for name in names),
        "int j = threadIdx.x; s[j] = n; __syncthreads();",
        "x[0] = j;",
    )
    reads = [i for i in code if i.name == "LDS.128"]
    assert len(reads) == 8
    found = round_of(code)
    assert found.busy[MEMORY] == WARPS * 8 * WIDE
    assert found.cycles == pytest.approx(WARPS * 8 * WIDE, rel=0.05)
    only_reads = simulate([[step_of(i) for i in reads] * 20] * WARPS)
    assert only_reads.cycles == pytest.approx(20 * WARPS * 8 * WIDE, rel=0.05)
    assert only_reads.bound() == MEMORY


def test_copies_into_shared_memory_are_waited_for_as_the_code_says():
    copy = 'asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(x + i));'
    commit, before = (
        'asm volatile("cp.async.commit_group;");',
        "unsigned to = __cvta_generic_to_shared(s + threadIdx.x);",
    )
    at_once = loop_of(f'{copy} {commit} asm volatile("cp.async.wait_group 0;" ::: "memory");', before)
    one_later = loop_of(f'{copy} {commit} asm volatile("cp.async.wait_group 3;" ::: "memory");', before)
    assert count_of("LDGSTS", at_once) == count_of("LDGSTS", one_later) == 1
    assert L2 <= alone(at_once) <= L2 + 60
    # Up to three more are on their way meanwhile.
    assert L2 / 4 <= alone(one_later) <= (L2 + 60) / 4 + 10


def test_a_barrier_waits_for_the_slowest_warp():
    chain = loop_of("a = a * b + b;" * 64 + "__syncthreads();", "float a = x[0], b = x[1];", "x[0] = a;")
    (meet,) = [step_of(i) for i in chain if i.kind == "BAR"]
    slow = [step_of(i) for i in chain]
    found = simulate([[meet] * 10] * (WARPS - 1) + [slow * 10])
    assert found.cycles >= 10 * 64 * SUM
    assert found.bound() == "latency (other warps)"


# A step ---------------------------------------------------------------------------------------------------------

OWN = 8, 8  # units and blocks of a cluster
FORWARD = {"units": "forward<float>", "epoch": "forward of layer 1"}
GRADIENT = {"units": "hidden_gradient<float>", "epoch": "gradients"}


@cache
def step_of_kernel(kernel):
    """A step, and the kernel's functions; the fused plan is made on the stand-in, which a compiler builds."""
    if kernel == "epoch" and missing_compiler is not None:
        pytest.skip(missing_compiler)
    return STEPS[kernel](*(OWN if kernel == "units" else ())), functions_of(kernel, OWN)


@pytest.mark.parametrize("kernel", ["units", param("epoch", always=False)])
@pytest.mark.parametrize("product", [FORWARD, GRADIENT], ids=["forward", "gradient"])
def test_a_phase_goes_through_all_products_and_not_many_more_multiplications(kernel, product):
    """With those of tiles that stand out of the product, and of the update."""
    step, functions = step_of_kernel(kernel)
    (phase,) = [phase for phase in step.phases if phase.name == product[kernel]]
    of_a_block = sum(s.kind == "FFMA" for warp in range(WARPS) for s in trace(phase, functions, warp=warp))
    products = N_IN * N_HIDDEN * BATCH
    assert products <= of_a_block * 32 * step.blocks <= 2.5 * products


@pytest.mark.parametrize(("kernel", "most"), [("units", 8), param("epoch", 18, always=False)])
def test_a_step_takes_no_longer_than_it_was_made_for(kernel, most):
    step, functions = step_of_kernel(kernel)
    assert 0.5 * most <= step_time(step, functions) <= most


@pytest.fixture
def forward():
    """A phase of the kernel units, and its functions."""
    step, functions = step_of_kernel("units")
    return step.phases[1], functions


def test_a_loop_that_the_table_does_not_have_is_told(forward):
    phase, functions = forward
    for text in phase.trips:
        others = {other: rounds for other, rounds in phase.trips.items() if other != text}
        with pytest.raises(StaleError, match=r"forward.* has one more loop, of \d+ instructions: .*") as told:
            trace(replace(phase, trips=others), functions)
        assert text in str(told.value)


def test_a_loop_that_the_code_does_not_have_is_told(forward):
    phase, functions = forward
    with pytest.raises(StaleError, match="forward<float>: it has no loops with 'while forever'"):
        trace(replace(phase, trips={**phase.trips, "while forever": (1,)}), functions)
    text = next(iter(phase.trips))
    with pytest.raises(StaleError, match="forward<float> has 1 fewer loops with"):
        trace(replace(phase, trips={**phase.trips, text: (0, 1)}), functions)


def test_a_function_that_the_code_does_not_have_is_told(forward):
    phase, functions = forward
    with pytest.raises(StaleError, match=r"of .*forward.*, 0 have this name"):
        trace(replace(phase, function="backward"), functions)


def test_rounds_of_a_loop_multiply_its_time(forward):
    phase, functions = forward
    (panels,) = [text for text in phase.trips if text.startswith("i < end")]

    def cycles(rounds):
        steps = trace(replace(phase, trips={**phase.trips, panels: (rounds,)}), functions)
        return simulate([steps] * WARPS).cycles

    few, more, many = map(cycles, (20, 40, 80))  # fewer have not come to a steady time each
    assert many - more == pytest.approx(2 * (more - few), rel=0.05)


@pytest.mark.parametrize("kernel", ["units", param("epoch", always=False)])
def test_the_command_prints_every_phase_and_their_sum(kernel, capsys):
    step, _ = step_of_kernel(kernel)
    main([kernel])
    lines = capsys.readouterr().out.splitlines()
    phases = [line for line in lines if " cycles " in line]
    names = [phase.name for phase in (*step.phases, *step.meanwhile)]
    assert [line[:40].strip() for line in phases] == names
    times = [float(line.split(" µs")[0].split()[-1]) for line in lines if "µs" in line]
    hidden = sum(times[-2 - len(step.meanwhile) : -2]) if step.meanwhile else 0  # behind a barrier
    assert times[-1] == pytest.approx(sum(times[:-1]) - hidden, abs=0.1)


def test_the_command_shows_the_loops_of_a_file(tmp_path, capsys):
    source = 'extern "C" __global__ void a(int* x, int n) { for (int i = 0; i < n; ++i) x[x[i]] = i; }'
    file = tmp_path / "a.cubin"
    file.write_bytes(nvrtc.compile_kernels(source, ("-lineinfo",), "sm_80").cubin)
    main(["--file", str(file)])
    told = capsys.readouterr().out
    assert "kernels.cu:1" in told
    assert "STG" in told
    with pytest.raises(SystemExit, match="No function has 'tile' in its name; there are a"):
        main(["--file", str(file), "--function", "tile"])


def test_the_command_names_the_kernels_it_has_a_table_for(capsys):
    with pytest.raises(SystemExit):
        main(["operations"])
    assert "no table of trips is for operations; there are units, epoch" in capsys.readouterr().err
