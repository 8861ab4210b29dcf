"""The course of a run: curves of loss and accuracy by epoch, and of what reached each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.experiments.run import Evidence, Result
from gpubp.reports.plot import SERIES, Axis, Curve, Mark, plot
from gpubp.training.signals import SATURATED

if TYPE_CHECKING:
    from markupsafe import Markup

LAYERS_SHOWN = 6  # there are as many colours
LOG_FROM = 30  # a loss that falls by this factor is drawn on a logarithmic axis
EPOCHS = Axis("epoch", integer=True)


Figure = tuple["Markup", str]  # a chart and what to see in it


def curves(result: Result) -> list[Figure]:
    history = result.histories[-1]
    if not history.epochs:
        return []
    loss = "quadratic cost" if result.recipe.loss == "quadratic" else result.recipe.loss.replace("_", " ")
    falls = [v for h in result.histories for c in ("loss", "validation_loss") for v in h[c] if v is not None]
    log = min(falls) > 0 and max(falls) > LOG_FROM * min(falls)
    told = (
        f"Loss: the mean {loss} of an epoch's mini-batches, each before its update, and {_watched(result)} after "
        "the epoch. If the second rises while the first still falls, the network is learning the samples by heart."
        f"{_harder(result)}"
    )
    figures = [(_by_epoch(result, "loss", Axis(loss, log=log)), told + " The axis is logarithmic." * log)]
    if history.epochs[-1].accuracy is not None:
        told = (
            "Accuracy: the share of samples whose largest output is the right class. Gradient descent cannot see "
            "it, since small changes of the weights do not change it; it follows the loss, if late."
        )
        figures.append((_by_epoch(result, "accuracy", Axis("accuracy")), told))
    if len(set(history["learning_rate"])) > 1:
        told = (
            f"The learning rate η at the end of each epoch ({result.recipe.schedule} schedule): large steps to get "
            "near, small ones to settle."
        )
        figures.append((_by_epoch(result, "learning_rate", Axis("learning rate η")), told))
    return figures


def _harder(result: Result) -> str:
    """Why training's curves may stay worse than those of other data."""
    chances = "dropout" * any(result.recipe.dropout), "deformed images" * bool(result.recipe.deform)
    given = " and ".join(filter(None, chances))
    return f" Training alone has {given}, which makes its own curves the worse ones." if given else ""


def _watched(result: Result) -> str:
    """Whose loss is validation_loss."""
    recipe, history = result.recipe, result.histories[-1]
    if history.epochs[-1].validation_loss is None:
        return "nothing else, since there is no validation data,"
    if recipe.folds is not None:
        return f"that of fold {recipe.fold} of {recipe.folds} of the training data, held out to watch,"
    if recipe.held_out:
        return f"that of {recipe.held_out:.0%} of the training data, held out to watch,"
    return "that of the test data"


def _by_epoch(result: Result, column: str, axis: Axis) -> Markup:
    """A column of the history and its counterpart of validation, a line each for every split."""
    curves, width = [], 1.6 if len(result.histories) == 1 else 1.0
    columns = (column, SERIES[0], "training"), (f"validation_{column}", SERIES[1], "validation")
    for split, history in enumerate(result.histories):
        for name, colour, called in columns:
            if getattr(history.epochs[0], name, None) is not None:
                legend = "" if split or column == "learning_rate" else called
                curves.append(Curve(history["epoch"], history[name], colour, legend, width))
    history = result.histories[-1]
    marks: list[Mark] = []
    if len(result.histories) == 1 and history.best_epoch is not None:
        marks.append(Mark(history.best_epoch, "1 2", f"best, epoch {history.best_epoch}"))
    if len(result.histories) == 1 and 0 < history.resumed_epochs < len(history):
        marks.append(Mark(history.resumed_epochs + 0.5, "4 2", "resumed"))
    first, last = (getattr(history.epochs[i], column) for i in (0, -1))
    return plot(curves, EPOCHS, axis, f"{axis.label} by epoch, from {first:.4g} to {last:.4g}", marks)


