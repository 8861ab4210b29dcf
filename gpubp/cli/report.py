"""gpubp report: the page of a training run or a sweep, drawn again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpubp.cli import options
from gpubp.cli.app import app


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="What gpubp train or gpubp sweep left", **options.path("FOLDER"))
    ],
    html: Annotated[
        Path | None, options.option(help="Write the page here, not into FOLDER/report.html", **options.path())
    ] = None,
    data_dir: options.DataDirOption = None,
    quiet: options.QuietOption = False,
) -> None:
    """Draw the page of a training run or a sweep again, from what is in its folder."""
    from gpubp.experiments.folder import LEFT
    from gpubp.experiments.saved import read_result
    from gpubp.reports.training import write_report
    from gpubp.sweeps.folder import SWEEP, TRIALS

    if (folder / SWEEP).exists():
        from gpubp.reports import sweep as of_sweep
        from gpubp.sweeps.result import read as read_sweep

        options.refuse_overwriting({"--html": html}, [folder / name for name in (SWEEP, TRIALS)])
        page = of_sweep.write_report(html or folder / "report.html", read_sweep(folder))
        if not quiet:
            print(f"report in {page}")
        return
    result = read_result(folder, data_dir=data_dir, quiet=quiet)
    read = [*(folder / name for name in LEFT), result.recipe.data, result.recipe.test_data]
    options.refuse_overwriting({"--html": html}, read)
    if result.lacking:
        print(f"warning: {result.lacking}", file=sys.stderr)
    page = write_report(html or folder / "report.html", result, folder)
    if not quiet:
        print(f"report in {page}")
