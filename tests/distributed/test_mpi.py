"""Several processes under mpiexec, as users start them, and every way in which one of them can fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from bench.ranks.command import mpiexec
from gpubp.distributed import mpi
from gpubp.distributed.ranks import Alone
from gpubp.errors import GpubpError
from gpubp.formats import npz
from tests import ROOT, fewer, param
from tests.distributed import on_ranks

LAUNCHER = mpiexec()


def why_no_mpi() -> str | None:
    if find_spec("mpi4py") is None:
        return 'mpi4py is not installed: python -m pip install -e ".[mpi]"'
    if LAUNCHER is None:
        return "there is no mpiexec, which the mpich wheel or the system's MPI would bring"
    return None


pytestmark = pytest.mark.skipif(why_no_mpi() is not None, reason=str(why_no_mpi()))
needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

SECONDS = 120  # that any of these may take, on a busy machine
SCRIPT = """
import hashlib, json, os, resource, signal, sys
import numpy as np
import gpubp
from gpubp import data
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
split = data.load("iris", quiet=True).train
x, y = split.inputs, split.targets
how = {"epochs": 3, "batch_size": 16, "backend": "numba", "parts": 4, "distributed": comm}
net = gpubp.Network([4, 20, 3], seed=1)

def fit(**more):
    return gpubp.fit(net, x, y, **(how | more))

