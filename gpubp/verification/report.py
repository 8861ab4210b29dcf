"""Findings of a verification, tensor by tensor, and the error that ends a run where one is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from gpubp.errors import GpubpError
from gpubp.verification.compare import TensorCheck


@dataclass
class Report:
    """The checks of one verification. ``print(report)`` shows the worst of each tensor.

    ``steps_before`` were verified by an earlier run on this machine, of the same code on the same shapes.
    """

    title: str
    checks: list[TensorCheck] = field(default_factory=list, metadata={"key": "tensors"})
    steps: int = 0
    seconds: float = 0.0
    steps_before: int = 0

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> TensorCheck | None:
        """The check nearest to its bound, or farthest beyond; None if nothing was checked."""
        return max(self.checks, key=lambda check: check.severity, default=None)

    def add(self, checks: Sequence[TensorCheck]) -> None:
        """Keep the worst check of each tensor: a run of thousands of steps stays a short report."""
        by_name = {check.name: check for check in self.checks}
        for check in checks:
            old = by_name.get(check.name)
            if old is None or check.severity > old.severity:
                by_name[check.name] = check
        self.checks = list(by_name.values())

    def summary(self) -> str:
        """One line."""
        worst = self.worst
        if worst is None:
            return "verification: off"
        failed = sum(not check.ok for check in self.checks)
        verdict = "ok" if self.ok else f"{failed} of {len(self.checks)} tensors FAILED"
        steps = f"{self.steps} step{'s' if self.steps != 1 else ''}, " if self.steps else ""
        if self.steps_before:
            steps = f"{steps[:-2]} (and {self.steps_before} by an earlier run of the same code on the same shapes), "
        return (
            f"verification {verdict}: {steps}{len(self.checks)} tensors, worst error at "
            f"{worst.severity:.2g} of its bound ({worst.name}), cost {self.seconds:.2f} s"
        )

    def to_dict(self) -> dict:
        """For JSON."""
        worst = self.worst
        return {
            "ok": self.ok,
            **{field.name: getattr(self, field.name) for field in fields(self) if field.name != "checks"},
            "worst": None if worst is None else vars(worst),
            "tensors": [{**vars(check), "ok": check.ok} for check in self.checks],
        }

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {check}" for check in self.checks), self.summary()])


class VerificationError(GpubpError):
    """A backend computed what the equations do not say; ``report`` tells where. Exit code 3."""

    exit_code = 3

    def __init__(self, report: Report, advice: str = "") -> None:
        self.report = report
        failed = "\n".join(f"  {check}" for check in report.checks if not check.ok)
        super().__init__(f"{report.title}: verification failed\n{failed}{advice}")
