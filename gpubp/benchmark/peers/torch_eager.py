"""PyTorch, one call an operation: autograd and torch.optim.SGD."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net


class EagerTrainer:
    """Samples are tensors already; a mini-batch is gathered by one index_select, without a DataLoader."""

    version, differs = torch.__version__, ""
    details = "index_select, autograd, torch.optim.SGD(fused=True)"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.net = net
        self.tensors = [torch.tensor(p, requires_grad=True) for p in parameters]
        self.inputs = torch.from_numpy(data.floats())
        self.targets = targets(net, data)
        self.optimizer = torch.optim.SGD(self.tensors, lr=net.lr, fused=True)

    def run_epoch(self, order: np.ndarray) -> float:
        cost = torch.zeros((), dtype=torch.float64)
        for batch in torch.from_numpy(order).split(self.net.batch):
            x, y = self.inputs.index_select(0, batch), self.targets.index_select(0, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss = mean_loss(self.net, self.tensors, x, y)
            loss.backward()
            self.optimizer.step()
            cost += loss.detach() * len(batch)
        return float(cost) / len(order)

    def parameters(self) -> list[np.ndarray]:
        return [p.detach().numpy() for p in self.tensors]


def targets(net: Net, data: Data) -> Tensor:
    """Class labels for the cross-entropy, one-hot rows for the squared errors."""
    if net.loss == "cross_entropy":
        return torch.from_numpy(data.labels)
    return torch.from_numpy(data.one_hot(net.layers[-1]))


def mean_loss(net: Net, tensors: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The loss of a mini-batch, by the parameters [W1, b1, …]."""
    last = len(tensors) // 2 - 1
    for i in range(last + 1):
        x = F.linear(x, tensors[2 * i], tensors[2 * i + 1])
        if i < last:
            x = F.relu(x) if net.hidden == "relu" else torch.sigmoid(x)
    if net.loss == "cross_entropy":
        return F.cross_entropy(x, y)
    scale = (0.5 if net.loss == "quadratic" else 1.0) / len(x)
    return F.mse_loss(torch.sigmoid(x), y, reduction="sum") * scale


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)  # one graph after the other: there is nothing to run beside it


def build(net: Net, data: Data, parameters: list[np.ndarray], threads: int) -> EagerTrainer:
    set_threads(threads)
    return EagerTrainer(net, data, parameters)
