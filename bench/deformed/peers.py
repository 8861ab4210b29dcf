"""The network, how its images are deformed, and who trains it."""

from __future__ import annotations

from gpubp import Deform
from gpubp.benchmark.nets import CLASSIFIER, Net
from gpubp.benchmark.peers import OURS, Peer, module_name

SHAPE = (28, 28)
DEFORM = Deform(alpha=34, sigma=4, rotation=10, scaling=0.1)
NET = Net("mnist-simard", (784, 800, 10), *CLASSIFIER, 0.1, 128, "mnist", "he", momentum=0.9)
DATA = ("mnist", "mnist-sample")

PART = 0.1  # of an epoch, for what would take a minute

PLAIN_OURS, PLAIN_TORCH, WEAKER = f"{OURS}-plain", "torch-plain", "torchvision-batch"
# Without deformed images: what those take is the difference.
PLAIN = {OURS: PLAIN_OURS, "torch": PLAIN_TORCH}
NOT_THE_SAME = (*PLAIN.values(), WEAKER)  # what they train on is easier to make

OTHER_NUMBERS = "its images are deformed by random numbers of its own"  # why its first epoch is no one else's
INSTALL = 'python -m pip install -e ".[bench]"'


def _of(name: str) -> str:
    return f"bench.deformed.{name}"


# The first is what the others are compared with.
PEERS = (
    Peer(OURS, "gpubp", _of("ours"), ("numba",), "numba"),
    Peer(PLAIN_OURS, "gpubp, images as they are", _of("ours"), ("numba",), "numba", options={"plain": True}),
    Peer("torch", "PyTorch", _of("pytorch"), ("torch",)),
    Peer("torch-compile", "PyTorch compiled", _of("pytorch"), ("torch",), options={"compiled": True}),
    Peer(
        PLAIN_TORCH, "PyTorch, images as they are", module_name("pytorch"), ("torch",), options={"step": "eager"}
    ),
    Peer("torchvision", "torchvision", _of("vision"), ("torch", "torchvision"), options={"part": PART}),
    Peer(
        WEAKER, "torchvision, a mini-batch alike", _of("vision"), ("torch", "torchvision"), options={"alike": True}
    ),
)  # fmt: skip
