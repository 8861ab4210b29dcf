"""Paths as users write them, folders of a run's own, and files written whole: a reader sees the old or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from gpubp.errors import GpubpError


def user_path(path: str | os.PathLike) -> Path:
    """The path that a user means: ~ is the home folder. Whatever is given a path by a user takes it through this."""
    return Path(os.path.expanduser(path))


def user_cache() -> Path:
    """The folder for what can be had again: $GPUBP_CACHE_DIR, or else the user's cache of gpubp."""
    if root := os.environ.get("GPUBP_CACHE_DIR"):
        return user_path(root)
    try:
        from platformdirs import user_cache_path
    except ImportError:  # on a machine on which nothing can be installed, a cache is no reason to fail
        return user_path("~/.cache/gpubp")
    return user_cache_path("gpubp")


@contextmanager
def folder_to_fill(given: Path | None, new: Iterable[Path]) -> Iterator[Path]:
    """The folder ``given``, or else the first of ``new`` that nobody has, made if need be.

    One that cannot be written is refused now, not after the work. What was made is removed again if nothing is in it
    at the end.

    Raises:
        GpubpError: no folder, or no file, can be made there.
    """
    folder, made = given, False
    try:
        if folder is None:
            folder, made = make_first(new), True
        else:
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"written")  # an empty file can be made on a full disk
    except OSError as error:
        raise GpubpError(
            f"cannot write into folder {folder or error.filename}: {error.strerror or error}"
        ) from error
    try:
        yield folder
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def make_first(folders: Iterable[Path]) -> Path:
    """Make the first of the folders that is not there, which is then nobody else's: only one of many can make it."""
    for folder in folders:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not os.path.lexists(folder):  # it is what should be a folder above that exists
                raise
        else:
            return folder
    raise ValueError("every folder is there already")


def write_atomically(
    path: str | os.PathLike, fill: Callable[[BinaryIO], object], *, durable: bool = True
) -> Path:
    """Let ``fill`` write a temporary file, then give it the name ``path``; makes the folders above it.

    A ``durable`` file is on the disk when this returns, whatever happens to the machine; that takes milliseconds.

    Raises:
        GpubpError: no name for a file, or the folder cannot be written or is full; an old file is left as it was.
    """
    path = user_path(path)
    if not path.name:
        raise GpubpError(f"cannot write {path}: it is a folder; give the name of a file")
    # The name is this call's own: another thread or process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise GpubpError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what kept it from being written may keep it from being looked for
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: str | os.PathLike, content: bytes, *, durable: bool = True) -> Path:
    """Write bytes as :func:`write_atomically` does."""
    return write_atomically(path, lambda file: file.write(content), durable=durable)


def write_text(path: str | os.PathLike, text: str, *, durable: bool = True) -> Path:
    """Write UTF-8 text as :func:`write_atomically` does.

    Raises:
        GpubpError: also text with the name of a file that is not in UTF-8.
    """
    content = text.encode(
        errors="surrogateescape"
    )  # so does Python decode names of files, in the C locale as ASCII
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n")
        raise GpubpError(f"cannot write {path}: not in UTF-8 is {content.splitlines()[line]!r}") from error
    return write_bytes(path, content, durable=durable)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
