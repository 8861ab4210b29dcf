"""Test equipment: the CUDA backend, Python side and kernels, on a machine without a GPU."""

from gpubp.backends.cuda import CupyBackend
from tests.cuda_host import fake_cupy
from tests.cuda_host.fake_cupy import missing_compiler

__all__ = ["fake_cupy", "host_backend", "missing_compiler"]


def host_backend(plan: str = "auto") -> CupyBackend:
    """A CupyBackend on the stand-in for cupy; needs a C++ compiler, see ``missing_compiler``."""
    return CupyBackend(module=fake_cupy, plan=plan)
