"""Files from the first mirror that has them whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gpubp.errors import DataError
from gpubp.support.files import write_bytes

T = TypeVar("T")
_CHUNK = 1 << 16  # bytes between two steps of the progress bar
TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of the answer


def download(urls: Sequence[str], target: Path, check: Callable[[bytes, str], T], *, quiet: bool) -> T:
    """Put at `target` the bytes of the first URL that answers with what `check` accepts; return its result.

    check: called with the bytes and the URL; raises DataError to refuse them.
    The target appears whole or not at all, also when two processes download it together. Raises DataError
    with one line for every URL when none will do, GpubpError when the folder cannot be written.
    """
    failures = []
    for url in urls:
        try:
            body = _body(url, target.name, quiet)
            checked = check(body, url)
        except DataError as error:
            failures.append(str(error))
        except (OSError, ValueError) as error:  # requests' own errors are OSErrors
            failures.append(f"{url}: {error}")
        else:
            write_bytes(target, body)
            return checked
    raise DataError("\n".join([f"no mirror has a good {target.name}:", *failures]))


def _body(url: str, what: str, quiet: bool) -> bytes:
    """The bytes at a URL as they are stored there; on a terminal a bar shows how many have come."""
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    hidden = quiet or not sys.stderr.isatty()
    with requests.get(url, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        # Some servers label a .gz as transfer encoding; undone on arrival, its checksum would be lost.
        response.raw.headers.pop("Content-Encoding", None)
        size = int(response.headers.get("Content-Length", 0))
        body = bytearray()
        with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
            task = progress.add_task(what, total=size or None)
            for piece in response.iter_content(_CHUNK):
                body += piece
                progress.advance(task, len(piece))
    return bytes(body)
