"""Tests, a folder for each room of gpubp; what they share lies beside this file."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def param(*values: object, always: bool):
    """The values of a test that runs in any case, or only with --exhaustive."""
    return pytest.param(*values, marks=[] if always else [pytest.mark.exhaustive])
