"""Tests, a folder for each room of gpubp; what they share lies beside this file."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]


def param(*values: object, always: bool):
    """The values of a test that runs in any case, or only with --exhaustive."""
    return pytest.param(*values, marks=[] if always else [pytest.mark.exhaustive])


def fewer(few: int, many: int) -> int:
    """Return how much a test does: ``few``, or ``many`` with --exhaustive."""
    return many if os.environ.get("GPUBP_EXHAUSTIVE") else few


def examples(few: int, many: int) -> settings:
    """Return Hypothesis's settings for so many examples."""
    return settings(max_examples=fewer(few, many))
