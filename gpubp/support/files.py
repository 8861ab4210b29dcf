"""Files written whole: a reader sees the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from gpubp.errors import GpubpError


def write_atomically(path: str | os.PathLike, fill: Callable[[BinaryIO], object]) -> Path:
    """Let ``fill`` write a temporary file, then give it the name ``path``; makes the folders above it.

    Raises:
        GpubpError: no name for a file, or the folder cannot be written or is full; an old file is left as it was.
    """
    path = Path(path)
    if not path.name:
        raise GpubpError(f"cannot write {path}: it is a folder; give the name of a file")
    # The name is this call's own: another thread or process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise GpubpError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what kept it from being written may keep it from being looked for
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: str | os.PathLike, content: bytes) -> Path:
    """Write bytes as :func:`write_atomically` does."""
    return write_atomically(path, lambda file: file.write(content))


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text as :func:`write_atomically` does."""
    return write_bytes(path, text.encode())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
