"""Limits on what watching a run may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """At most so many seconds, or this share of a run's time, whichever is more."""

    seconds: float
    share: float

    def allows(self, spent: float, times: int, elapsed: float) -> bool:
        """Return True if another time, at the mean cost so far, keeps to the budget of a run of ``elapsed`` seconds."""
        return spent + spent / max(times, 1) <= max(self.seconds, self.share * elapsed)


VERIFICATION = Budget(0.2, 0.03)
VERIFICATION_AGAIN = Budget(0.0, 0.03)  # of what has passed before
SIGNALS = Budget(0.1, 0.01)
