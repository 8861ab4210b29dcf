"""The command line. Heavy imports stay inside commands, so that ``gpubp --help`` answers at once."""

from __future__ import annotations

import os
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any

import typer

from gpubp.errors import GpubpError, UsageError
from gpubp.jsontext import as_json

app = typer.Typer(
    name="gpubp",
    help="Train multi-layer perceptrons, every step held to the NumPy reference. Try: gpubp train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
DEFAULT_RECIPE = "mnist-sample"

BackendOption = Annotated[str, typer.Option(help="auto, numpy, numba or cupy", rich_help_panel="Run")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="Of the processor, for numpy or numba; by default all", rich_help_panel="Run"),
]
PlanOption = Annotated[
    str,
    typer.Option(
        help="auto, fused (whole epochs in a call), composed (operation by operation), or on a GPU units (small nets)",
        rich_help_panel="Run",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="Of products, on a GPU: float32, 3xtf32 or tf32", rich_help_panel="Run"),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the files of mnist or fashion-mnist ($GPUBP_DATA_DIR)", rich_help_panel="Run"
    ),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH|-", help="Write a machine-readable result", rich_help_panel="Run"),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show nothing but errors", rich_help_panel="Run")
]
RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME|FILE.toml]", help="See: gpubp recipes", show_default=DEFAULT_RECIPE),
]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failure, 2 usage, 3 verification failed, 4 backend unavailable,
    5 data missing or corrupt, 130 interrupted."""
    try:
        code = _exit_code()
        sys.stdout.flush()  # Python's own, at exit, would end in a traceback
    except OSError as error:
        code = 1
        if error.filename is not None:
            print(f"error: {error}", file=sys.stderr)
        else:  # of a stream: what is printed
            if not isinstance(error, BrokenPipeError):  # whoever closed the pipe has read enough
                print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
    sys.exit(code)


def _exit_code() -> Any:
    """Run the command; the exit code for what came of it, with errors told."""
    try:
        app()
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code


def _version(show: bool) -> None:
    if show:
        import gpubp

        print(f"gpubp {gpubp.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    pass


def _recipe_options(command: Callable) -> Callable:
    """Give the command an option for every field of a recipe, and hand it those that were used as ``changes``."""
    from gpubp.recipes import Recipe

    kinds = typing.get_type_hints(Recipe)
    options = []
    for field in fields(Recipe):
        kind = _option_type(kinds[field.name])
        names = [f"--{field.name.replace('_', '-')}"]
        if kind is bool:
            names = [f"{names[0]}/--no-{names[0][2:]}"]
        option = typer.Option(
            *names, help=field.metadata["help"], rich_help_panel="Recipe", show_default=False
        )
        options.append(
            Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )
    own = {
        name: parameter
        for name, parameter in signature(command, eval_str=True).parameters.items()
        if name != "changes"
    }

    @wraps(command)
    def wrapped(**values: Any) -> None:
        changes = {field.name: values.pop(field.name) for field in fields(Recipe)}
        command(**values, changes={name: _parsed(name, v) for name, v in changes.items() if v is not None})

    all_parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own.values()] + options
    wrapped.__signature__ = signature(command).replace(parameters=all_parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in all_parameters}
    return wrapped


def _option_type(kind: Any) -> type:
    """str for lists, which are written 784-128-10 or relu,tanh; else the field's own type."""
    choices = (
        [k for k in typing.get_args(kind) if k is not type(None)] if isinstance(kind, UnionType) else [kind]
    )
    return str if typing.get_origin(choices[0]) is tuple else choices[0]


def _parsed(name: str, value: Any) -> Any:
    if name == "hidden":
        return tuple(value.split(","))
    if name == "layers":
        try:
            return tuple(int(n) for n in value.replace(",", "-").split("-"))
        except ValueError:
            raise UsageError(f"--layers takes sizes such as 784-128-10, not {value!r}") from None
    return value


