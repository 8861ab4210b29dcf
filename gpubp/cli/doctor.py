"""gpubp doctor: what there is to run on, and what to do about what there is not."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from gpubp.cli.app import app
from gpubp.cli.options import JsonOption, require_json, write_json


@app.command()
def doctor(json_path: JsonOption = None) -> None:
    """Show what gpubp can run on here, and how to enable the rest."""
    require_json(json_path)
    found = examine()
    write_json(json_path, found)
    if json_path != "-":
        print(render(found))


def examine() -> dict[str, Any]:
    """Backends with their devices or the reason they cannot run, versions, threads and BLAS libraries.

    What cannot be found out is None, and why is under "failed".
    """
    facts: dict[str, Callable[[], Any]] = {
        "versions": lambda: _machine().versions(),
        "processor": lambda: _machine().processor(),
        "cores": lambda: _machine().cores(),
        "backends": _backends,
        "auto": _auto,
        "blas": _blas,
        "numba": _numba,
    }
    report: dict[str, Any] = {"failed": {}}
    for name, find_out in facts.items():
        try:
            report[name] = find_out()
        except Exception as error:  # whatever is broken here, the rest is to be shown
            report[name], report["failed"][name] = None, _told(error)
    return report


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _machine() -> ModuleType:
    from gpubp.support import machine

    return machine


def _backends() -> dict[str, Any]:
    from gpubp import backends

    found: dict[str, Any] = {}
    for name in backends.names():
        device = None
        try:
            reason = backends.why_unavailable(name)
            if reason is None:
                device = backends.get(name).describe()
        except Exception as error:
            reason = _told(error)
        found[name] = {"available": reason is None, "device": device, "reason": reason}
    return found


def _auto() -> str:
    from gpubp import backends

    return backends.choose("auto")[0]


def _blas() -> list[dict[str, Any]]:
    return [
        {"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in _machine().blas()
    ]


def _numba() -> dict[str, Any] | None:
    from gpubp.backends import why_unavailable

    if why_unavailable("numba"):  # its own backend entry says why
        return None
    from gpubp.backends.cpu.backend import most_threads
    from gpubp.kernels.cpu import kept

    return {"threads": most_threads(), "cache_folder": str(kept.folder())}


def render(found: dict[str, Any]) -> str:
    """The findings as text."""
    lines = []
    if found["processor"] and found["cores"]:
        lines.append(f"processor  {found['processor']}, {found['cores']} cores")
    for name, backend in (found["backends"] or {}).items():
        mark = "yes" if backend["available"] else "no "
        lines.append(f"{name:<9}  {mark}  {backend['device'] or backend['reason']}")
    if found["auto"]:
        small = ", and numpy for what that ends first" if found["auto"] == "numba" else ""
        lines.append(f"auto       takes {found['auto']}{small}")
    for pool in found["blas"] or []:
        lines.append(f"BLAS       {pool['library']} {pool['version'] or ''}, {pool['threads']} threads")
    if numba := found["numba"]:
        lines.append(f"numba      {numba['threads']} threads; compiled kernels in {numba['cache_folder']}")
    if found["versions"]:
        lines.append(
            "versions   " + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        )
    return "\n".join([*lines, *(f"{name:<9}  unknown: {why}" for name, why in found["failed"].items())])
