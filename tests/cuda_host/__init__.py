"""Test equipment: the CUDA backend, Python side and kernels, on a machine without a GPU."""

import os

from gpubp.backends.cuda.backend import CupyBackend
from tests.cuda_host import fake_cupy
from tests.cuda_host.fake_cupy import missing_compiler

__all__ = ["cuda_backend", "fake_cupy", "host_backend", "missing_compiler", "why_no_cuda"]

ON_GPU = (
    os.environ.get("GPUBP_TEST_GPU") == "1"
)  # whether tests that need no stand-in run on the GPU there is

why_no_cuda = None if ON_GPU else missing_compiler


def cuda_backend(plan: str = "auto", precision: str = "float32") -> CupyBackend:
    """The backend on the GPU if GPUBP_TEST_GPU=1 is set, else on the stand-in."""
    return CupyBackend(plan=plan, precision=precision) if ON_GPU else host_backend(plan, precision)


def host_backend(plan: str = "auto", precision: str = "float32") -> CupyBackend:
    """A CupyBackend on the stand-in for cupy; needs a C++ compiler, see ``missing_compiler``."""
    return CupyBackend(module=fake_cupy, plan=plan, precision=precision)
