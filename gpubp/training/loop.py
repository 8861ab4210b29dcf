"""The loop of a training run: epochs of mini-batches over a plan, shuffled, verified, watched and saved as they go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

import gpubp
from gpubp.backends.backend import Backend
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats
from gpubp.data.samples import Samples
from gpubp.distributed.plan import DistributedPlan
from gpubp.distributed.ranks import Ranks, Traffic
from gpubp.errors import GpubpError, UsageError
from gpubp.network import Network
from gpubp.reference import Parameters
from gpubp.support import machine
from gpubp.support.checksums import crc32
from gpubp.training import checkpoint
from gpubp.training.checkpoint import Checkpoint, Settings, Standing
from gpubp.training.checks import CheckSchedule, what_is_computed
from gpubp.training.history import Distribution, Epoch, History
from gpubp.training.progress import Progress
from gpubp.training.stopping import Best, EarlyStopping
from gpubp.training.trouble import Lookout
from gpubp.verification.compare import TensorCheck
from gpubp.verification.report import VerificationError
from gpubp.verification.steps import check_cut, check_evaluation, check_step

CHUNK_SECONDS = 0.2  # how long a plan runs before Ctrl-C and the progress bar are looked after
CHECKPOINT_SECONDS = 5.0  # a checkpoint on disk is at most about this much older than the training

Callback = Callable[[Epoch, Network], object]


class Loop:
    """One run of fit: what it needs, and where it stands."""

    def __init__(
        self,
        network: Network,
        problem: Problem,
        settings: Settings,
        chosen: Backend,
        verify: str,
        classification: bool,
        watched: Samples | None,
        early_stopping: EarlyStopping | None,
        save_to: str | os.PathLike | None,
        recipe: dict[str, Any] | None,
        ranks: Ranks,
        parts: int | None,
    ) -> None:
        self.network, self.problem, self.settings, self.ranks = network, problem, settings, ranks
        self.classification = classification
        self.steps_per_epoch = -(-len(problem.samples) // problem.batch_size)
        self.history = History(chosen.name, chosen.why, chosen.describe())
        self.lookout = Lookout(problem, classification=classification)
        if ranks.size > 1 or parts is not None:
            self.plan: Plan = DistributedPlan(chosen, problem, ranks, parts)
        else:
            self.plan = chosen.plan(problem)
        computed = what_is_computed(chosen, self.plan)
        self.checks = CheckSchedule(verify, self.steps_per_epoch, self.history.verification, computed, ranks)
        chances = problem.deformation, problem.dropout
        self.history.plan = "; ".join([self.plan.describe(), *(str(chance) for chance in chances if chance)])
        self.rng = np.random.default_rng(settings.seed)
        sums = np.zeros(self.steps_per_epoch), np.zeros(self.steps_per_epoch, np.int64)
        self.standing = Standing(*sums, self.rng.bit_generator.state)
        self.steps_done = 0  # by this process
        self.watched, self.early_stopping = watched, early_stopping
        self._uploaded: Any = None if watched is None else self.plan.upload(watched)
        self.save_to, self.recipe = save_to, recipe  # of the checkpoint, which rank 0 writes
        self._saves: str | None = ranks.decide(None if save_to is None else os.fspath(save_to))
        self._steps_a_second, self._exchanged, self._ran = 0.0, 0.0, 0.0
        self._saved_at = time.perf_counter()
        self._fingerprints: dict[str, str | None] = {}
        self._resumed = False

    @property
    def has_news(self) -> bool:
        """Whether there is more to keep than the checkpoint has that was resumed."""
        return self.steps_done > 0 or not self._resumed

    def run(
        self, callbacks: Sequence[Callback], shown: Progress, interrupted: Callable[[], bool], usual: Any
    ) -> None:
        """Train from where this stands to the end of the last epoch, or until something stops it."""
        shown.start(self.settings.epochs, len(self.problem.samples), self.history)
        self.ranks.traffic = Traffic()
        asks = self.ranks.any(bool(callbacks))
        if self.checks.policy != "off" and not self.checks.known:
            self._verify_plan()
        while self.standing.epoch < self.settings.epochs and not self._out_of_patience():
            if not self._run_epoch(shown, interrupted):
                self.history.stopped = "interrupted"
                break
            epoch = self._finish_epoch()
            shown.epoch(epoch)
            self._look_out(shown)
            if self.early_stopping is not None:
                self._remember_best(epoch, self.early_stopping)
            if asks and self._asked_to_stop(epoch, callbacks, usual):
                self.history.stopped = "callback"
                break
        if self.history.stopped == "done" and self._out_of_patience():
            self.history.stopped = "early stopping"
        self.checks.remember()
        self._look_back()
        self._tell_of_ranks()
        self.save()
        stopping = self.early_stopping is not None and self.history.stopped != "interrupted"
        if stopping and self.standing.best.epoch:
            self._load(self.standing.best.parameters, self.plan.state())
        self._download()

    def compare_ranks(self, goes_on_from: str) -> None:
        """Raises UsageError if the ranks were not given the same to do, or have not the same to do it with."""
        if not isinstance(self.plan, DistributedPlan) or self.ranks.size == 1:
            return
        local = self.plan.local
        self.ranks.check_same(
            {
                "versions": {"gpubp": gpubp.__version__, **machine.packages()},
                "backend": self.history.backend,
                "plan": [type(local).__name__, local.products],
                "parts": self.plan.parts,
                "network": checkpoint.shape(self.network),
                "padded parameters": len(self.plan.share.parameters),
                "parameters": crc32(chain(*self.problem.parameters)),
                "epochs": self.settings.epochs,
                "verify": self.checks.policy,
                "patience": str(self.early_stopping),
                "what they go on from": goes_on_from,
                **self._identity(),
            }
        )

    def compare_standing(self) -> None:
        """Raises UsageError if the ranks stand at different places of the run, or with different numbers."""
        if not isinstance(self.plan, DistributedPlan) or self.ranks.size == 1:
            return
        at, unpack = self.standing, self.plan.share.unpack  # without what is between rows
        self.ranks.check_same(
            {
                "epoch": at.epoch,
                "step": at.step,
                "updates": self.plan.step,
                "generator": at.generator,
                "parameters": crc32(chain(*self.plan.trained())),
                "the optimizer's state": [crc32(unpack(slot)) for slot in self.plan.share.slots],
                "best epoch": [at.best.epoch, at.best.value],
            }
        )

    def warm_up(self) -> None:
        """Compile all that a run needs, on a full and a short batch, and undo what that changed."""
        started = time.perf_counter()
        before = self.plan.state()
        order, rates = self.problem.two_batches()
        self.plan.gradients(order[: self.problem.batch_size])
        self.plan.run(order, rates)
        if self.watched is not None:
            self.plan.evaluate(self._uploaded)
        self.plan.load_state(before)
        self.history.compile_seconds = self.ranks.seconds_since(started)

    def _run_epoch(self, shown: Progress, interrupted: Callable[[], bool]) -> bool:
        """The rest of the present epoch; False if interrupted before its end."""
        at, size, n = self.standing, self.problem.batch_size, len(self.problem.samples)
        at.generator = self.rng.bit_generator.state
        order = self.rng.permutation(n) if self.settings.shuffle else np.arange(n)
        while at.step < self.steps_per_epoch:
            if self.ranks.any(interrupted()):
                self.rng.bit_generator.state = at.generator  # a resumed run draws this epoch again
                return False
            steps = self._next_chunk()
            batch = order[at.step * size : (at.step + steps) * size]
            stats = self._run_steps(batch, self._rates(at.step, steps))
            done = slice(at.step, at.step + steps)
            at.costs[done], at.hits[done] = stats.costs, stats.hits
            at.step += steps
            self.steps_done += steps
            shown.advance(len(batch))
            if self._saves and self.ranks.seconds_since(self._saved_at) > CHECKPOINT_SECONDS:
                self.save()
        return True

    def _rates(self, step: int, steps: int) -> np.ndarray:
        """The learning rates of so many steps of the present epoch."""
        settings = self.settings
        first = self.standing.epoch * self.steps_per_epoch + step
        factors = settings.schedule.factors(first, steps, self.steps_per_epoch, settings.epochs)
        return self.problem.optimizer.lr * factors

    def _next_chunk(self) -> int:
        """The number of steps to run in one call: up to the next step to verify, and about CHUNK_SECONDS long."""
        step = self.standing.step
        if self._to_verify(step):
            return 1
        steps = max(1, int(self._steps_a_second * CHUNK_SECONDS))
        stop = min(step + steps, self.steps_per_epoch)
        return next((s for s in range(step, stop) if self._to_verify(s)), stop) - step

    def _to_verify(self, step: int) -> bool:
        at = self.standing
        return self.checks.includes(at.epoch, step, self.steps_done + step - at.step, at.elapsed)

    def _run_steps(self, batch: np.ndarray, rates: np.ndarray) -> StepStats:
        if len(rates) == 1 and self._to_verify(self.standing.step):
            return self._run_verified(batch, float(rates[0]))
        started, exchanged = time.perf_counter(), self.ranks.traffic.seconds
        stats = self.plan.run(batch, rates)
        self._exchanged += self.ranks.traffic.seconds - exchanged
        seconds = self.ranks.seconds_since(started)
        self._ran += seconds
        self._steps_a_second = len(rates) / max(seconds, 1e-9)
        self.standing.seconds += seconds
        return stats

    def _run_verified(self, batch: np.ndarray, lr: float) -> StepStats:
        started = time.perf_counter()
        step = check_step(self.plan, batch, lr)
        trained = self.ranks.decide(step.seconds)
        self.standing.seconds += trained
        self.history.verification.steps += self.ranks.any(bool(step.checks))
        self._report(step.checks, self.ranks.seconds_since(started) - trained, step.before)
        return step.stats

    def _report(self, checks: list[TensorCheck], seconds: float, before: PlanState) -> None:
        """Add to the run's report; on a failure go back to the state before it, save that, and raise."""
        report, at = self.history.verification, self.standing
        report.title = f"{self.history.backend} backend, epoch {at.epoch + 1}, step {at.step + 1}"
        report.add(checks)
        report.seconds += seconds
        failed = self.ranks.told(None if report.ok else str(VerificationError(report)))
        if not any(failed):
            return
        # What another rank alone has found is told by this one too.
        others = "".join(f"\n{said}" for said in failed if said and report.ok)
        self.plan.load_state(before)
        self._download()
        if not self.has_news:
            raise VerificationError(report, others)
        self.save()
        saved = f"\nThe model before that step was saved in {self._saves}." if self._saves else ""
        raise VerificationError(report, others + saved)

    def _verify_plan(self) -> None:
        """Hold the plan to the reference in more than single steps: in runs of several, and in evaluation."""
        started = time.perf_counter()
        before = self.plan.state()
        checks = check_cut(self.plan)
        if self.watched is not None:
            checks += check_evaluation(self.plan, self.watched)
        self._report(checks, self.ranks.seconds_since(started), before)

    def _finish_epoch(self) -> Epoch:
        at, n = self.standing, len(self.problem.samples)
        self._compare_parameters()
        loss, accuracy = float(at.costs.sum()) / n, int(at.hits.sum()) / n
        validation = None if self.watched is None else self.plan.evaluate(self._uploaded)
        epoch = Epoch(
            at.epoch + 1,
            loss,
            accuracy if self.classification else None,
            None if validation is None else validation.mean_cost,
            None if validation is None or not self.classification else validation.accuracy,
            float(self._rates(self.steps_per_epoch - 1, 1)[0]),
            at.seconds,
        )
        if not np.isfinite(loss):
            self._download()
            raise GpubpError(
                f"the loss is {loss} after epoch {epoch.epoch}: training has diverged: lower the learning rate "
                f"(it is {epoch.learning_rate:g}), or scale the inputs{'' if self.classification else ' and targets'}"
            )
        self.history.epochs.append(epoch)
        at.next_epoch(self.rng.bit_generator.state)
        return epoch

    def _compare_parameters(self) -> None:
        """Hold the ranks' parameters to each other: they computed each piece once and must have the same."""
        if self.ranks.size == 1:
            return
        found = self.ranks.all(np.array([crc32(chain(*self.plan.trained()))]))[:, 0]
        other = [str(rank) for rank in np.flatnonzero(found != found[0])]
        if other:
            raise GpubpError(
                f"after epoch {self.standing.epoch + 1} the parameters of rank {', '.join(other)} are not those of "
                "rank 0: a number has changed in memory or between them; train anew, or from an earlier checkpoint"
            )

    def _look_out(self, shown: Progress) -> None:
        """Tell once, and as soon as that is certain, that training goes nowhere."""
        if self.history.warnings or self.standing.epoch == self.settings.epochs:
            return
        if said := self.lookout.while_training(self.history.epochs, self._layers):
            self.history.warnings.append(said)
            shown.warning(said)

    def _look_back(self) -> None:
        """Keep what is to be said of a run that is over and went nowhere, unless that was told."""
        if self.history.warnings:
            return
        cut = self.history.stopped == "interrupted"
        if said := self.lookout.at_end(self.history.epochs, self._layers, cut=cut):
            self.history.warnings.append(said)

    def _tell_of_ranks(self) -> None:
        if isinstance(self.plan, DistributedPlan):
            traffic = self.ranks.traffic
            of_all = self.ranks.size, self.ranks.hosts, self.plan.asked_parts
            share = self._exchanged / self._ran if self._ran else None
            self.history.distribution = Distribution(*of_all, traffic.sent, share)

    def _layers(self) -> Parameters:
        return self.plan.trained()

    def _asked_to_stop(self, epoch: Epoch, callbacks: Sequence[Callback], usual: Any) -> bool:
        if any(getattr(callback, "reads_network", True) for callback in callbacks):
            self.network.parameters = list(self.plan.trained())
        with np.errstate(**usual):
            answers = [callback(epoch, self.network) for callback in callbacks]
        return self.ranks.any(any(isinstance(answer, bool | np.bool_) and answer for answer in answers))

    def _remember_best(self, epoch: Epoch, stopping: EarlyStopping) -> None:
        value = getattr(epoch, stopping.monitor)
        if stopping.improved(value, self.standing.best.value):
            self.standing.best = Best(epoch.epoch, value, self.plan.state().parameters)
            self.history.best_epoch = epoch.epoch

    def _out_of_patience(self) -> bool:
        stopping, at = self.early_stopping, self.standing
        return stopping is not None and at.epoch - at.best.epoch >= stopping.patience

    def _load(self, parameters: list[np.ndarray], state: PlanState) -> None:
        self.plan.load_state(PlanState(parameters, state.slots, state.step))

    def _download(self) -> None:
        self.history.state = self.plan.state()
        self.network.parameters = self.history.state.layers

    def go_on_from(self, state: PlanState) -> None:
        """Take over another run's optimizer, but not its parameters."""
        own = self.plan.state()
        shapes = [[[slot.shape for slot in slots] for slots in s.slots] for s in (own, state)]
        if shapes[0] != shapes[1]:
            raise UsageError("the state is from a different network or optimizer than this run's")
        self._load(own.parameters, state)

    def _identity(self) -> dict[str, Any]:
        """All that must be the same for this run to go on from a checkpoint."""
        if not self._fingerprints:
            parts = {"data": self.problem.samples, "validation data": self.watched}
            self._fingerprints = {
                name: None if part is None else checkpoint.fingerprint(part, self.ranks)
                for name, part in parts.items()
            }
        return {**self.settings.header(self.problem), **self._fingerprints}

    def save(self) -> None:
        """Write the checkpoint, if one was asked for."""
        if not self._saves:
            return
        now = Checkpoint(self.standing, self.plan.state(), self.history.epochs)
        self.ranks.on_first(lambda: self._write(now))
        self._saved_at = time.perf_counter()

    def _write(self, now: Checkpoint) -> None:
        assert self.save_to is not None
        slots = self.problem.optimizer.slots
        made_by = self.history.backend, self.recipe
        checkpoint.write(self.save_to, self.network, self._identity(), now, slots, *made_by)

    def resume(self, path: str | os.PathLike) -> None:
        """Stand where the checkpoint stood."""
        saved = checkpoint.read(path, self.network, self._identity(), self.problem.optimizer.slots)
        self.standing, self.history.epochs = saved.standing, saved.epochs
        self.rng.bit_generator.state = saved.standing.generator
        self.history.resumed_epochs = len(saved.epochs)
        self.history.best_epoch = saved.standing.best.epoch or None
        self.checks.first_epoch = saved.standing.epoch
        self.plan.load_state(saved.state)
        self._resumed = True
