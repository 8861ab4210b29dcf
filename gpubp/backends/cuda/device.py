"""One NVIDIA GPU as the plans see it: its arrays, its kernels, and its failures as messages."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from gpubp.backends.cuda import cubins
from gpubp.backends.cuda.availability import in_one_line, version, why_unavailable
from gpubp.backends.operations import Array
from gpubp.errors import BackendUnavailable, GpubpError
from gpubp.kernels import cuda

Shape = tuple[int, ...]
CLUSTERS_FROM = 9  # compute capability
MOST_SHARED_MEMORY = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
# What cuBLAS answers where there is no memory for its handle or workspace.
NO_WORKSPACE = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")


@dataclass(frozen=True)
class PersistentKernel:
    """A kernel that stays for whole epochs, and where its module has what a launch is told."""

    name: str
    dtype: np.dtype
    dropout: bool
    function: Any
    launch: Any

    def pack(self, values: Mapping[str, Any]) -> np.ndarray:
        """What a launch is told, as it lies in memory; null stands for the pointers that are None.

        Raises TypeError: an array is not what the kernel takes it for.
        """
        record = np.zeros(1, cuda.launch_record(self.name, self.dropout))
        for field, kind in cuda.launch_fields(self.name, self.dropout).items():
            value = values[field]
            if kind.endswith("*") and value is not None:
                wanted = self.dtype if kind == "real*" else np.dtype(kind[:-1])
                if value.dtype != wanted or not value.flags.c_contiguous:
                    raise TypeError(
                        f"{field} of {self.name} is to be {wanted} without gaps, not {value.dtype}"
                    )
                value = value.data.ptr
            record[field] = value or 0
        return record


class Device:
    """CuPy's current device and its default stream, which keeps all work in order.

    Args:
        module: the ``cupy`` to use; None imports it.

    Raises:
        BackendUnavailable: CuPy or a GPU is missing; the message is that of ``why_unavailable``.
    """

    precision = "float32"  # of products

    def __init__(self, module: ModuleType | None = None) -> None:
        if module is None:
            reason = why_unavailable()
            if reason:
                raise BackendUnavailable(reason)
            module = importlib.import_module("cupy")
        self._cp: Any = module
        self._operations: dict[np.dtype, dict[str, Any]] = {}
        self._persistent: dict[tuple[str, np.dtype, tuple[int, int] | None, bool], PersistentKernel] = {}
        self._scaled: dict[np.dtype, Array] = {}

    def describe(self) -> str:
        runtime = self._cp.cuda.runtime
        device = runtime.getDevice()
        properties = runtime.getDeviceProperties(device)
        tf32 = int(os.environ.get("CUPY_TF32") or 0) > 0  # as CuPy reads it
        return (
            f"{properties['name'].decode()} (compute capability {properties['major']}.{properties['minor']}, "
            f"device {device}), driver CUDA {version(runtime.driverGetVersion())}, "
            f"runtime CUDA {version(runtime.runtimeGetVersion())}, CuPy {self._cp.__version__}, "
            f"products in {self.precision}{', CUPY_TF32 set for cuBLAS' if tf32 else ''}"
        )

    def multiprocessors(self) -> int:
        runtime = self._cp.cuda.runtime
        return runtime.getDeviceProperties(runtime.getDevice())["multiProcessorCount"]

    def architecture(self) -> str:
        """What the compiler calls the device: sm_90 for compute capability 9.0."""
        runtime = self._cp.cuda.runtime
        return "sm_{major}{minor}".format(**runtime.getDeviceProperties(runtime.getDevice()))

    def shared_memory(self) -> int:
        """Bytes of shared memory that a block can have."""
        runtime = self._cp.cuda.runtime
        return runtime.deviceGetAttribute(MOST_SHARED_MEMORY, runtime.getDevice())

    def resident_blocks(
        self, kernel: Any, threads: int, shared: int, plan: str = "fused", other: str = "composed"
    ) -> int:
        """Return how many blocks of a cooperative launch fit here, one a multiprocessor; CuPy cuts a larger grid.

        Raises GpubpError: not one, for this plan; with the other one to choose.
        """
        driver = self._cp.cuda.driver
        if not driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, threads, shared):
            raise GpubpError(
                f"the GPU cannot hold a block of {threads} threads with {shared:,} bytes of shared memory, which "
                f"the {plan} plan needs: choose the {other} plan (--plan {other})"
            )
        return self.multiprocessors()

    def why_no_clusters(self) -> str | None:
        """None if blocks can be launched as clusters, else why not."""
        runtime = self._cp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        if properties["major"] < CLUSTERS_FROM:
            return f"clusters of blocks need compute capability {CLUSTERS_FROM}.0"
        try:
            self._driver()
        except ImportError as error:
            return (
                f"the module cuda.bindings, which knows how many clusters are resident, is missing ({error})"
            )
        return None

    def resident_clusters(self, function: Any, blocks: int, block: Shape, shared: int) -> int:
        """Return how many clusters of so many blocks the GPU holds at a time."""
        driver = self._driver()
        config, of_cluster = driver.CUlaunchConfig(), driver.CUlaunchAttribute()
        of_cluster.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        for axis, size in zip("xyz", (blocks, 1, 1), strict=True):
            setattr(of_cluster.value.clusterDim, axis, size)
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = (*block, 1, 1)[:3]
        config.sharedMemBytes, config.attrs, config.numAttrs = shared, [of_cluster], 1
        status, count = driver.cuOccupancyMaxActiveClusters(driver.CUfunction(function.kernel.ptr), config)
        return count if status == driver.CUresult.CUDA_SUCCESS else 0

    def _driver(self) -> Any:
        """NVIDIA's own names of the driver's functions; a stand-in for CuPy brings a stand-in for them."""
        return getattr(self._cp, "bindings_driver", None) or importlib.import_module("cuda.bindings.driver")

    def to_device(self, array: np.ndarray, out: Array | None = None) -> Array:
        if out is None:
            out = self._empty(array.shape, array.dtype)
        with self._answering():
            out.set(np.ascontiguousarray(array, out.dtype))
        return out

    def to_host(self, array: Array) -> np.ndarray:
        with self._answering():
            return array.get()

    def scratch(self, dtype: np.dtype, size: int) -> Array:
        """A flat buffer of at least ``size`` numbers, which grows when asked for more than ever before."""
        if dtype not in self._scaled or self._scaled[dtype].size < size:
            self._scaled[dtype] = self._empty(size, dtype)
        return self._scaled[dtype]

    def kernels(self, dtype: np.dtype) -> dict[str, Any]:
        """The operations' kernels compiled for ``dtype``, by name: ahead, or now, and then CuPy caches the binary."""
        if dtype not in self._operations:
            _, kernels = self._compile("", cuda.source(), cuda.KERNELS, dtype)
            self._operations[dtype] = dict(zip(cuda.KERNELS, kernels, strict=True))
        return self._operations[dtype]

    def persistent_kernel(
        self,
        name: str,
        dtype: np.dtype,
        shared: int,
        units: tuple[int, int] | None = None,
        dropout: bool = False,
    ) -> PersistentKernel:
        """The kernel of ``epoch.cu``, or of ``units.cu`` for so many hidden units of a cluster of so many blocks.

        It is to be launched with up to so many bytes of shared memory; with ``dropout`` it is one that can drop.

        Raises GpubpError: it does not compile.
        """
        key = name, dtype, units, dropout
        if key not in self._persistent:
            module, (function,) = self._compile(
                name, cuda.source(cuda.PERSISTENT[name]), (name,), dtype, units, dropout
            )
            self._persistent[key] = PersistentKernel(
                name, dtype, dropout, function, module.get_global("launch")
            )
        kernel = self._persistent[key]
        if kernel.function.max_dynamic_shared_size_bytes < shared:
            kernel.function.max_dynamic_shared_size_bytes = shared
        return kernel

    def _compile(
        self,
        persistent: str,
        source: str,
        names: tuple[str, ...],
        dtype: np.dtype,
        units: tuple[int, int] | None = None,
        dropout: bool = False,
    ) -> tuple[Any, list[Any]]:
        """A module of these kernels, and they. Raises GpubpError: they do not compile."""
        precision = self.precision if persistent else "float32"
        # A cooperative launch is refused where not all blocks are resident; CuPy has none of clusters, for which
        # resident_clusters() is asked.
        cooperative = bool(persistent) and (units is None or units[1] == 1)
        try:
            return self._load(source, cuda.options(dtype, precision, units, dropout), cooperative, names)
        except self._cp.cuda.compiler.CompileException as error:
            raise GpubpError(f"the CUDA kernels do not compile for {dtype}:\n{error}") from error

    def _load(
        self, source: str, options: tuple[str, ...], cooperative: bool, names: tuple[str, ...]
    ) -> tuple[Any, list[Any]]:
        """The module from the binary built ahead, else compiled, and its kernels; a driver may be too old for one."""
        of_module = partial(self._cp.RawModule, enable_cooperative_groups=cooperative)
        if built := cubins.find(source, options, self.architecture()):
            try:
                module = of_module(path=str(built))
                return module, [module.get_function(name) for name in names]
            except self._cp.cuda.driver.CUDADriverError as error:
                cubins.not_used(f"the driver does not load {built.name} ({in_one_line(error)})")
        module = of_module(code=source, options=options)
        return module, [module.get_function(name) for name in names]

    def start_persistent(
        self, kernel: PersistentKernel, grid: Shape, launch: Mapping[str, Any], shared: int
    ) -> None:
        """Launch a persistent kernel, with what it is told in its module's constant memory.

        Raises GpubpError: as ``start`` does.
        """
        record = kernel.pack(launch)
        with self._answering():
            kernel.launch.copy_from_host_async(ctypes.c_void_p(record.ctypes.data), record.nbytes)
        self.start(kernel.function, grid, cuda.ROW_THREADS, (), shared)

    def start(self, kernel: Any, grid: Shape, block: Shape, arguments: tuple, shared: int = 0) -> None:
        """Launch a kernel with ``shared`` bytes of shared memory.

        Raises GpubpError: the device does not answer, an earlier launch failed, or this one is refused.
        """
        cp = self._cp.cuda
        with self._answering():
            try:
                kernel(grid, block, arguments, shared_mem=shared)
            except (cp.runtime.CUDARuntimeError, cp.driver.CUDADriverError) as error:
                cp.runtime.deviceSynchronize()  # fails too if the device does, or an earlier launch did
                raise GpubpError(
                    f"the GPU refused to start a kernel ({in_one_line(error)}), but still answers: it may have too "
                    "little room beside other programs; try again, from a checkpoint with --resume, or with "
                    "--plan composed"
                ) from error

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """``out = a @ b``: one cuBLAS gemm, which takes transposed views as they are.

        Raises GpubpError: cuBLAS finds no memory for itself, or the device does not answer.
        """
        with self._answering():
            try:
                self._cp.matmul(a, b, out=out)
            except self._cp.cuda.memory.OutOfMemoryError as error:
                raise self._out_of_memory("a product's workspace") from error
            except self._cp.cuda.cublas.CUBLASError as error:
                if any(status in str(error) for status in NO_WORKSPACE):
                    raise self._out_of_memory(f"what cuBLAS needs ({in_one_line(error)})") from error
                raise

    def _empty(self, shape: Shape | int, dtype: np.dtype) -> Array:
        try:
            return self._cp.empty(shape, dtype)
        except self._cp.cuda.memory.OutOfMemoryError as error:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize / 1e6
            raise self._out_of_memory(f"an array of {size:,.1f} MB") from error

    def _out_of_memory(self, what: str) -> GpubpError:
        free, total = (number / 1e6 for number in self._cp.cuda.runtime.memGetInfo())
        return GpubpError(
            f"out of GPU memory: {what} does not fit, with {free:,.1f} of {total:,.1f} MB free; "
            "try a smaller batch size, network or data set"
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise what goes wrong with the device in here as a GpubpError."""
        cp = self._cp.cuda
        try:
            yield
        except (cp.runtime.CUDARuntimeError, cp.driver.CUDADriverError, cp.cublas.CUBLASError) as error:
            raise GpubpError(
                f"the GPU stopped answering ({in_one_line(error)}); what it computed since the last checkpoint is "
                "lost: see nvidia-smi, then go on with --resume, or with --backend numba"
            ) from error
