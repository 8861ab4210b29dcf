"""A stand-in for the ``cupy`` module: as much of it as the CUDA backend uses, on a machine without a GPU.

Device arrays live in host memory, out of NumPy's reach; kernels are compiled for the host, with
``cuda_on_host.hpp``. It is stricter than cupy: whatever would copy, allocate or misread an argument there
without a word is an error here. ``counts`` has the allocations, uploads, downloads, compilations and launches so far.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakSet

import numpy as np

__version__ = "stand-in"

counts: Counter[str] = Counter()
_alive: WeakSet[ndarray] = WeakSet()  # all arrays but views, whose guards every launch may have overwritten
memory_limit = float("inf")  # bytes that one array may have
multiprocessors = 3  # of the device; a cooperative launch takes so many threads and steps beside each other
blocks_of_one = 1  # that a multiprocessor holds
shared_memory = 227 << 10  # bytes of it that a block can have
blocks_of_clusters = 24  # that it holds: eight of them make one
seed = 0  # of the next launch's schedule
lost_after = float("inf")  # launches, from which on the device answers no more
refused_after = float("inf")  # launches, from which on it starts none
product_fails: Exception | None = None  # what a product raises

# NaN before and after what is __shared__ static.
_SHARED_GUARD = '\n__attribute__((used, section("cuda_shared"))) static char shared_guard_{}[4096];\n'
_GUARD = 64  # bytes on both sides of every array, where no kernel may write
_DTYPES = {
    "float": "f4",
    "double": "f8",
    "int": "i4",
    "long long": "i8",
    "unsigned": "u4",
    "unsigned long long": "u8",
    "unsigned char": "u1",
}
_KERNEL = re.compile(
    r'extern "C" __global__ void (?:OF_CLUSTERS )?(?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)'
)


_OF_CLUSTERS = re.compile(r"void OF_CLUSTERS (?:__launch_bounds__\([^)]*\) )?(\w+)\(")


class CompileException(Exception):
    pass


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class CUBLASError(RuntimeError):
    pass


class ndarray:
    """Memory of the device: no arithmetic, no conversion, no indexing but slices, which are views."""

    def __init__(self, host: np.ndarray, memory: np.ndarray):
        self._host, self._memory = host, memory

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray(self._host.T, self._memory))

    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: slice) -> ndarray:
        assert isinstance(key, slice), "only slices, which are views"
        return ndarray(self._host[key], self._memory)

    def reshape(self, *shape: int) -> ndarray:
        assert self.flags.c_contiguous, "reshaping this would copy"
        return ndarray(self._host.reshape(*shape), self._memory)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    @property
    def __cuda_array_interface__(self) -> dict:
        return {**self._host.__array_interface__, "version": 3}

    def set(self, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        assert array.dtype == self.dtype
        assert array.shape == self.shape
        assert self.flags.c_contiguous
        counts["uploads"] += 1
        self._host[...] = array

    def get(self) -> np.ndarray:
        _answer()
        counts["downloads"] += 1
        return self._host.copy()

    def check_guards(self) -> None:
        for side in (self._memory[:_GUARD], self._memory[-_GUARD:]):
            if not (side == _guard_byte(self.dtype)).all():
                raise AssertionError("a kernel wrote outside of an array")


def empty(shape, dtype) -> ndarray:
    """A new array; its floats are NaN."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    if size > memory_limit:
        raise OutOfMemoryError(f"Out of memory allocating {size} bytes.")
    counts["allocations"] += 1
    memory = np.full(size + 2 * _GUARD, _guard_byte(dtype), np.uint8)
    memory[_GUARD : _GUARD + size] = 0xFF
    made = ndarray(memory[_GUARD : _GUARD + size].view(dtype).reshape(shape), memory)
    _alive.add(made)
    return made


def asarray(values) -> ndarray:
    """The device memory that another library's array tells of, not copied."""
    interface = {**values.__cuda_array_interface__, "version": 3}
    host = np.asarray(SimpleNamespace(__array_interface__=interface, keep=values))
    return ndarray(host, host.reshape(-1).view(np.uint8))


def from_dlpack(values) -> ndarray:
    """As ``asarray``, for what has DLPack: here, whatever hands over an array of this module."""
    return values.__dlpack__()


_LOST = CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")


def _answer(error: Exception = _LOST) -> None:
    if counts["launches"] >= lost_after:
        raise error


def _guard_byte(dtype: np.dtype) -> int:
    """What a kernel that reads too far should not get away with: a large number, and in whole numbers no valid place.

    Not NaN in floats: it would hide a kernel that reads, changes and writes one element too many.
    """
    if dtype.kind == "f":
        return 0x7F
    return 0xFF if dtype.itemsize == 1 else 0x01


