"""gpubp warmup, doctor, fetch and recipes: what is here, and getting it ready."""

from __future__ import annotations

from typing import Annotated

import typer

from gpubp.cli.app import app
from gpubp.cli.options import JsonOption, QuietOption, require_json, write_json
from gpubp.errors import UsageError


@app.command()
def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64 or all: of the networks")] = "float32",
    quiet: QuietOption = False,
) -> None:
    """Compile what training takes, for the CPU and for a GPU if one answers, so that later runs start at once."""
    from gpubp import backends
    from gpubp.backends.cpu.backend import NumbaBackend, cache_folder

    say = (lambda *_: None) if quiet else print
    dtypes = ("float32", "float64")
    if dtype not in (*dtypes, "all"):
        raise UsageError(f"--dtype must be float32, float64 or all, not {dtype!r}")
    backends.choose("numba")
    device = NumbaBackend()
    kinds = dtypes if dtype == "all" else (dtype,)
    for kind in kinds:
        for what, seconds in device.warm_up(kind):
            say(f"{seconds:6.2f} s  {what}")
    folder = cache_folder()
    say(f"kept in {folder}" if folder else "not kept: no folder can be written, set NUMBA_CACHE_DIR to one")
    if backends.why_unavailable("cupy") is not None:
        return
    from gpubp.backends.cuda.backend import CupyBackend

    gpu = CupyBackend()
    for kind in kinds:
        for what, seconds in gpu.warm_up(kind):
            say(f"{seconds:6.2f} s  {what}")
    say("kept by CuPy, in CUPY_CACHE_DIR or ~/.cupy/kernel_cache")


@app.command()
def doctor(json_path: JsonOption = None) -> None:
    """Show what gpubp can run on here, and what to do about what it cannot."""
    from gpubp.support.doctor import examine, render

    require_json(json_path)
    found = examine()
    write_json(json_path, found)
    if json_path != "-":
        print(render(found))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="mnist or fashion-mnist")] = "mnist", quiet: QuietOption = False
) -> None:
    """Download a data set into the user cache, its content checked by hash."""
    from gpubp.data import mnist

    folder = mnist.fetch(name, quiet=quiet)
    if not quiet:
        print(f"{name} is in {folder}")


@app.command("recipes")
def list_recipes() -> None:
    """List the recipes and what each must reach."""
    from rich.console import Console
    from rich.table import Table

    from gpubp.experiments import recipe as recipes

    table = Table("recipe", "layers", "what", "must reach", box=None, header_style="bold", pad_edge=False)
    for name in recipes.names():
        recipe = recipes.load(name)
        reach = "" if recipe.reach is None else f"{recipe.reach:g}"
        table.add_row(name, "-".join(map(str, recipe.layers)), recipe.title, reach)
    Console().print(table)
