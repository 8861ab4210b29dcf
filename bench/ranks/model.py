"""A model of a step on N ranks, from what one rank takes for its share and what a network takes for a message.

It has no measurement of more than two ranks in it: nothing here stands for a cluster that was there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What carries messages: ``latency`` seconds each, ``bandwidth`` bytes a second."""

    name: str
    latency: float
    bandwidth: float


# As such networks are usually measured by MPI's own benchmarks; what a cluster has, `osu_latency` and `osu_bw` tell.
LINKS = (
    Link("10 Gb/s Ethernet", 30e-6, 1.1e9),
    Link("100 Gb/s InfiniBand", 2e-6, 11e9),
)


@dataclass(frozen=True)
class Step:
    """A step's parts as one rank was measured at them, for each number of ranks that share the mini-batch.

    ``gradients``: seconds of the gradient of B/N samples; ``updates``: of the update of L/N parameters; ``size``: bytes
    of all parameters.
    """

    gradients: dict[int, float]
    updates: dict[int, float]
    size: int

    def exchange(self, ranks: int, link: Link) -> float:
        """Seconds of two exchanges, in each of which a rank sends a message of size/N to every other, one by one."""
        return 2 * (ranks - 1) * (link.latency + self.size / ranks / link.bandwidth)

    def seconds(self, ranks: int, link: Link) -> float:
        """Seconds of a step, in which nothing is exchanged while something is computed."""
        return self.gradients[ranks] + self.updates[ranks] + self.exchange(ranks, link)

    def speedup(self, ranks: int, link: Link) -> float:
        """How many times as fast as one rank."""
        return (self.gradients[1] + self.updates[1]) / self.seconds(ranks, link)
