"""A plan held to the reference: single steps, several in one call, and evaluation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpubp import reference
from gpubp.backends.plan import Plan, PlanState, Problem, StepStats
from gpubp.data.samples import Samples, as_inputs
from gpubp.network import tensor_names
from gpubp.optimizers import Optimizer
from gpubp.reference import Parameters
from gpubp.verification import bounds
from gpubp.verification.bounds import Bounded, Precision
from gpubp.verification.compare import TensorCheck, compare

VERIFY_ROWS = 256  # samples that an evaluation is checked on


class StepCheck(NamedTuple):
    """The outcome of a checked step, the checks, the seconds that its run took, and the state before it."""

    stats: StepStats
    checks: list[TensorCheck]
    seconds: float
    before: PlanState


def check_step(plan: Plan, order: np.ndarray, lr: float) -> StepCheck:
    """Run one training step of ``plan`` on the batch ``order`` of its samples, and check all it did.

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

    with np.errstate(all="ignore"):
        checks, step = _check_gradients(plan, before, order, cost, gradients, stats)
        if step is not None:
            checks.append(compare("step count", after.step, Bounded.exact(np.asarray(before.step + 1.0))))
            by_sample = (step.size, len(order)) if plan.by_sample else None
            checks += _check_update(plan.problem, before, after, gradients, lr, by_sample)
    return StepCheck(stats, checks, seconds, before)


def _check_gradients(
    plan: Plan, before: PlanState, order: np.ndarray, cost: float, gradients: Parameters, stats: StepStats
) -> tuple[list[TensorCheck], bounds.BoundedStep | None]:
    """Cost, hits and every gradient of one batch, end to end, elementwise and in norm; and what they are held to."""
    problem, batch = plan.problem, plan.problem.batch(before.step, order)
    given = as_inputs(batch.inputs, problem.dtype), batch.targets, batch.sample_weight
    own_cost, working = reference.backpropagate(
        before.layers, problem.activations, problem.loss, *given, problem.masks(before.step, order)
    )
    if not np.isfinite(own_cost) or not all(np.isfinite(g).all() for pair in working for g in pair):
        # the reference itself overflows in this dtype: a run that diverges, which the trainer reports
        return [], None
    masks = problem.masks(before.step, order, np.float64)
    step = bounded_step(problem, before.layers, batch, plan.products, masks)
    own = np.asarray(own_cost, problem.dtype)
    checks = [
        compare("cost", cost, step.cost, own, terms=len(order)),
        *compare_gradients(problem, gradients, working, step, len(order)),
        compare("cost of run", stats.mean_cost, step.cost, own, terms=len(order)),
        _check_hits(stats, step),
    ]
    return checks, step


def compare_gradients(
    problem: Problem, gradients: Parameters, working: Parameters, step: bounds.BoundedStep, batch: int
) -> list[TensorCheck]:
    """Every gradient of a mini-batch of ``batch``; ``working`` is the reference's in the working dtype."""
    layers = problem.layers
    terms = max(batch, *(layer.n_in for layer in layers), layers[-1].n_out)
    flat, own = ([g for pair in pairs for g in pair] for pairs in (gradients, working))
    return [
        compare(f"∂C/∂{name}", got, bounded, like, terms=terms)
        for name, got, bounded, like in zip(tensor_names(layers), flat, step.gradients, own, strict=True)
    ]


def bounded_step(
    problem: Problem,
    parameters: Parameters,
    samples: Samples,
    products: str,
    masks: Sequence[np.ndarray | None] | None = None,
) -> bounds.BoundedStep:
    """One mini-batch through the reference at these parameters, with the error that a plan may make in it.

    ``masks`` are a training step's, of the inputs of each layer, in float64.
    """
    given = as_inputs(samples.inputs, problem.dtype), samples.targets, samples.sample_weight
    precision = Precision.of(problem.dtype, products)
    return bounds.backpropagate(parameters, problem.activations, problem.loss, *given, precision, masks)


def bounded_update(
    parameter: np.ndarray,
    gradient: np.ndarray,
    slots: Sequence[np.ndarray],
    optimizer: Optimizer,
    coefficients: Sequence[float],
) -> list[Bounded]:
    """Bounds of the update by the very gradient given; coefficients are rounded first, as every backend does."""
    dtype = parameter.dtype
    parameter, gradient, *slots = (array.astype(np.float64) for array in (parameter, gradient, *slots))
    how = optimizer.kind, [float(dtype.type(c)) for c in coefficients], Precision.of(dtype)
    return bounds.update(parameter, Bounded.exact(gradient), slots, *how)


def _check_hits(stats: StepStats, step: bounds.BoundedStep) -> TensorCheck:
    fewest, most = step.hits
    middle, margin = np.asarray((fewest + most) / 2), np.asarray((most - fewest) / 2 + 0.25)
    return compare("hits", stats.hits.sum(), bounds.worst_only(middle, margin))


def _check_update(
    problem: Problem,
    before: PlanState,
    after: PlanState,
    gradients: Parameters,
    lr: float,
    by_sample: tuple[np.ndarray, int] | None,
) -> list[TensorCheck]:
    """The optimizer's rule on the plan's own gradients: those that ``run`` steps along, by its contract.

    Where W₁ takes the products of each sample, ``by_sample`` is their size and the number of samples.
    """
    optimizer, checks, largest = problem.optimizer, [], np.finfo(problem.dtype).max
    flat = [gradient for pair in gradients for gradient in pair]
    for i, name in enumerate(tensor_names(problem.layers)):
        c = optimizer.coefficients(lr, before.step + 1, decay=name.startswith("W"))
        if i or by_sample is None:
            expected = bounded_update(before.parameters[i], flat[i], before.slots[i], optimizer, c)
        else:
            w, gradient = before.parameters[0].astype(np.float64), flat[0].astype(np.float64)
            rate, precision = float(problem.dtype.type(lr)), Precision.of(problem.dtype)
            expected = [bounds.update_by_sample(w, gradient, *by_sample, rate, precision)]
        results = [after.parameters[i], *after.slots[i]]
        kinds = ("", *(f" {slot}" for slot in optimizer.slots))
        for kind, got, bounded in zip(kinds, results, expected, strict=True):
            if np.abs(bounded.value).max() < largest:  # else it has overflowed, and rightly so
                checks.append(compare(f"{name}{kind} after update", got, bounded))
    return checks


def check_cut(plan: Plan, order: np.ndarray | None = None) -> list[TensorCheck]:
    """A run of several steps in one call must leave the very bits that its steps leave one by one.

    The steps are :meth:`Problem.two_batches`, of the samples in ``order``. The plan is left as it was.
    """
    order, rates = plan.problem.two_batches(order)
    size = plan.problem.batch_size
    before = plan.state()
    together, whole = plan.run(order, rates), plan.state()
    plan.load_state(before)
    single = [plan.run(order[s * size : (s + 1) * size], rates[s : s + 1]) for s in range(len(rates))]
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


def check_evaluation(plan: Plan, samples: Samples) -> list[TensorCheck]:
    """The plan's evaluation of the first of these host samples at its present parameters, against the reference."""
    samples = samples.take(np.arange(min(len(samples), VERIFY_ROWS)))
    stats = plan.evaluate(plan.upload(samples))
    with np.errstate(all="ignore"):
        step = bounded_step(plan.problem, plan.state().layers, samples, plan.products)
        if not np.isfinite(step.cost.value):
            return []
        cost = compare("cost of evaluation", stats.mean_cost, step.cost, terms=len(samples))
    return [cost, replace(_check_hits(stats, step), name="hits of evaluation")]
