"""The command line. Heavy imports stay inside commands, so that ``gpubp --help`` answers at once."""

from gpubp.cli import train, report, predict, export, verify, explain, bench, warmup, doctor, fetch, recipes  # noqa: F401, I001 - each adds its command, in the order of --help
from gpubp.cli.app import app, main

__all__ = ["app", "main"]
