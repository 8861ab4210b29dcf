"""The command line. Heavy imports stay inside commands, so that ``gpubp --help`` answers at once."""

from gpubp.cli import train, use, explain, bench, machine  # noqa: F401, I001 - each adds its commands, in the order of --help
from gpubp.cli.app import app, main

__all__ = ["app", "main"]
