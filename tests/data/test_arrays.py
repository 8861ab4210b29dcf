"""Arrays of other libraries, on the host and on a device, wherever gpubp takes inputs and targets."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gpubp
from gpubp.data import check_split
from gpubp.data.dataset import check_inputs
from gpubp.errors import DataError
from gpubp.kernels.cpu import entries
from gpubp.kernels.cpu.entry import Entry
from gpubp.network import Network
from tests.cuda_host import fake_cupy
from tests.networks import assert_same, samples_of

X = np.arange(12.0).reshape(4, 3)


class OnHost:
    """Nothing but DLPack, in host memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnDevice:
    """Nothing but __cuda_array_interface__, as of a tensor of another library; NumPy gets no copy of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.memory = on_device(array)
        self.__cuda_array_interface__ = self.memory.__cuda_array_interface__

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class OnDeviceByDlpack:
    """Nothing but DLPack, in a device's memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.memory = on_device(array)

    def __dlpack__(self, **_):
        return self.memory

    def __dlpack_device__(self):
        return 2, 0  # kDLCUDA


def on_device(array: np.ndarray):
    memory = fake_cupy.empty(array.shape, array.dtype)
    memory.set(array)
    return memory


def read_only(x):
    fixed = x.copy()
    fixed.flags.writeable = False
    return fixed


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("wrap", [np.asarray, OnHost])
def test_host_memory_is_not_copied_and_trained_on_where_it_lies(dtype, wrap):
    x, y = X.astype(dtype), np.array([0, 1, 1, 0])
    split = check_split(wrap(x), wrap(y))
    assert np.shares_memory(split.inputs, x)
    assert np.shares_memory(split.targets, y)
    assert np.shares_memory(check_inputs(wrap(x.reshape(2, 2, 3))), x)
    net = Network([3, 2], dtype=np.float32 if dtype == np.uint8 else dtype)
    assert np.shares_memory(samples_of(net, wrap(x), y).inputs, x)


def test_memory_maps_and_read_only_arrays_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for x in (np.load(tmp_path / "x.npy", mmap_mode="r"), read_only(X)):
        assert np.shares_memory(check_inputs(x), x)


@pytest.mark.parametrize(
    "make", [lambda x: x.T.copy().T, lambda x: x[::-1], lambda x: x.astype(">f8"), np.ma.array]
)
def test_strided_swapped_and_other_arrays_become_plain_ones(make):
    inputs = check_inputs(make(X))
    assert type(inputs) is np.ndarray
    assert inputs.flags.c_contiguous
    assert inputs.dtype == np.float64
    np.testing.assert_array_equal(inputs, make(X))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_only_inputs_compile_nothing_anew(dtype, rng):
    x, y = (rng.random((200, 6)) * 9).astype(dtype), rng.integers(0, 3, 200)
    kernels = [kernel for kernel in vars(entries).values() if isinstance(kernel, Entry)]
    trained, compiled = [], []
    for inputs in (x, read_only(x)):
        net = Network([6, 5, 3])
        gpubp.fit(net, inputs, y, epochs=2, backend="numba", verify="off", validation=(inputs, y))
        trained.append(net)
        compiled.append(sum(len(kernel.compiled) for kernel in kernels))
    assert_same(*trained)
    assert compiled[0] == compiled[1] > 0


def test_arrays_of_jax_are_read_where_they_lie():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    x = jax.numpy.asarray(X, dtype="float32")
    split = check_split(x, jax.numpy.arange(4))
    assert np.shares_memory(split.inputs, np.asarray(x))
    np.testing.assert_array_equal(split.inputs, X)
    with pytest.raises(DataError, match="the inputs have dtype bfloat16"):
        check_inputs(x.astype("bfloat16"))


def test_what_numpy_cannot_hold_is_refused_by_name():
    class Bfloat16(OnHost):
        def __dlpack__(self, **_):
            raise BufferError("bfloat16 is not supported")

    with pytest.raises(DataError, match=r"set: the inputs cannot be .*bfloat16.*convert it to float32"):
        check_split(Bfloat16(X), [0] * 4, name="set")


@pytest.mark.parametrize("wrap", [on_device, OnDevice, OnDeviceByDlpack])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_device_memory_is_copied_once_by_cupy(wrap, dtype, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    x = X.astype(dtype)
    device, before = wrap(x), fake_cupy.counts["downloads"]
    inputs = check_inputs(device)
    assert fake_cupy.counts["downloads"] == before + 1
    assert inputs.dtype == dtype
    np.testing.assert_array_equal(inputs, x)


def test_a_network_learns_from_device_arrays_what_it_learns_from_the_hosts(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    x, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    ours, theirs = Network([6, 5, 3]), Network([6, 5, 3])
    gpubp.fit(ours, x, y, epochs=2, backend="numpy")
    gpubp.fit(theirs, on_device(x), OnDevice(y), epochs=2, backend="numpy")
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(OnDeviceByDlpack(x)))


@pytest.mark.parametrize("wrap", [OnDevice, OnDeviceByDlpack])
def test_device_memory_without_cupy_says_what_to_call(wrap, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DataError, match=r"^data: the targets are on a device: .*by \.cpu\(\) or \.get\(\)$"):
        check_split(X, wrap(np.arange(4)))


def test_libraries_that_copy_from_their_device_themselves_need_no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)

    class Copying(OnDevice):
        def __array__(self, *_, **__):
            return self.memory.get()

    np.testing.assert_array_equal(check_inputs(Copying(X)), X)
