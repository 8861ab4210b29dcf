"""Errors a user can cause. Each carries one clear message and the command line's exit code. And a warning."""

from __future__ import annotations

from typing import Any

INTERRUPTED = 130  # the exit code after Ctrl-C: 128 + SIGINT, the shell's convention


class GpubpError(Exception):
    """Something failed that the message explains; exit code 1."""

    exit_code = 1
    history: Any = None  # of the training run that it ended, a gpubp.History
    result: Any = None  # of the recipe that it ended, a gpubp.experiments.run.Result


class UsageError(GpubpError, ValueError):
    """An argument, option or recipe field that cannot be used; exit code 2."""

    exit_code = 2


class BackendUnavailable(GpubpError, RuntimeError):
    """A backend was named that cannot run here; the message says why and what to install; exit code 4."""

    exit_code = 4


class DataError(GpubpError, ValueError):
    """Data missing, truncated, corrupt or unusable; the message names the file or array; exit code 5."""

    exit_code = 5


class TrainingWarning(UserWarning):
    """Training went nowhere: the message says what was seen, why, and what helps."""
