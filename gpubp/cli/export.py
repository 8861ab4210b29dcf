"""gpubp export: a model in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpubp import formats
from gpubp.cli.app import app
from gpubp.cli.options import ModelArgument, path
from gpubp.errors import UsageError

*_OTHERS, _LAST = formats.FORMATS
ENDINGS = f"{', '.join(_OTHERS)} or {_LAST}"


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help=f"A {ENDINGS} file to write", **path("OUTPUT"))],
    byte_inputs: Annotated[
        bool, typer.Option("--bytes", help="Let the ONNX graph take bytes and divide them by 255 itself")
    ] = False,
) -> None:
    """Write a model in another format, given by the ending of OUTPUT."""
    suffix = out.suffix.lower()
    if suffix not in formats.FORMATS:
        raise UsageError(f"{out}: export writes {ENDINGS}, by the name's ending")
    network = formats.load(model, checkpoints=False)
    formats.save(network, out, byte_inputs=byte_inputs)
    takes = f"; it takes {'uint8' if byte_inputs else network.dtype} rows of {network.sizes[0]}"
    print(f"{network!r} written to {out}{takes if suffix == '.onnx' else ''}")
    if suffix == ".onnx" and not byte_inputs and network.inputs.kind != "numbers":
        print("images as bytes must be divided by 255 first; --bytes lets the graph do so")
