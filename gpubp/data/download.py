"""Files from the first mirror that has them whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from gpubp.data.idx import file_bytes
from gpubp.errors import DataError

T = TypeVar("T")
_CHUNK = 1 << 16  # bytes between two steps of the progress bar
TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of the answer


def download(urls: Sequence[str], target: Path, check: Callable[[bytes, str], T], *, quiet: bool) -> T:
    """Put at `target` the bytes of the first URL that answers with what `check` accepts; return its result.

    check: called with the bytes and the URL; raises DataError to refuse them.
    The target appears whole or not at all, also when two processes download it together. Raises DataError
    with one line for every URL when none will do, and when the folder cannot be written.
    """
    import pooch

    failures = []
    # The name is this call's own: a second process must not write into the same file.
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        for url in urls:
            try:
                with _bar(target.name, quiet) as bar:
                    get = pooch.HTTPDownloader(
                        progressbar=bar, chunk_size=_CHUNK, timeout=TIMEOUT, hooks={"response": _as_stored}
                    )
                    get(url, str(part), None)
                checked = check(file_bytes(part), url)
            except DataError as error:
                failures.append(str(error))
            except (OSError, ValueError) as error:  # requests' own errors are OSErrors
                failures.append(f"{url}: {error}")
            else:
                os.replace(part, target)
                return checked
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the folder could not be made: then there is no file either
            part.unlink(missing_ok=True)
    raise DataError("\n".join([f"no mirror has a good {target.name}:", *failures]))


def _as_stored(response: Any, **_: object) -> None:
    """Some servers label a .gz as transfer encoding; undone on arrival, its checksum would be lost."""
    response.raw.headers.pop("Content-Encoding", None)


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[_Bar | bool]:
    if quiet or not sys.stderr.isatty():
        yield False
        return
    bar = _Bar(what)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """The progress bar that pooch asks for, drawn by rich on stderr."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(what, total=None)
        self._progress.start()

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)  # 0 where the server does not tell

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.reset(self._task, total=self.total)

    def close(self) -> None:
        self._progress.stop()
