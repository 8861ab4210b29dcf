"""Libraries that only some users need: imported where they are used, and a missing one is one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gpubp.errors import GpubpError


def need(module: str, extra: str | None = None) -> Any:
    """The module of that name, which comes with ``gpubp[extra]``, or is one that every gpubp depends on.

    Raises:
        GpubpError: it is not installed, or its import fails.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == library
        what = "is not installed" if missing else f"cannot be imported ({error})"
        wanted = f'"gpubp[{extra}]"' if extra else library
        raise GpubpError(f"{library} {what}: python -m pip install {wanted}") from error
