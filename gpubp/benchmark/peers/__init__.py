"""Peers that are compared: one module each, each with ``build(net, data, parameters, options) -> Trainer``.

A peer's module imports its library at the top, so that what importing costs can be timed by itself. If it has
``ready(options)``, that makes ready what it runs on, or raises BackendUnavailable. The options are the peer's own, its
``precision`` and its ``device`` ("cpu" or "gpu"), and of the run ``threads`` and ``cupy``, the module that gpubp's cupy
backend is made with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpubp.benchmark import clock
from gpubp.benchmark.clock import Clock
from gpubp.benchmark.nets import Net

OURS = "gpubp"  # what the names of gpubp's own peers begin with
NUMBA, PRODUCTS = "gpubp-numba", "products"
FLOAT32 = "float32"
_COMPARED = {("softmax", "cross_entropy"), ("sigmoid", "quadratic"), ("sigmoid", "squared_error")}


class Trainer:
    """A net with its samples loaded, ready to train.

    version: the library's. details: how it trains, in a few words. differs: why its first epoch cannot give the
    same result as the others', or "" where it must. input_density: the part of the inputs that it computes with, None
    if unknown. clock: what its epochs are timed by.
    """

    version: str
    details: str
    differs: str = ""
    input_density: float | None = 1.0
    clock: Clock = staticmethod(clock.wall)

    def run_epoch(self, order: np.ndarray) -> float:
        """Train on the samples in this order (N,) int64; the mean over them of the loss before their batch's update."""
        raise NotImplementedError

    def parameters(self) -> list[np.ndarray]:
        """[W1, b1, W2, b2, …], W of shape (n_out, n_in)."""
        raise NotImplementedError


class OrderedTrainer(Trainer):
    """A library with a generator of its own: the samples are put in order first, within the time of the epoch."""

    def take(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        """Keep the samples, and have room for them in order."""
        self.samples = [(array, np.empty_like(array)) for array in (inputs, targets)]
        self.inputs, self.targets = inputs, targets

    def run_epoch(self, order: np.ndarray) -> float:
        for array, ordered in self.samples:
            # The default mode copies through a buffer.
            np.take(array, order, axis=0, out=ordered, mode="clip")
        return self.fit(*(ordered for _, ordered in self.samples))

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Train an epoch on samples in order; the mean loss, as of ``run_epoch``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Peer:
    """A peer by name.

    module: where its ``build`` is. needs: packages to import; "a|b" is satisfied by either. backend: of gpubp's that
    are measured by themselves, their name; ``verify`` of their trainer answers. nets: the names of those that it is
    for, () all.
    """

    name: str
    title: str
    module: str
    needs: tuple[str, ...]
    backend: str | None = None
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = FLOAT32
    nets: tuple[str, ...] = ()

    @property
    def is_gpubp(self) -> bool:
        return self.name.startswith(OURS)

    def with_precision(self, precision: str, nets: tuple[str, ...]) -> Peer:
        """The same in another precision, for these nets."""
        name, title = f"{self.name}-{precision}", f"{self.title}, {precision}"
        return replace(self, name=name, title=title, precision=precision, nets=nets)

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
    """The peer's module of that name, in this package."""
    return f"{__name__}.{name}"


def backend_peer(name: str, device: str = "cpu") -> Peer:
    """A backend of gpubp's, by the plan that it makes if left the choice."""
    options = {"backend": name, "plan": "auto"}
    return Peer(f"gpubp-{name}", f"gpubp {name}", module_name("plan"), (name,), name, device, options)


# The first that is measured is what the others are compared with.
PEERS = (
    backend_peer("numba"),
    backend_peer("numpy"),
    Peer("gpubp-fit", "gpubp numba (fit, verified)", module_name("gpubp_fit"), ("numba",)),
    Peer("numpy", "NumPy, by hand", module_name("plain_numpy"), ("numpy",)),
    Peer("torch", "PyTorch eager", module_name("pytorch"), ("torch",), options={"step": "eager"}),
    Peer(
        "torch-compile", "PyTorch compiled", module_name("pytorch"), ("torch",), options={"step": "compiled"}
    ),
    Peer("jax", "JAX", module_name("jax_scan"), ("jax",)),
    Peer("keras", "Keras", module_name("keras_fit"), ("keras", "jax|torch|tensorflow")),
    Peer("sklearn", "scikit-learn", module_name("sklearn_mlp"), ("sklearn",)),
)
# Measured by gpubp bench alone: bench.cpu is for the processor, and bench.gpu knows more of a GPU.
CUPY = backend_peer("cupy", "gpu")
