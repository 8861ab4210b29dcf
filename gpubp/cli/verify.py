"""gpubp verify: a backend held to the reference on a recipe."""

from __future__ import annotations

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
    import gpubp
    from gpubp import backends
    from gpubp.experiments.recipe import load_recipe
    from gpubp.experiments.run import load_parts

    require_json(json_path)
    chosen = load_recipe(recipe or DEFAULT_RECIPE)
    device = backends.get(backend, threads=threads, plan=plan, precision=precision)
    parts = load_parts(chosen, chosen.seed, data_dir, quiet)
    train = parts.scaled(parts.dataset.train)
    report = gpubp.verify(
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
