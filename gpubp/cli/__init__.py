"""The command line. Heavy imports stay inside commands, so that ``gpubp --help`` answers at once."""

# Each adds its command, in the order of --help.
from gpubp.cli import train, sweep, report, predict, export, verify, explain  # noqa: F401, I001
from gpubp.cli import bench, warmup, doctor, fetch, recipes  # noqa: F401
from gpubp.cli.app import app, main

__all__ = ["app", "main"]
