"""Early stopping: when a run has not got better for long enough, and the best parameters it had."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gpubp.errors import UsageError


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    ``monitor`` is "validation_loss" or "validation_accuracy". The best epoch's parameters are restored.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.monitor not in ("validation_loss", "validation_accuracy"):
            raise UsageError(f"cannot monitor {self.monitor!r}: take validation_loss or validation_accuracy")
        if self.patience < 1 or not self.min_delta >= 0:
            raise UsageError("early stopping needs a patience of 1 or more and a min_delta of 0 or more")

    def improved(self, value: float, best: float | None) -> bool:
        """Return True if ``value`` beats the best so far."""
        if best is None or not np.isfinite(value):
            return bool(np.isfinite(value))
        gain = best - value if self.monitor == "validation_loss" else value - best
        return gain > self.min_delta


@dataclass
class Best:
    """The best epoch so far, 0 before there is one: its number, its monitored value and its parameters."""

    epoch: int = 0
    value: float | None = None
    parameters: list[np.ndarray] = field(default_factory=list)
