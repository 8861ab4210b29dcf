"""gpubp explain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpubp.cli.app import app
from gpubp.cli.options import DataDirOption, JsonOption, recipe_options, require_json, write_json
from gpubp.errors import UsageError

if TYPE_CHECKING:
    from gpubp.data import Dataset
    from gpubp.data.samples import Samples
    from gpubp.experiments.recipe import Recipe
    from gpubp.functions import Loss
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
        Path | None, typer.Option(help="Look at this model.npz, not at a new network", rich_help_panel="Run")
    ] = None,
    sample: Annotated[
        int, typer.Option(help="The sample of the mini-batch whose numbers are shown", rich_help_panel="Run")
    ] = 0,
    descent: Annotated[
        bool,
        typer.Option("--descent", help="Gradient descent on a² + b² alone, at --lr", rich_help_panel="Run"),
    ] = False,
    data_dir: DataDirOption = None,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page, for class", rich_help_panel="Run")
    ] = None,
    json_path: JsonOption = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Walk one mini-batch through backpropagation, number by number: the four equations, their gradients beside
    finite differences, the update, and where the error fades. With --epochs N, after so much training."""
    require_json(json_path)
    if descent:
        if recipe or model or html or set(changes) - {"lr"}:
            raise UsageError(
                "--descent shows a² + b² and no network: beside it there are only --lr and --json"
            )
        _descent(changes.get("lr", 0.3), json_path)
        return
    from gpubp.experiments import recipe as recipes
    from gpubp.explain import microscope
    from gpubp.explain import words as explanation

    chosen = recipes.load(recipe or DEFAULT).overridden(changes)
    subject = _subject(chosen, changes, model, data_dir, quiet=json_path == "-")
    if not 0 <= sample < len(subject.batch):
        raise UsageError(
            f"--sample counts from 0 to {len(subject.batch) - 1} in this mini-batch, not {sample}"
        )
    step = microscope.walk(subject.network, subject.batch, subject.loss, chosen.build_optimizer(), subject.lr)
    if html is not None:
        from gpubp.reports import explain as page

        page.write(html, step, sample, subject.title, subject.told, subject.dataset)
    write_json(json_path, {"recipe": chosen.name, "shown": subject.told, **explanation.to_dict(step, sample)})
    if json_path == "-":
        return
    if html is not None:
        print(f"written to {html}")
        return
    from gpubp.explain import terminal as explain_text

    explain_text.show(step, sample, subject.title, subject.told)


def _descent(lr: float, json_path: str | None) -> None:
    from gpubp.explain import microscope
    from gpubp.explain import words as explanation

    microscope.descent(lr)  # refuses an η that is none
    write_json(json_path, explanation.descent_to_dict(lr))
    if json_path != "-":
        from gpubp.explain import terminal as explain_text

        explain_text.show_descent(lr)


@dataclass(frozen=True)
class _Subject:
    """What is looked at, and in words how it came to be."""

    network: Network
    batch: Samples
    loss: Loss
    lr: float
    dataset: Dataset
    title: str
    told: str


def _subject(
    recipe: Recipe, changes: dict[str, Any], model: Path | None, data_dir: Path | None, *, quiet: bool
) -> _Subject:
    """The network, new, trained or loaded, and the mini-batch that training takes first."""
    from dataclasses import replace

    from gpubp import formats
    from gpubp.data.samples import prepare
    from gpubp.experiments import run as experiment
    from gpubp.explain import microscope
    from gpubp.functions import LOSSES, lookup
    from gpubp.training.progress import progress_for

    own = [f"--{name.replace('_', '-')}" for name in OF_A_MODEL if name in changes]
    if model is not None and own:
        raise UsageError(f"--model brings its own network: leave out {', '.join(own)}")
    trained = model is not None or "epochs" in changes
    parts = experiment.load(recipe, recipe.seed, data_dir, quiet)
    if model is not None:
        network, told = formats.load(model, checkpoints=False), f"as {model} holds it"
    elif trained:
        result = experiment.run(
            replace(recipe, splits=1),
            data_dir=data_dir,
            backend="numpy",
            verify="off",
            progress=lambda: progress_for(quiet=quiet),
            quiet=quiet,
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        network, told = result.network, f"after {len(result.histories[0])} epochs of training"
    else:
        network, told = recipe.network(recipe.seed), f"new, its weights drawn with seed {recipe.seed}"
    if model is not None and network.sizes[0] != parts.dataset.n_in:
        raise UsageError(
            f"{model} takes {network.sizes[0]} inputs, and those of {recipe.name} are {parts.dataset.n_in}: name the "
            f"recipe it was trained by, gpubp explain NAME --model {model}"
        )
    network = microscope.in_float64(network)
    # A trained network takes inputs as they come: its scaling is part of W1.
    train = parts.train if trained else parts.scaled(parts.train)
    loss = lookup(LOSSES, recipe.loss, "loss")
    samples = prepare(train, network.sizes, network.dtype, loss, recipe.data).samples
    batch = microscope.first_mini_batch(samples, recipe.batch_size, recipe.seed)
    steps = -(-len(samples) // recipe.batch_size)
    lr = recipe.build_optimizer().lr * recipe.build_schedule().factors(0, 1, steps, recipe.epochs)[0]
    title = f"{recipe.name}: {recipe.title}" if recipe.title else recipe.name
    return _Subject(network, batch, loss, float(lr), parts.dataset, title, told)