@app.command()
@_recipe_options
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
        _require_json(json_path)
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
            _write_json(json_path, failure)
            raise
    _conclude(result, folder, say)
    _write_json(json_path, {"ok": True, **result.to_dict()})
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


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The model.npz that a run saved")],
    inputs: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .npy, .npz, .csv, IDX, .png or .jpg file")
    ],
    proba: Annotated[bool, typer.Option("--proba", help="Print the outputs, not the labels")] = False,
    json_path: JsonOption = None,
) -> None:
    """Predict the label of every row of a file, one a line."""
    import numpy as np

    from gpubp import checkpoint
    from gpubp.data import load_inputs
    from gpubp.errors import DataError

    _require_json(json_path)
    header, arrays = checkpoint.read(model)
    if "training" in header:  # its network takes inputs as they were scaled for training
        raise DataError(
            f"{model} is a checkpoint, for --resume; predict takes the model.npz that the run saved"
        )
    network = checkpoint.build_network(model, header, arrays)
    outputs = network.predict_proba(load_inputs(inputs)) if proba else network.predict(load_inputs(inputs))
    _write_json(json_path, {"model": str(model), "input": str(inputs), "predictions": outputs.tolist()})
    if json_path != "-":
        for row in outputs:
            print(
                *(f"{value:.6g}" if isinstance(value, np.floating) else value for value in np.atleast_1d(row))
            )


@app.command()
def verify(
    recipe: RecipeArgument = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    plan: PlanOption = "auto",
    precision: PrecisionOption = "float32",
    data_dir: DataDirOption = None,
    quiet: QuietOption = False,
    json_path: JsonOption = None,
) -> None:
    """Hold a backend to the reference on a recipe's network and data: every operation, gradient and a step."""
    from gpubp import backends, experiment, recipes
    from gpubp import verify as verify_network

    _require_json(json_path)
    chosen = recipes.load(recipe or DEFAULT_RECIPE)
    device = backends.get(backend, threads=threads, plan=plan, precision=precision)
    train = experiment.load(chosen, chosen.seed, data_dir, quiet)[0].train
    report = verify_network(
        chosen.network(chosen.seed),
        train.inputs,
        train.targets,
        loss=chosen.loss,
        optimizer=chosen.build_optimizer(),
        backend=device,
    )
    if not quiet and json_path != "-":
        print(report)
    _write_json(
        json_path,
        {"recipe": chosen.name, "backend": device.name, "device": device.describe(), **report.to_dict()},
    )
    if not report.ok:
        raise typer.Exit(3)


@app.command()
def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64 or all: of the networks")] = "float32",
    quiet: QuietOption = False,
) -> None:
    """Compile what the numba backend trains with and keep it on disk, so that later runs start at once."""
    from gpubp import backends
    from gpubp.backends.cpu import NumbaBackend, cache_folder

    say = (lambda *_: None) if quiet else print
    dtypes = ("float32", "float64")
    if dtype not in (*dtypes, "all"):
        raise UsageError(f"--dtype must be float32, float64 or all, not {dtype!r}")
    backends.choose("numba")
    device = NumbaBackend()
    for kind in dtypes if dtype == "all" else (dtype,):
        for what, seconds in device.warm_up(kind):
            say(f"{seconds:6.2f} s  {what}")
    folder = cache_folder()
    say(f"kept in {folder}" if folder else "not kept: no folder can be written, set NUMBA_CACHE_DIR to one")


@app.command()
def doctor(json_path: JsonOption = None) -> None:
    """Show what gpubp can run on here, and what to do about what it cannot."""
    from gpubp.doctor import examine, render

    _require_json(json_path)
    found = examine()
    _write_json(json_path, found)
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

    from gpubp import recipes

    table = Table("recipe", "layers", "what", "must reach", box=None, header_style="bold", pad_edge=False)
    for name in recipes.names():
        recipe = recipes.load(name)
        reach = "" if recipe.reach is None else f"{recipe.reach:g}"
        table.add_row(name, "-".join(map(str, recipe.layers)), recipe.title, reach)
    Console().print(table)


def _require_json(path: str | None) -> None:
    """Refuse a --json that cannot be written before the work, not after it.

    Raises:
        GpubpError: a folder, a file that may not be written, or a place where none can be made.
    """
    if path is None or path == "-":
        return
    target = Path(path)
    try:
        if target.is_dir():
            raise GpubpError(f"cannot write {path or '--json'}: it is a folder")
        if not target.exists():
            target.touch(exist_ok=False)
            target.unlink()
        elif not os.access(target, os.W_OK):  # not opened, for it may be a pipe
            raise GpubpError(f"cannot write {path}: no permission")
    except OSError as error:
        raise GpubpError(f"cannot write {path}: {error.strerror or error}") from error


def _write_json(path: str | None, result: dict[str, Any]) -> None:
    if path is None:
        return
    text = as_json(result)
    if path == "-":
        print(text)
        return
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise GpubpError(f"cannot write {path}: {error.strerror or error}") from error
