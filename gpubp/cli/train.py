"""gpubp train."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpubp.cli.app import INTERRUPTED, app
from gpubp.cli.options import (
    DEFAULT_RECIPE,
    BackendOption,
    DataDirOption,
    JsonOption,
    PlanOption,
    PrecisionOption,
    QuietOption,
    RecipeArgument,
    ThreadsOption,
    recipe_options,
    require_json,
    write_json,
)
from gpubp.errors import GpubpError, UsageError

if TYPE_CHECKING:
    from gpubp.backends.backend import Backend
    from gpubp.experiments.recipe import Recipe, RunSettings
    from gpubp.experiments.run import Result

Say = Callable[..., object]  # print, or nothing where the run is to be quiet


@app.command()
@recipe_options
def train(
    context: typer.Context,
    recipe: RecipeArgument = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    plan: PlanOption = "auto",
    precision: PrecisionOption = "float32",
    verify: Annotated[
        str,
        typer.Option(help="How often steps are checked: off, first, epoch or step", rich_help_panel="Run"),
    ] = "epoch",
    data_dir: DataDirOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Where to save the model, checkpoint, recipe, history and report",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on from a checkpoint.npz, bitwise", rich_help_panel="Run")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html", rich_help_panel="Run")
    ] = True,
    quiet: QuietOption = False,
    json_path: JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Train a network by a recipe and test it. Every field of the recipe has an option."""
    from gpubp import backends
    from gpubp.experiments import folder as folders
    from gpubp.experiments import recipe as recipes
    from gpubp.experiments import run as experiment
    from gpubp.training.progress import progress_for
    from gpubp.verification.report import VerificationError

    quiet = quiet or json_path == "-"
    say = (lambda *_: None) if quiet else print
    given = recipes.RunSettings(
        backend=backend,
        threads=threads,
        plan=plan,
        precision=precision,
        data_dir=None if data_dir is None else str(data_dir),
    )
    if resume is None:
        chosen, saved = recipes.load_with_run(recipe or DEFAULT_RECIPE)
        run, done = _overridden(saved, given, context), 0
    else:
        chosen, run, done = _recipe_of(resume, given)
        if recipe is not None and recipes.load(recipe).name != chosen.name:
            raise UsageError(f"{resume} is of recipe {chosen.name!r}, not {recipe!r}: name none to --resume")
    chosen = chosen.overridden(changes)
    if resume is not None and done >= chosen.epochs:
        raise UsageError(
            f"all {done} epochs of {resume} are done: go on with more of them by --epochs {2 * done}"
        )
    if resume is None and folder is not None and os.path.exists(folder / "model.npz"):
        raise UsageError(f"{folder} has a run in it: give another --folder, or --resume its checkpoint.npz")
    folder = folder or (resume.parent if resume else folders.new(chosen.name))
    device = backends.get(run.backend, threads=run.threads, plan=run.plan, precision=run.precision)
    _announce(chosen, run, device, say)
    with folders.written(folder):
        require_json(json_path)
        try:
            result = experiment.run(
                chosen,
                data_dir=run.data_dir,
                backend=device,
                verify=verify,
                progress=lambda: progress_for(quiet=quiet),
                model=folder / "model.npz",
                checkpoint=folder / "checkpoint.npz" if chosen.splits == 1 else None,
                resume=resume,
                signals=folders.read_signals(resume.parent, len(chosen.layers) - 1) if resume else None,
                on_failure=lambda failed: _leave(failed, run, folder, report, say),
                quiet=quiet,
            )
        except VerificationError as error:
            checks = error.report.to_dict()
            failure = {"recipe": chosen.to_dict(), "ok": False, "error": str(error), "verification": checks}
            write_json(json_path, failure)
            raise
    _conclude(result, folder, say)
    try:
        write_json(json_path, {"ok": True, **result.to_dict()})
    finally:
        _leave(result, run, folder, report, say)
    if result.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if result.reached is False:
        raise typer.Exit(1)


def _overridden(saved: RunSettings, given: RunSettings, context: typer.Context) -> RunSettings:
    """How a recipe file says to run it, but for the options that were given."""
    sources = {f.name: context.get_parameter_source(f.name) for f in fields(given)}
    used = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    return replace(saved, **{name: getattr(given, name) for name in used})


def _leave(result: Result, run: RunSettings, folder: Path, report: bool, say: Say) -> None:
    """Write what a run leaves beside its model. A run whose records cannot be written has still succeeded."""
    from gpubp.experiments import folder as folders

    def write_report() -> None:
        import logging

        from gpubp.reports import training as reports

        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it finds no cache folder
        say(f"report in {reports.write(folder / 'report.html', result, folder)}")

    for write in (lambda: folders.write_records(folder, result, run), write_report if report else None):
        try:
            if write is not None:
                write()
        except GpubpError as error:
            print(f"warning: {error}", file=sys.stderr)


def _recipe_of(path: Path, given: RunSettings) -> tuple[Recipe, RunSettings, int]:
    """The recipe that a checkpoint was made by, how to run it (as given, with its data where it was), and how many
    epochs are done."""
    from gpubp.errors import DataError
    from gpubp.experiments import recipe as recipes
    from gpubp.training import checkpoint

    training = checkpoint.read_training(path)[0]
    table = training.get("recipe")
    if table is None:
        raise DataError(f"{path} holds no recipe: resume it by gpubp.fit(…, resume={str(path)!r})")
    saved_dir = table.pop("data_dir", None)
    run = replace(given, data_dir=given.data_dir or saved_dir)
    return recipes.from_dict(table, str(path)), run, training["epoch"]


def _announce(recipe: Recipe, run: RunSettings, device: Backend, say: Say) -> None:
    say(f"{recipe.name}: {recipe.title}" if recipe.title else recipe.name)
    say(f"backend {device.name}" + ("" if run.backend != "auto" else f" ({device.why})"))


def _conclude(result: Result, folder: Path, say: Say) -> None:
    history, recipe = result.histories[-1], result.recipe
    say(f"{result.network!r} on {history.plan}")
    if history.stopped != "done":
        at = f", best epoch {history.best_epoch} restored" if history.stopped == "early stopping" else ""
        say(f"stopped after {len(history)} epochs: {history.stopped}{at}")
    # What a checkpoint brought along took its time before.
    seconds = sum(epoch.seconds for h in result.histories for epoch in h.epochs[h.resumed_epochs :])
    compiled = sum(h.compile_seconds for h in result.histories)
    say(f"training {seconds:.2f} s, warm-up and compilation {compiled:.2f} s, {result.seconds:.2f} s in all")
    if history.verification.steps:
        say(history.verification.summary())
    if result.accuracy is not None:
        spread = ""
        if len(result.accuracies) > 1:
            spread = f" (mean of {', '.join(f'{a:.4f}' for a in result.accuracies)})"
        say(f"test accuracy {result.accuracy:.4f}{spread}" + _verdict(recipe, result))
    say(f"model saved in {folder / 'model.npz'}")
    if history.stopped == "interrupted" and recipe.splits == 1:
        say(f"go on with: gpubp train --resume {folder / 'checkpoint.npz'}")


def _verdict(recipe: Recipe, result: Result) -> str:
    if result.reached is None or result.stopped == "interrupted":
        return ""
    return f", {'reached' if result.reached else 'DID NOT REACH'} {recipe.reach}"
