"""Text that goes in and out: encodings, names in other scripts, ~ for the home folder, warnings, what is broken."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
import typing
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.benchmark import terminal
from gpubp.cli import app
from gpubp.support import spelling
from gpubp.support.files import user_path
from tests import ROOT

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
QUIET = ("--backend", "numpy", "--threads", 1, "-q", "--no-report")
ODD = "日本語 кириллица e\u0301 é [red] \"q\" 's'"  # é in both forms
TABLE = "".join(f"{i},{i % 7},{'δ' if i % 2 else '[bold]é'}\n" for i in range(40))


@pytest.fixture
def printed(run, monkeypatch):
    """Run a command whose output is in an encoding; returns exit code, stdout and stderr."""

    def call(encoding, *args):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = run(*args)[0]
        for stream in streams:
            stream.flush()
        return code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)

    return call


WORK = {
    (
        "train",
        "--data",
        "δ.csv",
        "--layers",
        "2-3-2",
        "--epochs",
        2,
        "--backend",
        "numpy",
        "--folder",
        "ρ",
    ): 0,
    ("predict", "ρ/model.npz", "x.npy"): 0,
    ("export", "ρ/model.npz", "ρ/b.npz"): 0,
    ("verify", "parity", "--backend", "numpy"): 0,
    ("explain",): 0,
    ("explain", "--descent"): 0,
    ("explain", "--html", "ρ/page.html"): 0,
    ("recipes",): 0,
    ("doctor",): 0,
    ("warmup", "--dtype", "日"): 2,
    ("fetch", "日"): 2,
    ("bench", "日"): 2,
    ("train", "--epochs", "日"): 2,
    ("train", "日.toml"): 5,
    **{(command, "--help"): 0 for command in COMMANDS},
}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "iso8859-1", "cp932", "utf-16", "utf-8"])
def test_every_command_prints_whatever_the_encoding(printed, encoding):
    Path("δ.csv").write_text(TABLE, encoding="utf-8")
    np.save("x.npy", np.ones((3, 2)))
    for args, expected in WORK.items():
        code, out, err = printed(encoding, *args)
        assert code == expected, (args, err)
        assert out + err
        if encoding.startswith("utf"):
            assert "\\" not in out, args
    code, out, _ = printed(encoding, "predict", "ρ/model.npz", "x.npy", "--json", "-")
    assert code == 0
    assert set(json.loads(out)["predictions"]) <= {"δ", "[bold]é"}


def test_what_an_encoding_lacks_is_spelt_out(printed):
    _, out, _ = printed("ascii", "explain")
    assert "delta = (delta_next W_next) .* sigma'(z)" in out
    assert "||y-a||^2" in out
    assert "h = 2^-17" in out
    assert "\\" not in out
    assert "8 x 8 digits" in printed("ascii", "recipes")[1]
    _, _, err = printed("cp1252", "predict", "é日.npz", "x.npy")
    assert "é\\u65e5.npz" in err


def test_every_sign_that_gpubp_writes_has_a_spelling():
    files = [*(ROOT / "gpubp").rglob("*.py"), *(ROOT / "gpubp").rglob("*.toml")]
    signs = {sign for path in files for sign in path.read_text(encoding="utf-8") if not sign.isascii()}
    signs -= {sign for sign in signs if unicodedata.name(sign).startswith("LATIN SMALL LETTER")}  # of names
    assert len(signs) > 30
    assert [sign for sign in sorted(signs) if b"\\" in sign.encode("ascii", spelling.NAME)] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    ],
)
def test_a_run_in_another_locale_reads_and_writes_utf8(tmp_path, settings):
    (tmp_path / ODD).mkdir()
    (tmp_path / ODD / f"{ODD}.csv").write_text(TABLE, encoding="utf-8")
    options = ("--layers", "2-3-2", "--epochs", "1", "--backend", "numpy", "--json", f"{ODD}.json")
    command = [sys.executable, "-m", "gpubp", "train", "--data", f"{ODD}.csv", *options]
    done = subprocess.run(command, cwd=tmp_path / ODD, env={**os.environ, **settings}, capture_output=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / ODD / "gpubp-runs" / f"{ODD}-1"
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["data"] == str(tmp_path / ODD / f"{ODD}.csv")
    assert "δ" in (folder / "report.html").read_text(encoding="utf-8")
    assert gpubp.load(folder / "model.npz").classes == ("[bold]é", "δ")
    assert json.loads((tmp_path / ODD / f"{ODD}.json").read_text(encoding="utf-8"))["ok"] is True


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_run_shows_a_bar_on_a_terminal(run, monkeypatch, encoding):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal(io.BytesIO(), encoding))
        code, out, _ = run(
            "train", "parity", "--epochs", 3, "--backend", "numpy", "--folder", "δ", "--no-report"
        )
        sys.stderr.flush()
        shown = sys.stderr.buffer.getvalue().decode(encoding)
    assert (code, "test accuracy" in out) == (0, True)
    assert "epoch 3/3  loss" in shown
    assert "samples/s" in shown


def test_names_are_shown_as_they_are(ok, run):
    Path(f"{ODD}.csv").write_text(TABLE, encoding="utf-8")
    out = ok("train", "--data", f"{ODD}.csv", "--layers", "2-3-2", "--epochs", 1, "--backend", "numpy")
    assert out.startswith(f"{ODD}\n")
    assert f"model saved in gpubp-runs/{ODD}-1/model.npz\n" in out
    assert f"report in gpubp-runs/{ODD}-1/report.html\n" in out
    for args in (
        ("predict", f"{ODD}.npz", "x.npy"),
        ("train", f"{ODD}.toml"),
        ("train", "--data", f"{ODD}.npz"),
    ):
        assert ODD in run(*args)[2]


def test_a_name_with_markup_is_shown_as_it_is_in_a_table(capsys):
    name = "[red]:smile:[/red]"
    console = terminal.console()
    console.print(terminal.table({name: "a"}, [{"a": name}]))
    terminal.print_lines([name], console)
    assert capsys.readouterr().out.count(name) == 3


def test_the_name_of_a_file_that_is_no_text_is_no_traceback(printed):
    name = os.fsdecode(b"\xff.npz")
    assert printed("cp1252", "predict", name, "x.npy")[::2] == (5, "error: there is no file ÿ.npz\n")


# Warnings


def test_warnings_are_one_line_each_and_not_in_json(run):
    clipped = (
        "train",
        "parity",
        "--output",
        "identity",
        "--loss",
        "cross_entropy",
        "--epochs",
        1,
        "--lr",
        1e-6,
    )
    code, out, err = run(*clipped, *QUIET, "--json", "-")
    assert code == 0
    assert json.loads(out)["ok"] is True
    assert err.startswith("warning: cross_entropy takes outputs for probabilities")
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert ".py" not in err


def test_a_warning_of_several_lines_is_one(run, monkeypatch):
    monkeypatch.setattr("gpubp.cli.doctor.examine", lambda: warnings.warn("one\n  two", stacklevel=1) or {})
    monkeypatch.setattr("gpubp.cli.doctor.render", lambda found: "found")
    assert run("doctor") == (0, "found\n", "warning: one two\n")


# ~


@pytest.fixture
def home(monkeypatch, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(folder))
    return folder


def test_every_path_on_the_command_line_may_begin_with_a_tilde():
    found = 0
    for command in app.registered_commands:
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            kind, *about = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
            if Path in (kind, *typing.get_args(kind)):
                found += 1
                assert about[0].parser is user_path, (command.callback.__name__, name)
    assert found > 10


def test_a_tilde_is_the_home_folder(ok, run, home):
    np.save(home / "x.npy", np.ones((2, 10)))
    ok("train", "parity", "--epochs", 1, "--folder=~/run", "--json=~/r.json", *QUIET)
    ok("train", "--resume=~/run/checkpoint.npz", "--epochs", 2, *QUIET)
    ok("predict", "~/run/model.npz", "~/x.npy", "--out=~/labels.npy")
    ok("export", "~/run/model.npz", "~/again.npz")
    ok("explain", "--model=~/again.npz", "--html=~/page.html")
    (home / "x.csv").write_text(TABLE, encoding="utf-8")
    (home / "my.toml").write_text('data = "~/x.csv"\nlayers = [2, 3, 2]\nepochs = 1\n')
    ok("train", "~/my.toml", "--folder", "~/mine", *QUIET)
    ok("train", "--data=~/x.csv", "--layers", "2-2", "--epochs", 1, *QUIET)
    made = {"run", "r.json", "labels.npy", "again.npz", "page.html", "mine"}
    assert made <= {path.name for path in home.iterdir()}
    assert not Path("~").exists()
    for args in (
        ("bench", "--compare=~/absent"),
        ("train", "mnist", "--data-dir=~/absent"),
        ("train", "~/absent.toml"),
        ("train", "--data=~/absent.csv"),
        ("predict", "~/absent", "x.npy"),
    ):
        code, _, err = run(*args)
        assert code == 5
        assert str(home / "absent") in err


def test_a_tilde_is_the_home_folder_from_python(home, monkeypatch, rng):
    net, data = gpubp.Network([2, 2]), (rng.standard_normal((20, 2)), np.arange(20) % 2)
    net.save("~/a.npz")
    net.to_onnx("~/a.onnx")
    gpubp.save(net, "~/b.safetensors")
    gpubp.fit(net, *data, epochs=1, save_to="~/c.npz", backend="numpy")
    gpubp.fit(net, *data, epochs=2, resume="~/c.npz", backend="numpy")
    assert {path.name for path in home.iterdir()} == {"a.npz", "a.onnx", "b.safetensors", "c.npz"}
    for name in ("a.npz", "b.safetensors", "c.npz"):
        assert gpubp.load(f"~/{name}").sizes == [2, 2]
    (home / "x.csv").write_text(TABLE, encoding="utf-8")
    assert len(gpubp.load_data("~/x.csv").train) == 32
    monkeypatch.setenv("GPUBP_CACHE_DIR", "~/cache")
    monkeypatch.setenv("GPUBP_DATA_DIR", "~/absent")
    monkeypatch.setattr("gpubp.data.mnist.download", lambda urls, path, *_, **__: pytest.fail(str(path)))
    with pytest.raises(pytest.fail.Exception, match=str(home / "cache")):
        gpubp.load_data("mnist")


@pytest.mark.parametrize("name", ["~nobody-of-that-name/a.npz", "a~", "./~"])
def test_other_tildes_are_left_alone(name):
    assert user_path(name) == Path(name)


# What is broken


@pytest.mark.parametrize(
    "raised", [RuntimeError("one\ntwo"), OSError(), UnicodeDecodeError("ascii", b"", 0, 1, "no")]
)
@pytest.mark.parametrize("fact", ["versions", "processor", "cores", "blas"])
def test_doctor_says_what_cannot_be_found_out(ok, monkeypatch, fact, raised):
    def broken():
        raise raised

    monkeypatch.setattr(f"gpubp.support.machine.{fact}", broken)
    out = ok("doctor")
    assert f"\n{fact:<9}  unknown: " in out
    assert "numpy      yes  NumPy" in out
    found = json.loads(ok("doctor", "--json", "-"))
    assert found[fact] is None
    assert found["failed"][fact]


@pytest.mark.parametrize(
    "broken", ["gpubp.backends.why_unavailable", "gpubp.backends.numpy.ReferenceBackend.describe"]
)
def test_doctor_survives_a_backend_that_raises(ok, monkeypatch, broken):
    def fails(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(broken, fails)
    assert "numpy      no   no such luck" in ok("doctor")


def doctor(tmp_path, *command, **settings):
    env = {**os.environ, "PYTHONPATH": str(tmp_path), **settings}
    env = {name: value for name, value in env.items() if value is not None}
    command = [sys.executable, "-m", "gpubp", *(command or ("doctor",))]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("raises", ["raise SystemExit(3)", "raise RuntimeError('one\\ntwo')", "1 / 0", ""])
def test_doctor_survives_libraries_that_cannot_be_imported(tmp_path, raises):
    for name in ("numba", "cupy"):
        (tmp_path / f"{name}.py").write_text(raises)
    done = doctor(tmp_path, NUMBA_CACHE_DIR=str(tmp_path))  # without kernels that could be run without Numba
    assert done.returncode == 0, done.stderr
    assert "\nnumba      no   numba cannot be imported" in done.stdout
    assert "\ncupy       no   CuPy " in done.stdout
    assert "auto       takes numpy" in done.stdout
    done = doctor(tmp_path, "train", "parity", "--epochs", "1", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "backend numpy" in done.stdout


@pytest.mark.parametrize("home", [None, "/nonexistent", "/proc"])
def test_doctor_needs_no_home(tmp_path, home):
    done = doctor(tmp_path, HOME=home, NUMBA_THREADING_LAYER="tbb")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nnumba      yes  Numba" in done.stdout


def test_without_compilation_numba_says_so_and_auto_takes_numpy(tmp_path):
    train = ("train", "parity", "--epochs", "1", "--no-report")
    done = doctor(tmp_path, *train, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert "backend numpy (" in done.stdout
    done = doctor(tmp_path, *train, "--backend", "numba", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 4
    assert done.stderr.startswith("error: backend 'numba' cannot run here: NUMBA_DISABLE_JIT is set")
    done = doctor(tmp_path, NUMBA_DISABLE_JIT="1")
    assert "numba      no   NUMBA_DISABLE_JIT is set" in done.stdout
