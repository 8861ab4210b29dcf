"""The ``numba`` backend: compiled loops, and whole epochs as one call."""
