"""Numba kernels: compiled for the types of their first arguments, kept on disk, and loaded from there without Numba.

No fastmath flag but ``contract`` (a·b + c in one rounding): nothing is reassociated, and NaN goes through.
"""
