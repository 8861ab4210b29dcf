"""PyTorch with torchvision's transforms, as its pages apply them: image by image, or a mini-batch at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench.deformed.peers import DEFORM, OTHER_NUMBERS, SHAPE
from gpubp import Deform
from gpubp.benchmark import clock
from gpubp.benchmark.clock import Seconds
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers import pytorch
from gpubp.benchmark.peers.pytorch import EagerTrainer


def transform_of(settings: Deform) -> v2.Transform:
    """Deforms like these settings: (…, 1, h, w) to the same, all images that it is given at once alike.

    torchvision counts α in half pixels. It scales width and height alike, and interpolates twice.
    """
    scale = 1 - settings.scaling, 1 + settings.scaling
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.ElasticTransform(2 * settings.alpha, settings.sigma),
            v2.RandomAffine(settings.rotation, scale=scale, interpolation=bilinear),
        ]
    )


class Images(Dataset):
    """Images of floats and labels; an image is deformed when it is asked for."""

    def __init__(self, inputs: Tensor, targets: Tensor, transform: v2.Transform) -> None:
        self.images, self.targets, self.transform = inputs.view(-1, 1, *SHAPE), targets, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[place]), self.targets[place]


class Batches:
    """The mini-batches of an epoch, as a DataLoader asks for them anew in each."""

    def __init__(self, size: int) -> None:
        self.size, self.order = size, np.empty(0, np.int64)

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.order), self.size):
            yield self.order[start : start + self.size].tolist()


class AlikeTrainer(EagerTrainer):
    """One call of the transform a mini-batch."""

    kind = "v2.ElasticTransform, v2.RandomAffine of a mini-batch; autograd, torch.optim.SGD(fused=True)"
    version = f"{torch.__version__}, torchvision {torchvision.__version__}"
    differs = "all images of a mini-batch are deformed alike, which is a weaker augmentation"
    input_density = None

    def prepare(self) -> None:
        super().prepare()
        torch.manual_seed(SEED)
        self.transform = transform_of(DEFORM)

    def taken(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        x, y = super().taken(batch)
        return self.transform(x.view(-1, 1, *SHAPE)).flatten(1), y

    def deformed(self, images: np.ndarray) -> np.ndarray:
        """Bytes (B, h·w), each by itself, as a step trains on them, (B, h·w) float32 from 0 to 1."""
        floats = torch.from_numpy(images / np.float32(255)).view(-1, 1, *SHAPE)
        return torch.stack([self.transform(image) for image in floats]).flatten(1).numpy()


class ImageTrainer(AlikeTrainer):
    """A DataLoader with a process for each thread, which deforms image by image.

    part: of an epoch, as much as is trained; its time is scaled to that of a whole one.
    """

    kind = "v2.ElasticTransform, v2.RandomAffine of each image; DataLoader, autograd, torch.optim.SGD(fused=True)"

    def __init__(
        self, net: Net, data: Data, parameters: list[np.ndarray], device: str, threads: int, part: float
    ) -> None:
        self.threads = threads
        steps = max(1, round(part * len(data) / net.batch))
        self.count = min(len(data), steps * net.batch)
        self.scale = len(data) / self.count
        if self.scale > 1:
            self.differs = f"timed on {self.count:,} of {len(data):,} images, and scaled to all"
        else:
            self.differs = OTHER_NUMBERS
        super().__init__(net, data, parameters, device)
        self.clock = self.scaled

    def scaled(self, job: Any) -> Seconds:
        """The time of a whole epoch."""
        events, seconds = clock.wall(job)
        return events, seconds * self.scale

    def prepare(self) -> None:
        super().prepare()
        self.batches = Batches(self.net.batch)
        images = Images(self.inputs, self.targets, self.transform)
        self.loader = DataLoader(
            images, batch_sampler=self.batches, num_workers=self.threads, persistent_workers=True
        )

    def run_epoch(self, order: np.ndarray) -> float:
        self.cost.zero_()
        self.batches.order = order[: self.count]
        for x, y in self.loader:
            self.train(x.flatten(1), y)
        return float(self.cost) / self.count


ready = pytorch.ready


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> AlikeTrainer:
    """Options: ``alike``, for one deformation a mini-batch, or else the ``part`` of an epoch that is trained."""
    if options.get("alike"):
        return AlikeTrainer(net, data, parameters, "cpu")
    return ImageTrainer(net, data, parameters, "cpu", options["threads"], options["part"])
