"""A walk as a lesson: sections of sentences, numbers and tables, which terminal and page each show in their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpubp.explain import words
from gpubp.explain.microscope import Difference, LayerWalk, Walk, descent

FOLLOWED = 8  # samples of a weight that is followed

Numbers = dict[str, np.ndarray]  # vectors under each other, and (n_out, n_in) matrices, by name


class Quiet(str):
    """A sentence in small print."""


class Table(NamedTuple):
    """Rows of text under their heads.

    ``marks`` are how the last cell of each row is meant: "good", "bad" or "quiet"; ``bars`` go beside the first cell,
    as shares of the longest.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str] = ()
    bars: Sequence[float] = ()


class Section(NamedTuple):
    """A heading, of which the formula is a part, and what there is to see below it; or the same of one layer."""

    title: str
    formula: str
    parts: Sequence[str | Numbers | Table | Section]

    @property
    def head(self) -> str:
        return f"{self.title}: {self.formula}" if self.formula else self.title


def lesson(step: Walk, sample: int) -> list[Section]:
    """The walk, section by section; vectors are those of one sample."""
    cost = (
        f"Cost: C = {step.loss.formula} of each sample, {words.number(step.costs[sample])} for this one; its mean over "
        f"the mini-batch is {step.cost:.6g}."
    )
    forward: list[str | Section] = [*(_forward(layer, sample) for layer in step.layers), cost]
    hidden = [_hidden_delta(layer, step.layers[layer.number], sample) for layer in reversed(step.layers[:-1])]
    back: Sequence[str | Section] = hidden or ["There is no hidden layer."]
    gradients = [*(_gradients(layer) for layer in step.layers), *_differences(step)]
    # With dropout, m is the mask of what a layer takes.
    drops = any(layer.mask is not None for layer in step.layers)
    taken, carried = ("(a_prev ⊙ m)", " ⊙ m") if drops else ("a_prev", "")
    return [
        Section("Forward", f"z = {taken} Wᵀ + b, a = σ(z)", forward),
        Section("BP1, the error of the output layer", "δ = ∂C/∂z", _output_delta(step, sample)),
        Section("BP2, the error carried back", f"δ = (δ_next W_next){carried} ⊙ σ'(z)", back),
        Section("BP3 and BP4, the gradients", f"∂C/∂b = mean of δ, ∂C/∂W = δᵀ {taken} / B", gradients),
        Section(f"The update, by {step.optimizer.kind} at η = {step.lr:g}", "", _update(step)),
        Section("Where the signal dies", "", [_signal(step), *words.signal(step)]),
        descending(0.3, words.RATES[1:]),
    ]


def _forward(layer: LayerWalk, sample: int) -> Section:
    n, batch, n_in, n_out = layer.number, len(layer.a), layer.layer.n_in, layer.layer.n_out
    shapes = (
        f"a{n - 1} ({batch}, {n_in}) times W{n}ᵀ ({n_in}, {n_out}) plus b{n} ({n_out},): "
        f"z{n} and a{n} ({batch}, {n_out})"
    )
    weights, bias = layer.parameters
    numbers = {f"W{n}": weights, f"b{n}": bias, f"z{n}": layer.z[sample], f"a{n}": layer.a[sample]}
    formula = f"a = {layer.activation.formula}"
    parts: list[str | Numbers] = [Quiet(shapes), numbers]
    if layer.mask is not None:
        parts[1:1] = [words.dropout(layer), {f"a{n - 1} ⊙ m{n - 1}": layer.a_prev[sample]}]
    return Section(f"Layer {n}, {layer.activation.name}", formula, parts)


def _output_delta(step: Walk, sample: int) -> list[str | Numbers]:
    output, numbers = step.layers[-1], {"y": step.samples.targets[sample]}
    if output.arriving is not None:
        numbers["∇ₐC"] = output.arriving[sample]
        if output.slope is not None:
            numbers[f"σ'(z{output.number})"] = output.slope[sample]
    a, delta = {f"a{output.number}": output.a[sample]}, {f"δ{output.number}": output.delta[sample]}
    return [words.output_delta(step), a | numbers | delta]


