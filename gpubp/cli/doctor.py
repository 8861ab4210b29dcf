"""gpubp doctor: what there is to run on, and what to do about what there is not."""

from __future__ import annotations

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
    """Backends with their devices or the reason they cannot run, versions, threads and BLAS libraries."""
    from gpubp import backends
    from gpubp.support.machine import blas, cores, processor, versions

    report: dict[str, Any] = {
        "versions": versions(),
        "processor": processor(),
        "cores": cores(),
        "backends": {},
        "auto": backends.choose("auto")[0],
    }
    for name, reason in backends.available().items():
        device = backends.get(name).describe() if reason is None else None
        report["backends"][name] = {"available": reason is None, "device": device, "reason": reason}
    report["blas"] = [
        {"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in blas()
    ]
    report["numba"] = _numba()
    return report


def _numba() -> dict[str, Any] | None:
    try:
        import numba

        from gpubp.backends.cpu.backend import cache_folder
    except Exception:  # its own backend entry says why
        return None
    layer = numba.config.THREADING_LAYER  # type: ignore[attr-defined]
    return {"threads": numba.get_num_threads(), "layer": layer, "cache_folder": cache_folder()}


def render(found: dict[str, Any]) -> str:
    """The findings as text."""
    lines = [f"processor  {found['processor']}, {found['cores']} cores"]
    for name, backend in found["backends"].items():
        mark = "yes" if backend["available"] else "no "
        lines.append(f"{name:<9}  {mark}  {backend['device'] or backend['reason']}")
    lines.append(f"auto       takes {found['auto']}")
    for pool in found["blas"]:
        lines.append(f"BLAS       {pool['library']} {pool['version'] or ''}, {pool['threads']} threads")
    if numba := found["numba"]:
        cache = numba["cache_folder"] or "none, set NUMBA_CACHE_DIR to a folder that can be written"
        lines.append(f"numba      threading layer {numba['layer']}; cache: {cache}")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, f"versions   {versions}"])
