"""gpubp predict and gpubp verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

    require_json(json_path)
    header, arrays = checkpoint.read(model)
    if "training" in header:  # its network takes inputs as they were scaled for training
        raise DataError(
            f"{model} is a checkpoint, for --resume; predict takes the model.npz that the run saved"
        )
    network = checkpoint.build_network(model, header, arrays)
    outputs = network.predict_proba(load_inputs(inputs)) if proba else network.predict(load_inputs(inputs))
    write_json(json_path, {"model": str(model), "input": str(inputs), "predictions": outputs.tolist()})
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