def matmul(a: ndarray, b: ndarray, out: ndarray) -> None:
    """``out = a @ b``, only where cupy would hand the arrays to cuBLAS as they are."""
    if product_fails is not None:
        raise product_fails
    _answer(CUBLASError("CUBLAS_STATUS_EXECUTION_FAILED"))
    for array in (a, b, out):
        assert type(array) is ndarray, f"not on the device: {type(array)}"
        assert array.ndim == 2
        assert array.dtype == out.dtype
        assert array.dtype.kind == "f"
    assert out.flags.c_contiguous
    assert out.shape == (a.shape[0], b.shape[1])
    assert a.shape[1] == b.shape[0]
    for operand in (a, b):
        assert operand.flags.c_contiguous or operand.flags.f_contiguous, "this operand would be copied"
        assert not np.shares_memory(operand._host, out._host), "this output would be a temporary"
    if out.size == 1:
        counts["pool temporaries"] += 1  # a product and a sum instead of a gemm
    np.matmul(a._host, b._host, out=out._host)


def compile_ahead(code: str, options: tuple[str, ...], architecture: str) -> bytes:
    """What stands in for a binary built ahead: it names the source, which is compiled for the host."""
    RawModule(code=code, options=options).build()
    return json.dumps({"code": code, "options": options, "architecture": architecture}).encode()


class RawModule:
    """CUDA source, or a file of ``compile_ahead``, compiled for the host when a kernel is first asked for."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        enable_cooperative_groups: bool = False,
    ):
        assert isinstance(options, tuple)
        assert (code is None) != (path is None)
        self.ahead, self.foreign = path is not None, False
        if path is not None:
            assert isinstance(path, str)
            assert not options, "cupy leaves these out without a word"
            try:
                found = json.loads(Path(path).read_bytes())
                code, options = found["code"], tuple(found["options"])
            except ValueError:
                code, self.foreign = "", True
        assert code is not None
        defines = dict(re.findall(r"-D(\w+)=(\S+)", " ".join(options)))
        self.code, self.options = code, options
        self.cooperative, self.cluster = enable_cooperative_groups, int(defines.get("CLUSTER", 1))
        typedefs = {name: meaning for meaning, name in re.findall(r"typedef ([\w ]+) (\w+);", code)}
        self._types = {name: defines.get(meaning, meaning) for name, meaning in typedefs.items()}
        kernels = _KERNEL.findall(code)
        self._signatures = {
            name: [parameter.strip().rpartition(" ")[0] for parameter in filter(None, parameters.split(","))]
            for name, parameters in kernels
        }
        self._library: ctypes.CDLL | None = None

    def _loaded(self) -> ctypes.CDLL:
        if self.foreign:
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")
        if self._library is None:
            counts["compilations"] += not self.ahead
            self._library = ctypes.CDLL(str(self.build()))
        return self._library

    def get_global(self, name: str) -> Symbol:
        return Symbol(ctypes.addressof(ctypes.c_char.in_dll(self._loaded(), name)))

    def get_function(self, name: str) -> RawKernel:
        launcher = self._loaded()[f"launch_{name}"]
        launcher.restype = ctypes.c_char_p
        cluster = self.cluster if name in _OF_CLUSTERS.findall(self.code) else 1
        return RawKernel(
            name, launcher, [self._resolve(k) for k in self._signatures[name]], self.cooperative, cluster
        )

    def build(self) -> Path:
        guarded = f"{_SHARED_GUARD.format(0)}{self.code}{_SHARED_GUARD.format(1)}"
        return _build(guarded + self._launchers(), self.options)

    def _resolve(self, kind: str) -> tuple[np.dtype, bool]:
        """A parameter's dtype and whether it is a pointer."""
        base = kind.replace("const ", "").rstrip("*")
        return np.dtype(_DTYPES[self._types.get(base, base)]), kind.endswith("*")

    def _launchers(self) -> str:
        """For each kernel a C function that takes its arguments as a CUDA launch does: by their addresses."""
        return "".join(
            f'\nextern "C" const char* launch_{name}(uint3 grid, uint3 block, size_t shared, bool cooperative, '
            "unsigned seed, void** p) {\n"
            f"    return cuda_host::launch(grid, block, shared, cooperative, seed, [=] {{ {name}("
            + ", ".join(f"*({kind}*)p[{i}]" for i, kind in enumerate(kinds))
            + "); });\n}\n"
            for name, kinds in self._signatures.items()
        )


class Symbol:
    """A variable of a module: as much of a MemoryPointer as is written through."""

    def __init__(self, address: int):
        self._address = address

    def copy_from_host_async(self, source: ctypes.c_void_p, size: int) -> None:
        counts["uploads"] += 1
        ctypes.memmove(self._address, source, size)


def most_clusters(blocks: int) -> int:
    """Clusters of so many blocks that the device holds at a time."""
    return blocks_of_clusters // blocks


