"""Holding a backend to the reference: every number within a derived bound, or a report that says which is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from gpubp import backends, reference
from gpubp.backends.base import Array, Backend, Plan, PlanState, Samples, StepStats, dense_inputs
from gpubp.errors import GpubpError
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.network import Layer, Network, as_inputs, labels_of, tensor_names
from gpubp.optimizers import OPTIMIZERS, SGD, Optimizer
from gpubp.verification import bounds
from gpubp.verification.bounds import Bounded, Precision

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]

NORM_FACTOR = 4  # as accurate as NumPy in the same dtype, within this factor
AMPLIFIED = 1e6  # how far inputs and weights may carry an error of underflow
VERIFY_ROWS = 256  # samples that verify() takes


@dataclass(frozen=True)
class TensorCheck:
    """One tensor against the reference: its worst element, and its error in norm.

    ``fraction`` is the worst |got − expected| / bound; above 1 no order of summation explains it.
    ``norm_fraction`` is ‖got − ref64‖₂ over what is allowed, four times NumPy's own error in the working dtype and a
    floor (see :func:`_norm_fraction`); None where that is not asked, or where it would measure underflow. ``typical``
    is the worst error in units of the probabilistic bound, in which √K stands for K; it is for information.
    """

    name: str
    index: tuple[int, ...]
    got: float
    expected: float
    bound: float
    fraction: float
    typical: float
    norm_fraction: float | None = None

    @property
    def ok(self) -> bool:
        return self.severity <= 1

    @property
    def severity(self) -> float:
        """The larger fraction of the two; the check passes up to 1."""
        return max(self.fraction, self.norm_fraction or 0.0)  # neither is ever NaN

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        norm = "" if self.norm_fraction is None else f", norm at {self.norm_fraction:.2g} of its bound"
        return (
            f"{'ok  ' if self.ok else 'FAIL'} {self.name}: worst element {self.name.split(' ')[0]}{place} "
            f"got {self.got:.9g}, expected {self.expected:.9g}, error at {self.fraction:.2g} of its bound "
            f"{self.bound:.2g} ({self.typical:.2g} of the probabilistic one){norm}"
        )


@dataclass
class Report:
    """The checks of one verification. ``print(report)`` shows the worst of each tensor."""

    title: str
    checks: list[TensorCheck] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

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
        if not self.checks:
            return "verification: off"
        worst = self.worst
        assert worst is not None
        failed = sum(not check.ok for check in self.checks)
        verdict = "ok" if self.ok else f"{failed} of {len(self.checks)} tensors FAILED"
        steps = f"{self.steps} step{'s' if self.steps != 1 else ''}, " if self.steps else ""
        return (
            f"verification {verdict}: {steps}{len(self.checks)} tensors, worst error at "
            f"{worst.severity:.2g} of its bound ({worst.name}), cost {self.seconds:.2f} s"
        )

    def to_dict(self) -> dict:
        """For JSON."""
        worst = self.worst
        return {
            "ok": self.ok,
            "steps": self.steps,
            "seconds": self.seconds,
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


def compare(
    name: str,
    got: np.ndarray | float,
    bounded: Bounded,
    working: np.ndarray | None = None,
    *,
    terms: int = 1,
) -> TensorCheck:
    """Check one tensor against its bounded value.

    Args:
        working: the reference's own result in the working dtype, where the norm is to be checked.
        terms: K, the length of the longest sums behind an element.
    """
    got = np.asarray(got, dtype=np.float64)
    expected, bound = np.asarray(bounded.value, np.float64), np.asarray(bounded.error, np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(got - expected)
        fraction = np.asarray(error / np.maximum(bound, np.finfo(np.float64).tiny))
        wrong = (
            np.isnan(fraction)
            | (np.isinf(got) & np.isfinite(expected))
            | (~(error <= bound) & (fraction <= 1))
        )
        fraction[wrong] = np.inf  # what cannot be compared fails
        fraction[(np.isnan(got) & np.isnan(expected)) | (got == expected)] = 0.0
    index = np.unravel_index(int(np.argmax(fraction)), fraction.shape)
    worst = float(fraction[index])
    return TensorCheck(
        name,
        tuple(int(i) for i in index),
        float(got[index]),
        float(expected[index]),
        float(bound[index]),
        worst,
        worst * terms**0.5,
        None if working is None else _norm_fraction(got, bounded, working),
    )


def _norm_fraction(got: np.ndarray, bounded: Bounded, working: np.ndarray) -> float | None:
    """‖got − ref64‖₂ over four times that of NumPy in the working dtype, plus what is probable of any correct code.

    NumPy's own error alone is no measure: its sums run in many partial sums and can be far more accurate than a
    plain loop, which is no less right; and few or tied roundings can leave it small by luck.
    """
    if working.dtype == np.float64 or not np.isfinite(bounded.value).all():
        return None  # nothing more precise to measure against, or nothing to measure
    info = np.finfo(working.dtype)
    ulp = info.eps * np.abs(bounded.value).max()
    if ulp < AMPLIFIED * info.tiny:
        return None  # underflow decides, not rounding: one element is 0 where the other is not
    own = np.linalg.norm(working - bounded.value)
    allowed = NORM_FACTOR * (own + ulp) + np.linalg.norm(bounded.deviation)
    if bounded.kink is not None:
        allowed += np.linalg.norm(bounded.kink)
    distance = np.linalg.norm(got - bounded.value)
    if allowed == 0:  # all of the tensor is exactly 0 in both precisions
        return 0.0 if distance == 0 else np.inf
    fraction = float(distance / allowed)
    return fraction if fraction >= 0 else np.inf  # NaN fails


def check_gradients(
    layers: Sequence[Layer],
    cost: float,
    gradients: Pairs,
    own_cost: float,
    working: Pairs,
    step: bounds.BoundedStep,
    batch: int,
) -> list[TensorCheck]:
    """The mean cost and every gradient of one batch, end to end, elementwise and in norm.

    ``own_cost`` and ``working`` are the reference's in the working dtype.
    """
    dtype = working[0][0].dtype
    checks = [compare("cost", cost, step.cost, np.asarray(own_cost, dtype), terms=batch)]
    flat_got = [g for pair in gradients for g in pair]
    flat_working = [g for pair in working for g in pair]
    terms = max(batch, *(layer.n_in for layer in layers), layers[-1].n_out)
    for name, got, bounded, own in zip(
        tensor_names(layers), flat_got, step.gradients, flat_working, strict=True
    ):
        checks.append(compare(f"∂C/∂{name}", got, bounded, own, terms=terms))
    return checks


class StepCheck(NamedTuple):
    """What a checked step did, what was found of it, how long its run took, and the state before it."""

    stats: StepStats
    checks: list[TensorCheck]
    seconds: float
    before: PlanState


def check_step(
    plan: Plan,
    layers: Sequence[Layer],
    loss: str,
    optimizer: Optimizer,
    samples: Samples,
    order: np.ndarray,
    lr: float,
) -> StepCheck:
    """Run one training step of ``plan`` on the batch ``order`` of host ``samples``, and check all it did.

    Its gradients are held to the reference; the parameters, optimizer slots and step count that its own ``run``
    leaves behind, to the optimizer's rule on those gradients. There are no checks where the reference itself
    overflows in the working dtype.
    """
    before = plan.state()
    cost, gradients = plan.gradients(order)
    started = time.perf_counter()
    stats = plan.run(order, np.array([lr]))
    seconds = time.perf_counter() - started
    after = plan.state()

    batch = samples.take(order)
    with np.errstate(all="ignore"):
        checks = _check_against(
            layers, loss, optimizer, batch, before, after, cost, gradients, stats, lr, plan.products
        )
    return StepCheck(stats, checks, seconds, before)


def _check_against(
    layers: Sequence[Layer],
    loss: str,
    optimizer: Optimizer,
    batch: Samples,
    before: PlanState,
    after: PlanState,
    cost: float,
    gradients: Pairs,
    stats: StepStats,
    lr: float,
    products: str,
) -> list[TensorCheck]:
    dtype = before.parameters[0].dtype
    inputs = as_inputs(batch.inputs, dtype)
    activations = [ACTIVATIONS[layer.activation] for layer in layers]
    own_cost, working = reference.backpropagate(
        before.layers, activations, LOSSES[loss], inputs, batch.targets, batch.sample_weight
    )
    if not np.isfinite(own_cost) or not all(np.isfinite(g).all() for pair in working for g in pair):
        return []  # the reference itself overflows in this dtype: a run that diverges, which the trainer reports
    step = _bounded_step(layers, before.layers, loss, batch, products)
    checks = check_gradients(layers, cost, gradients, own_cost, working, step, len(batch))
    checks.append(
        compare("cost of run", stats.mean_cost, step.cost, np.asarray(own_cost, dtype), terms=len(batch))
    )
    checks.append(_check_hits(stats, step))
    checks.append(compare("step count", after.step, Bounded.exact(np.asarray(before.step + 1.0))))
    return checks + _check_update(layers, optimizer, before, after, gradients, lr)


def _bounded_step(
    layers: Sequence[Layer], parameters: Pairs, loss: str, samples: Samples, products: str
) -> bounds.BoundedStep:
    dtype = parameters[0][0].dtype
    inputs = as_inputs(samples.inputs, dtype)
    return bounds.backpropagate(
        layers,
        parameters,
        loss,
        inputs,
        samples.targets,
        samples.sample_weight,
        Precision.of(dtype, products),
    )


def _bounded_update(
    parameter: np.ndarray,
    gradient: np.ndarray,
    slots: Sequence[np.ndarray],
    optimizer: Optimizer,
    coefficients: Sequence[float],
) -> list[Bounded]:
    """Bounds of the update by the very gradient given; coefficients are rounded first, as every backend does."""
    dtype = parameter.dtype
    return bounds.update(
        parameter.astype(np.float64),
        Bounded.exact(gradient.astype(np.float64)),
        [slot.astype(np.float64) for slot in slots],
        optimizer.kind,
        [float(dtype.type(c)) for c in coefficients],
        Precision.of(dtype),
    )


def _check_hits(stats: StepStats, step: bounds.BoundedStep) -> TensorCheck:
    fewest, most = step.hits
    middle, margin = np.asarray((fewest + most) / 2), np.asarray((most - fewest) / 2 + 0.25)
    return compare("hits", stats.hits.sum(), bounds.worst_only(middle, margin))


def _check_update(
    layers: Sequence[Layer],
    optimizer: Optimizer,
    before: PlanState,
    after: PlanState,
    gradients: Pairs,
    lr: float,
) -> list[TensorCheck]:
    """The optimizer's rule on the plan's own gradients: those that ``run`` steps along, by its contract."""
    dtype = before.parameters[0].dtype
    checks = []
    flat = [gradient for pair in gradients for gradient in pair]
    for i, name in enumerate(tensor_names(layers)):
        c = optimizer.coefficients(lr, before.step + 1, decay=name.startswith("W"))
        expected = _bounded_update(before.parameters[i], flat[i], before.slots[i], optimizer, c)
        results = [after.parameters[i], *after.slots[i]]
        kinds = ("", *(f" {slot}" for slot in optimizer.slots))
        for kind, got, bounded in zip(kinds, results, expected, strict=True):
            if np.abs(bounded.value).max() < np.finfo(dtype).max:  # else it has overflowed, and rightly so
                checks.append(compare(f"{name}{kind} after update", got, bounded))
    return checks


def check_cut(plan: Plan, order: np.ndarray, rates: np.ndarray, batch_size: int) -> list[TensorCheck]:
    """A run of several steps in one call must leave the very bits that its steps leave one by one.

    ``order`` holds one batch for each of ``rates``, the last perhaps short. The plan is left as it was.
    """
    before = plan.state()
    together, whole = plan.run(order, rates), plan.state()
    plan.load_state(before)
    single = [
        plan.run(order[s * batch_size : (s + 1) * batch_size], rates[s : s + 1]) for s in range(len(rates))
    ]
    apart = plan.state()
    plan.load_state(before)
    got, expected = (
        np.concatenate([t.ravel() for t in (*state.parameters, *(x for xs in state.slots for x in xs))])
        for state in (whole, apart)
    )
    costs = np.concatenate([stats.costs for stats in single])
    return [
        compare("state after several steps", got, Bounded.exact(expected.astype(np.float64))),
        compare("costs of several steps", together.costs, Bounded.exact(costs)),
    ]


def check_evaluation(
    plan: Plan, layers: Sequence[Layer], loss: str, samples: Samples, parameters: Pairs
) -> list[TensorCheck]:
    """The plan's evaluation of host samples (a few hundred, say), against the reference."""
    stats = plan.evaluate(plan.upload(samples))
    with np.errstate(all="ignore"):
        step = _bounded_step(layers, parameters, loss, samples, plan.products)
        if not np.isfinite(step.cost.value):
            return []
        cost = compare("cost of evaluation", stats.mean_cost, step.cost, terms=len(samples))
    hits = _check_hits(stats, step)
    return [cost, replace(hits, name="hits of evaluation")]


