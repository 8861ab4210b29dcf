"""Compiled kernels kept on disk: Numba's cache, held to all sources of the kernels, and never a reason to fail.

Numba asks only the file of a function whether a compiled one is fresh, and raises whatever the disk does. So this
adds a stamp of all files to the key and a checksum to what is kept, and turns errors into one warning. It stands
on four names of Numba's insides (``Dispatcher._cache``, ``Cache._impl``, ``_cache_file`` and ``_load_overload``);
where a later Numba has others, its plain cache is used.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.runtime import rtsys

_warned: set[str] = set()


def keep(dispatcher):
    """Keep what ``dispatcher`` compiles, for later processes; returns it."""
    if not hasattr(dispatcher, "py_func"):  # NUMBA_DISABLE_JIT: a plain function
        return dispatcher
    try:
        dispatcher._cache  # noqa: B018  (raises, where setting it would do nothing)
        dispatcher._cache = _cache_of(dispatcher.py_func)
    except (AttributeError, TypeError):
        dispatcher.enable_caching()
    return dispatcher


def _cache_of(function) -> NullCache | KernelCache:
    try:
        return KernelCache(function)
    except RuntimeError:  # Numba found no folder to write into
        source = Path(function.__code__.co_filename)
        return NoCache(config.CACHE_DIR or str(source.parent / "__pycache__"))


@cache
def source_stamp(folder: Path = Path(__file__).parent) -> str:
    """A hash of the files that kernels are compiled from; "" where they cannot be read."""
    found = hashlib.sha256()
    try:
        for path in (folder.parent / "__init__.py", *sorted(folder.glob("*.py"))):
            found.update(hashlib.sha256(path.name.encode()).digest())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError:  # in a zip file; Numba's own stamp is left
        return ""
    return found.hexdigest()


class Entries(IndexDataCacheFile):
    """A kernel's files in the cache; each entry says what it is, since a full disk may leave it to another's index."""

    def save(self, key, data) -> None:
        content = self._dump(data)
        super().save(key, (self._source_stamp, key, hashlib.sha256(content).digest(), content))

    def load(self, key):
        """The entry, or None if there is none. Raises whatever damage leads to."""
        entry = super().load(key)
        if entry is None:
            return None
        stamp, kept_for, digest, content = entry
        if (stamp, kept_for) != (self._source_stamp, key):
            return None
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("a file is damaged")
        return pickle.loads(content)


class KernelCache(FunctionCache):
    """Numba's cache of one kernel, stamped with all sources; what goes wrong with it is warned of once."""

    def __init__(self, function) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp(), source_stamp()
        self._cache_file = Entries(self.cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig, target_context):
        try:
            if not hasattr(self, "_load_overload"):
                return super().load_overload(sig, target_context)
            # What super() would do besides is to fill the registries of the compiler, which takes half a second and
            # which a compiler does for itself before it compiles anything.
            rtsys.initialize(target_context)
            return self._load_overload(sig, target_context)
        except Exception as error:  # of a damaged file, pickle may raise anything
            _warn(self.cache_path, error)
            with suppress(Exception):
                self.flush()  # or a damaged index would keep the next one from being written
            return None

    def save_overload(self, sig, data) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn(self.cache_path, error)


class NoCache(NullCache):
    """A cache where no folder can be written: says so when something is compiled that would have been kept."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def save_overload(self, sig, data) -> None:
        _warn(self.folder, PermissionError("neither it nor the user's cache can be written"))


def _warn(folder: str, error: Exception) -> None:
    if folder in _warned:
        return
    _warned.add(folder)
    warnings.warn(
        f"the cache of compiled kernels in {folder} failed ({error or type(error).__name__}): they are compiled "
        "anew. If this comes again, set NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=3,
    )