def digest():
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for p in net.parameters for a in p)).hexdigest()
"""
TELL = """
history = fit()
print(json.dumps([rank, digest(), history["loss"], history.distribution.ranks, history.distribution.hosts]), flush=True)
"""


def started(size, *command, cwd, **env):
    """The command on so many ranks, under way."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env}
    given = [str(LAUNCHER), "-n", str(size), *map(str, command)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(given, cwd=cwd, env=environment, start_new_session=True, **pipes)


def ended(process):
    """Its exit code, output and errors; a job that does not end is killed, and a failure."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"the job did not end:\n{out}\n{err}")
    return process.returncode, out, err


def script(size, text, cwd, **env):
    return ended(started(size, sys.executable, "-c", SCRIPT + text, cwd=cwd, **env))


def train(size, *options, cwd):
    return started(size, sys.executable, "-m", "gpubp", "train", *options, "--no-report", cwd=cwd)


def rows(text):
    return [json.loads(line) for line in re.findall(r"\[\d+, \"\w+.*?\]\, \d+, \d+\]", text)]


def test_the_same_bits_on_1_2_and_4_ranks_and_without_mpi(tmp_path):
    found = []
    for size in (1, 2, 4):
        code, out, err = script(size, TELL, tmp_path)
        assert code == 0, err
        told = rows(out)
        assert sorted(row[0] for row in told) == list(range(size))
        assert {(row[3], row[4]) for row in told} == {(size, 1)}
        found += [(row[1], tuple(row[2])) for row in told]
    alone = SCRIPT.replace("from mpi4py import MPI", "class MPI: COMM_WORLD = None").replace(
        "rank, size = comm.Get_rank(), comm.Get_size()", "rank, size = 0, 1"
    )
    run = [sys.executable, "-c", alone + TELL]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS, check=True)
    (row,) = rows(done.stdout)
    assert set(found) == {(row[1], tuple(row[2]))}


def test_the_command_line(tmp_path):
    """Only rank 0 speaks and writes; what is left is what one process leaves, to the bit, and tells of the ranks."""
    options = (
        "iris",
        "--splits",
        "1",
        "--parts",
        "4",
        "--epochs",
        "5",
        "--backend",
        "numba",
        "--verify",
        "step",
    )
    for size, folder in ((1, "one"), (4, "four")):
        how = (*options, "--distributed", "mpi", "--folder", folder, "--json", f"{folder}.json")
        code, out, err = ended(train(size, *how, cwd=tmp_path))
        assert code == 0, err
        assert out.count("test accuracy") == 1
        assert out.count("model saved in") == 1
        assert err.count("epoch 5/5") == 1
    assert "4 ranks on 1 host, each mini-batch in 4 parts; " in out
    one, four = (npz.read(tmp_path / folder / "model.npz", "model")[1] for folder in ("one", "four"))
    assert all(one[name].tobytes() == four[name].tobytes() for name in one)
    told = json.loads((tmp_path / "four.json").read_text())["splits"][0]["distribution"]
    assert {key: told[key] for key in ("ranks", "hosts", "parts")} == {"ranks": 4, "hosts": 1, "parts": 4}
    assert told["sent"] > 0
    assert told["exchanges"] is None  # every step was verified
    recipe = (tmp_path / "four" / "recipe.toml").read_text()
    assert "parts = 4" in recipe
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four", "four.json", "one", "one.json"]


def test_many_processes_that_were_not_told_to_train_together_are_refused(tmp_path):
    code, _, err = ended(train(3, "iris", cwd=tmp_path))
    assert code == 2
    assert err.count("error: ") == 1
    assert "3 processes were started" in err
    assert "--distributed mpi" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "rank"), mpi.LAUNCHED)
def test_launchers_are_known_by_what_they_set(size, rank, monkeypatch):
    for name in (name for pair in mpi.LAUNCHED for name in pair):
        monkeypatch.delenv(name, raising=False)
    mpi.refuse_many_alone(Alone())
    monkeypatch.setenv(size, "1")
    mpi.refuse_many_alone(Alone())
    monkeypatch.setenv(size, "2")
    monkeypatch.setenv(rank, "0")
    with pytest.raises(GpubpError, match="2 processes"):
        mpi.refuse_many_alone(Alone())
    monkeypatch.setenv(rank, "1")
    with pytest.raises(SystemExit):  # the first tells it
        mpi.refuse_many_alone(Alone())
    assert on_ranks(2, mpi.refuse_many_alone) == [None, None]


def test_a_launcher_that_the_library_does_not_know_is_refused(tmp_path):
    """Open MPI's variables, and MPICH's library: each process is alone, and would train the whole network."""
    known = {name: "" for pair in mpi.LAUNCHED for name in pair}
    env = {
        **os.environ,
        **known,
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "gpubp", "train", "iris", "--distributed", "mpi"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "by a launcher that" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_processes_that_have_nothing_to_do_with_each_other_may_say_so(tmp_path):
    how = ("iris", "--splits", "1", "--epochs", "2", "--distributed", "no", "--backend", "numpy")
    code, out, err = ended(train(2, *how, cwd=tmp_path))
    assert code in (0, 1), err
    assert out.count("model saved in") == 2


def test_what_ranks_have_no_shared_memory_for_goes_by_messages(tmp_path):
    lacking = """
from gpubp.distributed.mpi import Shared, ranks_of
Shared.has_room = staticmethod(lambda size, ranks: False)
"""
    code, out, err = script(2, lacking + TELL, tmp_path)
    assert code == 0, err
    found = {row[1] for row in rows(out)}
    code, out, err = script(2, TELL, tmp_path)
    assert code == 0, err
    assert found == {row[1] for row in rows(out)}


def test_a_rank_that_is_interrupted_alone_ends_the_job_without_a_traceback(tmp_path):
    code, out, err = script(
        2,
        "fit(callbacks=[lambda *_: signal.raise_signal(2) or signal.raise_signal(2)] if rank else [])",
        tmp_path,
    )
    assert code == 130
    assert "interrupted: rank 1 on" in err
    assert "Traceback" not in out + err


def test_callbacks_may_be_rank_0s_alone(tmp_path):
    asked = """
seen = []
fit(callbacks=[lambda epoch, network: seen.append(epoch.epoch)] if rank == 0 else [])
print(f"rank {rank} saw {len(seen)}.", flush=True)
"""
    code, out, err = script(2, asked, tmp_path)
    assert code == 0, err
    assert "rank 0 saw 3." in out
    assert "rank 1 saw 0." in out


def test_ranks_that_go_on_from_different_things_are_refused(tmp_path):
    going_on = """
path = f"{rank}.npz"
other = gpubp.Network([4, 20, 3], seed=1)
gpubp.fit(other, x, y, **{**how, "distributed": None, "epochs": 1 + rank}, save_to=path)
comm.Barrier()
try:
    fit(epochs=5, resume=path) if CHECKPOINTS else fit(epochs=5, resume="0.npz" if rank == 0 else None)
except gpubp.GpubpError as error:
    print(json.dumps([rank, str(error)]), flush=True)
    sys.exit(7)
"""
    for checkpoints, named in ((True, "they differ in epoch"), (False, "what they go on from")):
        code, out, err = script(2, going_on.replace("CHECKPOINTS", str(checkpoints)), tmp_path)
        assert code == 7, err
        assert out.count(named) == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("iris", "--distributed", "mpi", "--parts", "3"), 2, "parts must be a power of two"),
        (("iris", "--distributed", "mpi", "--parts", "1"), 2, "1 parts cannot be shared evenly by 2 ranks"),
        (("iris", "--distributed", "nccl"), 2, "'nccl'"),
        (("nothing", "--distributed", "mpi"), 2, "nothing"),
        (("there-is-no.csv", "--distributed=mpi"), 2, "is data, not a recipe"),
        (
            ("iris", "--distributed", "mpi", "--data", "there-is-no.csv"),
            5,
            "error: there-is-no.csv: no such file",
        ),
        (("iris", "--distributed", "mpi", "--folder", "/proc/nothing"), 1, "/proc/nothing"),
        (("iris", "--distributed", "mpi", "--no-such-option"), 2, "No such option"),
        (
            ("iris", "--distributed", "mpi", "--lr", "1e38", "--splits", "1", "--verify", "off"),
            1,
            "training has diverged",
        ),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, tuple) else "",
)
def test_an_error_that_all_ranks_have_is_told_once(options, code, message, tmp_path):
    found, out, err = ended(train(2, *options, cwd=tmp_path))
    assert found == code, err
    assert message in err
    # Typer's begin with a capital. These two are told before anybody is a rank.
    assert err.count("rror") == (2 if message in ("No such option", "'nccl'") else 1)
    assert "Traceback" not in err + out


def rank_of(process, rank):
    """The process that mpiexec started as this rank."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.environ().get("PMI_RANK") == str(rank) and "gpubp" in " ".join(child.cmdline()):
                return child
        except psutil.Error:
            continue
    return pytest.skip("this launcher does not say which process is which rank, as MPICH's does")


def training(tmp_path, *options):
    """Two ranks that have been training for a while, and the checkpoint that they have left."""
    how = (
        "mnist-sample",
        "--distributed",
        "mpi",
        "--epochs",
        "100000",
        "--folder",
        "run",
        "--patience",
        "90000",
    )
    process = train(2, *how, "--backend", "numba", *options, cwd=tmp_path)
    path, until = tmp_path / "run" / "checkpoint.npz", time.monotonic() + SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(str(ended(process)))
        time.sleep(0.1)
    return process, path


def epochs_of(path):
    return npz.read(path, "checkpoint")[0]["training"]["epoch"]


@needs_signals
@pytest.mark.parametrize("rank", [param(0, always=False), param(1, always=True)])
def test_a_rank_that_is_killed_ends_the_job_and_leaves_the_checkpoint(rank, tmp_path):
    process, path = training(tmp_path)
    rank_of(process, rank).kill()
    started_at = time.monotonic()
    code, _, err = ended(process)
    assert code != 0
    assert time.monotonic() - started_at < 30
    assert "Traceback" not in err
    done = epochs_of(path)
    assert done > 0
    code, out, err = ended(train(1, "--resume", path, "--epochs", done + 1, cwd=tmp_path))
    assert code in (0, 1), err  # it may not have reached what the recipe asks for
    assert "test accuracy" in out


@needs_signals
@pytest.mark.parametrize(
    ("rank", "number"),
    [
        param(None, signal.SIGINT, always=True),
        param(None, signal.SIGTERM, always=False),
        param(0, signal.SIGTERM, always=False),
        param(1, signal.SIGTERM, always=True),
    ],
    ids=str,
)
def test_what_asks_one_rank_to_end_ends_all_once_they_have_saved(rank, number, tmp_path):
    process, path = training(tmp_path)
    whom = process if rank is None else rank_of(process, rank)
    whom.send_signal(number)
    code, out, err = ended(process)
    assert code == 130, err
    assert "interrupted" in out
    assert (
        out.count("go on with: mpiexec -n 2 gpubp train --resume run/checkpoint.npz --distributed mpi") == 1
    )
    assert (tmp_path / "run" / "model.npz").exists()
    done = epochs_of(path)
    code, out, err = ended(train(1, "--resume", path, "--epochs", done + 1, cwd=tmp_path))
    assert code in (0, 1), err
    assert f"epoch {done + 1}/{done + 1}" in err


def test_a_rank_that_fails_alone_ends_the_job_with_its_message(tmp_path):
    failing = """
if rank == 1:
    x = x[:, :3]
fit()
"""
    code, _, err = script(2, failing, tmp_path)
    assert code == 5
    assert err.count("error: rank 1 on ") == 1
    assert "columns" in err
    assert "Traceback" not in err


def test_a_bug_on_one_rank_ends_the_job_with_its_traceback(tmp_path):
    failing = """
def callback(epoch, network):
    if rank == 1:
        raise ZeroDivisionError("of rank 1")

fit(callbacks=[callback])
"""
    code, _, err = script(2, failing, tmp_path)
    assert code == 1
    assert "error: rank 1 on " in err
    assert err.count("ZeroDivisionError: of rank 1") == 1


@needs_signals
def test_a_disk_that_is_full_on_rank_0_ends_the_job_and_leaves_the_last_checkpoint(tmp_path):
    failing = """
def callback(epoch, network):
    if rank == 0 and epoch.epoch == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # no file can be larger any more

path = "checkpoint.npz"
fit(epochs=1, save_to=path)
try:
    fit(resume=path, epochs=5, save_to=path, callbacks=[callback])
except gpubp.GpubpError as error:
    print(json.dumps([rank, str(error)]), flush=True)
    sys.exit(7)
"""
    code, out, err = script(2, failing, tmp_path)
    assert code == 7, err
    assert len(re.findall(r'\[[01], "[^"]*checkpoint.npz[^"]*File too large', out)) == 2
    assert epochs_of(tmp_path / "checkpoint.npz") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_nan_on_one_rank_ends_all(tmp_path):
    failing = """
from gpubp.distributed.plan import DistributedPlan
right = DistributedPlan._sum_gradient

def wrong(plan, order):
    sums = right(plan, order)
    if rank == 1:
        plan.share.gradient[:] = np.nan
    return sums

DistributedPlan._sum_gradient = wrong
try:
    fit(verify="off")
except gpubp.GpubpError as error:
    print(json.dumps([rank, str(error)]), flush=True)
    sys.exit(error.exit_code)
"""
    code, out, err = script(2, failing, tmp_path)
    assert code == 1, err
    assert len(re.findall(r'\[[01], "the loss is nan after epoch 1', out)) == 2


def test_ranks_with_other_recipes_are_refused(tmp_path):
    command = [sys.executable, "-m", "gpubp", "train", "--distributed", "mpi"]
    both = [*command, "iris", ":", "-n", "1", *command, "iris", "--lr", "0.3"]
    code, _, err = ended(started(1, *both, cwd=tmp_path))
    assert code == 2, err
    assert err.count("error: the ranks cannot train one network, for they differ in optimizer") == 1


def test_threads_are_shared_by_the_ranks_of_a_machine(tmp_path):
    asking = """
from gpubp.distributed.mpi import ranks_of, threads_each
print(f"({threads_each(ranks_of(comm))})", flush=True)
"""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for size in (1, 2, fewer(2, 4)):
        code, out, err = script(size, asking, tmp_path)
        assert code == 0, err
        assert out.count(f"({max(1, cores // size)})") == size


def test_mpi_that_is_not_there_is_told_with_what_brings_it(run, monkeypatch):
    monkeypatch.setattr(mpi, "import_module", lambda name: __import__("there_is_no_mpi"))
    code, _, err = run("train", "iris", "--distributed", "mpi")
    assert code == 1
    assert 'python -m pip install "gpubp[mpi]"' in err


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="pages are counted by Linux's /proc")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_rank_reads_its_part_of_a_file(backend, tmp_path):
    """Of 512 MB, all in one mini-batch, each of two ranks reads half, and a thousand rows for their usual size.

    With a row Linux maps the 64 KB around it, which is an eighth of the file for a thousand.
    """
    reading = """
import resource
path, rows, width = "x.bin", 131072, 4096
if rank == 0:
    open(path, "wb").truncate(rows * width)  # zeros, which take no room on the disk
comm.Barrier()
x = np.memmap(path, np.uint8, "r", shape=(rows, width))
net = gpubp.Network([width, 4, 3], seed=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
more = {"epochs": 1, "batch_size": rows, "shuffle": False, "verify": "off", "parts": 32}
gpubp.fit(net, x, np.arange(rows) % 3, **more, backend=BACKEND, distributed=comm)
mapping = open("/proc/self/smaps").read().split(path)[1]
read = int(mapping[mapping.index("Rss:") + 4 :].split()[0])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([rank, "x", read * 1024 / x.size, grown * 1024 / x.size]), flush=True)
""".replace("BACKEND", repr(backend))
    code, out, err = script(2, reading, tmp_path)
    assert code == 0, err
    told = [json.loads(line) for line in re.findall(r'\[[01], "x".*?\]', out)]
    assert len(told) == 2
    for _, _, read, grown in told:
        assert 0.5 <= read < 0.7, told
        assert grown < read + 0.5, told  # a copy would be of all


PAGE = (ROOT / "docs" / "ranks.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("mpiexec") and "mnist-sample" in line
]


@pytest.mark.parametrize("command", [param(line, always=False) for line in COMMANDS])
def test_a_command_of_the_page_runs(command, tmp_path):
    launcher, count, size, *rest = shlex.split(command, comments=True)
    assert (launcher, count, rest[0]) == ("mpiexec", "-n", "gpubp")
    code, out, err = ended(started(size, sys.executable, "-m", *rest, cwd=tmp_path))
    assert code == 0, err
    assert out.count("test accuracy") == 1
