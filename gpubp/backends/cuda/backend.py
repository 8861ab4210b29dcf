"""The ``cupy`` backend: cuBLAS products and launches of the kernels in gpubp.kernels.cuda, on one NVIDIA GPU.

CuPy is imported when a backend is made, never when this module is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from gpubp import kernels
from gpubp.backends.backend import Backend, check_rule
from gpubp.backends.cuda.availability import why_unavailable
from gpubp.backends.cuda.costs import COMPOSED_WORK, UNSHARED_INPUTS
from gpubp.backends.cuda.deform import Deforming
from gpubp.backends.cuda.device import Device
from gpubp.backends.cuda.epoch import EpochPlan, shared_bytes
from gpubp.backends.cuda.units import PLANS, Grid
from gpubp.backends.plan import Plan, Problem
from gpubp.errors import UsageError
from gpubp.kernels import cuda
from gpubp.randomness.deform import Deformation
from gpubp.randomness.philox import BLOCK, LANES, seed_of

__all__ = ["CupyBackend", "why_unavailable"]

FLAT_BLOCK = (256,)
GRID_Y_MAX = 65535


class CupyBackend(Device, Backend):
    """CuPy arrays on one device, and the operations on them.

    A product is ``cupy.matmul(out=)``, in full precision unless the environment variable CUPY_TF32 asks for less.
    What follows a product is one kernel. Nothing is allocated in a step, but that CuPy takes a product of one number
    as a sum, with temporaries from its memory pool.

    The other plans run whole epochs in one launch: "fused", any network, and "units" and "cluster", small ones with
    one hidden layer. Left the choice, these are trained by units, or by clusters if they have more than
    ``UNSHARED_INPUTS`` inputs and the GPU has clusters; and those whose steps are of more than ``COMPOSED_WORK``
    multiply-adds by the composed plan, since cuBLAS is then what counts. Deformed images only the composed plan has.

    Args:
        module: the ``cupy`` to use; None imports it.
        plan: "composed", "fused", "units", "cluster", or "auto".
        precision: of products of float32 matrices. "tf32" computes them on tensor cores, from factors rounded to 11
            bits; "3xtf32" too, but as three products of what is left of them, nearly as exact as "float32". Only the
            fused plan has these, and its gradients are held to a bound of their own.

    Raises:
        BackendUnavailable: CuPy or a GPU is missing; the message is that of ``why_unavailable``.
        UsageError: there is no such plan or precision.
    """

    name = "cupy"
    plans = ("composed", "fused", "units", "cluster")
    precisions = tuple(cuda.PRECISIONS)

    def __init__(
        self, module: ModuleType | None = None, plan: str = "auto", precision: str = "float32"
    ) -> None:
        Backend.__init__(self, plan, precision)
        Device.__init__(self, module)
        self._deforming: Deforming | None = None

    def gather(self, source, order, out):
        rows, width = len(order), out.size // len(order)
        name = "gather_bytes" if source.dtype == np.uint8 else "gather"
        self._launch(name, _row_grid(rows, width), (source, order, out), (rows, width), out.dtype)

    def forward(self, a_prev, weights, bias, activation, z, a):
        self.matmul(a_prev, weights.T, z)
        code = np.int32(kernels.ACTIVATIONS[activation.name])
        grid = _row_grid(len(z), 1 if activation.name == "softmax" else z.shape[1])
        self._launch("forward", grid, (z, bias, code, a), z.shape, z.dtype)

    def output_delta(self, z, a, targets, sample_weight, activation, loss, delta, row_cost, row_hit):
        codes = np.int32(kernels.ACTIVATIONS[activation.name]), np.int32(kernels.LOSSES[loss.name])
        arguments = (z, a, targets, sample_weight, *codes, delta, row_cost, row_hit)
        self._launch("output_delta", _row_grid(len(a), 1), arguments, a.shape, a.dtype)

    def deform(self, source, order, deformation, step, classes, out):
        of = self._deforming_of(deformation, len(order))
        for start in range(0, len(order), of.some):
            rows = slice(start, start + of.some)
            for name, arguments, shape in of.launches(source, order[rows], step, classes, out[rows]):
                self._launch(name, _row_grid(*shape), arguments, shape, out.dtype)

    def _deforming_of(self, deformation: Deformation, batch: int) -> Deforming:
        """That of the last deformation there was, or a new one."""
        if self._deforming is None or not self._deforming.serves(deformation, batch):
            self._deforming = Deforming(self, deformation, batch)
        return self._deforming

    def drop(self, a, mask, order, out):
        grid = _row_grid(len(a), _tiles(a.shape[1], BLOCK) * LANES)  # a counter a lane
        codes = (
            np.uint64(seed_of(mask.key)),
            np.int32(mask.purpose),
            np.int64(mask.step),
            np.int32(mask.dropped),
        )
        arguments = (a, order, *codes, a.dtype.type(mask.factor), out)
        self._launch("drop", grid, arguments, a.shape, a.dtype)

    def hidden_delta(self, delta_next, weights_next, a, activation, delta, mask=None, order=None):
        self.matmul(delta_next, weights_next, delta)
        if mask is not None:
            self.drop(delta, mask, order, delta)
        code = np.int32(kernels.ACTIVATIONS[activation.name])
        grid = _row_grid(len(a), 1 if activation.name == "softmax" else a.shape[1])
        self._launch("hidden_delta", grid, (delta, a, code), a.shape, a.dtype)

    def weight_grad(self, delta, a_prev, grad_weights, grad_bias):
        scaled = self.scratch(delta.dtype, delta.size)[: delta.size].reshape(*delta.shape)
        grid, block = (_tiles(delta.shape[1], cuda.WARP),), (cuda.WARP, cuda.SUM_ROWS)
        arguments = (delta, scaled, grad_bias)
        self._launch("weight_grad", grid, arguments, delta.shape, delta.dtype, block=block)
        self.matmul(scaled.T, a_prev, grad_weights)

    def update(self, parameter, gradient, slots, optimizer, coefficients):
        # In place of a slot that there is not, which the rule does not touch, stands the parameter.
        slot1, slot2 = [*slots, parameter, parameter][:2]
        codes = np.int32(check_rule(optimizer)), np.int32(len(slots))
        c = np.zeros(cuda.COEFFICIENTS, parameter.dtype)
        c[: len(coefficients)] = coefficients
        arguments = (parameter, gradient, slot1, slot2, np.int64(parameter.size), *codes, *c)
        grid = (_tiles(parameter.size, FLAT_BLOCK[0]),)
        self._launch("update", grid, arguments, (), parameter.dtype, block=FLAT_BLOCK)

    def _launch(self, name, grid, arguments, shape, dtype, block=cuda.ROW_THREADS) -> None:
        """Launch an operation's kernel, whose last arguments are the shape."""
        self.start(self.kernels(dtype)[name], grid, block, (*arguments, *map(np.int64, shape)))

    def plan(self, problem: Problem) -> Plan:
        """The plan; all that its steps need is compiled and allocated here.

        Raises:
            GpubpError: the kernels do not compile, or there is not enough memory.
            UsageError: the plan that is asked for cannot train this network, or deforms no images.
        """
        kind, why = self._choose(problem)
        plan: Plan
        if kind in PLANS:
            plan = PLANS[kind](self, problem)
        elif kind == "fused":
            plan = EpochPlan(self, problem)
        else:
            self.kernels(problem.dtype)
            self.scratch(problem.dtype, problem.batch_size * max(layer.n_out for layer in problem.layers))
            if problem.deformation:
                self._deforming_of(problem.deformation, problem.batch_size)
            plan = super().plan(problem)
        plan.why = why
        return plan

    def _choose(self, problem: Problem) -> tuple[str, str]:
        """The kind of plan for this network, and why.

        Raises UsageError: the plan or the precision is not for it.
        """
        if problem.deformation:
            if self.plan_kind not in ("auto", "composed") or self.precision != "float32":
                raise UsageError(
                    "on a GPU only the composed plan deforms images, and in precision float32, not the "
                    f"{self.plan_kind} plan in precision {self.precision}: choose the composed plan (--plan composed)"
                )
            why = "chosen for the deformed images, which only it has"
            return "composed", "as asked for" if self.plan_kind == "composed" else why
        if self.precision != "float32":
            if problem.dtype != np.float32:
                raise UsageError(f"precision {self.precision} is for float32 networks, not {problem.dtype}")
            if self.plan_kind not in ("auto", "fused"):
                raise UsageError(
                    f"only the fused plan has precision {self.precision}, not {self.plan_kind!r}"
                )
            return "fused", f"as precision {self.precision} requires"
        if self.plan_kind != "auto":
            return self.plan_kind, "as asked for"
        name = "cluster" if problem.sizes[0] > UNSHARED_INPUTS else "units"
        found = PLANS[name].deal(self, problem)
        if isinstance(found, Grid):
            return name, "chosen for the one hidden layer, which fits"
        why_not = f"the {name} plan does not fit: {found}"
        work = problem.batch_size * sum(layer.n_in * layer.n_out for layer in problem.layers)
        if work > COMPOSED_WORK:
            why = f"chosen for steps of {work:,} multiply-adds forward, which outweigh the launches"
            return "composed", why
        return "fused", f"chosen since {why_not}"

    def warm_up(self, dtype: str) -> Iterator[tuple[str, float]]:
        """Compile what training in ``dtype`` can launch, or load what is there: yields what, and the seconds.

        Raises GpubpError: it does not compile.
        """
        kind = np.dtype(dtype)
        compilations: dict[str, Callable[[], Any]] = {"composed plan": partial(self.kernels, kind)}
        for dropout, has in (False, ""), (True, ", with dropout"):
            shared = shared_bytes(2, dropout)
            kernel = partial(self.persistent_kernel, "epoch", kind, shared, dropout=dropout)
            compilations[f"fused plan{has}"] = kernel
            for plan, count in product(PLANS.values(), cuda.UNITS_OF_A_CLUSTER):
                if plan.cluster == 1 or self.why_no_clusters() is None:
                    kernel = partial(self.persistent_kernel, "units", kind, 0, (count, plan.cluster), dropout)
                    compilations[f"{plan.name} plan, {count} hidden units {plan.of_units}{has}"] = kernel
        for what, compilation in compilations.items():
            started = time.perf_counter()
            compilation()
            yield f"{dtype} network on the GPU, {what}", time.perf_counter() - started


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


def _row_grid(rows: int, width: int) -> tuple[int, int]:
    """Blocks of rows by column tiles; a kernel strides over the columns that the grid does not reach."""
    return _tiles(rows, cuda.ROW_BLOCK), min(_tiles(width, cuda.WARP), GRID_Y_MAX)
