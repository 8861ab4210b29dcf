"""gpubp export: a model in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpubp.cli.app import app
from gpubp.errors import UsageError


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="The model.npz that a run saved, or a .safetensors")],
    out: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A .onnx, .safetensors or .npz file to write")
    ],
    byte_inputs: Annotated[
        bool, typer.Option("--bytes", help="Let the ONNX graph take bytes and divide them by 255 itself")
    ] = False,
) -> None:
    """Write a model in another format: ONNX, safetensors, or gpubp's own .npz."""
    from gpubp import formats

    suffix = out.suffix.lower()
    if suffix not in formats.FORMATS:
        *others, last = formats.FORMATS
        raise UsageError(f"{out}: export writes {', '.join(others)} or {last}, by the name's ending")
    if byte_inputs and suffix != ".onnx":
        raise UsageError(
            f"--bytes is for ONNX, whose graph would scale them; {suffix} holds the parameters alone"
        )
    network = formats.load(model, checkpoints=False)
    formats.save(network, out, byte_inputs=byte_inputs)
    if suffix != ".onnx":
        print(f"{network!r} written to {out}")
        return
    takes = "uint8" if byte_inputs else str(network.dtype)
    print(f"{network!r} written to {out}; it takes {takes} rows of {network.sizes[0]}")
    if not byte_inputs:
        print("images as bytes must be divided by 255 first; --bytes lets the graph do so")
