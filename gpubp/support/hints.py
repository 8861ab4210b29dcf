"""Hints at the name that was meant by one that is not known, and at where two settings differ."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def did_you_mean(name: object, known: Iterable[str], *, at_least: float = 0.4) -> str:
    """Return the hint "did you mean …? " at the known name most like this one, or "" where none is ``at_least`` so."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=at_least)
    return f"did you mean {near[0]!r}? " if near else ""


def apart(one: Any, other: Any) -> str:
    """ "one, not other", of two tables only what differs in them; numbers with six digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        one, other = ({key: table.get(key) for key in keys} for table in (one, other))
    return f"{_rounded(one)!r}, not {_rounded(other)!r}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_rounded, value))
    return float(f"{value:.6g}") if isinstance(value, float) else value
