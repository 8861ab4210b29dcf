"""gpubp train."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpubp.cli import options
from gpubp.cli.app import app
from gpubp.cli.options import option
from gpubp.errors import INTERRUPTED, GpubpError, UsageError

if TYPE_CHECKING:
    from gpubp.experiments.recipe import Recipe, RunSettings
    from gpubp.experiments.run import Result

Say = Callable[..., object]  # print, or nothing where the run is to be quiet


@app.command()
@options.recipe_options
def train(
    context: typer.Context,
    recipe: options.RecipeArgument = None,
    backend: options.BackendOption = "auto",
    threads: options.ThreadsOption = None,
    plan: options.PlanOption = "auto",
    precision: options.PrecisionOption = "float32",
    verify: options.VerifyOption = "epoch",
    data_dir: options.DataDirOption = None,
    distributed: options.DistributedOption = None,
    parts: options.PartsOption = None,
    folder: Annotated[
        Path | None,
        option(help="Where to save the model, checkpoint, recipe, history and report", **options.path()),
    ] = None,
    resume: Annotated[
        Path | None, option(help="Go on from a checkpoint.npz, bitwise", **options.path())
    ] = None,
    report: options.ReportOption = True,
    quiet: options.QuietOption = False,
    json_path: options.JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Train a network by a recipe and test it. Every field of the recipe has an option."""
    from gpubp import backends
    from gpubp.distributed.mpi import ALONE, ranks_of, refuse_many_alone
    from gpubp.distributed.plan import check_parts
    from gpubp.experiments.recipe import RunSettings
    from gpubp.experiments.run import run_recipe
    from gpubp.training.progress import progress_for

    ranks = ranks_of(None if distributed == ALONE else distributed)
    if distributed != ALONE:
        refuse_many_alone(ranks)
    first = ranks.rank == 0  # which alone speaks and writes
    if not first:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    quiet = quiet or json_path == "-" or not first
    say = (lambda *_: None) if quiet else print
    where: dict[str, Any] = {"data_dir": None if data_dir is None else str(data_dir), "parts": parts}
    given = RunSettings(backend=backend, threads=threads, plan=plan, precision=precision, **where)
    with ExitStack() as held:
        try:
            with ranks.together():
                if resume is None:
                    chosen, run = _new(recipe or options.DEFAULT_RECIPE, changes, given, context)
                else:
                    chosen, run = _resumed(resume, recipe, changes, given, say)
                check_parts(run.parts, ranks.size)
                wanted = backends.Wanted(run.backend, run.threads, run.plan, run.precision)
                if wanted.name != "auto":
                    backends.get(wanted)  # which refuses what it cannot be, before anything is made
                say(chosen.heading)
                read = chosen.data, chosen.test_data, recipe, resume
                filled = ranks.on_first(
                    lambda: held.enter_context(_folder(folder, resume, chosen.name, json_path, read))
                )
                kept: dict[str, Any] = {"data_dir": run.data_dir, "folder": filled, "resume": resume}
                how: dict[str, Any] = {
                    "backend": wanted,
                    "verify": verify,
                    "ranks": ranks,
                    "parts": run.parts,
                }
                shown: dict[str, Any] = {"progress": lambda: progress_for(quiet=quiet), "quiet": quiet}
                result = run_recipe(chosen, **how, **kept, **shown, say=say)
        except GpubpError as error:
            if first and error.result is not None:
                _leave(error.result, run, filled, report, say)
            if first and (found := getattr(error, "report", None)):
                told = {"recipe": chosen.to_dict(), "ok": False, "error": str(error)}
                options.write_json(json_path, told | {"verification": found.to_dict()})
            raise
        if first:
            _conclude(result, filled, say)
            try:
                options.write_json(json_path, {"ok": True, **result.to_dict()})
            finally:
                _leave(result, run, filled, report, say)
    if result.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if result.reached is False:
        raise typer.Exit(1)


@contextmanager
def _folder(
    given: Path | None, resume: Path | None, name: str, json_path: str | None, read: Iterable[Any]
) -> Iterator[Path]:
    """The folder of the run, held; refused, as is the JSON file, where it cannot be written or is another's."""
    from gpubp.experiments.folder import run_folder

    if given is not None:
        _refuse_anothers(given, resume)
    elif resume is not None:
        given = resume.parent
    with run_folder(given, name) as folder:
        options.require_json(json_path)
        options.refuse_overwriting({"--json": json_path}, read)
        yield folder


