"""What is compared: one module a peer, each with ``build(net, data, parameters, threads) -> Trainer``.

A peer's module imports its library at the top, so that what importing costs can be timed by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np


class Trainer(Protocol):
    """A net with its samples loaded, ready to train.

    version: the library's. details: how it trains, in a few words. differs: why its first epoch cannot give the
    same result as the others', or "" where it must.
    """

    version: str
    details: str
    differs: str

    def run_epoch(self, order: np.ndarray) -> float:
        """Train on the samples in this order (N,) int64; the mean over them of the loss before their batch's update."""

    def parameters(self) -> list[np.ndarray]:
        """[W1, b1, W2, b2, …], W of shape (n_out, n_in)."""


@dataclass(frozen=True)
class Peer:
    """A peer by name. needs: packages to import; "a|b" is satisfied by either."""

    name: str
    title: str
    module: str
    needs: tuple[str, ...]

    def missing(self) -> str | None:
        """None if it is installed, else what is not."""
        absent = [need for need in self.needs if not any(find_spec(name) for name in need.split("|"))]
        return f"{' and '.join(absent).replace('|', ' or ')} not installed" if absent else None


# The first that is measured is what the others are compared with.
PEERS = (
    Peer("gpubp-numba", "gpubp numba", "bench.peers.gpubp_numba", ("numba",)),
    Peer("gpubp-numpy", "gpubp numpy", "bench.peers.gpubp_numpy", ("numpy",)),
    Peer("gpubp-fit", "gpubp numba (fit, verified)", "bench.peers.gpubp_fit", ("numba",)),
    Peer("numpy", "NumPy, by hand", "bench.peers.plain_numpy", ("numpy",)),
    Peer("torch", "PyTorch eager", "bench.peers.torch_eager", ("torch",)),
    Peer("torch-compile", "PyTorch compiled", "bench.peers.torch_compiled", ("torch",)),
    Peer("jax", "JAX", "bench.peers.jax_scan", ("jax",)),
    Peer("keras", "Keras", "bench.peers.keras_fit", ("keras", "jax|torch|tensorflow")),
    Peer("sklearn", "scikit-learn", "bench.peers.sklearn_mlp", ("sklearn",)),
)
