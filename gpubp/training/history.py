"""The history of a run, epoch by epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gpubp.backends.plan import PlanState
from gpubp.verification.report import Report


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch. Loss and accuracy are means over its batches, each before its update."""

    epoch: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Distribution:
    """How several processes trained: ranks on hosts, in ``parts`` of each mini-batch where asked for.

    ``sent`` are all bytes that this rank sent; ``exchanges`` the share of the time of training that went on them, with
    waiting for the others, but for steps that were verified: None where all were.
    """

    ranks: int
    hosts: int
    parts: int | None
    sent: int
    exchanges: float | None

    def summary(self) -> str:
        """In a line."""
        hosts = f"{self.hosts} hosts" if self.hosts > 1 else "1 host"
        each = f", each mini-batch in {self.parts} parts" if self.parts else ""
        if self.ranks == 1:
            return f"1 rank{each}"
        share = (
            "" if self.exchanges is None else f", {self.exchanges:.0%} of the training's time for exchanges"
        )
        return f"{self.ranks} ranks on {hosts}{each}; {self.sent / 1e6:,.1f} MB sent by rank 0{share}"


@dataclass
class History:
    """A run, epoch by epoch. ``history["loss"]`` is a column; ``history.epochs`` are the rows.

    ``stopped`` is why the run ended: "done", "early stopping", "callback" or "interrupted"; the first
    ``resumed_epochs`` were trained before, by the run that a checkpoint was resumed from. Seconds are wall
    time of training alone; ``compile_seconds`` (a warm-up step that is undone) and ``verification.seconds``
    stand beside it. ``warnings`` says of a run that went nowhere why, and what helps. ``state`` is where the
    run left the optimizer, for another :func:`fit` to go on from. ``distribution`` is of a run by several processes.
    """

    backend: str = ""
    why_backend: str = ""
    device: str = ""
    plan: str = ""
    epochs: list[Epoch] = field(default_factory=list, repr=False)
    compile_seconds: float = 0.0
    stopped: str = "done"
    best_epoch: int | None = None
    resumed_epochs: int = 0
    warnings: list[str] = field(default_factory=list)
    verification: Report = field(default_factory=lambda: Report("training"))
    distribution: Distribution | None = None
    state: PlanState | None = field(default=None, repr=False)

    def __getitem__(self, column: str) -> list:
        return [getattr(epoch, column) for epoch in self.epochs]

    def __contains__(self, column: object) -> bool:
        return column in {field.name for field in fields(Epoch)}

    def __len__(self) -> int:
        return len(self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name != "state"},
            "epochs": [dict(vars(e)) for e in self.epochs],
            "verification": self.verification.to_dict(),
            "distribution": None if self.distribution is None else asdict(self.distribution),
        }
