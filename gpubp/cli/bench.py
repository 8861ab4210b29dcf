"""gpubp bench: how fast it is here, beside what other libraries take."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpubp.cli.app import app
from gpubp.cli.options import DataDirOption, JsonOption, QuietOption, path, require_json, write_json
from gpubp.errors import INTERRUPTED, GpubpError, UsageError

if TYPE_CHECKING:
    from gpubp.benchmark.measure import Case
    from gpubp.benchmark.peers import Peer
    from gpubp.benchmark.results import Report

RECIPES, QUICK_RECIPES = ("mnist-sample", "digits", "iris"), ("mnist-sample",)
NONE = "none"
NOT_VERIFIED = 3


@app.command()
def bench(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE.toml]…",
            help=f"Recipes whose nets are trained; by default {', '.join(RECIPES)}",
            show_default=False,
        ),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(help="numpy, numba, cupy, with commas between; by default all that can run here"),
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help=f"Other libraries, or {NONE}; by default all that are installed")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Only {', '.join(QUICK_RECIPES)}, and 3 rounds: under a minute")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="For each library; by default one per core")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="After the first epoch; by default 5, with --quick 3")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compile all again, so that cold is cold")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="An earlier results.json to compare with; exit code 1 on a regression",
            **path("OLD.json"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; by default gpubp-bench/DATE", show_default=False, **path()
        ),
    ] = None,
    data_dir: DataDirOption = None,
    quiet: QuietOption = False,
    json_path: JsonOption = None,
) -> None:
    """Time recipes on every backend, beside other libraries: in turn, round after round, results compared.

    All train the recipe's network by plain SGD, on its data, with its loss and batch size.

    The cupy backend runs on the GPU, all else on the processor. Writes report.html, results.json and results.csv.
    """
    from gpubp.benchmark import measure, results, terminal
    from gpubp.reports import benchmark as page
    from gpubp.support import machine
    from gpubp.support.files import folder_to_fill

    require_json(json_path)
    settings = measure.Settings(
        threads=machine.cores() if threads is None else threads,
        rounds=rounds if rounds is not None else 3 if quick else 5,
        budget=30.0 if quick else 150.0,
        fresh=fresh,
    )
    old = None if compare is None else results.read(compare)
    cases = _cases(recipes or list(QUICK_RECIPES if quick else RECIPES), data_dir)
    chosen, missing = _choose(backends, peers)
    console = terminal.console(stderr=json_path == "-")
    console.quiet = quiet
    say = (lambda _: None) if quiet else terminal.say
    today = Path("gpubp-bench") / datetime.now(UTC).date().isoformat()
    with folder_to_fill(out, results.numbered(today)) as folder:
        report = measure.run(cases, chosen, missing, settings, folder, console, say, page.write, old)
    write_json(json_path, results.to_dict(report))
    _exit(report)


def _cases(names: list[str], data_dir: Path | None) -> list[Case]:
    """The recipes' nets; recipes of the same name would be taken for each other.

    Raises:
        UsageError: a recipe that is none, cannot be compared, or has the name of another.
    """
    from functools import partial

    from gpubp.benchmark import data, nets
    from gpubp.benchmark.measure import Case
    from gpubp.experiments.recipe import OF_DATA, load_recipe

    cases: dict[str, Case] = {}
    for name in dict.fromkeys(names):
        recipe = load_recipe(name)
        if recipe.name in cases:
            raise UsageError(
                f"two recipes are called {recipe.name}: rename one, or run them one after the other"
            )
        net, notes = nets.of_recipe(recipe)
        key = tuple(getattr(recipe, name) for name in ("data", "seed", "split_seed", "standardize", *OF_DATA))
        load = partial(data.of_recipe, recipe, net, data_dir)
        cases[recipe.name] = Case(net, load, (key, net.layers[0], net.layers[-1]), recipe.name, tuple(notes))
    return list(cases.values())


def _choose(backends: str | None, peers: str | None) -> tuple[list[Peer], dict[str, str]]:
    """Choose what to measure, gpubp's backends first, and say why the others of the default cannot be.

    Raises:
        UsageError: no such backend or peer.
        BackendUnavailable: a backend was named that cannot run here.
        GpubpError: a library was named that is not installed.
    """
    from gpubp.backends import choose, why_unavailable
    from gpubp.benchmark.peers import CUPY, PEERS
    from gpubp.functions import lookup

    own = {peer.backend: peer for peer in (*PEERS, CUPY) if peer.backend is not None}
    libraries = {peer.name: peer for peer in PEERS if peer.backend is None}
    missing: dict[str, str] = {}
    if backends is None:
        reasons = {name: why_unavailable(name) for name in own}
        missing |= {own[name].name: why for name, why in reasons.items() if why}
        chosen = [peer for name, peer in own.items() if not reasons[name]]
    else:
        wanted = [lookup(own, name.strip(), "backend") for name in backends.split(",")]
        chosen = [peer for peer in own.values() if peer in wanted]
        for name, peer in own.items():
            if peer in chosen:
                choose(name)
    if peers is None:
        absent = {name: why for name, peer in libraries.items() if (why := peer.missing())}
        if own["numba"] not in chosen:  # fit is measured on it
            libraries.pop("gpubp-fit")
        return [*chosen, *(p for name, p in libraries.items() if name not in absent)], missing | absent
    named = [] if peers == NONE else peers.split(",")
    wanted = [lookup(libraries, name.strip(), "peer") for name in named]
    for peer in wanted:
        if why := peer.missing():
            raise GpubpError(f'peer {peer.name}: {why}; try: python -m pip install "gpubp[bench]"')
    return [*chosen, *(peer for peer in libraries.values() if peer in wanted)], missing


def _exit(report: Report) -> None:
    """130 interrupted, 3 a backend beyond its bounds, 1 one that failed or a regression."""
    own = [row for net in report.nets for row in net.rows if row.peer.startswith("gpubp")]
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if any(row.verification is not None and not row.verification["ok"] for row in own):
        raise typer.Exit(NOT_VERIFIED)
    regressions = report.comparison["regressions"] if report.comparison else 0
    if regressions or any(row.status == "failed" for row in own):
        raise typer.Exit(1)
