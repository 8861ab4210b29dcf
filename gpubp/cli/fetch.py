"""gpubp fetch: a data set into the user's cache."""

from __future__ import annotations

from typing import Annotated

import typer

from gpubp.cli.app import app
from gpubp.cli.options import QuietOption


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="mnist or fashion-mnist")] = "mnist", quiet: QuietOption = False
) -> None:
    """Download a data set into the user cache, and check it by hash."""
    from gpubp.data import mnist

    folder = mnist.fetch(name, quiet=quiet)
    if not quiet:
        print(f"{name} is in {folder}")
