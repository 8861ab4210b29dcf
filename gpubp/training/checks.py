"""Which steps of a run are held to the reference, and what came of it."""

from __future__ import annotations

from gpubp.errors import UsageError
from gpubp.training.budget import VERIFICATION
from gpubp.verification.report import Report

POLICIES = ("off", "first", "epoch", "step")
FIRST_STEPS = 3
STRIDE = 7919  # a prime: batches that lie this far apart come round to every place of an epoch


class CheckSchedule:
    """Says of each step whether it is verified, by one of ``POLICIES``.

    "first" are the first three steps and the first epoch's last; "epoch" are those and one mini-batch of every epoch,
    the last and another one in turn, while that keeps to the budget; "step" is every step, "off" none.
    """

    def __init__(self, policy: str, steps_per_epoch: int, report: Report) -> None:
        if policy not in POLICIES:
            raise UsageError(f"unknown verify policy {policy!r}: choose from {', '.join(POLICIES)}")
        self.policy, self.report = policy, report
        self._last = steps_per_epoch - 1
        self.first_epoch = 0  # of this process, which may have resumed another's run

    def includes(self, epoch: int, step: int, done: int, elapsed: float) -> bool:
        """Return True if this step, after ``done`` others of this process in ``elapsed`` seconds, is to be verified."""
        if self.policy in ("off", "step"):
            return self.policy == "step"
        if done < FIRST_STEPS:
            return True
        if epoch == self.first_epoch:
            return step == self._last
        if self.policy == "first":
            return False
        # The short last batch every other epoch, and any other in between.
        chosen = self._last if epoch % 2 else (epoch // 2 * STRIDE) % (self._last + 1)
        return step == chosen and VERIFICATION.allows(self.report.seconds, self.report.steps, elapsed)
