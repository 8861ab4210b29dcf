"""Compiled kernels on disk: found again, compiled anew when any source changed, and never a reason to fail."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpubp.kernels.cpu import compile, kept, machine
from gpubp.kernels.cpu.compile import kernel
from gpubp.kernels.cpu.entry import Entry, Packed
from gpubp.kernels.cpu.layout import Data
from gpubp.support.files import user_cache

SOURCE = """
OFFSET = 1

def shifted(x, y):
    for i in range(len(x)):
        y[i] = x[i] + OFFSET
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where kernels are kept, alone."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_warned", set())
    return tmp_path / "cache"


@pytest.fixture
def compilations(monkeypatch) -> list[str]:
    """The kernels that were compiled."""
    done, usual = [], compile.machine_code

    def counted(function, arguments, symbol):
        done.append(function.__name__)
        return usual(function, arguments, symbol)

    monkeypatch.setattr(compile, "machine_code", counted)
    return done


@pytest.fixture
def compiled(tmp_path, folder, monkeypatch):
    """A kernel as a new process has it: compiled()(x) is x + 1."""
    path = tmp_path / "tiny.py"
    path.write_text(SOURCE)

    def load(offset=1):
        spec = importlib.util.spec_from_file_location("tiny", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "tiny", module)
        spec.loader.exec_module(module)
        module.OFFSET = offset  # as if it stood in a file that this one imports
        kernel(module.shifted)
        entry = Entry("tiny", "shifted")

        def call(x):
            x, y = np.array([x]), np.array([np.zeros_like(x)])
            entry(x, y)
            return y[0]

        return call

    monkeypatch.setattr(kept, "source_stamp", kept.source_stamp.__wrapped__)  # which remembers nothing
    return load


def stamped(monkeypatch, stamp: bytes) -> None:
    monkeypatch.setattr(kept, "source_stamp", lambda module: stamp)


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.kernel")
    return path


