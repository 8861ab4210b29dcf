"""What is trained: sixteen networks on MNIST, alike but for their seeds, or each otherwise."""

from __future__ import annotations

from bench.deformed.peers import INSTALL
from gpubp.benchmark.nets import CLASSIFIER, Net

__all__ = ["INSTALL", "SETS", "net_of"]

WIDTHS = (32, 48, 64, 96, 128, 160, 192, 256)
RATES = (0.1, 0.05)
BATCHES = (64, 128, 256)


def net_of(width: int, lr: float, batch: int) -> Net:
    return Net(f"784-{width}-10", (784, width, 10), *CLASSIFIER, lr, batch, "mnist", "he")


# Plain SGD. Unlike networks have every width twice, with another rate and another mini-batch.
SETS: dict[str, tuple[Net, ...]] = {
    "alike": tuple(net_of(32, 0.1, 256) for _ in range(16)),
    "unlike": tuple(
        net_of(width, RATES[i % 2], BATCHES[(i + place) % 3])
        for i in range(2)
        for place, width in enumerate(WIDTHS)
    ),
}
