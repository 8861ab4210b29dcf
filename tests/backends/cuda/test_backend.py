"""The CUDA backend as a whole: training, messages, and its barriers, on the stand-in for cupy."""

import re
import subprocess
import sys
from itertools import repeat
from unittest.mock import MagicMock

import numpy as np
import pytest

import gpubp
from gpubp.backends.cuda import availability
from gpubp.backends.cuda.backend import CupyBackend
from gpubp.data.samples import Samples
from gpubp.errors import BackendUnavailable, GpubpError
from gpubp.kernels import cuda as kernels
from tests import param
from tests.conftest import small_data, small_net
from tests.cuda_host import cuda_backend, fake_cupy, host_backend, missing_compiler, why_no_cuda
from tests.networks import assert_same, random_problem

every_plan = pytest.mark.parametrize("plan", ["composed", "fused", "units"])
needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))


def make_plan(backend, sizes=(20, 23, 10), **options):
    return backend.plan(random_problem(sizes, **options))


def train(plan):
    return plan.run(np.arange(130), np.full(5, 0.05))


def test_describe_names_the_precision(monkeypatch):
    assert host_backend().describe().endswith("products in float32")
    monkeypatch.setenv("CUPY_TF32", "1")
    assert host_backend("fused", "tf32").describe().endswith("products in tf32, CUPY_TF32 set for cuBLAS")


def test_out_of_memory_says_how_much_was_needed(monkeypatch):
    monkeypatch.setattr(fake_cupy, "memory_limit", 1e6)
    with pytest.raises(GpubpError, match=r"8\.0 MB does not fit"):
        host_backend().to_device(np.zeros((1000, 1000)))


@needs_compiler
@every_plan
def test_a_device_lost_in_mid_run_is_one_message_and_leaves_the_checkpoint(plan, rng, monkeypatch, tmp_path):
    x, y = small_data(rng, 40, 6, 3)
    network, whole, resumed = (small_net((6, 5, 3)) for _ in range(3))
    options = {"batch_size": 10, "epochs": 4, "backend": host_backend(plan), "verify": "off", "seed": 1}
    options |= {"save_to": tmp_path / "checkpoint.npz"}
    gpubp.fit(whole, x, y, **{**options, "save_to": None})

    monkeypatch.setattr("gpubp.training.loop.CHECKPOINT_SECONDS", 0)

    def lose(epoch, _):
        if epoch.epoch == 2:
            monkeypatch.setattr(fake_cupy, "lost_after", fake_cupy.counts["launches"] + 1)

    found = {"composed": "CUBLAS_STATUS_EXECUTION_FAILED"}.get(plan, "cudaErrorLaunchFailure")
    with pytest.raises(GpubpError, match=rf"the GPU stopped answering \({found}.*--resume"):
        gpubp.fit(network, x, y, callbacks=[lose], **options)
    monkeypatch.undo()
    gpubp.fit(resumed, x, y, resume=tmp_path / "checkpoint.npz", **options)
    assert_same(resumed, whole)


@needs_compiler
@every_plan
def test_a_launch_that_is_refused_is_not_a_lost_device(plan, monkeypatch):
    plan = make_plan(host_backend(plan))
    monkeypatch.setattr(fake_cupy, "refused_after", fake_cupy.counts["launches"])
    with pytest.raises(GpubpError, match=r"refused to start a kernel \(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_L"):
        train(plan)
    monkeypatch.undo()
    train(plan)  # nothing was lost

    monkeypatch.setattr(fake_cupy, "lost_after", fake_cupy.counts["launches"] - 1)
    with pytest.raises(GpubpError, match="the GPU stopped answering"):
        train(plan)


