"""Which steps of a run are held to the reference, and what came of it."""

from __future__ import annotations

from collections.abc import Hashable

from gpubp.backends.backend import Backend
from gpubp.backends.plan import Plan
from gpubp.data.sparse import is_sparse
from gpubp.distributed.ranks import Ranks
from gpubp.errors import UsageError
from gpubp.training.budget import VERIFICATION, VERIFICATION_AGAIN
from gpubp.training.passed import remember, steps_passed
from gpubp.verification.report import Report

POLICIES = ("off", "first", "epoch", "step")
FIRST_STEPS = 3
STRIDE = 7919  # a prime: batches that lie this far apart come round to every place of an epoch


def what_is_computed(backend: Backend, plan: Plan) -> Hashable:
    """All that decides which code trains, on arrays of which shapes and by which rules."""
    problem = plan.problem
    rules = tuple((name, bool(value)) for name, value in vars(problem.optimizer).items())
    samples, size = problem.samples, problem.batch_size
    data = samples.inputs.dtype.str, is_sparse(samples.inputs), bool((samples.sample_weight == 1).all())
    shapes = tuple(problem.layers), size, len(samples) % size, problem.dtype.str
    dropped = problem.dropout and tuple(map(bool, problem.dropout.dropped))
    deformed = problem.deformation and str(problem.deformation.to_dict())
    chances = dropped, deformed
    return type(backend), plan.kind, data, shapes, problem.loss.name, problem.optimizer.kind, rules, chances


class CheckSchedule:
    """Says of each step whether it is verified, by one of ``POLICIES``.

    "first" are the first three steps and the first epoch's last; "epoch" are those and one mini-batch of every epoch,
    the last and another one in turn, while that keeps to the budget; "step" is every step, "off" none. Where the
    same code has passed on the same shapes before, the first step stands for the first ones, and later ones are
    verified only in a small share of the run's time; the report says so.
    """

    def __init__(
        self, policy: str, steps_per_epoch: int, report: Report, computed: Hashable, ranks: Ranks
    ) -> None:
        if policy not in POLICIES:
            raise UsageError(f"unknown verify policy {policy!r}: choose from {', '.join(POLICIES)}")
        self.policy, self.report = policy, report
        self._last = steps_per_epoch - 1
        self._computed = computed
        passed = steps_passed(computed) if policy in ("first", "epoch") else 0
        report.steps_before = ranks.decide(passed)  # which one machine may have kept, and not another
        self.known = report.steps_before > 0
        self.first_epoch = 0  # of this process, which may have resumed another's run

    def remember(self) -> None:
        """Let later runs know that what was verified so far has passed."""
        if self.report.ok and self.report.steps and not self.known:
            remember(self._computed, self.report.steps)

    def includes(self, epoch: int, step: int, done: int, elapsed: float) -> bool:
        """Return True if this step, after ``done`` others of this process in ``elapsed`` seconds, is to be verified."""
        if self.policy in ("off", "step"):
            return self.policy == "step"
        if done < (1 if self.known else FIRST_STEPS):
            return True
        if epoch == self.first_epoch and not self.known:
            return step == self._last
        if self.policy == "first":
            return False
        # The short last batch every other epoch, and any other in between.
        chosen = self._last if epoch % 2 else (epoch // 2 * STRIDE) % (self._last + 1)
        budget = VERIFICATION_AGAIN if self.known else VERIFICATION
        return step == chosen and budget.allows(self.report.seconds, self.report.steps, elapsed)