class _Operations:
    """Each operation of a backend by itself, on the reference's own inputs and into poisoned buffers."""

    def __init__(
        self, backend: Backend, layers: Sequence[Layer], parameters: Pairs, loss: str, samples: Samples
    ) -> None:
        self.backend, self.layers, self.parameters, self.loss = backend, layers, parameters, loss
        self.samples, self.dtype = samples, parameters[0][0].dtype
        self.precision = Precision.of(self.dtype)
        self.checks: list[TensorCheck] = []

    def run(self) -> list[TensorCheck]:
        order = np.arange(len(self.samples))[::-1].copy()
        inputs = self._gather(order)
        batch = self.samples.take(order)
        a, z = [inputs], [inputs]
        for i in range(len(self.layers)):
            z_layer, a_layer = self._forward(i, a[-1])
            z.append(z_layer)
            a.append(a_layer)
        delta = self._output_delta(z[-1], a[-1], batch)
        for i in range(len(self.layers) - 1, -1, -1):
            self._weight_grad(i, delta, a[i])
            if i:
                delta = self._hidden_delta(i, delta, z[i], a[i])
        self._update()
        return self.checks

    def _send(self, array: np.ndarray) -> Array:
        return self.backend.to_device(np.ascontiguousarray(array))

    def _poisoned(self, *shape: int) -> Array:
        return self._send(np.full(shape, np.nan, self.dtype))

    def _check(self, name: str, got: Array, bounded: Bounded, terms: int = 1) -> None:
        self.checks.append(compare(name, self.backend.to_host(got), bounded, terms=terms))

    def _gather(self, order: np.ndarray) -> np.ndarray:
        out = self._poisoned(*self.samples.inputs.shape)
        self.backend.gather(self._send(self.samples.inputs), self._send(order), out)
        expected = as_inputs(self.samples.inputs[order], self.dtype)
        self._check("gather", out, Bounded.exact(expected.astype(np.float64)))
        return expected

    def _forward(self, i: int, a_prev: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias = self.parameters[i]
        activation = ACTIVATIONS[self.layers[i].activation]
        z, a = self._poisoned(len(a_prev), len(bias)), self._poisoned(len(a_prev), len(bias))
        self.backend.forward(self._send(a_prev), self._send(weights), self._send(bias), activation.name, z, a)
        wide = Bounded.exact(a_prev.astype(np.float64))
        z_bound, a_bound = bounds.forward(
            wide, weights.astype(np.float64), bias.astype(np.float64), activation, self.precision
        )
        self._check(f"z{i + 1} forward", z, z_bound, weights.shape[1])
        self._check(f"a{i + 1} forward", a, a_bound, weights.shape[1])
        return reference.forward(a_prev, weights, bias, activation)

    def _output_delta(self, z: np.ndarray, a: np.ndarray, batch: Samples) -> np.ndarray:
        activation, loss = ACTIVATIONS[self.layers[-1].activation], LOSSES[self.loss]
        delta, cost = self._poisoned(*a.shape), self._poisoned(len(a))
        hit = self._send(np.full(len(a), 255, np.uint8))
        self.backend.output_delta(
            self._send(z),
            self._send(a),
            self._send(batch.targets),
            self._send(batch.sample_weight),
            activation.name,
            loss.name,
            delta,
            cost,
            hit,
        )
        z_wide, a_wide = Bounded.exact(z.astype(np.float64)), Bounded.exact(a.astype(np.float64))
        y, w = batch.targets.astype(np.float64), batch.sample_weight.astype(np.float64)
        bounded = bounds.output_delta(z_wide, a_wide, y, w, activation, loss, self.precision)
        self._check("δ output_delta", delta, bounded)
        costs = [
            bounds.cost(
                Bounded.exact(z_wide.value[b : b + 1]),
                Bounded.exact(a_wide.value[b : b + 1]),
                y[b : b + 1],
                w[b : b + 1],
                activation,
                loss,
                self.precision,
            )
            for b in range(len(a))
        ]
        values, errors = (np.array([getattr(c, part) for c in costs]) for part in ("value", "error"))
        self._check("cost output_delta", cost, bounds.worst_only(values, errors))
        hits = labels_of(a) == labels_of(batch.targets)
        self._check("hits output_delta", hit, Bounded.exact(hits.astype(np.float64)))
        return reference.output_delta(a, batch.targets, batch.sample_weight, activation, loss)

    def _hidden_delta(self, i: int, delta_next: np.ndarray, z: np.ndarray, a: np.ndarray) -> np.ndarray:
        weights, activation = self.parameters[i][0], ACTIVATIONS[self.layers[i - 1].activation]
        delta = self._poisoned(*a.shape)
        self.backend.hidden_delta(
            self._send(delta_next), self._send(weights), self._send(a), activation.name, delta
        )
        bounded = bounds.hidden_delta(
            Bounded.exact(delta_next.astype(np.float64)),
            weights.astype(np.float64),
            bounds.known_side(a.astype(np.float64)),
            Bounded.exact(a.astype(np.float64)),
            activation,
            self.precision,
        )
        self._check(f"δ{i} hidden_delta", delta, bounded, len(weights))
        return reference.hidden_delta(delta_next, weights, a, activation)

    def _weight_grad(self, i: int, delta: np.ndarray, a_prev: np.ndarray) -> None:
        weights, bias = (self._poisoned(*p.shape) for p in self.parameters[i])
        self.backend.weight_grad(self._send(delta), self._send(a_prev), weights, bias)
        expected = bounds.weight_grad(
            Bounded.exact(delta.astype(np.float64)), Bounded.exact(a_prev.astype(np.float64)), self.precision
        )
        self._check(f"∂C/∂W{i + 1} weight_grad", weights, expected[0], len(delta))
        self._check(f"∂C/∂b{i + 1} weight_grad", bias, expected[1], len(delta))

    def _update(self) -> None:
        rng = np.random.default_rng(0)
        parameter = self.parameters[0][0]
        momentum = SGD(momentum=0.9, weight_decay=0.01), SGD(momentum=0.9, nesterov=True)
        for optimizer in (*(cls(lr=0.1) for cls in OPTIMIZERS.values()), *momentum):
            gradient = rng.standard_normal(parameter.shape).astype(self.dtype)
            slots = [np.abs(rng.standard_normal(parameter.shape)).astype(self.dtype) for _ in optimizer.slots]
            c = optimizer.coefficients(optimizer.lr, 3, decay=True)
            p, memory = self._send(parameter), [self._send(slot) for slot in slots]
            self.backend.update(p, self._send(gradient), memory, optimizer, c)
            expected = _bounded_update(parameter, gradient, slots, optimizer, c)
            nesterov = " nesterov" if getattr(optimizer, "nesterov", False) else ""
            for kind, got, bounded in zip(("W", *optimizer.slots), [p, *memory], expected, strict=True):
                self._check(f"{kind} update by {optimizer.kind}{nesterov}", got, bounded)


def _with_biases(parameters: Pairs) -> Pairs:
    rng = np.random.default_rng(0)
    return [
        (w, np.where(b == 0, 0.1 * rng.standard_normal(b.shape), b).astype(b.dtype)) for w, b in parameters
    ]


def verify(
    network: Network,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    loss: str = "cross_entropy",
    optimizer: Optimizer | None = None,
    sample_weight: np.ndarray | None = None,
    backend: str | Backend = "auto",
) -> Report:
    """Hold a backend to the reference on this network and data; the network is not changed.

    Biases that are 0, as those of a fresh network, are drawn for it, since one left out would not show.

    Checks each operation by itself on the same inputs; and of the backend's own plan the evaluation, a run of
    several steps, and two single steps (a full and a short batch) end to end. Takes the first 256 samples at most.

    Args:
        inputs: (N, n_in), uint8 or float. targets: (N,) labels or (N, n_out). sample_weight: (N,) or None.
        optimizer: of the step, by default SGD with momentum.

    Returns:
        A report: ``report.ok``, ``report.worst``, ``str(report)``.

    Raises:
        DataError, UsageError, BackendUnavailable: as ``fit`` does.
    """
    from gpubp.data import check_split
    from gpubp.data.prepare import prepare

    started = time.perf_counter()
    chosen, optimizer = backends.get(backend), optimizer or SGD(0.1, momentum=0.9)
    parameters = _with_biases(network.parameters)
    samples = prepare(network, check_split(inputs, targets, sample_weight), loss).samples
    samples = samples.take(np.arange(min(len(samples), VERIFY_ROWS)))
    report = Report(f"{chosen.name} backend ({chosen.describe()}) on {network!r}, {len(samples)} samples")
    with chosen.limits():
        with np.errstate(all="ignore"):
            dense = replace(samples, inputs=dense_inputs(samples.inputs, network.dtype))
            report.add(_Operations(chosen, network.layers, parameters, loss, dense).run())
        batch = max(1, len(samples) * 2 // 3)  # so that the last of two batches is a short one
        plan = chosen.plan(network.layers, parameters, loss, optimizer, batch, samples)
        report.add(check_evaluation(plan, network.layers, loss, samples, parameters))
        order = np.random.default_rng(0).permutation(len(samples))
        rates = optimizer.lr * np.array([1.0, 0.5])[: -(-len(order) // batch)]
        report.add(check_cut(plan, order, rates, batch))
        for part in (order[:batch], order[batch:]):
            if len(part):
                report.add(
                    check_step(plan, network.layers, loss, optimizer, samples, part, optimizer.lr).checks
                )
                report.steps += 1
    report.seconds = time.perf_counter() - started
    return report
