"""Tests, a folder for each room of gpubp; what they share lies beside this file."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
