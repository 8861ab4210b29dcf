"""A walk under the microscope, in words and as plain data: one wording for the terminal, the page and JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.explain.microscope import (
    COST_GRADIENTS,
    DEVIATIONS,
    STEP,
    LayerWalk,
    Walk,
    descent,
    wrong_and_saturated,
)
from gpubp.optimizers import Adam

RATES = (0.3, 0.5, 1.0, 1.1)  # of the demonstration: shrinks, arrives at once, goes back and forth, grows
FADES = 0.5  # of the largest mean |δ|: a layer that gets less than this learns visibly more slowly

_STEEPEST = {
    "sigmoid": "a sigmoid's slope is at most ¼",
    "tanh": "tanh's slope is 1 at z = 0 and less elsewhere",
    "lecun_tanh": "this tanh's slope is 1.14 at z = 0 and less elsewhere",
    "relu": "a ReLU's slope is 1 where it is on and 0 where it is off",
    "leaky_relu": "a leaky ReLU's slope is 1, or 0.01 where z is not above 0",
}


def introduction(step: Walk, sample: int) -> str:
    """The source of the numbers."""
    deformed = (
        f" Its images are as that step deforms them ({step.deformation.settings})."
        if step.deformation
        else ""
    )
    return (
        f"One mini-batch of {len(step.samples)} samples, the first that training takes, in float64.{deformed} Vectors "
        f"are those of sample {sample}."
    )


def dropout(layer: LayerWalk) -> str:
    """What dropout does to the inputs of a layer that has it."""
    assert layer.mask is not None
    n, size = layer.number - 1, layer.mask.size
    return (
        f"Dropout takes away {np.count_nonzero(layer.mask == 0):,} of the {size:,} numbers of a{n} in this mini-batch, "
        f"and multiplies the others by {number(layer.mask.max())}: a mask m{n}, drawn anew in each step."
    )


def output_delta(step: Walk) -> str:
    """The form that BP1 takes here, and the reason."""
    output, loss = step.layers[-1].activation.name, step.loss.name
    if step.output_form == "matched":
        return (
            f"δ = a − y: {loss} is matched to {output}, so that the slope of {output} cancels.  "
            "However saturated an output is, it learns as long as it is wrong."
        )
    if step.output_form == "jacobian":
        return (
            f"δᵢ = aᵢ (gᵢ − Σⱼ gⱼ aⱼ), with g = ∇ₐC = {COST_GRADIENTS[loss]} for {loss}: each output of softmax "
            "depends on every z of its sample, so that σ'(z) is a matrix, the Jacobian, and ⊙ will not do."
        )
    saturates = {
        "identity": "With σ'(z) = 1 nothing saturates.",
        "relu": "An output that is off has δ = 0, right or wrong.",
        "leaky_relu": "An output not above 0 keeps a hundredth of its error.",
    }.get(output, "A saturated output has hardly any δ, even where it is wrong.")
    return (
        f"δ = ∇ₐC ⊙ σ'(z), with ∇ₐC = {COST_GRADIENTS[loss]} for {loss} and "
        f"σ'(z) = {step.layers[-1].activation.slope_formula} for {output}. {saturates}"
    )


def differences(step: Walk) -> str:
    """The column of central differences explained, and how near it must come."""
    return (
        f"Beside each gradient is (C(w + h) − C(w − h)) / 2h with h = 2^{int(math.log2(STEP))}. It may be off by its "
        "truncation, h² C‴ / 6, found by doubling h, and by the rounding of C over h, measured by fourth "
        f"differences ({DEVIATIONS:.0f} standard deviations)."
    )


def verdict(step: Walk) -> str:
    """The result of all the comparisons."""
    found = step.differences
    kinks = sum(d.kink for d in found)
    wrong = [d.name for d in found if not d.kink and not d.agrees]
    said = f"All {len(found) - kinks} agree within that"
    if wrong:
        said = f"{', '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not agree with the cost"
    if kinks:
        said += (
            f"; {kinks} {'has' if kinks == 1 else 'have'} a unit at its kink or a clipped probability switch within "
            "±2h, where the cost has no single slope to compare with"
        )
    return said + "."


def rule(step: Walk) -> str:
    """The optimizer's rule as its settings leave it, g being the gradient."""
    optimizer = step.optimizer
    decay = getattr(optimizer, "weight_decay", 0.0)
    told = optimizer.formula
    if isinstance(optimizer, Adam):
        told += ". At this first step m̂ = g and v̂ = g²: whatever the size of its gradient, each weight moves by about η"
    elif optimizer.slots:
        names = " and ".join(name.replace("_", " ") for name in optimizer.slots)
        told += f"; its {names} {'was' if len(optimizer.slots) == 1 else 'were'} 0 before"
    if decay:
        told += f"; with weight decay {decay:g}, on W alone"
    return f"With g the gradient: {told}."


def update(step: Walk) -> str:
    """The effect of the update on the cost of this mini-batch."""
    change = step.cost_after - step.cost
    told = f"C goes from {step.cost:.6g} to {step.cost_after:.6g}, by {change:.3g}"
    told += f"; along its gradient, a straight slope would have given {step.predicted:.3g}. "
    if not math.isfinite(step.cost_after) or change > 0:
        return told + "It rises: this step is too long for the cost's curvature."
    return told + "The difference is the cost's curvature over the step."


def signal(step: Walk) -> list[str]:
    """The layer that learns slowest and why, and units that are saturated or dead."""
    told = [_slowest(step), *(_switched_off(layer) for layer in step.layers if layer.signal.saturated)]
    if wrong := wrong_and_saturated(step):
        told.append(f"{wrong:.1%} of the outputs are wrong by over ½ and saturated: σ'(z) hides their error.")
    return told


