"""PyTorch with deformations of its own, of a whole mini-batch at once: one call an operation, or compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.deformed.peers import DEFORM, OTHER_NUMBERS, SHAPE
from gpubp import Deform
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers import pytorch
from gpubp.benchmark.peers.pytorch import EagerTrainer

REACH = 3  # of the Gaussian, in its standard deviations


class Deformer:
    """What :mod:`gpubp.randomness.deform` says, in float32 and by random numbers of PyTorch's.

    Noise is smoothed by products with banded matrices. That is the Gaussian's convolution, and was the fastest way to
    it: of 128 images it took 0.5 ms, a conv2d with a group for each image 1, with one channel for all 12 to 20.
    """

    def __init__(self, settings: Deform, shape: tuple[int, int]) -> None:
        self.settings, self.shape = settings, shape
        reach = math.ceil(REACH * settings.sigma)
        places = torch.arange(-reach, reach + 1, dtype=torch.float32)
        weights = torch.exp(-(places**2) / (2 * settings.sigma**2))
        weights /= weights.sum()
        self.noise = [side + 2 * reach for side in shape]  # beyond the border it goes on
        self.down, self.across = (_banded(weights, side) for side in shape)
        self.down *= settings.alpha
        h, w = shape
        x, y = torch.arange(w) - (w - 1) / 2, torch.arange(h) - (h - 1) / 2
        self.pixels = torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).reshape(2, h * w)
        self.to_grid = torch.tensor([2 / w, 2 / h])  # grid_sample has 2 for the whole side

    def field(self, count: int) -> Tensor:
        """How far each pixel is moved along x and y, in pixels, (count, 2, h, w)."""
        return self.down @ (torch.rand(count, 2, *self.noise) * 2 - 1) @ self.across.T

    def matrices(self, count: int) -> Tensor:
        """M of each image, (count, 2, 2)."""
        settings, (turn, x, y, shear) = self.settings, torch.rand(4, count) * 2 - 1
        angle = turn * math.radians(settings.rotation)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        x, y, shear = 1 + settings.scaling * x, 1 + settings.scaling * y, settings.shear * shear
        rows = cosine * x, cosine * shear - sine * y, sine * x, sine * shear + cosine * y
        return torch.stack(rows, dim=1).view(count, 2, 2)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, h·w), each deformed by itself; outside them all is 0."""
        count, (h, w) = len(images), self.shape
        places = self.matrices(count) @ self.pixels + self.field(count).view(count, 2, h * w)
        grid = (places.transpose(1, 2) * self.to_grid).view(count, h, w, 2)
        return F.grid_sample(images.view(count, 1, h, w), grid, align_corners=False).view(count, h * w)


def _banded(weights: Tensor, side: int) -> Tensor:
    """The matrix (side, side + reach on both sides) of which each row has the weights one place further."""
    made = torch.zeros(side, side + len(weights) - 1)
    for row in range(side):
        made[row, row : row + len(weights)] = weights
    return made


class DeformedTrainer(EagerTrainer):
    """A mini-batch is gathered and then deformed."""

    kind = "own deformations of a mini-batch at once, by grid_sample; autograd, torch.optim.SGD(fused=True)"
    differs = OTHER_NUMBERS
    input_density = None

    def prepare(self) -> None:
        super().prepare()
        torch.manual_seed(SEED)
        self.deform: Callable[[Tensor], Tensor] = Deformer(DEFORM, SHAPE)

    def taken(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        x, y = super().taken(batch)
        return self.deform(x), y

    def deformed(self, images: np.ndarray) -> np.ndarray:
        """Bytes (B, h·w) as a step trains on them, (B, h·w) float32 from 0 to 1."""
        with torch.no_grad():
            return self.deform(torch.from_numpy(images / np.float32(255))).numpy()


class CompiledTrainer(DeformedTrainer):
    """Graphs of a full mini-batch, and of the short last one: of deforming, of the loss, and of its gradient."""

    kind = "torch.compile of own deformations and of the loss; torch.optim.SGD(fused=True)"

    def prepare(self) -> None:
        super().prepare()
        net, tensors = self.net, self.tensors

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return pytorch.mean_loss(net, tensors, x, y)

        self.deform = torch.compile(self.deform, dynamic=False)
        self.compiled = torch.compile(loss, dynamic=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.compiled(x, y)


ready = pytorch.ready


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> DeformedTrainer:
    """Options: ``compiled``."""
    made = CompiledTrainer if options.get("compiled") else DeformedTrainer
    return made(net, data, parameters, "cpu")
