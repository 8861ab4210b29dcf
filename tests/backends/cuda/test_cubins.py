"""Kernels built ahead: found where they are of the very sources, and never loaded where they are not."""

import json
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gpubp.backends.cuda import build, cubins, nvrtc
from gpubp.errors import BackendUnavailable, GpubpError
from gpubp.kernels import cuda
from tests import ROOT, param
from tests.cuda_host import fake_cupy, host_backend, missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))
needs_nvrtc = pytest.mark.skipif(nvrtc.version() is None, reason=f"the wheel {nvrtc.WHEEL} is not installed")
KIND = np.dtype("float32")
HOST = "sm_90"  # what the stand-in is


def fill(where, compiler="the host's compiler", **options):
    return build.build(where, (HOST,), compile=fake_cupy.compile_ahead, compiler=compiler, **options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where cubins are, with the operations' and one of the units kernel's, as a build for the stand-in has them."""
    some = [
        (cuda.OPERATIONS, KIND, "float32", None, False, HOST),
        (cuda.UNITS, KIND, "float32", (4, 1), False, HOST),
    ]
    monkeypatch.setattr(build, "jobs", lambda *_: some)
    monkeypatch.setattr(cubins, "_told", set())
    monkeypatch.setenv("GPUBP_CUBINS", str(tmp_path / "cubins"))
    fill(tmp_path / "cubins")
    return tmp_path / "cubins"


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def compiled(backend=None):
    """How often the kernels that are wanted had to be compiled."""
    backend, before = backend or host_backend(), fake_cupy.counts["compilations"]
    backend.kernels(KIND)
    backend.persistent_kernel("units", KIND, 0, (4, 1))
    return fake_cupy.counts["compilations"] - before


@needs_compiler
def test_what_is_built_ahead_is_not_compiled(folder):
    with warnings.catch_warnings(action="error"):
        assert compiled() == 0
    assert {of["compiler"] for of in manifest(folder)["cubins"].values()} == {"the host's compiler"}
    assert sorted(manifest(folder)["cubins"]) == sorted(path.name for path in folder.glob("*.cubin"))
    assert len(manifest(folder)["cubins"]) == 2


@needs_compiler
def test_a_persistent_kernel_built_ahead_is_launched_as_one(folder):
    kernel = host_backend().persistent_kernel("units", KIND, 0, (4, 1))
    assert kernel.function.cooperative
    assert not host_backend().kernels(KIND)["forward"].cooperative


def damage(folder, monkeypatch):
    for path in folder.glob("*.cubin"):
        path.write_bytes(path.read_bytes() + b" ")


def cut(folder, monkeypatch):
    for path in folder.glob("*.cubin"):
        path.write_bytes(b"")


def remove(folder, monkeypatch):
    for path in folder.glob("*.cubin"):
        path.unlink()


def exchange(folder, monkeypatch):
    one, other = folder.glob("*.cubin")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def change_source(folder, monkeypatch):
    whole = cuda.source
    monkeypatch.setattr(cuda, "source", lambda *names: whole(*names) + "\n// changed\n")


def change_options(folder, monkeypatch):
    monkeypatch.setattr(cuda, "LECUN_SCALE", 2.0, raising=False)
    monkeypatch.setattr(cuda.kernels, "LECUN_SCALE", 2.0)


def make_foreign(folder, monkeypatch):
    """What is in the manifest, but no driver here loads it."""
    cubins.write(
        folder, dict.fromkeys(manifest(folder)["cubins"], cubins.Cubin(b"\x7fELF", "another")), (HOST,)
    )


def break_manifest(folder, monkeypatch):
    (folder / "manifest.json").write_text('{"format": "gpubp-cubins"')


def make_newer(folder, monkeypatch):
    (folder / "manifest.json").write_text(json.dumps(manifest(folder) | {"format_version": 2}))


def make_no_manifest(folder, monkeypatch):
    (folder / "manifest.json").unlink()


@needs_compiler
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage, r"\.cubin is damaged"),
        (cut, r"\.cubin is damaged"),
        (exchange, r"\.cubin is damaged"),
        (remove, r"there is no sm_90-\w+\.cubin"),
        (change_source, "built from other sources"),
        (change_options, "built from other sources"),
        (make_foreign, r"the driver does not load .*CUDA_ERROR_INVALID_IMAGE"),
        (break_manifest, "manifest.json cannot be read"),
        (make_newer, "manifest.json cannot be read"),
        (make_no_manifest, "there is no manifest.json"),
    ],
)
def test_what_is_not_what_it_should_be_is_compiled_anew_and_told_once(folder, monkeypatch, spoil, said):
    spoil(folder, monkeypatch)
    with pytest.warns(UserWarning, match=said) as told:
        assert compiled() == compiled() == 2
    assert len(told) == 1
    assert "python -m gpubp.backends.cuda.build" in str(told[0].message)


@needs_compiler
def test_another_kind_of_gpu_compiles_without_a_word(folder, monkeypatch):
    monkeypatch.setitem(fake_cupy._properties, "major", 8)
    monkeypatch.setitem(fake_cupy._properties, "minor", 9)
    with warnings.catch_warnings(action="error"):
        assert compiled() == 2


@needs_compiler
def test_where_nothing_is_built_ahead_it_is_compiled_without_a_word(monkeypatch, tmp_path):
    monkeypatch.delenv("GPUBP_CUBINS", raising=False)
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "cuda" / "__init__.py"))
    (tmp_path / "a.zip").write_text("")
    with warnings.catch_warnings(action="error"):
        assert compiled() == 2
        monkeypatch.setattr(cuda, "__file__", str(tmp_path / "a.zip" / "cuda" / "__init__.py"))
        assert compiled() == 2
    assert cubins.folder() == tmp_path / "a.zip" / "cuda" / "cubins"


def test_a_name_is_for_source_options_and_architecture():
    given = ("source", ("-DA=1", "-DB=2"), "sm_90")
    others = [("sourc", ("e-DA=1", "-DB=2"), "sm_90"), ("source", ("-DB=2", "-DA=1"), "sm_90")]
    others += [("source", ("-DA=1",), "sm_90"), ("source", ("-DA=1", "-DB=2"), "sm_100"), given]
    assert len({cubins.name_of(*one) for one in others}) == len(others)


def test_a_new_build_leaves_nothing_of_the_one_before(folder):
    before = set(folder.iterdir())
    cubins.write(folder, {"sm_90-new.cubin": cubins.Cubin(b"new", "a compiler")}, ("sm_90",))
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "sm_90-new.cubin"}
    assert len(before) == 3


@needs_compiler
def test_what_is_there_already_is_not_compiled_again(folder, monkeypatch, tmp_path):
    assert fill(folder) == (2, 0)
    assert fill(tmp_path / "other", ahead=folder) == (2, 0)
    assert cubins.read(tmp_path / "other") == cubins.read(folder)
    assert fill(folder, "another compiler") == (2, 2)
    next(folder.glob("*.cubin")).write_bytes(b"damaged")
    assert fill(folder, "another compiler") == (2, 1)
    monkeypatch.setattr(nvrtc, "version", lambda: None)
    assert build.build(folder, (HOST,)) == (2, 0)
    for kept in (1, 0):  # what need not be compiled is kept where the rest cannot be
        if kept:
            next(folder.glob("*.cubin")).unlink()
        else:
            change_source(folder, monkeypatch)
        with pytest.raises(BackendUnavailable):
            build.build(folder, (HOST,))
        assert len(cubins.read(folder)) == kept


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GpubpError, match="cannot write"):
        cubins.write(tmp_path / "file", {}, ("sm_90",))


def test_without_the_compiler_the_build_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(nvrtc, "version", lambda: None)
    with pytest.raises(BackendUnavailable, match="pip install nvidia-cuda-nvrtc"):
        build.build(tmp_path, ("sm_90",))
    assert build.main(["--out", str(tmp_path)]) == 4
    assert capsys.readouterr().err.startswith("error: the wheel nvidia-cuda-nvrtc")


@needs_nvrtc
@pytest.mark.parametrize("all_of_them", [False, param(True, always=False)], ids=["one", "all"])
def test_nvidias_compiler_builds_what_the_driver_is_given(all_of_them, tmp_path, monkeypatch):
    if not all_of_them:
        monkeypatch.setattr(
            build, "jobs", lambda *_: [(cuda.OPERATIONS, KIND, "float32", None, False, "sm_90")]
        )
    assert build.main(["sm_90", "--out", str(tmp_path)]) == 0
    monkeypatch.setenv("GPUBP_CUBINS", str(tmp_path))
    wanted = build.jobs(("sm_90",))
    for files, *kind, architecture in wanted:
        path = cubins.find(cuda.source(files), cuda.options(*kind), architecture)
        assert path.read_bytes()[:4] == b"\x7fELF"
    assert len(list(tmp_path.glob("*.cubin"))) == len(wanted) == (34 if all_of_them else 1)


@needs_nvrtc
def test_an_architecture_that_there_is_not_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "jobs", lambda *_: [(cuda.OPERATIONS, KIND, "float32", None, False, "sm_1")])
    assert build.main(["sm_1", "--out", str(tmp_path)]) == 1
    assert "do not compile" in capsys.readouterr().err
    assert cubins.read(tmp_path) == {}


def test_every_kernel_of_the_backend_is_built():
    """What a device is asked for, in float32 and float64, is what is compiled ahead."""
    wanted = set()

    class Cupy:
        def __init__(self):
            self.cuda = fake_cupy.cuda

        def RawModule(self, *, code, options, **_):
            wanted.add((code, options))
            raise fake_cupy.CompileException

    from gpubp.backends.cuda.backend import CupyBackend

    for precision in CupyBackend.precisions:
        backend = CupyBackend(module=Cupy(), precision=precision)
        for dtype in ("float32", "float64") if precision == "float32" else ("float32",):
            asked = [(backend.kernels, (np.dtype(dtype),))]
            for name in cuda.PERSISTENT:
                pairs = product(cuda.UNITS_OF_A_CLUSTER, cuda.CLUSTERS)
                kinds = product(
                    pairs if name == "units" else [None], (False, True)
                )  # with dropout and without
                if precision == "float32" or name == "epoch":
                    asked += [
                        (backend.persistent_kernel, (name, np.dtype(dtype), 0, *kind)) for kind in kinds
                    ]
            for method, arguments in asked:
                with pytest.raises(GpubpError):
                    method(*arguments)
    built = {(cuda.source(files), cuda.options(*kind)) for files, *kind, _ in build.jobs(("sm_90",))}
    assert wanted == built


def test_building_needs_no_gpu_and_no_cupy():
    code = "import sys; import gpubp.backends.cuda.build; print('cupy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"


def test_the_folder_beside_the_kernels_is_packed_and_not_committed():
    assert '"cubins/*"' in (ROOT / "pyproject.toml").read_text()
    assert "/kernels/cuda/cubins/" in (ROOT / ".gitignore").read_text().splitlines()
    assert Path(cuda.__file__).parent == ROOT / "kernels" / "cuda"
