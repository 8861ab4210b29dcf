"""Warnings that point at the user's line, however deep in gpubp they are raised."""

from __future__ import annotations

import sys
import warnings


def warn_caller(message: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of gpubp that called into it."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "gpubp":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