@needs_compiler
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (fake_cupy.OutOfMemoryError("Out of memory: 8 bytes."), "out of GPU memory: a product's workspace"),
        (fake_cupy.CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"), r"what cuBLAS needs \(CUBLAS_STATUS_ALLOC"),
        (fake_cupy.CUBLASError("CUBLAS_STATUS_INTERNAL_ERROR"), r"stopped answering \(CUBLAS_STATUS_INT"),
        (fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress: bad"), r"stopped answering \(cudaErrorIllegal"),
    ],
    ids=str,
)
def test_a_product_that_fails_is_one_message(error, says, monkeypatch):
    plan = make_plan(host_backend("composed"))
    monkeypatch.setattr(fake_cupy, "memory_limit", 1e9)
    monkeypatch.setattr(fake_cupy, "product_fails", error)
    with pytest.raises(GpubpError, match=says):
        train(plan)


@needs_compiler
def test_a_plan_that_does_not_fit_is_named_with_one_that_may(monkeypatch):
    monkeypatch.setattr(fake_cupy, "blocks_of_one", 0)
    with pytest.raises(GpubpError, match=r"fused plan needs: choose the composed plan \(--plan composed\)"):
        make_plan(host_backend("fused"))
    held = iter([1, 0])
    occupancy = "occupancyMaxActiveBlocksPerMultiprocessor"
    monkeypatch.setattr(fake_cupy.cuda.driver, occupancy, lambda *_: next(held))
    with pytest.raises(GpubpError, match=r"the units plan needs: choose the fused plan \(--plan fused\)"):
        make_plan(host_backend("units"))


@needs_compiler
def test_warming_up_compiles_all_that_training_launches(monkeypatch):
    backend = host_backend("units")
    what = [what for what, _ in backend.warm_up("float64")]
    units = [f"units plan, {n} hidden units a block" for n in (4, 8, 16)]
    clusters = [f"cluster plan, {n} hidden units a cluster of 8 blocks" for n in (4, 8, 16)]
    assert what == [
        f"float64 network on the GPU, {plan}"
        for plan in (
            "composed plan",
            *(plan + has for has in ("", ", with dropout") for plan in ("fused plan", *clusters, *units)),
        )
    ]
    monkeypatch.setattr(fake_cupy, "RawModule", None)  # whose call would fail
    for plan in ("composed", "fused", "units", "cluster"):
        backend.plan_kind = plan
        for hidden in (6, 20, 40):
            make_plan(backend, sizes=(20, hidden, 10))
            make_plan(backend, sizes=(20, hidden, 10), dropout=0.5)


@needs_compiler
def test_evaluation_uploads_its_order_once():
    plan = make_plan(host_backend("fused"))
    samples = plan.upload(Samples(np.zeros((9, 20)), np.eye(10)[:9], np.ones(9)))
    plan.evaluate(samples)
    before = fake_cupy.counts.copy()
    plan.evaluate(samples)
    assert fake_cupy.counts - before == {
        "launches": 1,
        "uploads": 2,
        "downloads": 2,
    }  # the barrier's counter, the launch


@needs_compiler
@pytest.mark.parametrize("plan", [param("composed", always=False), "fused", param("units", always=False)])
def test_a_kernel_that_does_not_compile_is_named_with_its_file(plan, monkeypatch):
    whole, step = kernels.source, "parameter -= c.lr"
    monkeypatch.setattr(kernels, "source", lambda *files: whole(*files).replace(step, "parameter -= unknown"))
    with pytest.raises(GpubpError, match=r"(?s)float64.*kernels/cuda/rules\.cuh.*unknown"):
        make_plan(host_backend(plan))


@pytest.mark.skipif(why_no_cuda is not None, reason=str(why_no_cuda))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_byte_is_exactly_its_255th(dtype):
    backend = cuda_backend("composed")
    source, order = (
        backend.to_device(np.arange(256, dtype=np.uint8)[None]),
        backend.to_device(np.zeros(1, np.int64)),
    )
    out = backend.to_device(np.full((1, 256), np.nan, dtype))
    backend.gather(source, order, out)
    np.testing.assert_array_equal(backend.to_host(out)[0], np.arange(256, dtype=dtype) / dtype(255))


# The equipment: what it must refuse ------------------------------------------------------------------------


def test_device_arrays_do_not_mix_with_host_arrays():
    array = fake_cupy.empty((2, 3), np.float32)
    with pytest.raises(TypeError):
        np.asarray(array)
    with pytest.raises(TypeError):
        array + 1
    with pytest.raises(AssertionError, match="not on the device"):
        fake_cupy.matmul(np.ones((2, 3), np.float32), array.T, out=fake_cupy.empty((2, 2), np.float32))


KERNEL = """
extern "C" __global__ void touch(float* x_i, long long i_count) {
    if (threadIdx.x % 2) __syncthreads();
    x_i[threadIdx.x + i_count] = 0;
}
"""


@needs_compiler
def test_wrong_launches_are_reported():
    array = fake_cupy.empty(4, np.float32)
    touch = fake_cupy.RawModule(code=KERNEL).get_function("touch")
    touch((1,), (1,), (array, np.int64(0)))
    with pytest.raises(AssertionError, match="argument 1"):
        touch((1,), (1,), (array, 0))
    with pytest.raises(AssertionError, match="argument 0 of touch is float64"):
        touch((1,), (1,), (fake_cupy.empty(4, np.float64), np.int64(0)))
    with pytest.raises(AssertionError, match="never reach"):
        touch((1,), (2,), (array, np.int64(0)))
    with pytest.raises(AssertionError, match="outside of an array"):
        touch((1,), (1,), (array, np.int64(4)))


COPIES = """
struct alignas(16) Four { float x[4]; };
extern "C" __global__ void copies(float* to, const float* from, long long shift) {
    __shared__ Four all[3];
    float* shared = reinterpret_cast<float*>(all);
    for (int i = 0; i < 12; ++i) shared[i] = 0;
    copy_async<16>(shared + shift, from, 8);
    commit();
    copy_async<4>(shared + 4, from + 4, 4);
    commit();
    copy_async<4>(shared + 5, from + 5, 4);
    wait<1>();
    for (int i = 0; i < 6; ++i) to[i] = shared[i];
}
"""


@needs_compiler
def test_an_asynchronous_copy_is_not_there_before_it_is_waited_for():
    to, source = fake_cupy.empty(6, np.float32), fake_cupy.empty(6, np.float32)
    source.set(np.arange(1, 7, dtype=np.float32))
    copies = fake_cupy.RawModule(code=kernels.source(("async.cuh",)) + COPIES).get_function("copies")
    copies((1,), (1,), (to, source, np.int64(0)))
    # Half of the first comes from memory; the second is on its way, and the third is of no group yet.
    np.testing.assert_array_equal(to.get(), [1, 2, 0, 0, np.nan, np.nan])
    with pytest.raises(AssertionError, match="an asynchronous copy of 16 bytes is not aligned"):
        copies((1,), (1,), (to, source, np.int64(1)))


# Why it cannot run here ------------------------------------------------------------------------------------


def cupy_with(driver=13000, count=1, nvrtc=None):
    """A cupy whose driver and runtime give these answers, or raise them."""
    cupy = MagicMock()
    cupy.cuda.runtime.driverGetVersion.side_effect = repeat(driver)
    cupy.cuda.runtime.runtimeGetVersion.return_value = 13000
    cupy.cuda.runtime.getDeviceCount.side_effect = repeat(count)
    cupy.cuda.nvrtc.getVersion.side_effect = nvrtc
    return cupy


WHEEL = ["cupy-cuda13x"]


@pytest.mark.parametrize(
    ("wheels", "cupy", "words"),
    [
        (["cupy-cuda12x", "cupy-cuda13x"], None, ["together", "pip uninstall cupy-cuda12x cupy-cuda13x"]),
        ([], None, ["not installed", 'python -m pip install "gpubp[cuda13]"', "gpubp[cuda12]"]),
        (WHEEL, None, ["cannot be imported"]),
        (WHEEL, cupy_with(driver=0), ["no NVIDIA driver"]),
        (WHEEL, cupy_with(driver=RuntimeError("cudaErrorUnknown: odd")), ["cudaErrorUnknown: odd"]),
        (WHEEL, cupy_with(driver=12040), ["CUDA 12.4", "CUDA 13.0", "gpubp[cuda12]"]),
        (WHEEL, cupy_with(count=RuntimeError("cudaErrorNoDevice: none")), ["cudaErrorNoDevice"]),
        (WHEEL, cupy_with(count=0), ["no CUDA device"]),
        (WHEEL, cupy_with(nvrtc=ImportError("libnvrtc.so.13")), ["libnvrtc.so.13", "gpubp[cuda13]"]),
    ],
)
def test_why_unavailable_says_what_is_wrong_and_what_to_do(wheels, cupy, words, monkeypatch, capfd):
    monkeypatch.setattr(availability, "_installed_wheels", lambda: wheels)
    monkeypatch.setitem(sys.modules, "cupy", cupy)  # None: the import fails
    reason = availability.why_unavailable()
    for word in words:
        assert word in reason
    assert "\n" not in reason
    with pytest.raises(BackendUnavailable, match=re.escape(reason)):
        CupyBackend()
    assert capfd.readouterr() == ("", "")


def test_available_where_a_device_answers(monkeypatch):
    monkeypatch.setattr(availability, "_installed_wheels", lambda: WHEEL)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    assert availability.why_unavailable() is None


def test_importing_the_backend_does_not_import_cupy():
    code = "import sys, gpubp.backends.cuda.backend; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