@pytest.fixture
def told():
    """The warnings so far."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_a_kernel_is_compiled_once_for_all_processes(compiled, folder, compilations, told):
    assert compiled()(1.5) == compiled()(2.5) - 1 == 2.5
    assert compilations == ["shifted"]
    assert compiled()(np.int64(2)) == 3
    assert len(compilations) == len(list(folder.iterdir())) == 2
    assert not told


def test_a_change_of_any_source_compiles_anew(compiled, monkeypatch, compilations):
    stamped(monkeypatch, b"before")
    assert compiled(1)(1.0) == 2.0
    assert compiled(2)(1.0) == 2.0  # it cannot know
    stamped(monkeypatch, b"after")
    assert compiled(2)(1.0) == 3.0
    assert compiled(2)(1.0) == 3.0
    assert len(compilations) == 2


@pytest.mark.parametrize("what", ["CPU", "FEATURES"])
def test_another_processor_or_compiler_compiles_anew(compiled, folder, monkeypatch, compilations, what):
    compiled()(1.0)
    kept._compiler.cache_clear()
    monkeypatch.setattr(machine, what, getattr(machine, what) + "+more")
    monkeypatch.setattr(compile, "machine_code", lambda *_: (_ for _ in ()).throw(NotImplementedError))
    with pytest.raises(NotImplementedError):  # LLVM has no such processor
        compiled()(1.0)
    kept._compiler.cache_clear()


def test_a_file_under_the_name_of_another_is_not_run(compiled, folder, monkeypatch, compilations, told):
    compiled(1)(1.0)
    before = only(folder)
    content = before.read_bytes()
    before.unlink()
    stamped(monkeypatch, b"after")
    compiled(2)(1.0)
    after = only(folder)
    assert after.name != before.name
    after.write_bytes(content)
    assert compiled(2)(1.0) == 3.0
    assert len(compilations) == 3
    assert len(told) == 1


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "flipped", "folder"])
def test_a_damaged_file_is_told_and_written_anew(compiled, folder, told, compilations, damage, monkeypatch):
    compiled()(1.0)
    path = only(folder)
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:middle],
                "garbage": bytes(range(256)) * 20,
                "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            }[damage]
        )
    assert compiled()(1.0) == 2.0
    assert len(compilations) == 2
    (warning,) = told
    assert str(folder) in str(warning.message)
    assert "NUMBA_CACHE_DIR" in str(warning.message)
    if damage != "folder":
        assert compiled()(1.0) == 2.0
        assert len(compilations) == 2


@pytest.mark.parametrize("where", ["os.replace", "pathlib.Path.mkdir", "tempfile.NamedTemporaryFile"])
def test_a_full_disk_is_told_once(compiled, folder, monkeypatch, told, where):
    with monkeypatch.context() as full:
        full.setattr(where, no_space)
        results = compiled()(1.0), compiled()(1.0), compiled()(2)
    assert results == (2.0, 2.0, 3)
    (warning,) = told
    assert str(folder) in str(warning.message)
    assert "No space left" in str(warning.message)
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in str(warning.message)
    assert not folder.exists() or not list(folder.iterdir())


def test_what_nobody_has_loaded_for_long_is_removed(compiled, folder):
    compiled()(1.0)
    used = only(folder)
    old, young = folder / "steps-old.kernel", folder / "steps-young.kernel"
    for path, age in ((old, 100), (young, 30), (used, 100)):
        path.touch()
        os.utime(path, (time.time() - age * 24 * 3600,) * 2)
    compiled()(1.0)  # which loads it
    compiled()(1)
    assert used.exists()
    assert young.exists()
    assert not old.exists()


def test_the_stamp_covers_every_source_of_the_kernels(tmp_path, monkeypatch):
    real = Path(kept.__file__).parent
    shutil.copytree(real.parent, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__", "cuda"))
    folder = tmp_path / "kernels" / "cpu"

    def stamp(at=folder) -> bytes:
        monkeypatch.setattr(kept, "__file__", str(at / "kept.py"))
        return kept.source_stamp.__wrapped__("gpubp.kernels.cpu.steps")

    before = stamp()
    assert before == stamp(real)
    sources = [*folder.glob("*.py"), folder.parent / "__init__.py"]
    assert len(sources) > 10
    for path in sources:
        content = path.read_bytes()
        path.write_bytes(content + b"#")
        assert stamp() != before, path
        path.write_bytes(content)
    assert stamp() == before
    (folder / "more.py").touch()
    assert stamp() != before
    assert stamp(tmp_path / "nowhere" / "cpu") == b""


def test_a_kernel_of_another_module_is_stamped_with_that_too(compiled, tmp_path, compilations):
    compiled()(1.0)
    (tmp_path / "tiny.py").write_text(SOURCE.replace("OFFSET = 1", "OFFSET = 1  # the same"))
    compiled()(1.0)
    assert len(compilations) == 2


def test_arguments_are_checked_before_machine_code_sees_them(compiled, folder):
    entry = Entry("tiny", "shifted")
    compiled()
    x = np.arange(6.0)
    with pytest.raises(TypeError, match="C order"):
        entry(x[::2], x)
    with pytest.raises(TypeError, match=r"not 1\.5"):
        entry(x, 1.5)
    assert not folder.exists()


def test_a_packed_argument_is_the_argument(compiled):
    compiled()
    entry = Entry("tiny", "shifted")
    x, y = np.arange(3.0), np.zeros(3)
    entry(Packed(x), y)
    np.testing.assert_array_equal(y, x + 1)
    assert list(entry.compiled) == ["<f81,<f81"]
    numbers = np.zeros(2, np.float32)
    data = Data(
        np.zeros(3, np.uint8), numbers, np.zeros(1, np.int64), np.zeros(0, np.uint8), 5, 7, numbers, numbers
    )
    packed = Packed(data)
    assert packed.types == "Data(|u11,<f41,<i81,|u11,i,i,<f41,<f41)"
    address = numbers.ctypes.data
    words = list((ctypes.c_int64 * 14).from_address(*packed.words))
    assert words[2:4] == [address, 2]
    assert words[8:] == [5, 7, address, 2, address, 2]


def test_what_a_bound_call_needs_lives_as_long_as_it(compiled):
    compiled()
    y = np.zeros(1000)
    call = Entry("tiny", "shifted").bind(np.full(1000, 2.0), y)
    np.full(1000, 7.0)  # would get the memory of the first, if that were free
    call()
    assert set(y) == {3.0}


def reshaped(x, y):
    y[0] = x.reshape(-1)[1]


def test_a_kernel_that_needs_numba_to_run_is_not_compiled():
    kernel(reshaped)
    with pytest.raises(
        TypeError, match="reshaped calls what is not there without Numba: numba_attempt_nocopy"
    ):
        Entry(__name__, "reshaped")(np.ones((2, 2)), np.zeros(1))


def test_where_kernels_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    assert kept.folder() == user_cache() / "kernels" == tmp_path / "kernels"
    monkeypatch.delenv("GPUBP_CACHE_DIR")
    assert kept.folder() == user_cache() / "kernels" != tmp_path / "kernels"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert kept.folder() == user_cache() / "kernels" == Path.home() / ".cache" / "gpubp" / "kernels"


LATER = """
import sys
import numpy as np
import gpubp
from gpubp.kernels.cpu import entries
net = gpubp.Network([20, 5, 3], seed=0)
x = np.arange(800, dtype=np.uint8).reshape(40, 20) % 7
gpubp.fit(net, x, np.arange(40) % 3, backend="numba", epochs=2, batch_size=16)
print("numba" in sys.modules, len(entries.steps.compiled), net.parameters[0][0].tobytes().hex()[:64])
"""


def test_a_later_process_trains_without_numba(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LATER]
    runs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    first, later = (run.stdout.split() for run in runs)
    assert (first[:2], later[:2]) == (["True", "1"], ["False", "1"])
    assert first[2] == later[2]