def _hidden_delta(layer: LayerWalk, after: LayerWalk, sample: int) -> Section:
    n, batch, n_out = layer.number, len(layer.a), layer.layer.n_out
    shapes = (
        f"δ{n + 1} ({batch}, {after.layer.n_out}) times W{n + 1} ({after.layer.n_out}, {n_out}), each element times "
        f"{'' if after.mask is None else f'the same of the mask m{n} and '}"
        f"that of σ'(z{n}): δ{n} ({batch}, {n_out})"
    )
    assert layer.arriving is not None
    masked = "" if after.mask is None else f" ⊙ m{n}"
    numbers = {f"δ{n + 1} W{n + 1}{masked}": layer.arriving[sample]}
    if layer.slope is not None:
        numbers[f"σ'(z{n})"] = layer.slope[sample]
    numbers[f"δ{n}"] = layer.delta[sample]
    slope = layer.activation.slope_formula
    formula = f"σ'(z) = {slope}" if slope else "its Jacobian"
    return Section(f"Layer {n}, {layer.activation.name}", formula, [Quiet(shapes), numbers])


def _gradients(layer: LayerWalk) -> Section:
    n, found, batch = layer.number, layer.followed, len(layer.a)
    shown = f"of the {batch} samples, the first {FOLLOWED}" if batch > FOLLOWED else "by sample"
    told = (
        f"{found.name}, from unit {found.k} of layer {n - 1} to unit {found.j} of layer {n}, has the largest: the mean "
        f"of δ × a_prev, {words.number(found.gradient)}; {shown}:"
    )
    masked = "" if layer.mask is None else f" m{n - 1}[{found.k}]"
    factors = {f"a{n - 1}[{found.k}]{masked}": found.a_prev, f"δ{n}[{found.j}]": found.delta}
    factors["product"] = found.products
    gradients = dict(zip((f"∂C/∂W{n}", f"∂C/∂b{n}"), layer.gradients, strict=True))
    return Section(f"Layer {n}", "", [gradients, told, {name: x[:FOLLOWED] for name, x in factors.items()}])


def _differences(step: Walk) -> list[str | Table]:
    def row(d: Difference) -> tuple[str, ...]:
        apart = f"{d.gap:.0e}", f"{d.expected:.0e}"
        return d.name, f"{d.gradient:.9g}", f"{d.difference:.9g}", *apart, d.verdict

    heads = ("gradient of", "backpropagation", "difference", "apart", "may be", "agree to")
    marks = ["quiet" if d.kink else "good" if d.agrees else "bad" for d in step.differences]
    table = Table(heads, [row(d) for d in step.differences], marks)
    return [words.differences(step), table, words.verdict(step)]


def _update(step: Walk) -> list[str | Table]:
    followed = [layer.followed for layer in step.layers]
    rows = [(f.name, f"{f.gradient:.6g}", f"{f.before:.6f}", f"{f.after:.6f}") for f in followed]
    return [words.rule(step), Table(("weight", "gradient", "before", "after"), rows), words.update(step)]


def _signal(step: Walk) -> Table:
    def row(layer: LayerWalk) -> list[str]:
        found = layer.signal
        factors = ["" if x is None else f"× {x:.3g}" for x in (layer.carried, layer.kept)]
        shares = ["" if x is None else f"{x:.0%}" for x in (found.saturated, found.dead)]
        return [f"{layer.number} {layer.activation.name}", f"{found.mean_delta:.2e}", *factors, *shares]

    sizes = [layer.signal.mean_delta for layer in step.layers]
    bars = [size / max(sizes) if size else 0.0 for size in sizes]
    heads = ("layer", "mean |δ|", "by W", "by σ'", "saturated", "dead")
    return Table(heads, [row(layer) for layer in step.layers], bars=bars)


def descending(lr: float, others: Sequence[float] = ()) -> Section:
    """Gradient descent alone at one learning rate, and in words at some others."""

    def pair(point: tuple[float, float]) -> str:
        return f"({point[0]:.4g}, {point[1]:.4g})"

    steps = enumerate(descent(lr))
    rows = [(str(i), pair(s.at), f"{s.value:.5g}", pair(s.gradient), pair(s.to)) for i, s in steps]
    table = Table(("step", "a, b", "g", "∇g", "a, b after"), rows)
    formula = f"g(a, b) = a² + b², ∇g = (2a, 2b), η = {lr:g}"
    return Section("Gradient descent by itself", formula, [table, *map(words.descending, (lr, *others))])


def rates_compared() -> Section:
    """Gradient descent alone at several learning rates, beside each other."""
    paths = [descent(rate) for rate in words.RATES]
    rows = [
        (str(i), *(f"{np.square(s.to).sum():.4g}" for s in steps))
        for i, steps in enumerate(zip(*paths, strict=True))
    ]
    table = Table(("step", *(f"η = {rate:g}" for rate in words.RATES)), rows)
    return Section("g after each step, by η", "", [table, *map(words.descending, words.RATES)])
