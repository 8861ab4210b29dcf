"""gpubp verify: a backend held to the reference on a recipe."""

from __future__ import annotations

import typer

from gpubp.cli import options
from gpubp.cli.app import app


@app.command()
def verify(
    recipe: options.RecipeArgument = None,
    backend: options.BackendOption = "auto",
    threads: options.ThreadsOption = None,
    plan: options.PlanOption = "auto",
    precision: options.PrecisionOption = "float32",
    data_dir: options.DataDirOption = None,
    quiet: options.QuietOption = False,
    json_path: options.JsonOption = None,
) -> None:
    """Hold a backend to the reference on a recipe's network and data: every operation and gradient, and one step."""
    import gpubp
    from gpubp import backends
    from gpubp.data.inputs import Inputs
    from gpubp.experiments.parts import load_parts
    from gpubp.experiments.recipe import load_recipe

    options.require_json(json_path)
    chosen = load_recipe(recipe or options.DEFAULT_RECIPE)
    device = backends.get(backend, threads=threads, plan=plan, precision=precision)
    parts = load_parts(chosen, chosen.seed, data_dir, quiet)
    train = parts.scaled(parts.dataset.train)
    network, step = chosen.network(chosen.seed), chosen.build_optimizer()
    network.inputs = Inputs(shape=parts.dataset.image_shape or ())
    report = gpubp.verify(
        network,
        train.inputs,
        train.targets,
        loss=chosen.loss,
        optimizer=step,
        dropout=chosen.dropout or 0.0,
        deform=chosen.deform,
        backend=device,
    )
    if not quiet and json_path != "-":
        print(report)
    about = {"recipe": chosen.name, "backend": device.name, "device": device.describe()}
    options.write_json(json_path, about | report.to_dict())
    if not report.ok:
        raise typer.Exit(3)
