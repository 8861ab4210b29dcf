"""The ``cupy`` backend: cuBLAS products and launches of the kernels in gpubp.kernels.cuda, on one NVIDIA GPU.

CuPy is imported when a backend is made, never when this module is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.backend import Array, Backend, check_rule
from gpubp.backends.cuda.persistent import (
    MOST_PARTS,
    PersistentPlan,
    UnitsPlan,
    shared_bytes,
    units_of_a_block,
    why_no_units,
)
from gpubp.backends.plan import Plan, Problem
from gpubp.data.samples import byte_table
from gpubp.errors import BackendUnavailable, GpubpError, UsageError
from gpubp.functions import Activation, Loss
from gpubp.kernels import cuda
from gpubp.optimizers import Optimizer

_WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
_INSTALL = 'python -m pip install "gpubp[cuda13]" (or "gpubp[cuda12]", if nvidia-smi shows CUDA version 12)'

ROW_BLOCK = (cuda.WARP, 8)  # eight rows of a batch, a warp each
FLAT_BLOCK = (256,)
GRID_Y_MAX = 65535
MOST_SHARED_MEMORY = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
# What cuBLAS answers where there is no memory for its handle or workspace.
NO_WORKSPACE = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
# Multiply-adds of a step's forward products, up to which the fused plan is chosen: 3 × 2 × 2e9 operations take some
# 0.3 ms, beside which a step's launches do not count. Counted, not measured.
COMPOSED_WORK = 2_000_000_000


def why_unavailable() -> str | None:
    """None if CuPy and a GPU answer here, else why not and what to install."""
    wheels = _installed_wheels()
    if len(wheels) > 1:
        return (
            f"{' and '.join(wheels)} are installed together and overwrite each other; "
            f"try: python -m pip uninstall {' '.join(wheels)}, then {_INSTALL}"
        )
    if not wheels and importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; with an NVIDIA GPU, try: {_INSTALL}"
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a broken install is a reason to report, not a traceback
        return f"CuPy is installed but cannot be imported ({_in_one_line(error)}); reinstall it: {_INSTALL}"
    return _why_no_device(cupy.cuda) or _why_no_libraries(cupy.cuda)


def _installed_wheels() -> list[str]:
    found = []
    for name in _WHEELS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def _why_no_device(cupy_cuda: Any) -> str | None:
    """None if a device answers; asks the runtime for numbers only, since a Stream() that fails is noisy."""
    runtime = cupy_cuda.runtime
    try:
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception as error:
        return f"the NVIDIA driver does not answer ({_in_one_line(error)})"
    if driver == 0:
        return "no NVIDIA driver is installed, or this machine or container cannot see it"
    if driver // 1000 < needed // 1000:
        return (
            f"the NVIDIA driver is for CUDA {_version(driver)}, older than the CUDA {_version(needed)} "
            f"of this CuPy: install a newer driver, or the CuPy of CUDA {driver // 1000}: {_INSTALL}"
        )
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        return f"no CUDA device can be used ({_in_one_line(error)})"
    return None if count else "the NVIDIA driver finds no CUDA device"


def _why_no_libraries(cupy_cuda: Any) -> str | None:
    try:
        cupy_cuda.nvrtc.getVersion()
        _ = cupy_cuda.cublas.getVersion
    except Exception as error:
        return f"CuPy finds no NVRTC or cuBLAS ({_in_one_line(error)}); install them: {_INSTALL}"
    return None


def _in_one_line(error: Exception) -> str:
    """The error's last line: CuPy's import errors end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[-1] if lines else type(error).__name__


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class CupyBackend(Backend):
    """CuPy arrays on the current device and its default stream, which keeps all work in order.

    A product is ``cupy.matmul(out=)``: one cuBLAS gemm, which takes transposed views as they are, in full
    precision unless the environment variable CUPY_TF32 asks for less. What follows a product is one kernel.
    Nothing is allocated in a step, but that CuPy takes a product of one number as a sum, with temporaries
    from its memory pool.

    The other plans run whole epochs in one launch (:mod:`gpubp.backends.cuda.persistent`): "fused", any network,
    and "units", small ones with one hidden layer. Left the choice, these are trained by units, in up to
    ``MOST_PARTS`` blocks, and those whose steps are of more than ``COMPOSED_WORK`` multiply-adds by the
    composed plan, since cuBLAS is then what counts.

    Args:
        module: the ``cupy`` to use; None imports it.
        plan: "composed", "fused", "units", or "auto".
        precision: of products of float32 matrices. "tf32" computes them on tensor cores, from factors rounded to 11
            bits; "3xtf32" too, but as three products of what is left of them, nearly as exact as "float32". Only the
            fused plan has these, and its gradients are held to a bound of their own.

    Raises:
        BackendUnavailable: CuPy or a GPU is missing; the message is that of ``why_unavailable``.
        UsageError: there is no such plan or precision.
    """

    name = "cupy"
    plans = ("composed", "fused", "units")
    precisions = tuple(cuda.PRECISIONS)

    def __init__(
        self, module: ModuleType | None = None, plan: str = "auto", precision: str = "float32"
    ) -> None:
        super().__init__(plan, precision)
        if module is None:
            reason = why_unavailable()
            if reason:
                raise BackendUnavailable(reason)
            module = importlib.import_module("cupy")
        self._cp: Any = module
        self._modules: dict[np.dtype, dict[str, Any]] = {}
        self._persistent: dict[tuple[str, np.dtype, int | None], Any] = {}
        self._tables: dict[np.dtype, Array] = {}
        self._scaled: dict[np.dtype, Array] = {}

    def describe(self) -> str:
        runtime = self._cp.cuda.runtime
        device = runtime.getDevice()
        properties = runtime.getDeviceProperties(device)
        return (
            f"{properties['name'].decode()} (compute capability {properties['major']}.{properties['minor']}, "
            f"device {device}), driver CUDA {_version(runtime.driverGetVersion())}, "
            f"runtime CUDA {_version(runtime.runtimeGetVersion())}, CuPy {self._cp.__version__}, "
            f"products in {self.precision}{', CUPY_TF32 set for cuBLAS' if _tf32() else ''}"
        )

    def to_device(self, array: np.ndarray, out: Array | None = None) -> Array:
        if out is None:
            out = self._empty(array.shape, array.dtype)
        with self._answering():
            out.set(np.ascontiguousarray(array, out.dtype))
        return out

    def to_host(self, array: Array) -> np.ndarray:
        with self._answering():
            return array.get()

    def gather(self, source: Array, order: Array, out: Array) -> None:
        rows, width = len(order), out.size // len(order)
        arguments: tuple[Any, ...] = (out, np.int64(rows), np.int64(width))
        if source.dtype == np.uint8:
            name, arguments = "gather_bytes", (source, order, self._table(out.dtype), *arguments)
        else:
            name, arguments = "gather", (source, order, *arguments)
        self._launch(name, _row_grid(rows, width), arguments, out.dtype)

    def forward(
        self, a_prev: Array, weights: Array, bias: Array, activation: Activation, z: Array, a: Array
    ) -> None:
        self._matmul(a_prev, weights.T, z)
        code = np.int32(kernels.ACTIVATIONS[activation.name])
        rows, width = z.shape
        grid = _row_grid(rows, 1 if activation.name == "softmax" else width)
        self._launch("forward", grid, (z, bias, code, a, np.int64(rows), np.int64(width)), z.dtype)

    def output_delta(
        self,
        z: Array,
        a: Array,
        targets: Array,
        sample_weight: Array,
        activation: Activation,
        loss: Loss,
        delta: Array,
        row_cost: Array,
        row_hit: Array,
    ) -> None:
        codes = np.int32(kernels.ACTIVATIONS[activation.name]), np.int32(kernels.LOSSES[loss.name])
        rows, width = a.shape
        outputs = delta, row_cost, row_hit
        arguments = (z, a, targets, sample_weight, *codes, *outputs, np.int64(rows), np.int64(width))
        self._launch("output_delta", _row_grid(rows, 1), arguments, a.dtype)

    def hidden_delta(
        self, delta_next: Array, weights_next: Array, a: Array, activation: Activation, delta: Array
    ) -> None:
        self._matmul(delta_next, weights_next, delta)
        code = np.int32(kernels.ACTIVATIONS[activation.name])
        rows, width = a.shape
        grid = _row_grid(rows, 1 if activation.name == "softmax" else width)
        self._launch("hidden_delta", grid, (delta, a, code, np.int64(rows), np.int64(width)), a.dtype)

    def weight_grad(self, delta: Array, a_prev: Array, grad_weights: Array, grad_bias: Array) -> None:
        rows, width = delta.shape
        scaled = self._scratch(delta.dtype, delta.size)[: delta.size].reshape(rows, width)
        arguments = (delta, scaled, grad_bias, np.int64(rows), np.int64(width))
        grid = (_tiles(width, cuda.WARP),)
        self._launch("weight_grad", grid, arguments, delta.dtype, block=(cuda.WARP, cuda.SUM_ROWS))
        self._matmul(scaled.T, a_prev, grad_weights)

    def update(
        self,
        parameter: Array,
        gradient: Array,
        slots: Sequence[Array],
        optimizer: Optimizer,
        coefficients: Sequence[float],
    ) -> None:
        c = [parameter.dtype.type(x) for x in coefficients]
        check_rule(optimizer)
        name = cuda.UPDATES[optimizer.kind, len(slots)]
        arguments = (parameter, gradient, *slots, np.int64(parameter.size), *c)
        grid = (_tiles(parameter.size, FLAT_BLOCK[0]),)
        self._launch(name, grid, arguments, parameter.dtype, block=FLAT_BLOCK)

    def plan(self, problem: Problem) -> Plan:
        """The plan; all that its steps need is compiled and allocated here.

        Raises:
            GpubpError: the kernels do not compile, or there is not enough memory.
            UsageError: the plan that is asked for cannot train this network.
        """
        kind, why = self._choose(problem)
        plan: Plan
        if kind == "units":
            plan = UnitsPlan(self, problem)
        elif kind == "fused":
            plan = PersistentPlan(self, problem)
        else:
            self._kernels(problem.dtype)
            self._table(problem.dtype)
            widest = max(layer.n_out for layer in problem.layers)
            self._scratch(problem.dtype, problem.batch_size * widest)
            plan = super().plan(problem)
        plan.why = why
        return plan

    def _choose(self, problem: Problem) -> tuple[str, str]:
        """The kind of plan for this network, and why.

        Raises UsageError: the plan or the precision is not for it.
        """
        if self.precision != "float32":
            if problem.dtype != np.float32:
                raise UsageError(f"precision {self.precision} is for float32 networks, not {problem.dtype}")
            if self.plan_kind not in ("auto", "fused"):
                raise UsageError(
                    f"only the fused plan has precision {self.precision}, not {self.plan_kind!r}"
                )
            return "fused", f"which precision {self.precision} asks for"
        no_units = why_no_units(self, problem)
        if self.plan_kind == "units" and no_units is not None:
            raise UsageError(f"the units plan does not fit: {no_units}; choose the fused plan")
        if self.plan_kind != "auto":
            return self.plan_kind, "as asked for"
        why_not = f"the units plan does not fit: {no_units}"
        if no_units is None:
            n_hidden = problem.layers[0].n_out
            blocks = _tiles(n_hidden, units_of_a_block(self, n_hidden))
            if blocks <= MOST_PARTS:
                return "units", "chosen for the one hidden layer, which fits"
            why_not = f"each of the units plan's {blocks} blocks, more than {MOST_PARTS}, would add up all their parts"
        work = problem.batch_size * sum(layer.n_in * layer.n_out for layer in problem.layers)
        if work > COMPOSED_WORK:
            return (
                "composed",
                f"chosen for steps of {work:,} multiply-adds forward, beside which launches do not count",
            )
        return "fused", f"chosen since {why_not}"

    def _matmul(self, a: Array, b: Array, out: Array) -> None:
        """``out = a @ b``.

        Raises GpubpError: cuBLAS finds no memory for itself, or the device does not answer.
        """
        with self._answering():
            try:
                self._cp.matmul(a, b, out=out)
            except self._cp.cuda.memory.OutOfMemoryError as error:
                raise self._out_of_memory("what a product needs beside") from error
            except self._cp.cuda.cublas.CUBLASError as error:
                if any(status in str(error) for status in NO_WORKSPACE):
                    raise self._out_of_memory(f"what cuBLAS needs ({_in_one_line(error)})") from error
                raise

    def _empty(self, shape: tuple[int, ...] | int, dtype: np.dtype) -> Array:
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

    def _scratch(self, dtype: np.dtype, size: int) -> Array:
        """A flat buffer of at least ``size`` numbers, which grows when asked for more than ever before."""
        if dtype not in self._scaled or self._scaled[dtype].size < size:
            self._scaled[dtype] = self._empty(size, dtype)
        return self._scaled[dtype]

    def _table(self, dtype: np.dtype) -> Array:
        if dtype not in self._tables:
            self._tables[dtype] = self.to_device(byte_table(dtype))
        return self._tables[dtype]

    def _kernels(self, dtype: np.dtype) -> dict[str, Any]:
        """The kernels compiled for ``dtype``, by name; CuPy caches the binary on disk."""
        if dtype not in self._modules:
            module = self._cp.RawModule(code=cuda.source(), options=self._options(dtype))
            self._modules[dtype] = {name: self._function(module, name, dtype) for name in cuda.KERNELS}
        return self._modules[dtype]

    def _options(
        self, dtype: np.dtype, precision: str = "float32", units: int | None = None
    ) -> tuple[str, ...]:
        return ("--std=c++17", *cuda.definitions(dtype, precision, units))

    def _function(self, module: Any, name: str, dtype: np.dtype) -> Any:
        try:
            return module.get_function(name)
        except self._cp.cuda.compiler.CompileException as error:
            raise GpubpError(f"the CUDA kernels do not compile for {dtype}:\n{error}") from error

    def persistent_kernel(self, name: str, dtype: np.dtype, shared: int, units: int | None = None) -> Any:
        """The kernel of ``epoch.cu``, or of ``units.cu`` for so many hidden units a block.

        It is to be launched with up to so many bytes of shared memory.

        Raises GpubpError: it does not compile.
        """
        if (name, dtype, units) not in self._persistent:
            module = self._cp.RawModule(
                code=cuda.source(cuda.PERSISTENT[name]),
                options=self._options(dtype, self.precision, units),
                enable_cooperative_groups=True,
            )
            self._persistent[name, dtype, units] = self._function(module, name, dtype)
        kernel = self._persistent[name, dtype, units]
        if kernel.max_dynamic_shared_size_bytes < shared:
            kernel.max_dynamic_shared_size_bytes = shared
        return kernel

    def warm_up(self, dtype: str) -> Iterator[tuple[str, float]]:
        """Compile what training in ``dtype`` can launch, or load it from CuPy's cache: yields what, and the seconds.

        Raises GpubpError: it does not compile.
        """
        kind = np.dtype(dtype)

        def units_of(count: int) -> Callable[[], Any]:
            return lambda: self.persistent_kernel("units", kind, 0, count)

        compilations: dict[str, Callable[[], Any]] = {
            "composed plan": lambda: self._kernels(kind),
            "fused plan": lambda: self.persistent_kernel("epoch", kind, shared_bytes(kind)),
        }
        compilations |= {
            f"units plan, {count} units a block": units_of(count) for count in cuda.UNITS_OF_A_BLOCK
        }
        for what, compilation in compilations.items():
            started = time.perf_counter()
            compilation()
            yield f"{dtype} network on the GPU, {what}", time.perf_counter() - started

    def start(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[Any, ...],
        shared: int = 0,
    ) -> None:
        """Launch a kernel.

        Raises GpubpError: the device does not answer, an earlier launch failed, or this one is refused.
        """
        cp = self._cp.cuda
        with self._answering():
            try:
                kernel(grid, block, arguments, shared_mem=shared)
            except (cp.runtime.CUDARuntimeError, cp.driver.CUDADriverError) as error:
                cp.runtime.deviceSynchronize()  # fails too if the device does, or an earlier launch did
                raise GpubpError(
                    f"the GPU refused to start a kernel ({_in_one_line(error)}), and still answers: it may have too "
                    "little room beside other programs; try again, from a checkpoint with --resume, or with "
                    "--plan composed"
                ) from error

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What goes wrong with the device in here is a GpubpError."""
        cp = self._cp.cuda
        try:
            yield
        except (cp.runtime.CUDARuntimeError, cp.driver.CUDADriverError, cp.cublas.CUBLASError) as error:
            raise GpubpError(
                f"the GPU stopped answering ({_in_one_line(error)}); what it computed since the last checkpoint is "
                "lost: see nvidia-smi, then go on with --resume, or with --backend numba"
            ) from error

    def multiprocessors(self) -> int:
        runtime = self._cp.cuda.runtime
        return runtime.getDeviceProperties(runtime.getDevice())["multiProcessorCount"]

    def shared_memory(self) -> int:
        """Bytes of shared memory that a block can have."""
        runtime = self._cp.cuda.runtime
        return runtime.deviceGetAttribute(MOST_SHARED_MEMORY, runtime.getDevice())

    def resident_blocks(
        self, kernel: Any, threads: int, shared: int, plan: str = "fused", other: str = "composed"
    ) -> int:
        """How many blocks of a cooperative launch this device holds, one a multiprocessor; CuPy cuts a larger grid.

        Raises GpubpError: not one, for this plan; with the other one to choose.
        """
        driver = self._cp.cuda.driver
        if not driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, threads, shared):
            raise GpubpError(
                f"the GPU cannot hold a block of {threads} threads with {shared:,} bytes of shared memory, which "
                f"the {plan} plan needs: choose the {other} plan (--plan {other})"
            )
        return self.multiprocessors()

    def _launch(
        self,
        name: str,
        grid: tuple[int, ...],
        arguments: tuple[Any, ...],
        dtype: np.dtype,
        block: tuple[int, ...] = ROW_BLOCK,
    ) -> None:
        self.start(self._kernels(dtype)[name], grid, block, arguments)


def _tf32() -> bool:
    return int(os.environ.get("CUPY_TF32") or 0) > 0  # as CuPy reads it


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


def _row_grid(rows: int, width: int) -> tuple[int, int]:
    """Blocks of rows by column tiles; a kernel strides over the columns that the grid does not reach."""
    return _tiles(rows, ROW_BLOCK[1]), min(_tiles(width, cuda.WARP), GRID_Y_MAX)
