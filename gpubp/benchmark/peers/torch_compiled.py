"""PyTorch with torch.compile: a whole step, from the gather to the update, is one compiled graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers.torch_eager import mean_loss, set_threads, targets


class CompiledTrainer:
    """Two graphs: of a full mini-batch, and of the short last one."""

    version, differs = torch.__version__, ""
    details = "torch.compile of gather, loss, gradient and update as one graph"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.batch = net.batch
        self.tensors = [torch.tensor(p) for p in parameters]
        self.inputs, self.targets = torch.from_numpy(data.floats()), targets(net, data)

        def loss_of(tensors: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            return mean_loss(net, tensors, x, y)

        gradient_and_loss = torch.func.grad_and_value(loss_of)

        def step(tensors: list[Tensor], inputs: Tensor, targets: Tensor, batch: Tensor) -> Tensor:
            x, y = inputs.index_select(0, batch), targets.index_select(0, batch)
            gradient, loss = gradient_and_loss(tensors, x, y)
            for parameter, g in zip(tensors, gradient, strict=True):
                parameter.sub_(g, alpha=net.lr)
            return loss

        self.step = torch.compile(step, dynamic=False)

    def run_epoch(self, order: np.ndarray) -> float:
        cost = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            for batch in torch.from_numpy(order).split(self.batch):
                cost += self.step(self.tensors, self.inputs, self.targets, batch) * len(batch)
        return float(cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [p.numpy() for p in self.tensors]


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> CompiledTrainer:
    set_threads(threads)
    return CompiledTrainer(net, data, parameters)
