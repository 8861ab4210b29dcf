"""The kernels' binaries built ahead, by ``python -m gpubp.backends.cuda.build``: what finds one saves its compilation.

They are in the folder that $GPUBP_CUBINS names, else in ``cubins`` beside the kernels. A file is named for all that its
content depends on: the very text, the compiler's options and the architecture. ``manifest.json`` has of every file the
SHA-256 and the compiler; what it does not have, or has otherwise, is never loaded but compiled anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpubp.errors import GpubpError
from gpubp.kernels import cuda
from gpubp.support.files import user_path, write_bytes, write_text
from gpubp.support.jsontext import as_json
from gpubp.support.warning import warn_caller

MANIFEST = "manifest.json"
FORMAT, FORMAT_VERSION = "gpubp-cubins", 1
BUILD = "python -m gpubp.backends.cuda.build"
VARIABLE = "GPUBP_CUBINS"

_told: set[Path] = set()


class Cubin(NamedTuple):
    """A binary, and what compiled it."""

    content: bytes
    compiler: str


def folder() -> Path:
    """Where they are looked for."""
    given = os.environ.get(VARIABLE)
    return user_path(given) if given else Path(cuda.__file__).with_name("cubins")


def name_of(source: str, options: tuple[str, ...], architecture: str) -> str:
    """The file's name."""
    text = "\0".join((source, *options, architecture))
    return f"{architecture}-{hashlib.sha256(text.encode()).hexdigest()}.cubin"


def find(source: str, options: tuple[str, ...], architecture: str) -> Path | None:
    """The binary of this text for this architecture, whole and no other's; None if it must be compiled.

    An architecture for which nothing has been built is no reason for a word.
    """
    where = folder()
    try:
        manifest = read_manifest(where)
        if architecture not in manifest["architectures"]:
            return None
        name = name_of(source, options, architecture)
        if name not in manifest["cubins"]:
            raise GpubpError("they were built from other sources")
        if _digest((where / name).read_bytes()) != manifest["cubins"][name]["sha256"]:
            raise GpubpError(f"{name} is damaged")
        return where / name
    except (FileNotFoundError, NotADirectoryError) as error:  # the latter within a zip file
        if os.environ.get(VARIABLE) or Path(error.filename).name != MANIFEST:
            not_used(f"there is no {Path(error.filename).name}")
    except (OSError, GpubpError) as error:
        not_used(str(error))
    return None


def read_manifest(where: Path) -> dict[str, Any]:
    """Raises OSError, GpubpError: there is none that can be read."""
    try:
        manifest = json.loads((where / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["format"], manifest["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        of_each = {
            name: {key: of[key] for key in ("sha256", "compiler")} for name, of in manifest["cubins"].items()
        }
        return {"architectures": [*manifest["architectures"]], "cubins": of_each}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GpubpError(f"{MANIFEST} cannot be read") from error


def not_used(why: str) -> None:
    """Say once why binaries that are there are not used."""
    where = folder()
    if where not in _told:
        _told.add(where)
        warn_caller(
            f"the kernels' binaries in {where} are not used: {why}; the kernels are compiled anew. To have them "
            f"again: {BUILD}"
        )


def read(where: Path) -> dict[str, Cubin]:
    """All binaries of a folder that are whole, by their names."""
    found = {}
    with suppress(OSError, GpubpError):
        for name, of in read_manifest(where)["cubins"].items():
            with suppress(OSError):
                content = (where / name).read_bytes()
                if _digest(content) == of["sha256"]:
                    found[name] = Cubin(content, of["compiler"])
    return found


def write(where: Path, cubins: Mapping[str, Cubin], architectures: Sequence[str]) -> None:
    """Write the binaries, by their names, and remove all others; a reader sees the manifest of all or none.

    Raises GpubpError: the folder cannot be written.
    """
    try:
        (where / MANIFEST).unlink(missing_ok=True)
        for old in where.glob("*.cubin"):
            old.unlink()
    except OSError as error:
        raise GpubpError(f"cannot write {where}: {error.strerror or error}") from error
    for name, cubin in cubins.items():
        write_bytes(where / name, cubin.content, durable=False)
    of_each = {name: {"sha256": _digest(c.content), "compiler": c.compiler} for name, c in cubins.items()}
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "architectures": architectures}
    write_text(where / MANIFEST, as_json({**manifest, "cubins": of_each}) + "\n")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
