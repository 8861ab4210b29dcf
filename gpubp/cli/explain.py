"""gpubp explain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpubp.cli.app import app
from gpubp.cli.options import (
    DataDirOption,
    JsonOption,
    option,
    path,
    recipe_options,
    refuse_overwriting,
    require_json,
    write_json,
)
from gpubp.errors import UsageError

if TYPE_CHECKING:
    from gpubp.data.dataset import Split
    from gpubp.experiments.parts import Parts
    from gpubp.experiments.recipe import Recipe
    from gpubp.network import Network

DEFAULT = "parity"  # its every number fits on a screen
OF_A_MODEL = ("layers", "hidden", "output", "init", "dtype", "epochs")


@app.command()
@recipe_options
def explain(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE.toml]", help="See: gpubp recipes", show_default=DEFAULT),
    ] = None,
    model: Annotated[
        Path | None, option(help="Look at this model.npz or .safetensors, not at a new network", **path())
    ] = None,
    sample: Annotated[int, option(help="The sample of the mini-batch whose numbers are shown")] = 0,
    descent: Annotated[bool, option("--descent", help="Gradient descent on a² + b² alone, at --lr")] = False,
    data_dir: DataDirOption = None,
    html: Annotated[Path | None, option(help="Write it as a page, for class", **path())] = None,
    json_path: JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Walk one mini-batch through backpropagation, number by number: the four equations, their gradients beside
    finite differences, the update, and where the error fades. With --epochs N, after N epochs of training."""
    from gpubp import formats
    from gpubp.explain import microscope, terminal, words

    require_json(json_path)
    if descent:
        if recipe or model or html or set(changes) - {"lr"}:
            raise UsageError("--descent shows a² + b² and no network: it takes only --lr and --json")
        lr = changes.get("lr", 0.3)
        write_json(json_path, words.descent_to_dict(lr))  # refuses an η that is none
        if json_path != "-":
            terminal.show_descent(lr)
        return
    from gpubp.experiments.parts import load_parts
    from gpubp.experiments.recipe import load_recipe

    chosen = load_recipe(recipe or DEFAULT, changes)
    own = [f"--{name}" for name in OF_A_MODEL if name in changes]
    if model is not None and own:
        raise UsageError(f"--model brings its own network: leave out {', '.join(own)}")
    quiet = json_path == "-"
    refuse_overwriting({"--json": json_path, "--html": html}, [model, recipe, chosen.data, chosen.test_data])
    given = None if model is None else formats.load_network(model, checkpoints=False)
    if given is not None:  # which decides what targets are
        chosen = replace(chosen, layers=tuple(given.sizes), output=given.layers[-1].activation)
    parts = load_parts(chosen, chosen.seed, data_dir, quiet)
    if given is not None:
        network, told = given, f"as {model} holds it"
        train = _fitting(given, model, parts, chosen)
    elif "epochs" in changes:
        network, epochs = _trained(chosen, data_dir, quiet)
        told = f"after {epochs} epochs of training"
    else:
        network, told = chosen.network(chosen.seed), f"new, its weights drawn with seed {chosen.seed}"
    # A trained network takes inputs as they come, and scales them itself.
    if model is None:
        train = parts.train if "epochs" in changes else parts.scaled(parts.train)
    step = microscope.first_step(network, train, chosen, parts.dataset.image_shape or ())
    last = len(step.samples) - 1
    if not 0 <= sample <= last:
        raise UsageError(f"--sample counts from 0 to {last} in this mini-batch, not {sample}")
    if html is not None:
        from gpubp.reports.explain import write_page

        write_page(html, step, sample, chosen.heading, told, parts.dataset)
    write_json(json_path, {"recipe": chosen.name, "shown": told, **words.to_dict(step, sample)})
    if html is not None and not quiet:
        print(f"written to {html}")
    elif not quiet:
        terminal.show(step, sample, chosen.heading, told)


def _fitting(network: Network, model: Path | None, parts: Parts, recipe: Recipe) -> Split:
    """The samples to train on, their columns in the order of the model's where both have names.

    Raises:
        UsageError, DataError: the model is of other data.
    """
    dataset, trained_with = parts.dataset, "name the recipe it was trained with"
    if network.sizes[0] != dataset.n_in and not network.inputs.names:
        raise UsageError(
            f"{model} takes {network.sizes[0]} inputs, but {recipe.name} has {dataset.n_in}: {trained_with}, "
            f"gpubp explain NAME --model {model}"
        )
    names, theirs = network.classes, dataset.class_names
    if names and theirs and tuple(map(str, names[: len(theirs)])) != theirs:
        raise UsageError(
            f"the classes of {model} are {', '.join(map(str, names))}, but those of {recipe.name} are "
            f"{', '.join(theirs)}: {trained_with}"
        )
    places = network.inputs.order_of(dataset.feature_names or (), recipe.data)
    return parts.train if places is None else replace(parts.train, inputs=parts.train.inputs[:, places])


def _trained(recipe: Recipe, data_dir: Path | None, quiet: bool) -> tuple[Network, int]:
    """The network after the recipe's epochs, and how many there were."""
    from gpubp.experiments.run import run_recipe
    from gpubp.training.progress import progress_for

    shown: dict[str, Any] = {"progress": lambda: progress_for(quiet=quiet), "quiet": quiet}
    once = replace(recipe, splits=1)
    result = run_recipe(once, data_dir=data_dir, backend="numpy", verify="off", **shown)
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result.network, len(result.histories[0])