def _refuse_anothers(folder: Path, resume: Path | None) -> None:
    """Refuse a folder with a run in it, unless that is the one to be resumed."""
    from gpubp.experiments.folder import CHECKPOINT, MODEL

    if resume is not None and folder.resolve() == resume.parent.resolve():
        return
    left = folder / MODEL, folder / CHECKPOINT
    if any(map(os.path.exists, left)):  # Path's own raises where a name is too long
        raise UsageError(f"{folder} has a run in it: give another --folder, or --resume its checkpoint.npz")


def _new(
    name: str, changes: dict[str, Any], given: RunSettings, context: typer.Context
) -> tuple[Recipe, RunSettings]:
    """The recipe with its changes, and how its file says to run it, but for the options that were given."""
    from gpubp.experiments.recipe import load_with_run

    recipe, saved = load_with_run(name, changes)
    sources = {f.name: context.get_parameter_source(f.name) for f in fields(given)}
    used = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    return recipe, replace(saved, **{name: getattr(given, name) for name in used})


def _resumed(
    path: Path, name: str | None, changes: dict[str, Any], given: RunSettings, say: Say
) -> tuple[Recipe, RunSettings]:
    """The recipe that a checkpoint was made by, and how to run it: as given, with its data where it was.

    Options may say where that data is now, which is held to its fingerprints.
    """
    from gpubp.errors import DataError
    from gpubp.experiments.folder import found_beside
    from gpubp.experiments.recipe import PATHS, Recipe, load_recipe
    from gpubp.training import checkpoint

    training = checkpoint.read_training(path)[0]
    table, done = training.get("recipe"), training["epoch"]
    if table is None:
        raise DataError(f"{path} holds no recipe: resume it with gpubp.fit(…, resume={str(path)!r})")
    saved_dir, parts, _ = (table.pop(key, None) for key in ("data_dir", "parts", "tested_on"))
    run = replace(given, data_dir=given.data_dir or saved_dir, parts=given.parts or parts)
    recipe = Recipe.from_dict(table, str(path))
    if name is not None and load_recipe(name).name != recipe.name:
        raise UsageError(f"{path} is of recipe {recipe.name!r}, not {name!r}: leave the name out of --resume")
    moved: dict[str, Any] = {key: changes.pop(key) for key in PATHS if key in changes}
    found = found_beside(path, recipe, [key for key in PATHS if key not in moved])
    for key, where in found.items():
        say(f"{key} {getattr(recipe, key)} of {path} is read from {where}")
    recipe = replace(recipe, **found, **moved).overridden(changes)
    if done >= recipe.epochs:
        raise UsageError(f"all {done} epochs of {path} are done: to go on, give --epochs {2 * done}")
    return recipe, run


def _leave(result: Result, run: RunSettings, folder: Path, report: bool, say: Say) -> None:
    """Write what a run leaves beside its model. A run whose records cannot be written has still succeeded."""
    from gpubp.experiments.folder import write_records

    def write_page() -> None:
        from gpubp.reports.training import write_report

        say(f"report in {write_report(folder / 'report.html', result, folder)}")

    for write in (lambda: write_records(folder, result, run), write_page if report else lambda: None):
        try:
            write()
        except GpubpError as error:
            print(f"warning: {error}", file=sys.stderr)


def _conclude(result: Result, folder: Path, say: Say) -> None:
    history = result.histories[-1]
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
    if history.distribution is not None:
        say(history.distribution.summary())
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if result.accuracy is not None:
        told = f"test accuracy {result.accuracy:.4f}"
        if len(result.accuracies) > 1:
            told += f" (mean of {', '.join(f'{a:.4f}' for a in result.accuracies)})"
        if result.reached is not None and result.stopped != "interrupted":
            told += f", {'reached' if result.reached else 'DID NOT REACH'} {result.recipe.reach}"
        say(told)
    say(f"model saved in {folder / 'model.npz'}")
    if history.stopped == "interrupted" and result.recipe.splits == 1:
        again = f"gpubp train --resume {folder / 'checkpoint.npz'}"
        if history.distribution is not None and history.distribution.ranks > 1:
            again = f"mpiexec -n {history.distribution.ranks} {again} --distributed mpi"
        say(f"go on with: {again}")
