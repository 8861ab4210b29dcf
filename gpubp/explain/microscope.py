"""One mini-batch under the microscope: every number of a training step, and a check beside each gradient.

:func:`walk` takes a network through the equations of :mod:`gpubp.reference` once, in float64, and keeps all of it:
forward, BP1 to BP4, the update, central differences of the cost, and what became of the error on its way back.
:func:`descent` is gradient descent with nothing around it. Nothing here prints.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from gpubp import reference
from gpubp.data.dataset import Split
from gpubp.data.samples import Samples, as_inputs
from gpubp.errors import GpubpError, UsageError
from gpubp.experiments.recipe import Recipe
from gpubp.functions import LOSSES, Activation, Loss, clipped, lookup
from gpubp.model import labels_of
from gpubp.network import Layer, Network
from gpubp.optimizers import SGD, Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.training.signals import LayerSignal, of_layer, saturated_units
from gpubp.verification.bounds import KINKS

# h of a central difference. Its error is about h² |C‴| / 6 + ε / h, where ε is the rounding error of the cost: least
# at h = (3 ε / |C‴|)^⅓, which is 7e-6 where ε / |C‴| is float64's u = 2⁻⁵³. A power of two makes W ± h exact.
STEP = 2.0**-17
DEVIATIONS = 6.0  # of the roundings' standard deviation that a difference may be off by

Masks = Sequence[np.ndarray | None]  # of dropout, for the inputs of each layer
Pair = tuple[np.ndarray, np.ndarray]  # W (n_out, n_in) and b (n_out,) of a layer, or their gradients

# How the derivatives of the losses read; the tests hold the words to the functions that compute them.
COST_GRADIENTS = {
    "quadratic": "a − y",
    "squared_error": "2 (a − y)",
    "cross_entropy": "−y / a",
    "binary_cross_entropy": "(a − y) / (a (1 − a))",
}


@dataclass(frozen=True)
class Difference:
    """One element of a gradient beside the central difference (C(w + h) − C(w − h)) / 2h of the mean cost.

    ``expected`` is how far the two may be apart: the truncation and the roundings of the difference, as
    :func:`central_differences` finds them. ``kink``: a unit at its kink or a clipped probability switches
    between w − 2h and w + 2h, so that the cost has no one slope there.
    """

    name: str
    gradient: float
    difference: float
    expected: float
    kink: bool

    @property
    def gap(self) -> float:
        return abs(self.gradient - self.difference)

    @property
    def agrees(self) -> bool:
        return self.gap <= self.expected

    @property
    def digits(self) -> int:
        """Significant digits that the two share, 16 at most."""
        if self.gap == 0:
            return 16
        size = max(abs(self.gradient), abs(self.difference))
        return max(0, min(16, math.floor(-math.log10(self.gap / size))))

    @property
    def verdict(self) -> str:
        if self.kink:
            return "a kink within ±2h"
        if not self.agrees:
            return "DISAGREE"
        if self.gap == 0:
            return "equal"
        return f"{self.digits} digits" if self.digits else "within rounding"


@dataclass(frozen=True)
class Followed:
    """One weight, from input unit ``k`` to unit ``j`` of its layer, through BP4 and the update.

    ``a_prev`` and ``delta`` are (B,), one of each sample; the mean of their products is ``gradient``.
    """

    name: str
    j: int
    k: int
    a_prev: np.ndarray
    delta: np.ndarray
    gradient: float
    before: float
    after: float

    @property
    def products(self) -> np.ndarray:
        return self.delta * self.a_prev


@dataclass(frozen=True)
class LayerWalk:
    """One layer's numbers for the mini-batch; layers count from 1, layer 0 being the inputs.

    ``arriving`` (B, n) is ∂C/∂a, which BP1 and BP2 multiply by σ'(z): ∇ₐC of the output layer (None where the loss is
    matched to the activation and δ is a − y), δ_next W_next of a hidden one. ``slope`` is σ'(z), None for softmax.
    ``carried`` and ``kept`` are the factors by which the mean of |δ| changes on its way from the next layer: through
    its weights, and by σ'(z); None for the output layer. ``mask`` is what dropout multiplies the layer's inputs by, of
    which ``a_prev`` is what is left; None without. ``arriving`` has been through that of the next layer.
    """

    number: int
    layer: Layer
    activation: Activation
    parameters: Pair
    updated: Pair
    a_prev: np.ndarray
    z: np.ndarray
    a: np.ndarray
    arriving: np.ndarray | None
    delta: np.ndarray
    gradients: Pair
    carried: float | None
    kept: float | None
    differences: list[Difference]
    mask: np.ndarray | None

    @property
    def slope(self) -> np.ndarray | None:
        return None if self.activation.slope is None else self.activation.slope(self.a)

    @cached_property
    def signal(self) -> LayerSignal:
        return of_layer(self.delta, self.a, self.activation)

    @cached_property
    def followed(self) -> Followed:
        """The weight that its gradient asks most of."""
        gradient = self.gradients[0]
        j, k = (int(n) for n in np.unravel_index(np.abs(gradient).argmax(), gradient.shape))
        told = (float(of[j, k]) for of in (gradient, self.parameters[0], self.updated[0]))
        return Followed(f"W{self.number}[{j},{k}]", j, k, self.a_prev[:, k], self.delta[:, j], *told)


@dataclass(frozen=True)
class Walk:
    """A training step of a mini-batch, all of it in float64.

    ``cost`` and ``cost_after`` are the mini-batch's mean cost before and after the update; ``predicted`` is the change
    that the gradient alone foretells, ∇C · Δ(W, b). ``lr`` is η of this step. Its images are those that a
    ``deformation`` has made, if there is one.
    """

    network: Network
    samples: Samples
    loss: Loss
    optimizer: Optimizer
    lr: float
    layers: list[LayerWalk]
    costs: np.ndarray
    cost: float
    cost_after: float
    predicted: float
    deformation: Deformation | None = None

    @property
    def output_form(self) -> str:
        """The form of BP1: "matched" (δ = a − y), "hadamard" (∇ₐC ⊙ σ'(z)) or "jacobian" (softmax, unmatched)."""
        output = self.layers[-1]
        if output.arriving is None:
            return "matched"
        return "jacobian" if output.slope is None else "hadamard"

    @property
    def differences(self) -> list[Difference]:
        return [d for layer in self.layers for d in layer.differences]

    @property
    def slowest(self) -> LayerWalk:
        """The layer that the least error reaches."""
        return min(self.layers, key=lambda layer: layer.signal.mean_delta)


def walk(
    network: Network,
    samples: Samples,
    loss: Loss,
    optimizer: Optimizer,
    lr: float | None = None,
    masks: Masks | None = None,
) -> Walk:
    """Take prepared host samples, as one mini-batch, through a training step of the network, which stays as it is.

    The optimizer's slots start at 0, as at the first step of a run; ``lr`` is η where a schedule changes it; ``masks``
    are dropout's, (B, n_in) in float64 for the inputs of each layer that has it.

    Raises:
        GpubpError: the cost is no finite number.
    """
    network = in_float64(network)
    lr = optimizer.lr if lr is None else lr
    targets = (array.astype(np.float64) for array in (samples.targets, samples.sample_weight))
    samples = Samples(as_inputs(samples.inputs, np.float64), *targets)
    given = samples.inputs, samples.targets, samples.sample_weight
    with np.errstate(all="ignore"):  # what overflows shows in the cost
        whole = reference.trace(network.parameters, network.activations, loss, *given, masks)
        pairs = zip(network.parameters, whole.gradients, strict=True)
        updated = [_updated(pair, gradients, optimizer, lr) for pair, gradients in pairs]
        later = reference.trace(updated, network.activations, loss, *given, masks)
        cost, after = float(whole.costs.mean()), float(later.costs.mean())
        if not math.isfinite(cost):
            raise GpubpError(
                f"the cost of this mini-batch is {cost}: nothing can be learned from it; look at another model"
            )
        layers = _layers(network, samples, loss, whole, updated, masks or [None] * len(updated))
    tensors = (chain.from_iterable(pairs) for pairs in (network.parameters, whole.gradients, updated))
    predicted = sum(float((g * (new - old)).sum()) for old, g, new in zip(*tensors, strict=True))
    return Walk(network, samples, loss, optimizer, lr, layers, whole.costs, cost, after, predicted)


def first_step(network: Network, train: Split, recipe: Recipe, shape: tuple[int, ...] = ()) -> Walk:
    """The step that the recipe's training takes first, from this network and on this data; ``shape`` is an image's.

    Raises:
        UsageError: the recipe deforms images, and these are none, or a value out of range.
    """
    network, loss = in_float64(network), lookup(LOSSES, recipe.loss, "loss")
    samples = network.prepare(train, loss, recipe.data).samples
    order = first_order(len(samples), recipe.batch_size, recipe.seed)
    dropout = recipe.build_dropout(recipe.seed)
    masks = None if dropout is None else dropout.masks(0, order, network.sizes[:-1], np.float64)
    deformation, batch = (
        Deformation.of(recipe.deform, samples.inputs, shape, recipe.seed),
        samples.take(order),
    )
    if deformation is not None:
        classes = labels_of(batch.targets) if deformation.by_class else None
        batch = replace(batch, inputs=deformation.images(batch.inputs, order, 0, classes))
    optimizer, steps = recipe.build_optimizer(), -(-len(samples) // recipe.batch_size)
    factor = recipe.build_schedule().factors(0, 1, steps, recipe.epochs)[0]
    step = walk(network, batch, loss, optimizer, float(optimizer.lr * factor), masks)
    return replace(step, deformation=deformation)


def first_order(samples: int, batch_size: int, seed: int) -> np.ndarray:
    """The samples of the mini-batch that training with this seed takes first, by their places in the data."""
    if batch_size < 1:
        raise UsageError(f"batch_size must be a positive integer, not {batch_size}")
    return np.random.default_rng(seed).permutation(samples)[:batch_size]


def in_float64(network: Network) -> Network:
    """The same network with its parameters in float64."""
    same = copy.copy(network)
    same.dtype = np.dtype(np.float64)
    same.parameters = [(w.astype(np.float64), b.astype(np.float64)) for w, b in network.parameters]
    return same


def _updated(parameters: Pair, gradients: Pair, optimizer: Optimizer, lr: float) -> Pair:
    """(W, b) of one layer after the first step of a run; weight decay acts on W alone."""

    def new(parameter: np.ndarray, gradient: np.ndarray, decay: bool) -> np.ndarray:
        slots = [np.zeros_like(parameter) for _ in optimizer.slots]
        coefficients = optimizer.coefficients(lr, 1, decay=decay)
        return reference.update(parameter, gradient, slots, optimizer, coefficients)[0]

    return new(parameters[0], gradients[0], True), new(parameters[1], gradients[1], False)


def _layers(
    network: Network, samples: Samples, loss: Loss, whole: reference.Trace, updated: list, masks: Masks
) -> list[LayerWalk]:
    differences = central_differences(network, samples, loss, whole, masks)
    last = len(network.layers) - 1
    layers = []
    for i, (layer, activation) in enumerate(zip(network.layers, network.activations, strict=True)):
        a, delta = whole.a[i + 1], whole.delta[i]
        arriving, carried, kept = None, None, None
        if i < last:
            arriving = reference.drop(whole.delta[i + 1] @ network.parameters[i + 1][0], masks[i + 1])
            carried = _ratio(np.abs(arriving).mean(), np.abs(whole.delta[i + 1]).mean())
            kept = _ratio(np.abs(delta).mean(), np.abs(arriving).mean())
        elif loss.matched != activation.name:
            arriving = loss.gradient(a, samples.targets)
        before, after, gradients = network.parameters[i], updated[i], whole.gradients[i]
        numbers = before, after, whole.taken[i], whole.z[i], a, arriving, delta, gradients
        layers.append(LayerWalk(i + 1, layer, activation, *numbers, carried, kept, differences[i], masks[i]))
    return layers


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def central_differences(
    network: Network, samples: Samples, loss: Loss, whole: reference.Trace, masks: Masks
) -> list[list[Difference]]:
    """For each layer of a float64 network, the gradients in ``whole`` beside central differences of the cost.

    Of each tensor those are the largest gradient in size and the ones a quarter and half way down among those that
    are not 0. With D(h) = C' + h² C‴ / 6 + …, D(2h) − D(h) is three times the truncation of D(h). h⁴ is below 2⁻⁶⁷, so
    that a fourth difference of costs is all noise, its variance 1 + 16 + 36 + 16 + 1 times theirs (Moré and Wild, SIAM
    J. Sci. Comput. 33, 2011): the costs' rounding error is its root mean square, and at least u times the cost.
    """
    found = [
        [
            (which, at, *_shifted(network, samples, loss, whole.taken[i], i, which, at, masks))
            for which in (0, 1)
            for at in _instructive(gradients[which])
        ]
        for i, gradients in enumerate(whole.gradients)
    ]
    smooth = [
        c[0] + c[4] - 4 * (c[1] + c[3]) + 6 * c[2] for layer in found for *_, c, kink in layer if not kink
    ]
    noise = float(np.sqrt(np.mean(np.square(smooth)) / 70)) if smooth else 0.0
    noise = max(noise, 2.0**-53 * abs(float(whole.costs.mean())))
    rounding = DEVIATIONS * noise / (2**0.5 * STEP)

    def difference(i: int, which: int, at: tuple[int, ...], costs: np.ndarray, kink: bool) -> Difference:
        name = f"{'Wb'[which]}{i + 1}[{','.join(map(str, at))}]"
        single, double = ((costs[2 + s] - costs[2 - s]) / (2 * s * STEP) for s in (1, 2))
        expected = abs(double - single) / 3 + rounding
        return Difference(name, float(whole.gradients[i][which][at]), float(single), float(expected), kink)

    return [[difference(i, *element) for element in layer] for i, layer in enumerate(found)]


def _instructive(gradient: np.ndarray) -> list[tuple[int, ...]]:
    """Indices of the largest element in size, and of those a quarter and half way down to the last that is not 0."""
    order = np.argsort(-np.abs(gradient), axis=None, kind="stable")
    others = max(1, int(np.count_nonzero(gradient)))
    ranks = dict.fromkeys((0, others // 4, others // 2))
    return [tuple(int(n) for n in np.unravel_index(order[rank], gradient.shape)) for rank in ranks]


def _shifted(
    network: Network,
    samples: Samples,
    loss: Loss,
    taken: np.ndarray,
    i: int,
    which: int,
    at: tuple[int, ...],
    masks: Masks,
) -> tuple[np.ndarray, bool]:
    """Costs at w − 2h, w − h, w, w + h and w + 2h of one element w, and whether there is a kink in between.

    It is element ``at`` of W (``which`` 0) or b (1) of layer ``i``, which takes ``taken``.
    """
    costs, sides = [], []
    for s in (-2, -1, 0, 1, 2):
        pair = [*network.parameters[i]]
        pair[which] = pair[which].copy()
        pair[which][at] += s * STEP
        parameters = [(pair[0], pair[1]), *network.parameters[i + 1 :]]
        cost, above = _cost_from(network, samples, loss, taken, parameters, masks[i + 1 :])
        costs.append(cost)
        sides.append(np.concatenate([of_layer.ravel() for of_layer in above] or [np.zeros(0, bool)]))
    return np.array(costs), bool((np.array(sides) != sides[0]).any())


def _cost_from(
    network: Network,
    samples: Samples,
    loss: Loss,
    taken: np.ndarray,
    parameters: reference.Parameters,
    masks: Masks,
) -> tuple[float, list[np.ndarray]]:
    """The mean cost by the last layers, whose ``parameters`` are given, and on which side of their kinks units are.

    The first of them takes ``taken``, and the others what their masks leave. The sides are the same wherever the cost
    is smooth in between.
    """
    sides = []
    activations = network.activations[-len(parameters) :]
    for (weights, bias), activation, mask in zip(parameters, activations, [*masks, None], strict=True):
        z, a = reference.forward(taken, weights, bias, activation)
        taken = reference.drop(a, mask)
        sides += [z > place for place, _ in KINKS.get(activation.name, ())]
    if loss.probabilities and loss.matched != activations[-1].name:
        sides.append(clipped(a)[1])
    costs = reference.cost(z, a, samples.targets, samples.sample_weight, activations[-1], loss)
    return float(costs.mean()), sides


def wrong_and_saturated(step: Walk) -> float | None:
    """The share of (sample, output) pairs that are more than ½ off their target and saturated all the same.

    None where δ is a − y, in which nothing saturates, or where σ' is no single number.
    """
    output = step.layers[-1]
    saturated = saturated_units(output.a, output.activation)
    if output.arriving is None or saturated is None:
        return None
    return float((saturated & (np.abs(output.a - step.samples.targets) > 0.5)).mean())


@dataclass(frozen=True)
class DescentStep:
    """A step of gradient descent on g(a, b) = a² + b²: from where, g and ∇g there, and to where."""

    at: tuple[float, float]
    value: float
    gradient: tuple[float, float]
    to: tuple[float, float]


def descent(lr: float = 0.3, steps: int = 7, start: Sequence[float] = (10.0, 10.0)) -> list[DescentStep]:
    """Plain gradient descent on g(a, b) = a² + b², ∇g = (2a, 2b), by the rule that trains networks.

    A step multiplies a and b by 1 − 2η: they shrink for η < 1, go back and forth for η = 1, and grow beyond.

    Raises:
        UsageError: η is not positive and finite.
    """
    optimizer = SGD(lr=lr)
    at, taken = np.array(start, np.float64), []
    for number in range(1, steps + 1):
        gradient = 2 * at
        to, _ = optimizer.rule(at, gradient, (), optimizer.coefficients(lr, number, decay=False))
        points = (tuple(x.tolist()) for x in (at, gradient, to))
        taken.append(DescentStep(next(points), float((at * at).sum()), *points))
        at = to
    return taken
