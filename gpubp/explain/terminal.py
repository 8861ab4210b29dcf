"""A walk through backpropagation on a terminal, 80 columns wide and readable without colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp.explain import words as explanation
from gpubp.explain.microscope import LayerWalk, Walk, descent
from gpubp.explain.words import number

WIDTH = 80
FULL = 14  # numbers of a vector that are shown in full
FULL_ROWS, COLUMNS = 12, 8  # and of a matrix; numbers a line
ROWS = 8  # samples of a weight that is followed
BAR = 24


def show(step: Walk, sample: int, title: str, told: str) -> None:
    """Print the walk."""
    page = _Page()
    page.introduce(step, sample, title, told)
    page.forward(step, sample)
    page.output_delta(step, sample)
    page.hidden_deltas(step, sample)
    page.gradients(step)
    page.update(step)
    page.signal(step)
    page.descent(0.3, "7")
    for rate in explanation.RATES[1:]:
        page.say(explanation.descending(rate))


def show_descent(lr: float) -> None:
    """Print the demonstration of gradient descent alone."""
    page = _Page()
    page.descent(lr, "")
    page.compare_rates()


class _Page:
    """Where the text goes: headings, sentences, vectors, matrices and tables."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.console.width = min(WIDTH, self.console.width)

    def head(self, text: str) -> None:
        self.console.print(f"\n{text}\n{'─' * len(text)}", style="bold")

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style)

    def vector(self, name: str, values: np.ndarray) -> None:
        """The numbers in full if they are few, else what they range over and the largest."""
        if len(values) > FULL and not values.any():
            self.say(f"  {name:>9}  {len(values)} numbers, all 0")
            return
        if len(values) > FULL:
            found = explanation.statistics(values)
            largest = np.argsort(-np.abs(values), kind="stable")[:3]
            self.say(
                f"  {name:>9}  {len(values)} numbers from {number(found['min'])} to {number(found['max'])}, mean "
                f"{number(found['mean'])}, {found['zeros']} are 0"
            )
            self.say(f"  {'':>9}  largest: " + ", ".join(f"{number(values[i])} (unit {i})" for i in largest))
            return
        lines = -(-len(values) // COLUMNS)
        for i, part in enumerate(np.array_split(values, lines)):
            self.say(f"  {name if i == 0 else '':>9} " + "".join(f"{number(v):>8}" for v in part))

    def matrix(self, name: str, values: np.ndarray) -> None:
        """Transposed, a column for each unit of the layer, as z = a_prev Wᵀ + b has it."""
        n_out, n_in = values.shape
        if n_in > FULL_ROWS or n_out > COLUMNS:
            found = explanation.statistics(values)
            self.say(
                f"  {name} {values.shape}: from {number(found['min'])} to {number(found['max'])}, mean "
                f"{number(found['mean'])}, {found['zeros'] / values.size:.0%} are 0"
            )
            return
        self.say(f"  {name} transposed, a row for each input and a column for each unit:")
        for k in range(n_in):
            self.say(f"  {k:>9} " + "".join(f"{number(v):>8}" for v in values[:, k]))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for i, head in enumerate(heads):
            table.add_column(Text(head), justify="left" if i < left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    def introduce(self, step: Walk, sample: int, title: str, told: str) -> None:
        self.say(title, "bold")
        self.say(f"{step.network!r}, {told}.")
        self.say(
            f"One mini-batch of B = {len(step.samples)} samples, the first that training takes. Vectors below are "
            f"those of sample {sample}; layer 0 is the inputs. All of it is computed in float64."
        )
        self.vector("a0", step.samples.inputs[sample])
        self.vector("y", step.samples.targets[sample])

    def forward(self, step: Walk, sample: int) -> None:
        self.head("1  Forward: z = a_prev Wᵀ + b, a = σ(z)")
        for layer in step.layers:
            n, batch = layer.number, len(step.samples)
            n_in, n_out = layer.layer.n_in, layer.layer.n_out
            if n > 1:
                self.say("")
            self.say(f"Layer {n}, {layer.activation.name}: a = {layer.activation.formula}")
            self.say(
                f"  a{n - 1} ({batch}, {n_in}) times W{n}ᵀ ({n_in}, {n_out}) plus b{n} ({n_out},): "
                f"z{n} and a{n} ({batch}, {n_out})",
                "dim",
            )
            self.matrix(f"W{n}", layer.parameters[0])
            self.vector(f"b{n}", layer.parameters[1])
            self.vector(f"z{n}", layer.z[sample])
            self.vector(f"a{n}", layer.a[sample])
        self.say(
            f"\nCost: C = {step.loss.formula} of each sample, {number(step.costs[sample])} for this one; its mean over "
            f"the mini-batch is {step.cost:.6g}."
        )

    def output_delta(self, step: Walk, sample: int) -> None:
        self.head("2  BP1, the error of the output layer: δ = ∂C/∂z")
        self.say(explanation.output_delta(step))
        output = step.layers[-1]
        self.vector(f"a{output.number}", output.a[sample])
        self.vector("y", step.samples.targets[sample])
        if output.arriving is not None:
            self.vector("∇ₐC", output.arriving[sample])
        if output.arriving is not None and output.slope is not None:
            self.vector("σ'(z)", output.slope[sample])
        self.vector(f"δ{output.number}", output.delta[sample])

    def hidden_deltas(self, step: Walk, sample: int) -> None:
        self.head("3  BP2, the error carried back: δ = (δ_next W_next) ⊙ σ'(z)")
        if len(step.layers) == 1:
            self.say("There is no hidden layer.")
        for layer in reversed(step.layers[:-1]):
            self._hidden_delta(layer, len(step.samples), step.layers[layer.number].layer.n_out, sample)

    def _hidden_delta(self, layer: LayerWalk, batch: int, n_next: int, sample: int) -> None:
        n, width = layer.number, layer.layer.n_out
        slope = layer.activation.slope_formula
        self.say(
            f"Layer {n}, {layer.activation.name}" + (f": σ'(z) = {slope}" if slope else ": its Jacobian")
        )
        self.say(
            f"  δ{n + 1} ({batch}, {n_next}) times W{n + 1} ({n_next}, {width}), each element times that of "
            f"σ'(z{n}): δ{n} ({batch}, {width})",
            "dim",
        )
        assert layer.arriving is not None
        self.vector(f"δ{n + 1} W{n + 1}", layer.arriving[sample])
        if layer.slope is not None:
            self.vector(f"σ'(z{n})", layer.slope[sample])
        self.vector(f"δ{n}", layer.delta[sample])

    def gradients(self, step: Walk) -> None:
        self.head("4  BP3 and BP4, the gradients: ∂C/∂b = mean of δ, ∂C/∂W = δᵀ a_prev / B")
        for layer in step.layers:
            n = layer.number
            if n > 1:
                self.say("")
            self.matrix(f"∂C/∂W{n}", layer.gradients[0])
            self.vector(f"∂C/∂b{n}", layer.gradients[1])
            self._followed(layer)
        self.say("")
        self.say(explanation.differences(step))
        self.table(
            ("gradient of", "backpropagation", "difference", "apart", "may be", "agree to"),
            [
                (
                    d.name,
                    f"{d.gradient:.9g}",
                    f"{d.difference:.9g}",
                    f"{d.gap:.0e}",
                    f"{d.expected:.0e}",
                    d.verdict,
                )
                for d in step.differences
            ],
        )
        self.say(
            explanation.verdict(step), "" if all(d.agrees or d.kink for d in step.differences) else "red"
        )

    def _followed(self, layer: LayerWalk) -> None:
        """How the largest element of ∂C/∂W comes about, sample by sample."""
        found = layer.followed
        n, batch = layer.number, len(found.delta)
        self.say(
            f"  {found.name}, from unit {found.k} of layer {n - 1} to unit {found.j} of layer {n}, has the largest: "
            f"the mean of δ × a_prev, {number(found.gradient)}"
        )
        self.vector(f"a{n - 1}[{found.k}]", found.a_prev[:ROWS])
        self.vector(f"δ{n}[{found.j}]", found.delta[:ROWS])
        self.vector("product", found.products[:ROWS])
        if batch > ROWS:
            self.say(f"  {'':>9}  these are the first {ROWS} samples of {batch}", "dim")

    def update(self, step: Walk) -> None:
        optimizer = step.optimizer
        self.head(f"5  The update, by {optimizer.kind} at η = {step.lr:g}")
        self.say(explanation.rule(step))
        self.table(
            ("weight", "gradient", "before", "after"),
            [
                (f.name, f"{f.gradient:.6g}", f"{f.before:.6f}", f"{f.after:.6f}")
                for f in (layer.followed for layer in step.layers)
            ],
        )
        self.say(explanation.update(step))

    def signal(self, step: Walk) -> None:
        self.head("6  Where the signal dies")
        most = max(layer.signal.mean_delta for layer in step.layers)
        rows = []
        for layer in step.layers:
            found = layer.signal
            rows.append(
                (
                    f"{layer.number} {layer.activation.name}",
                    bar(found.mean_delta / most if most else 0),
                    f"{found.mean_delta:.2e}",
                    "" if layer.carried is None else f"× {layer.carried:.3g}",
                    "" if layer.kept is None else f"× {layer.kept:.3g}",
                    "" if found.saturated is None else f"{found.saturated:.0%}",
                    "" if found.dead is None else f"{found.dead:.0%}",
                )
            )
        self.table(("layer", "mean |δ|", "", "by W", "by σ'", "saturated", "dead"), rows, left=2)
        for sentence in explanation.signal(step):
            self.say(sentence)

    def descent(self, lr: float, section: str) -> None:
        text = f"Gradient descent by itself: g(a, b) = a² + b², ∇g = (2a, 2b), η = {lr:g}"
        self.head(f"{section}  {text}".strip())
        self.table(
            ("step", "a, b", "g", "∇g", "a, b after"),
            [
                (str(i), _pair(s.at), f"{s.value:.5g}", _pair(s.gradient), _pair(s.to))
                for i, s in enumerate(descent(lr))
            ],
        )
        self.say(explanation.descending(lr))

    def compare_rates(self) -> None:
        self.head("g after each step, by η")
        paths = {rate: descent(rate) for rate in explanation.RATES}
        steps = len(paths[explanation.RATES[0]])
        self.table(
            ("step", *(f"η = {rate:g}" for rate in paths)),
            [(str(i), *(f"{sum(x * x for x in p[i].to):.4g}" for p in paths.values())) for i in range(steps)],
        )
        for rate in paths:
            self.say(explanation.descending(rate))


def _pair(point: tuple[float, float]) -> str:
    return f"({point[0]:.4g}, {point[1]:.4g})"


def bar(share: float) -> str:
    """A bar of eighths of a column."""
    eighths = round(share * BAR * 8)
    if share > 0 and eighths == 0:
        return "▏"
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
