"""What is compared: one module a peer, each with ``build(net, data, parameters, threads) -> Trainer``.

A peer's module imports its library at the top, so that what importing costs can be timed by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from gpubp.benchmark.nets import Net

OURS = "gpubp"  # what the names of gpubp's own peers begin with
_COMPARED = {("softmax", "cross_entropy"), ("sigmoid", "quadratic"), ("sigmoid", "squared_error")}


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
    """A peer by name.

    module: where its ``build`` is. needs: packages to import; "a|b" is satisfied by either. backend: of gpubp's that
    are measured by themselves, their name; it is what makes ``verify`` of their trainer answer.
    """

    name: str
    title: str
    module: str
    needs: tuple[str, ...]
    backend: str | None = None
    on_gpu: bool = False

    @property
    def is_gpubp(self) -> bool:
        return self.name.startswith(OURS)

    def refuses(self, net: Net) -> str | None:
        """None if the peer can train the net, else why not: gpubp trains all, the others are written for some."""
        known = net.hidden in ("relu", "sigmoid") and (net.output, net.loss) in _COMPARED
        if self.is_gpubp or known:
            return None
        return (
            "the other libraries are compared on ReLU and sigmoid, with softmax and cross-entropy or sigmoid and "
            f"squared errors; this net has {net.hidden}, {net.output} and {net.loss}"
        )

    def missing(self) -> str | None:
        """None if it is installed, else what is not."""
        absent = [need for need in self.needs if not any(find_spec(name) for name in need.split("|"))]
        return f"{' and '.join(absent).replace('|', ' or ')} not installed" if absent else None


def module_name(name: str) -> str:
    """The peer's module of that name, in this package by whatever name it was imported."""
    return f"{__name__}.{name}"


# The first that is measured is what the others are compared with.
PEERS = (
    Peer("gpubp-numba", "gpubp numba", module_name("gpubp_numba"), ("numba",), "numba"),
    Peer("gpubp-numpy", "gpubp numpy", module_name("gpubp_numpy"), ("numpy",), "numpy"),
    Peer("gpubp-fit", "gpubp numba (fit, verified)", module_name("gpubp_fit"), ("numba",)),
    Peer("numpy", "NumPy, by hand", module_name("plain_numpy"), ("numpy",)),
    Peer("torch", "PyTorch eager", module_name("torch_eager"), ("torch",)),
    Peer("torch-compile", "PyTorch compiled", module_name("torch_compiled"), ("torch",)),
    Peer("jax", "JAX", module_name("jax_scan"), ("jax",)),
    Peer("keras", "Keras", module_name("keras_fit"), ("keras", "jax|torch|tensorflow")),
    Peer("sklearn", "scikit-learn", module_name("sklearn_mlp"), ("sklearn",)),
)
# Measured by gpubp bench alone: bench.cpu is for the processor, and bench.gpu knows more of a GPU.
CUPY = Peer("gpubp-cupy", "gpubp cupy", module_name("gpubp_cupy"), ("cupy",), "cupy", on_gpu=True)
