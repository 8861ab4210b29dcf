"""Hints at the name that was meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, known: Iterable[str], *, at_least: float = 0.4) -> str:
    """Return the hint "did you mean …? " at the known name most like this one, or "" where none is ``at_least`` so."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=at_least)
    return f"did you mean {near[0]!r}? " if near else ""
