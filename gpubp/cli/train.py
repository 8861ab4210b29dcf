"""gpubp train."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

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


@app.command()
@recipe_options
def train(
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
            help="Where to save model.npz and checkpoint.npz",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on from a checkpoint.npz, bitwise", rich_help_panel="Run")
    ] = None,
    quiet: QuietOption = False,
    json_path: JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Train a network by a recipe and test it. Every field of the recipe has an option."""
    from gpubp import experiment, recipes
    from gpubp.progress import progress_for
    from gpubp.verification import VerificationError

    quiet = quiet or json_path == "-"
    say = (lambda *_: None) if quiet else print
    if resume is None:
        chosen = recipes.load(recipe or DEFAULT_RECIPE)
    else:
        chosen, data_dir = _recipe_of(resume, data_dir)
        if recipe is not None and recipes.load(recipe).name != chosen.name:
            raise UsageError(f"{resume} is of recipe {chosen.name!r}, not {recipe!r}: name none to --resume")
    chosen = chosen.overridden(changes)
    folder = folder or (resume.parent if resume else _new_folder(chosen.name))
    _announce(chosen, backend, say)
    with _written(folder):
        require_json(json_path)
        try:
            result = experiment.run(
                chosen,
                data_dir=data_dir,
                backend=backend,
                threads=threads,
                plan=plan,
                precision=precision,
                verify=verify,
                progress=lambda: progress_for(quiet=quiet),
                model=folder / "model.npz",
                checkpoint=folder / "checkpoint.npz" if chosen.splits == 1 else None,
                resume=resume,
                quiet=quiet,
            )
        except VerificationError as error:
            report = error.report.to_dict()
            failure = {"recipe": chosen.to_dict(), "ok": False, "error": str(error), "verification": report}
            write_json(json_path, failure)
            raise
    _conclude(result, folder, say)
    write_json(json_path, {"ok": True, **result.to_dict()})
    if result.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _recipe_of(checkpoint: Path, data_dir: Path | None) -> tuple[Any, Path | None]:
    """The recipe that a checkpoint was made by, and where its data was."""
    from gpubp import checkpoint as checkpoints
    from gpubp import recipes
    from gpubp.errors import DataError

    header, _ = checkpoints.read(checkpoint, "checkpoint")
    table = (header.get("training") or {}).get("recipe")
    if table is None:
        raise DataError(
            f"{checkpoint} holds no recipe: resume it by gpubp.fit(…, resume={str(checkpoint)!r})"
        )
    saved_dir = table.pop("data_dir", None)
    return recipes.from_dict(table, str(checkpoint)), data_dir or (Path(saved_dir) if saved_dir else None)


def _new_folder(name: str) -> Path:
    """gpubp-runs/NAME-1, -2, …: no run overwrites another's model."""
    root, number = Path("gpubp-runs"), 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Make the folder of a run, and refuse now, not after training, one that cannot be written.

    It is removed again if the run fails before anything is in it.

    Raises:
        GpubpError: no folder, or no file, can be made there.
    """
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"written")  # an empty file can be made on a full disk
    except OSError as error:
        raise GpubpError(f"cannot write into folder {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _announce(recipe: Any, backend: str, say: Callable) -> None:
    from gpubp import backends

    name, why = backends.choose(backend)
    say(f"{recipe.name}: {recipe.title}" if recipe.title else recipe.name)
    say(f"backend {name}" + ("" if backend != "auto" else f" ({why})"))


def _conclude(result: Any, folder: Path, say: Callable) -> None:
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


def _verdict(recipe: Any, result: Any) -> str:
    if result.reached is None or result.stopped == "interrupted":
        return ""
    return f", {'reached' if result.reached else 'DID NOT REACH'} {recipe.reach}"
