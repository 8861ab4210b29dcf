"""gpubp warmup: kernels compiled before they are needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpubp.cli.app import app
from gpubp.cli.options import QuietOption
from gpubp.errors import UsageError


@app.command()
def warmup(
    dtype: Annotated[str, typer.Option(help="Of the networks: float32, float64 or all")] = "float32",
    quiet: QuietOption = False,
) -> None:
    """Compile what training needs, for the CPU and for a GPU if one answers, so that later runs start at once."""
    from gpubp import backends
    from gpubp.backends.cpu.backend import NumbaBackend
    from gpubp.kernels.cpu import kept

    say = (lambda *_: None) if quiet else print
    dtypes = ("float32", "float64")
    if dtype not in (*dtypes, "all"):
        raise UsageError(f"--dtype must be float32, float64 or all, not {dtype!r}")
    backends.choose("numba")
    devices: list[Any] = [(NumbaBackend(), f"kept in {kept.folder()}")]
    if backends.why_unavailable("cupy") is None:
        from gpubp.backends.cuda.backend import CupyBackend

        devices.append((CupyBackend(), "kept by CuPy, in CUPY_CACHE_DIR or ~/.cupy/kernel_cache"))
    for device, where in devices:
        for kind in dtypes if dtype == "all" else (dtype,):
            for what, seconds in device.warm_up(kind):
                say(f"{seconds:6.2f} s  {what}")
        say(where)
