"""Why training goes nowhere, and what to do about it, in a line of plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpubp.backends.plan import Problem
from gpubp.data.samples import Samples
from gpubp.functions import Activation
from gpubp.reference import Parameters, Trace
from gpubp.training.history import Epoch
from gpubp.training.signals import LayerSignal, of_layer, saturated_units

LAST = 3  # epochs whose lowest loss is where a run ended; of fewer nothing uncertain is said
STILL = 0.5  # of rectifiers off for every sample, or of other units saturated: a layer that hardly learns
LARGE, SMALL = 5.0, 1e-3  # root mean square, and spread, of numbers that the initialisations are not made for
WIDE = 5.0  # deviation of a weight times √n_in: at most 1.5 in every initialisation that goes by the width
SHRUNK = 0.01  # of the weights' first size
FLAT = 1e-3  # of the constant answer's cost: a loss that moves by less has not moved
MUCH_DROPPED = 0.5  # by a rate from which on dropout alone may be what keeps a network from learning
FADED = 1e-3  # of the error at the outputs: with less, the first layer hardly learns

SCALE_INPUTS = (
    "scale the inputs (--standardize on the command line; StandardScaler, or inputs / 255, in Python)"
)
OTHER_INIT = "use another init, such as auto"


@dataclass(frozen=True)
class Case:
    """A run that goes nowhere: its problem, the network as it stands, and a trace of it on a few of the samples.

    ``constant`` is the cost of the best constant answer; ``rose``, whether the loss was far lower before.
    """

    problem: Problem
    few: Samples
    parameters: Parameters
    now: Trace
    epochs: list[Epoch]
    constant: float
    rose: bool
    classification: bool

    @property
    def losses(self) -> list[float]:
        return [epoch.loss for epoch in self.epochs]

    @property
    def ended(self) -> float:
        """Where the loss ended: one bad epoch is not what counts."""
        return min(self.losses[-LAST:])

    @property
    def stands_still(self) -> bool:
        """Whether a hidden layer does."""
        layers = zip(self.signals[:-1], self.problem.activations, strict=False)
        return any(_still(*layer) for layer in layers)

    @property
    def stands(self) -> bool:
        """Whether the loss has stood where it was from the first epoch on, though there is a way for it to go."""
        return stands(self.epochs, self.constant) and any(delta.any() for delta in self.now.delta[:1])

    @property
    def rate(self) -> str:
        """What to do about the learning rate: where nothing has moved at all, it is too low."""
        way = "raise" if self.stands else "lower"
        return f"{way} the learning rate ({self.epochs[-1].learning_rate:g})"

    @property
    def signals(self) -> list[LayerSignal]:
        layers = zip(self.now.delta, self.now.a[1:], self.problem.activations, strict=True)
        return [of_layer(*layer) for layer in layers]


def stands(epochs: list[Epoch], constant: float) -> bool:
    """Whether the loss has hardly moved in some epochs; ``constant`` is that of the best constant answer."""
    losses = [epoch.loss for epoch in epochs]
    return len(losses) >= LAST and max(losses) - min(losses) < FLAT * constant


Cause = tuple[str, tuple[str, ...]]  # in words, with its remedies


def causes_of(case: Case) -> list[Cause]:
    """What keeps the network from learning, as far as data, weights and signals tell."""
    causes = [*_of_data(case)]
    causes += [*_of_weights(case), *_of_layers(case, (case.rate, OTHER_INIT)[: 1 if causes else 2])]
    return causes if causes or case.rose else [*_of_fading(case)]


def diagnosis(case: Case, causes: list[Cause]) -> str:
    """What is wrong, why, and what to do."""
    losses, now = case.losses, case.epochs[-1]
    best = case.epochs[losses.index(min(losses))]
    told = f"goes nowhere: after epoch {now.epoch} the loss is {now.loss:.4g}"
    told += ", hardly less than the" if now.loss < case.constant else ", and always the same answer gives"
    told += f" {case.constant:.4g}" + " of always the same answer" * (now.loss < case.constant)
    if case.rose:
        told = (
            f"goes the wrong way: the loss rose from {best.loss:.4g} in epoch {best.epoch} to {now.loss:.4g}"
        )
    elif case.stands:
        told = f"goes nowhere: in {len(losses)} epochs the loss has stayed at {now.loss:.4g}"
    remedies = [remedy for _, of_one in causes for remedy in of_one] + [case.rate] * case.rose
    if not remedies:
        falls = losses[-1] <= losses[0] + FLAT * case.constant  # or hardly moves
        other = f"raise the learning rate ({now.learning_rate:g})" if falls else case.rate
        remedies = ["train for more epochs", other, OTHER_INIT]
    dropout = case.problem.dropout
    if dropout is not None and max(dropout.rates) >= MUCH_DROPPED:
        remedies = [f"lower the dropout ({max(dropout.rates):.3g})", *remedies]
    why = "".join(f"; {cause}" for cause, _ in causes)
    return f"training {told}{why}. What helps: {', or '.join(dict.fromkeys(remedies))}"


def _of_data(case: Case) -> Iterator[Cause]:
    """Inputs and targets that the network is not made for."""
    x, y = case.few.inputs, case.few.targets
    if wrong := _unscaled(x):
        yield f"the inputs {wrong}", (SCALE_INPUTS,)
    if not case.classification and (wrong := _unscaled(y)):
        yield f"the targets {wrong}", ("scale the targets to mean 0 and deviation 1",)


def _of_weights(case: Case) -> Iterator[Cause]:
    """Weights that were too large from the start, or that have shrunk to nothing since."""
    decay = getattr(case.problem.optimizer, "weight_decay", 0.0)
    both = zip(case.problem.parameters, case.parameters, strict=True)
    for layer, ((first, _), (weights, _)) in enumerate(both, start=1):
        size, now = (np.sqrt(np.square(w, dtype=np.float64).mean()) for w in (first, weights))
        if size * np.sqrt(first.shape[1]) > WIDE:
            yield f"the weights of layer {layer} were large from the start (around {size:.2g})", (OTHER_INIT,)
            return
        if decay and now < SHRUNK * size:
            yield f"the weights of layer {layer} shrank to nothing", (f"lower the weight decay ({decay:g})",)
            return


def _of_layers(case: Case, remedies: tuple[str, ...]) -> Iterator[Cause]:
    """The first hidden layer that stands still, and the outputs, if they do."""
    *hidden, output = zip(case.signals, case.problem.activations, strict=True)
    still = ((layer, _still(*of_one)) for layer, of_one in enumerate(hidden, start=1))
    if first := next((f"{how[0]} of layer {layer} {how[1]}" for layer, how in still if how), None):
        yield first, remedies
    loss = case.problem.loss
    if loss.matched != output[1].name and (how := _still(*output)):
        other = "use loss cross_entropy with output softmax" if case.classification else "use output identity"
        told = f"{how[0]} of the output layer {how[1]}, where the loss {loss.name} has hardly a gradient"
        yield told, (*remedies, other)


def _still(signal: LayerSignal, activation: Activation) -> tuple[str, str] | None:
    """How much of a layer stands still, and how, if enough does: rectifiers are off, others saturated."""
    if signal.dead is None or signal.saturated is None:
        return None
    below, above = _ends(activation)
    share, how = (signal.saturated, "is saturated") if above else (signal.dead, "is off for every sample")
    if not below or share < STILL:
        return None
    return "all" if share == 1 else f"{share:.0%}", f"({activation.name}) {how}"


def _ends(activation: Activation) -> tuple[bool, bool]:
    """Whether σ is saturated far below 0, and far above."""
    ends = saturated_units(activation.apply(np.array([[-8.0, 8.0]])), activation)
    assert ends is not None
    return bool(ends[0, 0]), bool(ends[0, 1])


def _of_fading(case: Case) -> Iterator[Cause]:
    """An error that does not get back to the first layer."""
    first, last = case.signals[0].mean_delta, case.signals[-1].mean_delta
    if first < FADED * last:
        remedies = "take fewer layers, or tanh or relu in them", OTHER_INIT, "train for more epochs"
        share = f"only {first / last:.1g}" if first else "nothing"
        yield f"{share} of the error at the outputs gets back to layer 1", remedies


def _unscaled(values: np.ndarray) -> str | None:
    """What is wrong with (N, n) numbers that are large, or that hardly differ from sample to sample."""
    values = values.astype(np.float64)
    span = f"from {values.min():.4g} to {values.max():.4g}"
    if np.square(values).mean() > LARGE**2:
        return f"are not scaled, but go {span}"
    return f"hardly differ from sample to sample ({span})" if values.var(axis=0).mean() < SMALL**2 else None