class _Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class RawKernel:
    """Launches one kernel, after a check of every argument against its signature."""

    max_dynamic_shared_size_bytes = 48 << 10  # what a launch may ask for, until it is raised

    def __init__(
        self, name: str, launcher, signature: list[tuple[np.dtype, bool]], cooperative: bool, cluster: int
    ):
        self.name, self._launcher, self._signature = name, launcher, signature
        self.cooperative, self.cluster = cooperative, cluster
        self.kernel = SimpleNamespace(ptr=id(self))

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0
    ) -> None:
        global seed
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        assert all(1 <= n <= most for n, most in zip(grid, (2**31 - 1, 65535, 65535), strict=True)), grid
        assert min(block) >= 1
        assert np.prod(block) <= 1024
        assert 0 <= shared_mem <= self.max_dynamic_shared_size_bytes <= shared_memory
        if self.cooperative:  # cupy would make the grid smaller, with no more than a warning
            assert np.prod(grid) <= multiprocessors * blocks_of_one, "this grid cannot be resident"
        assert grid[0] % self.cluster == 0, "no cluster is cut"
        together = self.cooperative
        if self.cluster > 1:  # nothing makes sure that all of them are resident, but that it was asked for
            assert not together
            assert np.prod(grid) <= most_clusters(self.cluster) * self.cluster, (
                "these clusters cannot be resident"
            )
            together = True
        assert len(args) == len(self._signature), f"{self.name} takes {len(self._signature)} arguments"
        values = [self._check(i, *expected, args[i]) for i, expected in enumerate(self._signature)]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        if counts["launches"] > lost_after:  # one launch later than what waits for it
            raise CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
        if counts["launches"] >= refused_after:
            raise CUDADriverError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks")
        counts["launches"] += 1
        seed += 1
        size, number = ctypes.c_size_t(shared_mem), ctypes.c_uint(seed)
        failure = self._launcher(_Dim3(*grid), _Dim3(*block), size, ctypes.c_bool(together), number, pointers)
        if failure:
            raise AssertionError(f"{self.name}: {failure.decode()}")
        for array in list(_alive):
            array.check_guards()

    def _check(self, i: int, dtype: np.dtype, is_pointer: bool, argument) -> np.ndarray:
        """The argument's value as one host number: for a pointer, its address."""
        what = f"argument {i} of {self.name}"
        if not is_pointer:
            assert type(argument) is dtype.type, f"{what} is {type(argument)}, not {dtype}"
            return np.array([argument])
        assert type(argument) is ndarray, f"{what} is not on the device: {type(argument)}"
        assert argument.dtype == dtype, f"{what} is {argument.dtype}, not {dtype}"
        assert argument.flags.c_contiguous, f"{what} is not contiguous"
        return np.array([argument._host.ctypes.data], np.uintp)


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def _build(code: str, options: tuple[str, ...]) -> Path:
    """The shared library of this source and these options, compiled once per machine."""
    here = Path(__file__).parent
    program = compiler()
    assert program is not None
    defines = [option for option in options if option.startswith("-D")]
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-w", "-U_FORTIFY_SOURCE", *defines]
    text = f'#include "{here / "cuda_on_host.hpp"}"\n{code}'
    header = (here / "cuda_on_host.hpp").read_text()
    key = hashlib.sha256("\0".join([program, *flags, header, text]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"gpubp-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        part = folder / f"{key}.{os.getpid()}.so"
        command = [program, *flags, "-x", "c++", "-", "-o", str(part)]
        result = subprocess.run(command, input=text, capture_output=True, text=True)
        if result.returncode:
            raise CompileException(result.stderr)
        part.replace(library)
    return library


_properties = {"name": b"no GPU: the kernels run on the host", "major": 9, "minor": 0}

cuda = SimpleNamespace(
    is_available=lambda: True,
    compiler=SimpleNamespace(CompileException=CompileException),
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
    cublas=SimpleNamespace(getVersion=lambda: 130000, CUBLASError=CUBLASError),
    driver=SimpleNamespace(
        CUDADriverError=CUDADriverError,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda kernel, threads, shared: blocks_of_one,
    ),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        deviceSynchronize=lambda: _answer(),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        deviceGetAttribute=lambda attribute, device: {97: shared_memory}[attribute],
        getDeviceProperties=lambda device: {**_properties, "multiProcessorCount": multiprocessors},
        memGetInfo=lambda: (int(memory_limit), int(memory_limit)),
    ),
)

# As much of cuda.bindings.driver as says how many clusters are resident.
bindings_driver = SimpleNamespace(
    CUlaunchConfig=SimpleNamespace,
    CUlaunchAttribute=lambda: SimpleNamespace(value=SimpleNamespace(clusterDim=SimpleNamespace())),
    CUlaunchAttributeID=SimpleNamespace(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION=4),
    CUresult=SimpleNamespace(CUDA_SUCCESS=0),
    CUfunction=lambda address: address,
    cuOccupancyMaxActiveClusters=lambda function, config: (
        0,
        most_clusters(config.attrs[0].value.clusterDim.x),
    ),
)

missing_compiler = None if compiler() else "no C++ compiler is found to build the CUDA kernels for the host"
if missing_compiler is None and not sys.platform.startswith("linux"):
    missing_compiler = "the CUDA kernels are built for the host on Linux only"
