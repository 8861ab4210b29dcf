"""The command line itself: the program, its exit codes, and how errors are told."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from gpubp.errors import INTERRUPTED, GpubpError
from gpubp.support import spelling

app = typer.Typer(
    name="gpubp",
    help="Train multi-layer perceptrons, every step held to the NumPy reference. Try: gpubp train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failure, 2 usage, 3 verification failed, 4 backend unavailable,
    5 data missing or corrupt, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=spelling.NAME)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was done is kept
    try:
        code = _exit_code()
        sys.stdout.flush()  # Python's own, at exit, would end in a traceback
    except OSError as error:
        code = 1
        if error.filename is not None:
            print(f"error: {error}", file=sys.stderr)
        else:  # of a stream: what is printed
            if not isinstance(error, BrokenPipeError):  # whoever closed the pipe has read enough
                print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
    sys.exit(code)


def _exit_code() -> Any:
    """Run the command; the exit code for what came of it, with errors and warnings told."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app()
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except UnicodeEncodeError as error:  # not of what is printed, which is spelt out
        print(
            f"error: the name {error.object!r} cannot be written in this system's encoding, {error.encoding}: set "
            "PYTHONUTF8=1",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Tell of a warning in one line, without the line of code that it came from."""
    print("warning:", *str(message).split(), file=sys.stderr)


def _version(show: bool) -> None:
    if show:
        import gpubp

        print(f"gpubp {gpubp.__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
]


@app.callback()
def _root(version: VersionOption = False) -> None:
    pass
