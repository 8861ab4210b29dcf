"""The folder of a training run: the recipe, the history and the layers' signals as text files, and the run's record.

``recipe.toml`` repeats the run: ``gpubp train FOLDER/recipe.toml``. ``history.csv`` has a row for each epoch of each
split: the fields of :class:`gpubp.training.history.Epoch`. ``signals.csv`` has a row for each layer (1 is the first
after the inputs) at each epoch that was measured, epoch 0 being before training: the fields of
:class:`gpubp.training.signals.LayerSignal`. Cells are empty where there is nothing to say. ``run.json`` has all that
``gpubp train --json`` writes and what else the page tells, and ``outputs.npz`` each split's outputs for the test part
with their targets, as ``outputs_1``, ``targets_1`` …, and a few images that were deformed:
:func:`gpubp.experiments.saved.read_result` reads them.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.errors import GpubpError
from gpubp.experiments.recipe import Recipe, RunSettings, load_recipe, to_toml, with_whole_paths
from gpubp.formats import npz
from gpubp.support.files import folder_to_fill, write_text
from gpubp.support.records import as_text
from gpubp.training.history import Epoch
from gpubp.training.signals import LayerSignal, Signals

if TYPE_CHECKING:
    from gpubp.experiments.run import Result

FORMAT = 1  # of run.json; raised when an older gpubp could no longer read what is written
MODEL, CHECKPOINT, RUN, OUTPUTS, RECIPE = (
    "model.npz",
    "checkpoint.npz",
    "run.json",
    "outputs.npz",
    "recipe.toml",
)
LEFT = (MODEL, CHECKPOINT, RUN, OUTPUTS, RECIPE, "history.csv", "signals.csv")  # by a run, besides its page
HISTORY = ("split", *(field.name for field in fields(Epoch)))
SIGNALS = ("split", "epoch", "layer", *(field.name for field in fields(LayerSignal)))


def run_folder(given: Path | None, name: str) -> AbstractContextManager[Path]:
    """The folder of a run: the one ``given``, or gpubp-runs/NAME-1, -2, …, so that no run overwrites another's model.

    It is held as by :func:`gpubp.support.files.folder_to_fill`.
    """
    return folder_to_fill(given, (Path("gpubp-runs", f"{name}-{number}") for number in count(1)))


def write_records(folder: Path, result: Result, run: RunSettings) -> None:
    """Write what a run leaves beside its model and checkpoint."""
    epochs = [
        {"split": split, **vars(epoch)}
        for split, history in enumerate(result.histories, start=1)
        for epoch in history.epochs
    ]
    signals = [
        {"split": split, "epoch": epoch, "layer": layer, **vars(signal)}
        for split, evidence in enumerate(result.evidence, start=1)
        for epoch, of_layers in sorted(evidence.signals.items())
        for layer, signal in enumerate(of_layers, start=1)
    ]
    write_text(folder / "history.csv", _table(HISTORY, epochs), durable=False)
    write_text(folder / "signals.csv", _table(SIGNALS, signals), durable=False)
    _write_outputs(folder / OUTPUTS, result)
    write_text(folder / RUN, as_text(_record(folder, result, signals)))
    run = replace(run, backend=result.histories[-1].backend)  # what "auto" chose
    write_text(folder / RECIPE, recipe_text(result.recipe, run), durable=False)


def _write_outputs(path: Path, result: Result) -> None:
    """Each split's outputs, targets and examples, and the network of a run that failed: it may have left no model."""
    arrays = npz.network_arrays(result.network) if result.failure else {}
    for split, evidence in enumerate(result.evidence, start=1):
        if evidence.outputs is not None and evidence.targets is not None:
            arrays |= {f"outputs_{split}": evidence.outputs, f"targets_{split}": evidence.targets}
        if evidence.examples is not None:
            arrays |= {f"examples_{name}_{split}": array for name, array in vars(evidence.examples).items()}
    npz.write(path, {"network": npz.network_header(result.network)}, arrays)


def _record(folder: Path, result: Result, signals: list[dict[str, Any]]) -> dict[str, Any]:
    files = [OUTPUTS] if result.failure else [OUTPUTS, MODEL]
    return {
        "format": FORMAT,
        "ok": result.failure is None,
        "error": result.failure,
        **result.to_dict(),
        "processor": result.processor,
        "cores": result.cores,
        "data": None if result.data is None else asdict(result.data),
        "evidence": [{"samples": e.samples, "tested_on": e.tested_on} for e in result.evidence],
        "files": {name: checksum(folder / name) for name in files if (folder / name).exists()},
        "signals": signals,
    }


def checksum(path: Path) -> str:
    return f"crc32 {zlib.crc32(path.read_bytes()):08x}"


def recipe_text(recipe: Recipe, run: RunSettings) -> str:
    """The recipe as a file that means the same from any folder: paths in it are whole."""
    return to_toml(*with_whole_paths(recipe, run))


def found_beside(checkpoint: Path, recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """Whole paths for those of these keys whose paths in a checkpoint's recipe are relative, as an older gpubp's are.

    They are those of the recipe.toml beside it or, where that has none that leads to a file, lead from the working
    folder.
    """
    whole = with_whole_paths(recipe, RunSettings())[0]
    try:
        saved = load_recipe(str(checkpoint.parent / RECIPE))
    except GpubpError:
        saved = whole
    found = {}
    for key in keys:
        if (path := getattr(whole, key)) != getattr(recipe, key):
            beside = Path(getattr(saved, key) or path)
            found[key] = str(beside) if beside.name == Path(path).name and beside.exists() else path
    return found


def read_signals(folder: Path, layers: int) -> Signals:
    """The first split's signals in ``folder``/signals.csv, of a net with that many layers; {} if nothing of use."""
    found: Signals = {}
    measured = [field.name for field in fields(LayerSignal)]
    try:
        with open(folder / "signals.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] == "1":
                    values = (float(row[name]) if row[name] else None for name in measured)
                    found.setdefault(int(row["epoch"]), []).append(LayerSignal(*values))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return {}
    return found if all(len(signals) == layers for signals in found.values()) else {}


def _table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return text.getvalue()
