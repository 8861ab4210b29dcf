"""What NVIDIA's own compiler says of the kernels, for each kind of GPU they are for."""

import csv
import os

import pytest

from gpubp.kernels import cuda
from tests import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.version() is None, reason=f"the wheel {nvrtc.WHEEL} is not installed")


def rows(text):
    return list(csv.DictReader(text.splitlines()[1:]))


def written():
    return nvrtc.TABLE.read_text()


def test_the_table_is_of_these_very_sources_and_has_every_kernel_and_architecture():
    """So that not all of it must be compiled anew."""
    source = nvrtc.heading().partition("source")[2].strip()
    assert written().splitlines()[0].endswith(source), "run: python -m tests.nvrtc"
    found = rows(written())
    kernels = [*cuda.KERNELS, *cuda.PERSISTENT]
    assert {row["kernel"] for row in found} == set(kernels)
    assert len(found) == (len(kernels) * 2 + 2) * len(nvrtc.ARCHITECTURES)  # epoch in two more precisions
    assert_no_spills(found)


def assert_no_spills(found):
    assert [row for row in found if row["spilled_bytes"] != "0"] == []
    assert [row for row in found if row["resident_threads"] == "0"] == []


def test_the_table_is_what_the_compiler_says():
    """Of sm_90; of all with GPUBP_TEST_ALL=1, and where the compiler is another version, whose figures may differ."""
    same = written().splitlines()[0] + "\n" == nvrtc.heading()
    some = same and os.environ.get("GPUBP_TEST_ALL") != "1"
    architectures = ("sm_90",) if some else nvrtc.ARCHITECTURES
    found = rows(nvrtc.table(architectures))
    assert_no_spills(found)
    if same:
        expected = [row for row in rows(written()) if row["architecture"] in architectures]
        assert sorted(map(repr, found)) == sorted(map(repr, expected))


def test_a_source_that_does_not_compile_is_reported_with_its_place():
    broken = cuda.source(cuda.EPOCH).replace("place] = gradient;", "place] = unknown;")
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
