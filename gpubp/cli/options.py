"""Things that several commands share: their options, the fields of a recipe as options, and a result as JSON."""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Callable, Iterable
from functools import partial, wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from gpubp.errors import GpubpError, UsageError
from gpubp.support.files import user_path
from gpubp.support.jsontext import as_json

DEFAULT_RECIPE = "mnist-sample"


def path(metavar: str = "PATH") -> dict[str, Any]:
    """Settings of every option and argument that is a path: ~ is the home folder, also in --folder=~/run."""
    return {"parser": user_path, "metavar": metavar}


option = partial(typer.Option, rich_help_panel="Run")
PLANS = (
    "auto, composed (operation by operation), inplace (NumPy's), fused (whole epochs in a call, of Numba's and on a "
    "GPU), or on a GPU cluster or units (one hidden layer)"
)

BackendOption = Annotated[str, option(help="auto, numpy, numba or cupy")]
ThreadsOption = Annotated[int | None, option(help="CPU threads, for numpy or numba; by default all")]
PlanOption = Annotated[str, option(help=PLANS)]
PrecisionOption = Annotated[str, option(help="Precision of products on a GPU: float32, 3xtf32 or tf32")]
DataDirOption = Annotated[
    Path | None, option(help="Folder with the files of mnist or fashion-mnist ($GPUBP_DATA_DIR)", **path())
]
JsonOption = Annotated[
    str | None,
    option("--json", parser=os.path.expanduser, metavar="PATH|-", help="Write a machine-readable result"),
]
ModelArgument = Annotated[
    Path, typer.Argument(help="The model.npz that a run saved, or a .safetensors", **path("MODEL"))
]
DistributedOption = Annotated[
    str | None,
    option(
        help="Train on all processes that mpiexec or srun started, each with a part of every mini-batch: mpi"
    ),
]
PartsOption = Annotated[
    int | None,
    option(help="Cut each mini-batch into so many parts, say 8: the same bits on 1, 2, 4 or 8 processes"),
]
VerifyOption = Annotated[str, option(help="How often steps are checked: off, first, epoch or step")]
ReportOption = Annotated[bool, option("--report/--no-report", help="Write report.html")]
QuietOption = Annotated[bool, option("--quiet", "-q", help="Show nothing but errors")]
RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME|FILE.toml]", help="See: gpubp recipes", show_default=DEFAULT_RECIPE),
]


def recipe_options(command: Callable) -> Callable:
    """Give the command an option for every field of a recipe, and hand it those that were used as ``changes``.

    Of a field that has settings of its own, it is a dictionary of those that were used.
    """
    from gpubp.experiments.recipe import Recipe, flat_fields

    options: list[Parameter] = []
    places: dict[str, tuple[str, str | None, Any]] = {}  # by option: a field, which of its settings, a kind
    for name, (field, inner, kind) in flat_fields(Recipe).items():
        places[name] = field.name, None if inner is None else inner.name, kind
        taken = str if kind is Any or typing.get_origin(kind) is tuple else kind
        flag = "--" + name.replace("_", "-")
        declared = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        about = {
            "help": (inner or field).metadata["help"],
            "rich_help_panel": "Recipe",
            "show_default": False,
        }
        annotation = Annotated[taken | None, typer.Option(declared, **about)]  # type: ignore[valid-type]
        options.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    @wraps(command)
    def wrapped(**values: Any) -> None:
        changes: dict[str, Any] = {}
        for name, (field, setting, kind) in places.items():
            if (value := values.pop(name)) is None:
                continue
            if setting is None:
                changes[field] = _parsed(name, kind, value)
            else:
                changes.setdefault(field, {})[setting] = _parsed(name, kind, value)
        command(**values, changes=changes)

    own = signature(command, eval_str=True).parameters.values()
    parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own if p.name != "changes"] + options
    wrapped.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _parsed(name: str, kind: Any, value: Any) -> Any:
    """An option's value: lists are written 784-128-10, relu,tanh and 0.2,0.5."""
    if typing.get_origin(kind) is not tuple:
        return value
    if (element := typing.get_args(kind)[0]) is str:
        return tuple(value.split(","))
    try:
        if element is float:
            return tuple(map(float, value.split(",")))
        return tuple(int(n) for n in value.replace(",", "-").split("-"))
    except ValueError:
        such = "numbers such as 0.2,0.5" if element is float else "sizes such as 784-128-10"
        raise UsageError(f"--{name} takes {such}, not {value!r}") from None


def require_json(path: str | None) -> None:
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


def refuse_overwriting(written: dict[str, Any], read: Iterable[Any]) -> None:
    """Refuse to write a file over one that is read; ``written`` is by option, and may have None.

    Raises:
        UsageError: names the option.
    """
    files = [Path(file) for file in read if file is not None and os.path.exists(file)]
    for option_name, target in written.items():
        if target in (None, "-") or not os.path.exists(target):
            continue
        if any(os.path.samefile(target, file) for file in files):
            raise UsageError(f"{option_name} {target} would be written over what is read")


def write_json(path: str | None, result: dict[str, Any]) -> None:
    if path == "-":
        print(as_json(result, sys.stdout.encoding or "utf-8"))
    elif path is not None:
        try:
            Path(path).write_text(as_json(result) + "\n", encoding="utf-8")  # in place, for it may be a pipe
        except OSError as error:
            raise GpubpError(f"cannot write {path}: {error.strerror or error}") from error