def signals(result: Result) -> dict[str, Any] | None:
    evidence = result.evidence[-1]
    points = sorted(evidence.signals)
    if not points:
        return None
    names = [layer.activation for layer in result.network.layers]
    layers = sorted({int(i) for i in np.linspace(0, len(names) - 1, min(len(names), LAYERS_SHOWN))})
    delta = np.array([[signal.mean_delta for signal in evidence.signals[e]] for e in points])
    saturated = np.array([[s.saturated for s in evidence.signals[e]] for e in points], float)  # None is NaN
    told = (
        "|δ| of each layer: how much the cost of a sample would change with a unit's weighted input z. BP3 and BP4 "
        "make the gradients from it, so a layer with a δ ten times smaller learns about ten times slower. "
        + _fading(delta, points)
        + (" Where a line is broken, it is 0 or not finite." if not (delta > 0).all() else "")
    )
    log = np.nanmax(delta, initial=0) > 0
    figures = [(_by_layer(points, delta, layers, names, Axis("mean |δ|", log=log)), told)]
    if np.isfinite(saturated).any():
        sloped = [i for i in layers if np.isfinite(saturated[:, i]).any()]
        drawn = _by_layer(points, saturated, sloped, names, Axis("share saturated", limits=(-0.03, 1.03)))
        told = (
            f"Saturated: the share of units, over all samples, whose slope σ'(z) is below {SATURATED:.0%} of the "
            f"steepest. {_kinds(names)}BP2 multiplies δ by that slope, so that almost none of the error gets "
            f"through such a unit, and for that sample its weights stand still. {_dead(evidence, points[-1])}"
        )
        figures.append((drawn, told))
    left_out = "" if len(layers) == len(names) else f" {len(layers)} of the {len(names)} layers are shown."
    first = "" if points[0] == 0 else f" Nothing was measured before epoch {points[0]}."
    return {
        "figures": figures,
        "about": f"Measured on {evidence.samples} training samples, always the same, at {len(points)} "
        f"point{'s' if len(points) > 1 else ''} of the run; epoch 0 is before training.{first}{left_out}",
    }


def _by_layer(x: list[int], y: np.ndarray, layers: list[int], names: list[str], axis: Axis) -> Markup:
    curves = [
        Curve(x, y[:, layer], colour, f"layer {layer + 1}, {names[layer]}")
        for colour, layer in zip(SERIES, layers, strict=False)
    ]
    return plot(curves, EPOCHS, axis, f"{axis.label} of each layer by epoch")


def _fading(delta: np.ndarray, points: list[int]) -> str:
    """The first layer's δ beside the last one's, in words."""
    first, last = delta[0, 0], delta[0, -1]
    if delta.shape[1] == 1 or not (np.isfinite([first, last]).all() and first > 0 and last > 0):
        return ""
    when = "Before training" if points[0] == 0 else f"After epoch {points[0]}"
    return f"{when}, it is {first:.2g} in the first layer and {last:.2g} in the last."


def _kinds(names: Sequence[str]) -> str:
    """The meaning of being saturated for the activations there are."""
    meanings = {
        "sigmoid": "a sigmoid below 0.013 or above 0.987",
        "tanh": "a tanh beyond ±0.975",
        "relu": "a ReLU that is off, as about half of them are at the start",
    }
    found = [meaning for name, meaning in meanings.items() if name in names]
    return f"That is {', or '.join(found)}. " if found else ""


def _dead(evidence: Evidence, epoch: int) -> str:
    signals = evidence.signals[epoch]
    dead = {i: signal.dead for i, signal in enumerate(signals, start=1) if signal.dead}
    if not dead:
        return "At the end no unit is saturated for all of these samples."
    shares = ", ".join(f"{share:.0%} in layer {layer}" for layer, share in dead.items())
    text = f"Units saturated for all of these samples hardly learn any more: {shares} at the end."
    if len(signals) in dead:
        text += " Saturated outputs do no harm where they are right, and are a trap where they are wrong."
    return text
