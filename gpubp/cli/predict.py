"""gpubp predict: labels or outputs for every row of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gpubp.cli.app import app
from gpubp.cli.options import JsonOption, ModelArgument, path, refuse_overwriting, require_json, write_json

INPUTS = "A table (.csv, .tsv, .parquet), .npy, .npz, IDX, .png or .jpg file; tables, .npy and IDX may exceed memory"
OUT = "Write predictions to this .npy or .csv file, whole or not at all, instead of printing"


DelimiterOption = Annotated[str | None, typer.Option(help="What separates a table's cells: , or ; or tab")]
DecimalOption = Annotated[str, typer.Option(help="What a table's numbers have before their fraction: . or ,")]
HeaderOption = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether a table's first row names its columns", show_default=False
    ),
]


@app.command()
def predict(
    model: ModelArgument,
    inputs: Annotated[Path, typer.Argument(help=INPUTS, **path("INPUT"))],
    proba: Annotated[bool, typer.Option("--proba", help="Print the outputs, not the labels")] = False,
    out: Annotated[Path | None, typer.Option(help=OUT, **path())] = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = ".",
    header: HeaderOption = None,
    json_path: JsonOption = None,
) -> None:
    """Predict the label of every row of a file, one a line, as they come.

    A table's columns are found by the names that the model was trained with, if both have names."""
    from gpubp import formats
    from gpubp.data import stream_inputs
    from gpubp.data.predictions import require_suffix, write_predictions
    from gpubp.data.tables import TableFormat

    require_json(json_path)
    if out is not None:
        require_suffix(out)
    how = TableFormat(delimiter=delimiter, decimal=decimal, header=header)
    refuse_overwriting({"--out": out, "--json": json_path}, [model, inputs])
    network = formats.load(model, checkpoints=False)
    method = "predict_proba" if proba else "predict"
    rows_of = stream_inputs(inputs, network.chunk(), inputs=network.inputs, table=how)
    parts = network.without_names().stream(rows_of, method, name=str(inputs))
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
