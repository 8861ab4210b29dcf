"""gpubp sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpubp.cli import options
from gpubp.cli.app import app
from gpubp.cli.options import option
from gpubp.errors import INTERRUPTED, GpubpError, UsageError

VARY = "A field of the recipe and its values, lr=0.1,0.2, or a range, lr=1e-3..1e-1; once a field"
SEARCH = "grid (all), random:N, or optuna:N, which learns from what it has seen; N settings"
EARLY = "End trials that do worse than others did: halving or median"
OF_ONE = {
    "fold": "holds out each in turn",
    "splits": "has --seeds and --folds",
    "reach": "looks for the best",
}
ENGINE = "threads, processes, or dask:ADDRESS, a cluster"


def _sweep_option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Sweep", **settings)


@app.command()
@options.recipe_options
def sweep(
    recipe: options.RecipeArgument = None,
    vary: Annotated[list[str] | None, _sweep_option(metavar="FIELD=a,b,c", help=VARY)] = None,
    seeds: Annotated[int, _sweep_option(help="Trials of each setting, from the recipe's seed on")] = 1,
    search: Annotated[str, _sweep_option(help=SEARCH)] = "grid",
    stop_early: Annotated[str | None, _sweep_option(help=EARLY)] = None,
    ensemble: Annotated[int | None, _sweep_option(help="Keep so many of the best as one model")] = None,
    jobs: Annotated[int | None, _sweep_option(help="Trials at a time; by default one a core")] = None,
    engine: Annotated[str, _sweep_option(help=ENGINE)] = "threads",
    backend: options.BackendOption = "auto",
    threads: Annotated[
        int | None, option(help="CPU threads of each trial; by default 1, if there are many")
    ] = None,
    plan: options.PlanOption = "auto",
    precision: options.PrecisionOption = "float32",
    verify: options.VerifyOption = "epoch",
    data_dir: options.DataDirOption = None,
    folder: Annotated[
        Path | None,
        option(help="Where to keep trials; by default the same for the same sweep", **options.path()),
    ] = None,
    report: options.ReportOption = True,
    quiet: options.QuietOption = False,
    json_path: options.JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Train a recipe with many settings and seeds, and choose by samples held out of the training data.

    The same command goes on where an earlier one was stopped."""
    from gpubp.experiments.recipe import RunSettings, load_with_run
    from gpubp.sweeps import sweep as run_sweep

    quiet = quiet or json_path == "-"
    say = (lambda *_: None) if quiet else print
    options.require_json(json_path)
    folds = changes.pop("folds", None)
    for name in ("fold", "splits", "reach"):
        if name in changes:
            raise UsageError(f"--{name} is of a single run, and a sweep {OF_ONE[name]}: leave it out")
    if folds is not None and "validation_fraction" in changes:
        raise UsageError("--folds and --validation-fraction both say what is held out: give one")
    if "split_seed" in changes:
        changes["splits"] = 1
    chosen, saved = load_with_run(recipe or options.DEFAULT_RECIPE, changes)
    options.refuse_overwriting({"--json": json_path}, [chosen.data, chosen.test_data, recipe])
    directory = str(data_dir) if data_dir is not None else saved.data_dir
    result = run_sweep(
        chosen,
        vary or [],
        seeds=seeds,
        search=search,
        folds=folds,
        stop_early=stop_early,
        ensemble=ensemble,
        jobs=jobs,
        engine=engine,
        run=RunSettings(backend=backend, threads=threads, plan=plan, precision=precision, data_dir=directory),
        verify=verify,
        folder=folder,
        quiet=quiet,
        say=say,
    )
    _conclude(result, say)
    try:
        options.write_json(json_path, {"ok": _code_of(result) == 0, **result.to_dict()})
    finally:
        if report and result.trials:
            _write_page(result, say)
    if result.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if code := _code_of(result):
        raise typer.Exit(code)


def _code_of(result: Any) -> int:
    """The exit code: a trial that failed is no failure of the sweep, unless nothing is left or a backend was wrong."""
    from gpubp.verification.report import VerificationError

    codes = [outcome.exit_code for outcome in result.failures]
    wrong = max((code for code in codes if code == VerificationError.exit_code), default=0)
    if result.lacking and not wrong:
        return 1
    return wrong or (max(codes, default=1) if result.best is None and result.stopped == "done" else 0)


def _write_page(result: Any, say: Any) -> None:
    """Write the page. A sweep whose page cannot be written has still succeeded."""
    from gpubp.reports.sweep import write_report

    try:
        say(f"report in {write_report(result.folder / 'report.html', result)}")
    except GpubpError as error:
        print(f"warning: {error}", file=sys.stderr)


def _conclude(result: Any, say: Any) -> None:
    from gpubp.sweeps import folder as kept
    from gpubp.sweeps.space import told

    if result.network_epochs:
        say(f"{result.network_epochs:,} network-epochs in {result.seconds:.1f} s, {result.rate:.3g} a second")
    for point in result.points[:5]:
        if point.scores:
            spread = "" if point.deviation is None else f" ± {point.deviation:.4f}"
            of_all = "" if point.whole else " (not all of its trials were trained to their end)"
            score = abs(point.mean)
            say(f"  {told(point.settings) or 'the recipe'}: {result.measure} {score:.4f}{spread}{of_all}")
    if len(result.points) > 5:
        say(f"  … and {len(result.points) - 5} more")
    for text in [] if result.best is None else result.best.warnings:
        print(f"warning: of the best trial: {text}", file=sys.stderr)
    if failures := result.failures:
        print(f"warning: {len(failures)} of {len(result.trials)} trials failed", file=sys.stderr)
    if result.stopped == "interrupted":
        say("interrupted: the same command goes on")
        return
    if result.best is None:
        print(
            "warning: no setting has all its trials trained to their end, so none is chosen", file=sys.stderr
        )
        return
    if result.lacking:
        print(f"warning: {result.lacking}", file=sys.stderr)
    tested = "" if result.test_accuracy is None else f", test accuracy {result.test_accuracy:.4f}"
    say(f"best: {result.best}{tested}; kept in {result.folder / kept.WINNER}")
    if result.members:
        (_, test), *members = result.ensemble_accuracies
        if test is not None:
            alone = ", ".join(f"{accuracy:.4f}" for _, accuracy in members)
            say(f"ensemble of {len(members)}: test accuracy {test:.4f}, its members' {alone}")
        say(f"ensemble kept in {result.folder / kept.ENSEMBLE}")
