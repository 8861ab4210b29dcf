"""The work of a training run, counted from its shapes, and about how long a processor takes for it.

The choice of a backend goes by this and by no clock, so that the same run on the same installation always gets the
same one. The rates are those of two cores of a processor of 2022, and need be right to a factor of 2 only: a choice
that is wrong by less costs less than a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.network import Network
from gpubp.randomness.dropout import Dropout

# What is counted before the first step, in seconds. Compiling takes some five, and loading 0.03, but
# they serve every later run of this installation and of this process as well.
COMPILING, LOADING = 1.5, 0.01


@dataclass(frozen=True)
class Work:
    """What training takes, in all.

    multiply_adds: of all products. updates: of weights, each once a step. calls: layers times steps. drawn: random
    numbers of dropout. deformed: pixels of images that are deformed.
    """

    multiply_adds: float
    updates: float
    calls: float
    dtype: np.dtype
    drawn: float = 0.0
    deformed: float = 0.0

    @classmethod
    def of(
        cls,
        network: Network,
        samples: int,
        batch_size: int,
        epochs: int,
        evaluated: int = 0,
        dropout: Dropout | None = None,
        *,
        deforms: bool = False,
    ) -> Work:
        """The work of epochs on so many samples, each with ``evaluated`` others taken forward at its end."""
        layers = network.layers
        steps = epochs * -(-samples // batch_size)
        weights = [layer.n_in * layer.n_out for layer in layers]
        a_sample = 3 * sum(weights) - weights[0]  # forward, δ and gradient; inputs have no δ
        multiply_adds = epochs * (samples * a_sample + evaluated * sum(weights))
        dtype = network.parameters[0][0].dtype
        dropped = dropout.dropped if dropout else [0] * len(layers)
        drawn = sum(layer.n_in for layer, some in zip(layers, dropped, strict=True) if some)
        each = epochs * samples
        chances = each * drawn, each * layers[0].n_in * deforms
        return cls(multiply_adds, steps * sum(weights), steps * len(layers), dtype, *chances)

    def seconds_of_numpy(self) -> float:
        """About how long the plan of the ``numpy`` backend takes."""
        chances = self.drawn / 50e6 + self.deformed / 10e6
        return self.multiply_adds / 50e9 + self.updates / 1.5e9 + self.calls * 40e-6 + chances

    def seconds_of_numba(self, *, compiled: bool) -> float:
        """About how long the fused plan of the ``numba`` backend takes, with what comes before it."""
        before = LOADING if compiled else COMPILING
        chances = self.drawn / 3e9 + self.deformed / 1e9
        return before + self.multiply_adds / 150e9 + self.updates / 10e9 + self.calls * 1e-6 + chances