def _slowest(step: Walk) -> str:
    if len(step.layers) == 1:
        return "With one layer, the error has nowhere to go."
    slowest, output = step.slowest, step.layers[-1]
    most = max(layer.signal.mean_delta for layer in step.layers)
    if most == 0:
        return "Every δ is 0: nothing is learned from this mini-batch."
    if slowest.signal.mean_delta > FADES * most:
        return "The error reaches every layer with about the same size."
    if slowest is output:
        part = _part(output.signal.mean_delta / most)
        return f"The error grows on its way back: the output layer's mean |δ| is {part} of the largest."
    if slowest.signal.mean_delta == 0:
        return f"No error at all reaches layer {slowest.number}: its weights do not move."
    passed = step.layers[slowest.number - 1 : -1]
    carried = math.prod(layer.carried or 0.0 for layer in passed)
    kept = math.prod(layer.kept or 0.0 for layer in passed)
    part = _part(slowest.signal.mean_delta / output.signal.mean_delta)
    told = (
        f"Layer {slowest.number} learns slowest: its mean |δ| is {part} of the output layer's. "
        f"On the way back the weights changed it by × {carried:.3g} and σ'(z) by × {kept:.3g}"
    )
    names = dict.fromkeys(layer.activation.name for layer in passed)
    reasons = [_STEEPEST[name] for name in names if name in _STEEPEST]
    return told + (f"; {', '.join(reasons)}." if kept < carried and reasons else ".")


def _part(ratio: float) -> str:
    return f"1/{1 / ratio:,.0f}" if 0 < ratio < 0.1 else f"{ratio:.2g}"


def _switched_off(layer: LayerWalk) -> str:
    saturated, units, relu = layer.signal.saturated or 0.0, layer.layer.n_out, layer.activation.name == "relu"
    share = f"{saturated:.0%}" if saturated >= 0.005 else "less than 1%"
    told = f"Layer {layer.number}: {share} of its activations are {'off' if relu else 'saturated'}"
    if dead := round((layer.signal.dead or 0) * units):
        told += f", and {dead} of its {units} units {'is' if dead == 1 else 'are'} so for every sample"
        told += ": their weights do not move" if relu else ": they hardly learn from this mini-batch"
    return told + "."


def descending(lr: float) -> str:
    """The course of gradient descent on a² + b² at this η."""
    factor = 1 - 2 * lr
    told = f"η = {lr:g}: a step multiplies a and b by 1 − 2η = {factor:.3g}; "
    if factor == 0:
        return told + "they arrive at once."
    if abs(factor) < 1:
        return told + ("they shrink." if factor > 0 else "they change sign each time, and shrink.")
    return told + ("they change sign for ever." if factor == -1 else "they grow: η is too large.")


def number(x: float) -> str:
    """Seven columns of a number: four decimals where they say something, else a power of ten."""
    size = abs(x)
    if x == round(x) and size < 1000:
        return str(int(x))
    if 0.01 <= size < 10:
        return f"{x:.4f}"
    if 10 <= size < 1000:
        return f"{x:.2f}"
    digits, power = f"{x:.1e}".split("e")
    return f"{digits}e{int(power)}"


def statistics(values: np.ndarray) -> dict[str, float]:
    """The least, mean and largest value, and how many are 0."""
    least, mean, largest = float(values.min()), float(values.mean()), float(values.max())
    return {"min": least, "mean": mean, "max": largest, "zeros": int((values == 0).sum())}


def told(values: np.ndarray) -> str:
    """The count of numbers and their range."""
    if not values.any():
        return f"{values.size:,} numbers, all 0"
    found = statistics(values)
    return (
        f"{values.size:,} numbers from {number(found['min'])} to {number(found['max'])}, mean {number(found['mean'])}, "
        f"{found['zeros']:,} are 0"
    )


def to_dict(step: Walk, sample: int) -> dict[str, Any]:
    """For JSON; vectors are those of one sample."""
    return {
        "network": repr(step.network),
        "loss": step.loss.name,
        "optimizer": step.optimizer.kind,
        "learning_rate": step.lr,
        "batch_size": len(step.samples),
        "sample": sample,
        "inputs": step.samples.inputs[sample].tolist(),
        "targets": step.samples.targets[sample].tolist(),
        "cost": step.cost,
        "cost_after": step.cost_after,
        "predicted_change": step.predicted,
        "output_delta": step.output_form,
        "h": STEP,
        "layers": [_layer(layer, sample) for layer in step.layers],
        "signal": signal(step),
    }


def _layer(layer: LayerWalk, sample: int) -> dict[str, Any]:
    found = layer.followed
    weights, bias = ({"shape": list(g.shape), **statistics(g)} for g in layer.gradients)
    return {
        "layer": layer.number,
        "sizes": [layer.layer.n_in, layer.layer.n_out],
        "activation": layer.activation.name,
        **{name: getattr(layer, name)[sample].tolist() for name in ("z", "a", "delta")},
        "mask": None if layer.mask is None else layer.mask[sample].tolist(),
        "grad_weights": weights,
        "grad_bias": bias,
        **vars(layer.signal),
        "through_weights": layer.carried,
        "through_slope": layer.kept,
        "followed": vars(found) | {"a_prev": found.a_prev.tolist(), "delta": found.delta.tolist()},
        "differences": [vars(d) | {"agrees": d.agrees} for d in layer.differences],
    }


def descent_to_dict(lr: float) -> dict[str, Any]:
    """For JSON."""
    return {"function": "a² + b²", "learning_rate": lr, "steps": [vars(step) for step in descent(lr)]}
