"""Numba kernels; every module compiles on first use and is cached on disk.

No fastmath flag but ``contract`` (a·b + c in one rounding): nothing is reassociated, and NaN goes through.
"""
