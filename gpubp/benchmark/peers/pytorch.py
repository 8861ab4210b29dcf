"""PyTorch on either device: a call an operation, a step compiled as one graph, or captured in a CUDA graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpubp.benchmark.clock import Events
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Trainer
from gpubp.errors import BackendUnavailable

WARM_UP = 3  # steps before a capture, as PyTorch asks for


class EagerTrainer(Trainer):
    """Samples are tensors on the device; a mini-batch is gathered by one index_select, without a DataLoader."""

    version: str = torch.__version__
    kind = "index_select, autograd, torch.optim.SGD(fused=True)"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray], device: str) -> None:
        self.net, self.device, self.details = net, device, self.kind
        if device == "cuda":
            self.details += f"; TF32 {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}"
            event = partial(torch.cuda.Event, enable_timing=True)
            self.clock = Events(event, torch.cuda.synchronize, lambda start, stop: start.elapsed_time(stop))
        self.tensors = [torch.tensor(p, device=device, requires_grad=True) for p in parameters]
        self.inputs = torch.from_numpy(data.floats()).to(device)
        self.targets = torch.from_numpy(data.targets(net)).to(device)
        self.cost = torch.zeros((), dtype=torch.float64, device=device)
        self.prepare()

    def prepare(self) -> None:
        """Make what a step needs besides the tensors."""
        self.optimizer = torch.optim.SGD(self.tensors, lr=self.net.lr, momentum=self.net.momentum, fused=True)

    def taken(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a mini-batch."""
        return self.inputs.index_select(0, batch), self.targets.index_select(0, batch)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss(self.net, self.tensors, x, y)

    def step(self, batch: Tensor) -> None:
        self.train(*self.taken(batch))

    def train(self, x: Tensor, y: Tensor) -> None:
        """A step on these inputs and targets."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        self.cost += loss.detach() * len(x)

    def run_epoch(self, order: np.ndarray) -> float:
        self.cost.zero_()
        for batch in torch.from_numpy(order).to(self.device).split(self.net.batch):
            self.step(batch)
        return float(self.cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [p.detach().cpu().numpy() for p in self.tensors]


class CompiledTrainer(EagerTrainer):
    """Two graphs, from the gather to the update: of a full mini-batch, and of the short last one; plain SGD."""

    kind = "torch.compile of gather, loss, gradient and update as one graph"

    def prepare(self) -> None:
        net = self.net
        self.tensors = [p.detach() for p in self.tensors]

        def loss_of(tensors: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            return mean_loss(net, tensors, x, y)

        gradient_and_loss = torch.func.grad_and_value(loss_of)

        def step(tensors: list[Tensor], inputs: Tensor, targets: Tensor, batch: Tensor) -> Tensor:
            x, y = inputs.index_select(0, batch), targets.index_select(0, batch)
            gradient, loss = gradient_and_loss(tensors, x, y)
            for parameter, g in zip(tensors, gradient, strict=True):
                parameter.sub_(g, alpha=net.lr)
            return loss

        self.compiled = torch.compile(step, dynamic=False)

    def step(self, batch: Tensor) -> None:
        self.cost += self.compiled(self.tensors, self.inputs, self.targets, batch) * len(batch)

    def run_epoch(self, order: np.ndarray) -> float:
        with torch.no_grad():
            return super().run_epoch(order)


class GraphTrainer(EagerTrainer):
    """A graph of a full mini-batch, and one of the short last one; the batch's indices are copied before a replay."""

    kind = "eager's step, from the gather to the update, captured in a CUDA graph"

    def prepare(self) -> None:
        super().prepare()
        initial = [p.detach().clone() for p in self.tensors]
        full = min(self.net.batch, len(self.inputs))
        self.graphs = {rows: self._capture(rows) for rows in {full, len(self.inputs) % full} if rows}
        with torch.no_grad():  # warming up has trained
            for tensor, before in zip(self.tensors, initial, strict=True):
                tensor.copy_(before)
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
                super().step(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            super().step(batch)
        return batch, graph

    def step(self, batch: Tensor) -> None:
        indices, graph = self.graphs[len(batch)]
        indices.copy_(batch)
        graph.replay()


def mean_loss(net: Net, tensors: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The loss of a mini-batch, by the parameters [W1, b1, …]."""
    last = len(tensors) // 2 - 1
    for i in range(last + 1):
        x = F.linear(x, tensors[2 * i], tensors[2 * i + 1])
        if i < last:
            x = F.relu(x) if net.hidden == "relu" else torch.sigmoid(x)
    if net.classifies:
        return F.cross_entropy(x, y)
    scale = (0.5 if net.loss == "quadratic" else 1.0) / len(x)
    return F.mse_loss(torch.sigmoid(x), y, reduction="sum") * scale


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)  # one graph after the other: there is nothing to run beside it


def ready(options: dict[str, Any]) -> None:
    """Have threads and device ready, once a process.

    Raises:
        BackendUnavailable: a GPU is meant, and this PyTorch sees none.
    """
    set_threads(options["threads"])
    if options["device"] == "gpu" and not torch.cuda.is_available():
        raise BackendUnavailable(f"PyTorch {torch.__version__} sees no GPU")
    torch.zeros(1, device=_device(options)).cpu()


def _device(options: dict[str, Any]) -> str:
    return "cuda" if options["device"] == "gpu" else "cpu"


_KINDS = {"eager": EagerTrainer, "compiled": CompiledTrainer, "graph": GraphTrainer}


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> EagerTrainer:
    """Options: ``step``, "eager", "compiled" or "graph"."""
    torch.backends.cuda.matmul.allow_tf32 = options["precision"] == "tf32"
    return _KINDS[options["step"]](net, data, parameters, _device(options))
