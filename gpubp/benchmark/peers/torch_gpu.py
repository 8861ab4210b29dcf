"""PyTorch on a GPU: eager, or with a whole training step captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpubp.benchmark.data import Data
from gpubp.benchmark.gpu_device import Seconds, by_clock
from gpubp.benchmark.gpu_nets import GpuNet
from gpubp.benchmark.peers.torch_eager import mean_loss, targets
from gpubp.errors import BackendUnavailable

WARM_UP = 3  # steps before a capture, as PyTorch asks for


class EagerTrainer:
    """Samples are on the device; a mini-batch is gathered by one index_select."""

    version, differs = torch.__version__, ""
    kind = "index_select, autograd, torch.optim.SGD(fused=True)"

    def __init__(self, net: GpuNet, data: Data, parameters: list[np.ndarray], device: str) -> None:
        self.net, self.device = net, device
        self.details = f"{self.kind}; TF32 {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}"
        self.tensors = [torch.tensor(p, device=device, requires_grad=True) for p in parameters]
        self.inputs = torch.from_numpy(data.floats()).to(device)
        self.targets = targets(net, data).to(device)
        self.optimizer = torch.optim.SGD(self.tensors, lr=net.lr, momentum=net.momentum, fused=True)
        self.cost = torch.zeros((), dtype=torch.float64, device=device)

    def step(self, batch: Tensor) -> None:
        x, y = self.inputs.index_select(0, batch), self.targets.index_select(0, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss = mean_loss(self.net, self.tensors, x, y)
        loss.backward()
        self.optimizer.step()
        self.cost += loss.detach() * len(batch)

    def run_epoch(self, order: np.ndarray) -> float:
        self.cost.zero_()
        for batch in torch.from_numpy(order).to(self.device).split(self.net.batch):
            self.step(batch)
        return float(self.cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [p.detach().cpu().numpy() for p in self.tensors]

    def seconds(self, job: Callable[[], object]) -> Seconds:
        """The time of all that ``job`` has the device do."""
        if self.device == "cpu":
            return by_clock(job)
        torch.cuda.synchronize()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def recorded() -> None:
            start.record()
            job()
            stop.record()
            stop.synchronize()

        clock = by_clock(recorded)[1]
        return start.elapsed_time(stop) / 1e3, clock


class GraphTrainer(EagerTrainer):
    """A graph of a full mini-batch, and one of the short last one; the batch's indices are copied before a replay."""

    kind = "eager's step, from the gather to the update, captured in a CUDA graph"

    def __init__(self, net: GpuNet, data: Data, parameters: list[np.ndarray], device: str) -> None:
        super().__init__(net, data, parameters, device)
        full = min(net.batch, len(data))
        self.graphs = {rows: self._capture(rows) for rows in {full, len(data) % full} if rows}
        with torch.no_grad():  # warming up has trained
            for tensor, initial in zip(self.tensors, parameters, strict=True):
                tensor.copy_(torch.from_numpy(initial))
        for state in self.optimizer.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].zero_()

    def _capture(self, rows: int) -> tuple[Tensor, torch.cuda.CUDAGraph]:
        """The buffer of a batch's indices, and the graph of its step."""
        batch = torch.arange(rows, device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(batch)
        return batch, graph

    def run_epoch(self, order: np.ndarray) -> float:
        self.cost.zero_()
        for batch in torch.from_numpy(order).to(self.device).split(self.net.batch):
            indices, graph = self.graphs[len(batch)]
            indices.copy_(batch)
            graph.replay()
        return float(self.cost) / len(order)


def find_device(host: bool) -> str:
    """Raises BackendUnavailable: this PyTorch sees no GPU."""
    if not host and not torch.cuda.is_available():
        raise BackendUnavailable(f"PyTorch {torch.__version__} sees no GPU")
    return "cpu" if host else "cuda"


def ready(options: dict[str, Any]) -> None:
    """Raises BackendUnavailable: this PyTorch sees no GPU."""
    torch.zeros(1, device=find_device(options["host"])).cpu()


def build(net: GpuNet, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> EagerTrainer:
    """options: ``precision`` of the products; whether a ``graph`` is captured; ``host``: on the processor.

    Raises BackendUnavailable: this PyTorch sees no GPU.
    """
    device = find_device(options["host"])
    torch.backends.cuda.matmul.allow_tf32 = options["precision"] == "tf32"
    return (GraphTrainer if options["graph"] else EagerTrainer)(net, data, parameters, device)
