"""gpubp predict, gpubp export and gpubp verify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gpubp.cli.app import app
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
    require_json,
    write_json,
)
from gpubp.errors import UsageError


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The model.npz that a run saved, or a .safetensors")],
    inputs: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .npy, .npz, .csv, IDX, .png or .jpg file; .npy, .csv and IDX may exceed memory",
        ),
    ],
    proba: Annotated[bool, typer.Option("--proba", help="Print the outputs, not the labels")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write them to this .npy or .csv file, whole or not at all, instead of printing",
            show_default=False,
        ),
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """Predict the label of every row of a file, one a line, as they come."""
    from gpubp.data import stream_inputs
    from gpubp.data.predictions import require_suffix, write_predictions
    from gpubp.formats import npz as checkpoint

    require_json(json_path)
    if out is not None:
        require_suffix(out)
    network = checkpoint.load_model(model)
    method = "predict_proba" if proba else "predict"
    parts = network.stream(stream_inputs(inputs, network.chunk()), method, name=str(inputs))
    kept: list = []
    if json_path is not None:
        parts = _keeping(parts, kept)
    if out is not None:
        rows = write_predictions(out, parts, network.classes if proba else None)
        if json_path != "-":
            print(f"{rows:,} predictions written to {out}")
    else:
        for part in parts:
            if json_path != "-":
                _print_rows(part)
    write_json(json_path, {"model": str(model), "input": str(inputs), "predictions": kept})


def _keeping(parts: Iterator[Any], kept: list) -> Iterator[Any]:
    for part in parts:
        kept += part.tolist()
        yield part


def _print_rows(part: Any) -> None:
    import numpy as np

    for row in part:
        print(*(f"{value:.6g}" if isinstance(value, np.floating) else value for value in np.atleast_1d(row)))
    sys.stdout.flush()  # for whoever reads along


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="The model.npz that a run saved, or a .safetensors")],
    out: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A .onnx, .safetensors or .npz file to write")
    ],
    byte_inputs: Annotated[
        bool, typer.Option("--bytes", help="Let the ONNX graph take bytes and divide them by 255 itself")
    ] = False,
) -> None:
    """Write a model in another format: ONNX, safetensors, or gpubp's own .npz."""
    from gpubp.formats import npz as checkpoint

    suffix = out.suffix.lower()
    if suffix not in (".onnx", ".safetensors", ".npz"):
        raise UsageError(f"{out}: export writes .onnx, .safetensors or .npz, by the name's ending")
    if byte_inputs and suffix != ".onnx":
        raise UsageError(
            f"--bytes is for ONNX, whose graph would scale them; {suffix} holds the parameters alone"
        )
    network = checkpoint.load_model(model)
    if suffix != ".onnx":
        network.save(out)
        print(f"{network!r} written to {out}")
        return
    network.to_onnx(out, byte_inputs=byte_inputs)
    takes = "uint8" if byte_inputs else str(network.dtype)
    print(f"{network!r} written to {out}; it takes {takes} rows of {network.sizes[0]}")
    if not byte_inputs:
        print("images as bytes must be divided by 255 first; --bytes lets the graph do so")


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
    from gpubp import backends
    from gpubp import verify as verify_network
    from gpubp.experiments import recipe as recipes
    from gpubp.experiments import run as experiment

    require_json(json_path)
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
    write_json(
        json_path,
        {"recipe": chosen.name, "backend": device.name, "device": device.describe(), **report.to_dict()},
    )
    if not report.ok:
        raise typer.Exit(3)
