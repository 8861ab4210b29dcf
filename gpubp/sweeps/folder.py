"""A sweep's folder: what it is about, a line for each trial that is over, and the networks.

A line is on the disk before the next trial begins in its place, so that whatever happens to the sweep, only the trials
under way are lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.experiments.folder import LEFT
from gpubp.formats import npz
from gpubp.support.files import write_text
from gpubp.support.records import as_text, from_plain
from gpubp.sweeps.trial import Outcome

FORMAT = 1  # of sweep.json; raised when an older gpubp could no longer read what is written
SWEEP, TRIALS, LOCK = "sweep.json", "trials.jsonl", ".lock"
WINNER, ENSEMBLE = "winner", "ensemble.npz"
KIND = "record of a gpubp sweep"


def own_folder(recipe: str, definition: dict[str, Any]) -> Path:
    """The folder of a sweep that is given none: the same for the same sweep, which goes on there."""
    text = json.dumps(definition, sort_keys=True)
    return Path("gpubp-runs", f"sweep-{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no other sweep writes there; what holds it ends with the process, however that ends.

    Raises:
        UsageError: another one has it.
        GpubpError: it cannot be written.
    """
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise GpubpError(f"cannot write into folder {folder}: {error.strerror or error}") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no POSIX system
            pass
        except BlockingIOError:
            busy = f"another sweep is at work in {folder}"
            raise UsageError(f"{busy}: wait for it, or give another --folder") from None
        try:
            yield
        finally:
            if made and os.listdir(folder) == [LOCK]:  # it was refused
                (folder / LOCK).unlink()
                folder.rmdir()


def refuse_a_run(folder: Path) -> None:
    """Refuse by a UsageError a folder with a training run in it, whose page the sweep's would take the place of."""
    if any((folder / name).exists() for name in LEFT):
        raise UsageError(f"{folder} has a training run in it: give another --folder")


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """What sweep.json says; None if there is none.

    Raises:
        DataError: it is damaged, or of a newer gpubp.
    """
    path = folder / SWEEP
    if not path.exists():
        return None
    with npz.reading(path, KIND, RecursionError):
        table = json.loads(path.read_text(encoding="utf-8"))
        version = from_plain(int, table["format"])
        for name, kind in (("definition", dict), ("run", dict), ("machine", dict), ("data", str)):
            if type(table[name]) is not kind:
                raise ValueError(f"{name} is {table[name]!r:.60}")
    if version > FORMAT:
        raise DataError(f"{path} was written by a newer gpubp (format {version}); upgrade gpubp")
    del table["format"]
    return table


def write_sweep(folder: Path, table: dict[str, Any]) -> None:
    """Write sweep.json, durably."""
    write_text(folder / SWEEP, as_text({"format": FORMAT, **table}))


def mend(folder: Path) -> None:
    """Take off a last line that was not written to its end: the machine, or the disk's room, ended in the middle."""
    path = folder / TRIALS
    if path.exists() and (rest := path.read_bytes().rpartition(b"\n")[2]):
        os.truncate(path, path.stat().st_size - len(rest))


def read_outcomes(folder: Path) -> list[Outcome]:
    """The trials that are over, in the order that they ended in; a line that is not whole is left out.

    Raises:
        DataError: the file is damaged elsewhere.
    """
    path = folder / TRIALS
    try:
        whole = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    found = []
    for number, line in enumerate(whole, start=1):
        try:
            found.append(_outcome(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged in line {number} ({error}): delete that line") from error
    return found


def _outcome(table: dict[str, Any]) -> Outcome:
    outcome = from_plain(Outcome, table)
    lists = {field: tuple(v) if isinstance(v, list) else v for field, v in outcome.settings.items()}
    outcome.settings.update(lists)
    return outcome


def add_outcome(folder: Path, outcome: Outcome) -> None:
    """Add a line, which is on the disk when this returns.

    Raises:
        GpubpError: it cannot be written; the file is as it was, or ends in a part of a line.
    """
    path = folder / TRIALS
    line = as_text(vars(outcome)).replace("\n", "") + "\n"
    try:
        with open(path, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise GpubpError(
            f"cannot write {path}: {error.strerror or error}: trials that were over before are safe, and the same "
            "command goes on"
        ) from error
