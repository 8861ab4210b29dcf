"""Numba kernels, one operation a module; every module compiles on first use and is cached on disk.

No fastmath flag but ``contract`` (a·b + c in one rounding): nothing is reassociated, and NaN goes through.
"""

from gpubp.kernels.cpu.forward import forward
from gpubp.kernels.cpu.gather import gather, gather_bytes
from gpubp.kernels.cpu.hidden_delta import hidden_delta
from gpubp.kernels.cpu.output_delta import output_delta
from gpubp.kernels.cpu.update import update
from gpubp.kernels.cpu.weight_grad import weight_grad

__all__ = ["forward", "gather", "gather_bytes", "hidden_delta", "output_delta", "update", "weight_grad"]
