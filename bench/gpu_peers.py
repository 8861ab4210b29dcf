"""What bench.gpu times: gpubp's plans on the GPU, the other libraries, and in which precisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gpubp.backends.cuda.backend import CupyBackend
from gpubp.benchmark.gpu_nets import BIG, FLOAT32, VARIANTS
from gpubp.benchmark.peers import Peer, module_name

PRODUCTS, NUMBA, OURS = "products", "gpubp-numba", "gpubp-"
OF_PRECISIONS = ("784-128-10", "mnist", BIG)  # the nets that are timed in other precisions too


@dataclass(frozen=True)
class GpuPeer(Peer):
    """A peer with its options; ``gpu_only`` cannot run on the processor, ``nets`` are those it is for, () all."""

    options: dict[str, Any] = field(default_factory=dict)
    gpu_only: bool = False
    nets: tuple[str, ...] = ()
    precision: str = FLOAT32

    def with_precision(self, precision: str) -> GpuPeer:
        """The same in another precision."""
        name, title = f"{self.name}-{precision}", f"{self.title}, {precision}"
        return replace(self, name=name, title=title, precision=precision, nets=OF_PRECISIONS)

    def all_options(self, host: bool) -> dict[str, Any]:
        """What its module is given."""
        return {**self.options, "precision": self.precision, "host": host}


def peers() -> list[GpuPeer]:
    """gpubp's plans on the GPU, Numba for comparison, the other libraries, and what cuBLAS takes."""
    ours, torch = module_name("gpubp_gpu"), module_name("torch_gpu")
    plans = {
        plan: GpuPeer(f"gpubp-{plan}", f"gpubp cupy, {plan}", ours, (), options={"plan": plan})
        for plan in CupyBackend.plans
    }
    graph = GpuPeer(
        "torch-graph", "PyTorch, CUDA graph", torch, ("torch",), options={"graph": True}, gpu_only=True
    )
    jax = GpuPeer("jax", "JAX scan", module_name("jax_gpu"), ("jax",))
    return [
        *plans.values(),
        *(plans[v.plan].with_precision(v.precision) for v in VARIANTS if v.precision != FLOAT32),
        GpuPeer(NUMBA, "gpubp numba", ours, ("numba",), options={"plan": None}),
        GpuPeer("torch", "PyTorch eager", torch, ("torch",), options={"graph": False}),
        graph,
        graph.with_precision("tf32"),
        jax,
        jax.with_precision("tf32"),
        GpuPeer(PRODUCTS, "cuBLAS, its products alone", module_name("products"), (), nets=(BIG,)),
    ]
