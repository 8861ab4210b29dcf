"""What NVIDIA's own compiler says of the kernels, for each kind of GPU they are for."""

import csv

import pytest

from gpubp.kernels import cuda
from tests import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.version() is None, reason=f"the wheel {nvrtc.WHEEL} is not installed")


def rows(text):
    return list(csv.DictReader(text.splitlines()[1:]))


def test_every_kernel_compiles_for_every_architecture_and_spills_nothing():
    found = rows(nvrtc.table())
    kernels = [*cuda.KERNELS, *cuda.PERSISTENT]
    assert len(found) == (len(kernels) * 2 + 2) * len(nvrtc.ARCHITECTURES)  # epoch in two more precisions
    assert {row["kernel"] for row in found} == set(kernels)
    assert [row for row in found if row["spilled_bytes"] != "0"] == []
    assert [row for row in found if row["resident_threads"] == "0"] == []


def test_the_table_is_what_the_compiler_says():
    written = nvrtc.TABLE.read_text()
    if written.splitlines()[0] == nvrtc.table().splitlines()[0]:
        assert written == nvrtc.table(), "run: python -m tests.nvrtc"
    else:  # another version of the compiler has other figures, but of the same kernels

        def names(table):
            return [
                [row[name] for name in ("kernel", "dtype", "precision", "architecture")]
                for row in rows(table)
            ]

        assert names(written) == names(nvrtc.table())


def test_a_source_that_does_not_compile_is_reported_with_its_place():
    broken = cuda.source(cuda.EPOCH).replace("step_sgd(*parameter", "step_sgd(*unknown")
    with pytest.raises(RuntimeError, match=r'kernels/cuda/epoch\.cu.*"?unknown'):
        nvrtc.compile_kernels(broken, ("--std=c++17", *cuda.definitions("float32")), "sm_90")


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
