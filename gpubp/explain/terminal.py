"""A walk through backpropagation on a terminal, 80 columns wide and readable without colour."""

from __future__ import annotations

import itertools

import numpy as np
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from gpubp.explain import words
from gpubp.explain.lesson import Numbers, Quiet, Section, Table, descending, lesson, rates_compared
from gpubp.explain.microscope import Walk
from gpubp.explain.words import number

WIDTH = 80
FULL = 14  # numbers of a vector that are shown in full
FULL_ROWS, COLUMNS = 12, 8  # and of a matrix; numbers a line
BAR = 24


def show(step: Walk, sample: int, title: str, told: str) -> None:
    """Print the walk."""
    page = _Page()
    page.say(title, "bold")
    page.say(f"{step.network!r}, {told}.")
    page.say(words.introduction(step, sample) + " Layer 0 is the inputs.")
    page.show({"a0": step.samples.inputs[sample], "y": step.samples.targets[sample]})
    for i, section in enumerate(lesson(step, sample), start=1):
        page.section(section, f"{i}  ")


def show_descent(lr: float) -> None:
    """Print the demonstration of gradient descent alone."""
    page = _Page()
    page.section(descending(lr))
    page.section(rates_compared())


class _Page:
    """The terminal that the text goes to."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.console.width = min(WIDTH, self.console.width)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style)

    def section(self, section: Section, numbered: str = "") -> None:
        head = numbered + section.head
        self.say(f"\n{head}\n{'─' * len(head)}", "bold")
        for i, part in enumerate(section.parts):
            if i and isinstance(section.parts[i - 1], Section):
                self.say("")
            self.show(part)

    def show(self, part: str | Numbers | Table | Section) -> None:
        if isinstance(part, Quiet):
            self.say(f"  {part}", "dim")
        elif isinstance(part, str):
            self.say(part)
        elif isinstance(part, dict):
            for name, values in part.items():
                (self._vector if values.ndim == 1 else self._matrix)(name, values)
        elif isinstance(part, Table):
            self._table(part)
        else:
            self.say(part.head)
            for inner in part.parts:
                self.show(inner)

    def _vector(self, name: str, values: np.ndarray) -> None:
        """The numbers in full if they are few, else what they range over and the largest."""
        if len(values) > FULL:
            self.say(f"  {name:>9}  {words.told(values)}")
            if values.any():
                places = np.argsort(-np.abs(values), kind="stable")[:3]
                largest = ", ".join(f"{number(values[i])} (unit {i})" for i in places)
                self.say(f"  {'':>9}  largest: {largest}")
            return
        for i, part in enumerate(np.array_split(values, -(-len(values) // COLUMNS))):
            self._numbers(name if i == 0 else "", part)

    def _matrix(self, name: str, values: np.ndarray) -> None:
        """Transposed, a column for each unit of the layer, as z = a_prev Wᵀ + b has it."""
        n_out, n_in = values.shape
        if n_in > FULL_ROWS or n_out > COLUMNS:
            self.say(f"  {name} {values.shape}: {words.told(values)}")
            return
        self.say(f"  {name} transposed, a row for each input and a column for each unit:")
        for k, row in enumerate(values.T):
            self._numbers(str(k), row)

    def _numbers(self, name: str, values: np.ndarray) -> None:
        self.say(f"  {name:>9} " + "".join(f"{number(v):>8}" for v in values))

    def _table(self, table: Table) -> None:
        shown = rich_table.Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for i, head in enumerate(table.heads):
            shown.add_column(Text(head), justify="right" if i else "left", no_wrap=True)
            if i == 0 and table.bars:
                shown.add_column()
        for row, share, mark in itertools.zip_longest(table.rows, table.bars, table.marks):
            name, *others = map(Text, row)
            others[-1].stylize("red" if mark == "bad" else "")
            shown.add_row(name, *([] if share is None else [Text(bar(share))]), *others)
        self.console.print(shown)


def bar(share: float) -> str:
    """A bar of eighths of a column."""
    eighths = round(share * BAR * 8)
    if share > 0 and eighths == 0:
        return "▏"
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
