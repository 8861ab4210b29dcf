"""Compiled kernels on disk: found again, compiled anew when any source changed, and never a reason to fail."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numba.core.caching
import pytest
from numba.core import config

from gpubp.kernels.cpu import cache
from gpubp.kernels.cpu.compile import kernel

SOURCE = """
OFFSET = 1

def shifted(x):
    return x + OFFSET
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where kernels are kept, alone."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "cache"


@pytest.fixture
def compiled(tmp_path, folder, monkeypatch):
    """A kernel as a new process has it: compiled(1) is x + 1."""
    path = tmp_path / "tiny.py"
    path.write_text(SOURCE)

    def load(offset=1):
        spec = importlib.util.spec_from_file_location("tiny", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "tiny", module)
        spec.loader.exec_module(module)
        module.OFFSET = offset  # as if it stood in a file that this one imports
        return kernel(module.shifted)

    return load


def hits(function) -> int:
    return sum(function.stats.cache_hits.values())


def kept(folder: Path, suffix: str) -> Path:
    (path,) = folder.glob(f"*/*{suffix}")
    return path


@pytest.fixture
def told():
    """The warnings so far."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_a_kernel_is_compiled_once_for_all_processes(compiled, folder, told):
    first, second = compiled(), compiled()
    assert first(1.5) == second(1.5) == 2.5
    assert (hits(first), hits(second)) == (0, 1)
    assert Path(second.stats.cache_path).parent == folder
    assert not told


def test_a_change_of_any_source_compiles_anew(compiled, monkeypatch):
    monkeypatch.setattr(cache, "source_stamp", lambda: "before")
    assert compiled(1)(1.0) == 2.0
    assert compiled(2)(1.0) == 2.0  # the file of the kernel is the same, and so is the stamp
    monkeypatch.setattr(cache, "source_stamp", lambda: "after")
    assert compiled(2)(1.0) == 3.0
    assert hits_after(compiled(2)) == 1


def hits_after(function) -> int:
    assert function(1.0) == 3.0
    return hits(function)


def test_what_an_older_version_left_is_not_taken_for_the_new_ones(compiled, monkeypatch, told):
    monkeypatch.setattr(cache, "source_stamp", lambda: "before")
    compiled(1)(1.0)
    monkeypatch.setattr(cache, "source_stamp", lambda: "after")
    with monkeypatch.context() as full:  # the disk is full once the index is written
        full.setattr(cache.Entries, "_save_data", no_space)
        assert compiled(2)(1.0) == 3.0
    assert len(told) == 1
    again = compiled(2)
    assert hits_after(again) == 0
    assert hits_after(compiled(2)) == 1


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "flipped", "folder"])
def test_a_damaged_file_is_told_and_written_anew(compiled, folder, told, suffix, damage):
    compiled()(1.0)
    path = kept(folder, suffix)
    content = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        middle = len(content) // 2
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:middle],
                "garbage": bytes(range(256)) * 20,
                "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            }[damage]
        )
    assert compiled()(1.0) == 2.0
    assert compiled()(2) == 3
    for warning in told:
        assert str(path.parent) in str(warning.message)
        assert "NUMBA_CACHE_DIR" in str(warning.message)
    assert len(told) <= 1  # a flipped bit of the index may only make it another's
    if damage != "folder":
        healed = compiled()
        assert healed(1.0) == 2.0
        assert hits(healed) == 1


@pytest.mark.parametrize("where", ["os.replace", "os.makedirs", "builtins.open"])
def test_a_full_disk_is_told_once(compiled, folder, monkeypatch, told, where):
    first, second = compiled(), compiled()
    monkeypatch.setattr(where, no_space)
    results = first(1.0), second(1.0), second(2)
    monkeypatch.undo()
    assert results == (2.0, 2.0, 3)
    (warning,) = told
    assert str(folder) in str(warning.message)
    assert "No space left" in str(warning.message)
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in str(warning.message)


def test_without_any_folder_kernels_are_compiled_and_that_is_told_once(compiled, folder, monkeypatch, told):
    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", no_space)
    first, second = compiled(), compiled()
    assert not told  # nothing was compiled yet
    assert first(1.0) == second(1.0) == 2.0
    (warning,) = told
    assert str(folder) in str(warning.message)
    assert "NUMBA_CACHE_DIR" in str(warning.message)
    assert first.stats.cache_path is None


def test_a_numba_with_other_insides_keeps_its_own_cache(compiled, monkeypatch, told):
    def other(function):
        raise AttributeError("_impl")

    monkeypatch.setattr(cache, "KernelCache", other)
    function = compiled()
    assert type(function._cache) is numba.core.caching.FunctionCache
    assert function(1.0) == 2.0
    assert not told


def test_a_plain_function_stays_one():
    def function():
        pass

    assert cache.keep(function) is function  # NUMBA_DISABLE_JIT


def test_the_stamp_covers_every_source_of_the_kernels(tmp_path):
    real = Path(cache.__file__).parent
    shutil.copytree(real.parent, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__", "cuda"))
    folder = tmp_path / "kernels" / "cpu"
    stamp = cache.source_stamp.__wrapped__
    before = stamp(folder)
    assert before == stamp(real)
    sources = [*folder.glob("*.py"), folder.parent / "__init__.py"]
    assert len(sources) > 10
    for path in sources:
        content = path.read_bytes()
        path.write_bytes(content + b"#")
        assert stamp(folder) != before, path
        path.write_bytes(content)
    assert stamp(folder) == before
    (folder / "more.py").touch()
    assert stamp(folder) != before
    assert stamp(tmp_path / "nowhere" / "cpu") == ""


LATER = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
import numba, numpy as np
from numba.core.base import BaseContext
from gpubp.kernels.cpu.compile import kernel
spec = spec_from_file_location("tiny", sys.argv[1])
module = module_from_spec(spec)
sys.modules["tiny"] = module
spec.loader.exec_module(module)
filled, refresh = [], BaseContext.refresh
BaseContext.refresh = lambda self: (filled.append(self), refresh(self))[1]
shifted = kernel(module.shifted)
told = [shifted(1), sum(shifted.stats.cache_hits.values()), len(filled)]
root = numba.njit(lambda a: np.sqrt(a).sum())  # from here on a compiler is there
print(*told, float(root(np.array([4.0, 9.0]))), shifted(2.5), bool(filled))
"""


def test_a_kept_kernel_is_loaded_without_a_compiler_which_is_there_when_it_is_needed(tmp_path):
    (tmp_path / "tiny.py").write_text(SOURCE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LATER, str(tmp_path / "tiny.py")]
    runs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    first, later = (run.stdout.split() for run in runs)
    assert (first[:2], int(first[2]) > 0) == (["2", "0"], True)
    assert later == ["2", "1", "0", "5.0", "3.5", "True"]
