"""A training run read back from its folder, as :mod:`gpubp.experiments.folder` wrote it."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.experiments.folder import CHECKPOINT, FORMAT, MODEL, OUTPUTS, RECIPE, RUN, checksum
from gpubp.experiments.parts import load_parts
from gpubp.experiments.recipe import Recipe, load_with_run
from gpubp.experiments.run import About, Evidence, Examples, Result
from gpubp.formats import npz
from gpubp.support.records import from_plain
from gpubp.training.checkpoint import fingerprint
from gpubp.training.history import History
from gpubp.training.signals import LayerSignal, Signals

KIND = "record of a gpubp run"


def read_result(folder: Path, *, data_dir: str | os.PathLike | None = None, quiet: bool = False) -> Result:
    """The result of the run that left ``folder``, whether it succeeded or failed.

    The inputs of its test samples come from the recipe's data. Where that is gone or has changed, ``lacking`` of the
    result says so.

    Args:
        data_dir: the folder with the files of mnist or fashion-mnist, if they are not where they were.

    Raises:
        UsageError: it is no folder.
        DataError: there is no such folder, or a file in it is missing, damaged, or not the one that the run left.
    """
    _require(folder)
    table = _read(folder / RUN)
    with npz.reading(folder / RUN, KIND):
        failed = from_plain(str | None, table["error"]) is not None
    arrays = _file(folder / OUTPUTS, table)[1]
    of_network = folder / (OUTPUTS if failed else MODEL)
    network = npz.build_network(of_network, *_file(of_network, table))
    with npz.reading(folder / RUN, KIND, IndexError):
        splits, about = table["splits"], table["evidence"]
        signals = _signals(table["signals"], len(splits))
        evidence = [
            Evidence(
                arrays.get(f"outputs_{split}"),
                signals[split - 1],
                from_plain(int, of_split["samples"]),
                targets=arrays.get(f"targets_{split}"),
                tested_on=from_plain(str | None, of_split["tested_on"]),
                examples=_examples(arrays, split),
            )
            for split, of_split in enumerate(about, start=1)
        ]
        result = Result(
            recipe=Recipe.from_dict(table["recipe"], "recipe"),
            network=network,
            histories=[from_plain(History, split) for split in splits],
            accuracies=[from_plain(float | None, split["test_accuracy"]) for split in splits],
            evidence=evidence,
            failure=from_plain(str | None, table["error"]),
            seconds=from_plain(float, table["seconds"]),
            data=from_plain(About | None, table["data"]),
            versions=from_plain(dict[str, str], table["versions"]),
            processor=from_plain(str, table["processor"]),
            cores=from_plain(int, table["cores"]),
        )
        if not 0 < len(splits) == len(about):
            raise ValueError(f"it has {len(splits)} splits and evidence of {len(about)}")
    _look_up_inputs(result, folder, data_dir, quiet)
    return result


def _require(folder: Path) -> None:
    """Say of what is no folder with a record what it is, and what to do."""
    if not os.path.exists(folder):
        raise DataError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: give the folder that a training run left, {folder.parent}")
    if (folder / RUN).exists():
        return
    if not any((folder / name).exists() for name in (MODEL, CHECKPOINT, RECIPE)):
        raise DataError(f"{folder} is not the folder of a training run: there is no {RUN} in it")
    again = f"{folder / RECIPE}" if (folder / RECIPE).exists() else f"--resume {folder / CHECKPOINT}"
    raise DataError(
        f"there is no {folder / RUN}, from which the page is drawn: the run did not end, or was made by a gpubp that "
        f"did not write one. Train again: gpubp train {again}"
    )


def _read(path: Path) -> dict[str, Any]:
    with npz.reading(path, KIND, RecursionError):
        table = json.loads(path.read_text(encoding="utf-8"))
        version = from_plain(int, table["format"])
    if version > FORMAT:
        raise DataError(f"{path} was written by a newer gpubp (format {version}); upgrade gpubp")
    return table


def _file(path: Path, table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and arrays of a file, if it is the one that the run left."""
    with npz.reading(path.parent / RUN, KIND):
        left = from_plain(dict[str, str], table["files"]).get(path.name)
    with npz.reading(path, KIND):
        found = checksum(path)
    if found != left:
        raise DataError(
            f"{path} is not the file that the run left, as {path.parent / RUN} tells it: bring that one back, or "
            f"train again: gpubp train {path.parent / RECIPE}"
        )
    return npz.read(path, "file")


def _examples(arrays: dict[str, np.ndarray], split: int) -> Examples | None:
    """Those of a split; a file that has but a part of them was not written here."""
    names = [f"examples_{field.name}_{split}" for field in fields(Examples)]
    return Examples(*(arrays[name] for name in names)) if names[0] in arrays else None


def _signals(rows: list[dict[str, Any]], splits: int) -> list[Signals]:
    """Each split's signals of rows that are those of signals.csv."""
    found: list[Signals] = [{} for _ in range(splits)]
    for row in rows:
        found[row["split"] - 1].setdefault(row["epoch"], []).append(from_plain(LayerSignal, row))
    return found


def _look_up_inputs(result: Result, folder: Path, data_dir: str | os.PathLike | None, quiet: bool) -> None:
    """Give the evidence its test inputs again, all or none: those of the data where the run's recipe says it is."""
    inputs: list[Any] = []
    if all(evidence.outputs is None for evidence in result.evidence):
        return  # there is nothing to show them with
    try:
        there, run = load_with_run(str(folder / RECIPE))
        recipe = replace(result.recipe, data=there.data, test_data=there.test_data)
        for seed, evidence in enumerate(result.evidence, start=recipe.seed):
            if evidence.outputs is None:
                inputs.append(None)
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run has said them
                test = load_parts(recipe, seed, data_dir or run.data_dir, quiet).test
            if test is None or fingerprint(test) != evidence.tested_on:
                tested_on = recipe.test_data or recipe.data
                raise DataError(f"{tested_on} does not give the samples that the run was tested on")
            inputs.append(test.inputs)
    except GpubpError as error:
        result.lacking = f"the inputs of the test samples are not shown: {error}"
        return
    for evidence, found in zip(result.evidence, inputs, strict=True):
        evidence.inputs = found
