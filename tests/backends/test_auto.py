"""The choice of a backend by the work that there is: counted, told, kept, and never silently another in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gpubp
from gpubp import backends
from gpubp.backends import Wanted
from gpubp.backends.work import Work
from gpubp.errors import BackendUnavailable
from gpubp.formats import npz
from gpubp.network import Network
from gpubp.randomness.dropout import Dropout

MNIST, IRIS = (60_000, 128, 10, 10_000), (150, 150, 200)


@pytest.fixture(params=[True, False], ids=["compiled", "nothing compiled"])
def compiled(request, monkeypatch) -> bool:
    monkeypatch.setattr(
        "gpubp.backends.cpu.backend.is_compiled",
        lambda dtype, by_chance=False: request.param,
    )
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: "no NVIDIA driver")
    return request.param


def work(sizes, counts) -> Work:
    return Work.of(Network(sizes, seed=0), *counts)


def test_work_is_counted_from_shapes():
    found = work([784, 128, 10], MNIST)
    forward = 784 * 128 + 128 * 10
    assert found.multiply_adds == 10 * (60_000 * (2 * forward + 128 * 10) + 10_000 * forward)
    assert found.updates == 10 * 469 * forward
    assert found.calls == 10 * 469 * 2
    assert found.drawn == 0
    dropout = Dropout.of([0, 0.5], 2, seed=0)
    assert Work.of(Network([784, 128, 10]), *MNIST, dropout).drawn == 10 * 60_000 * 128


def test_what_is_compiled_without_dropout_is_not_compiled_with_it(monkeypatch):
    """Small trainings then wait for no compiler."""
    monkeypatch.setattr(
        "gpubp.backends.cpu.backend.is_compiled", lambda dtype, by_chance=False: not by_chance
    )
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: "no NVIDIA driver")
    network = Network([4, 100, 3], seed=0)
    for dropout, expected in ((None, "numba"), (Dropout.of(0.5, 2, seed=0), "numpy")):
        assert backends.choose("auto", Work.of(network, *IRIS, dropout=dropout))[0] == expected


@pytest.mark.parametrize(
    ("sizes", "counts", "expected"),
    [
        ([784, 128, 10], MNIST, {True: "numba", False: "numba"}),
        ([64, 100, 10], (1797, 200, 200), {True: "numba", False: "numpy"}),
        ([4, 100, 3], IRIS, {True: "numba", False: "numpy"}),
        ([2, 4, 1], (4, 4, 50), {True: "numpy", False: "numpy"}),
        ([784, 2048, 2048, 10], (60_000, 512, 1), {True: "numba", False: "numba"}),
    ],
)
def test_auto_takes_what_ends_first_by_count(sizes, counts, expected, compiled):
    name, why = backends.choose("auto", work(sizes, counts))
    assert name == expected[compiled]
    if name == "numpy":
        assert why.startswith("about 0.")
        assert ("load its compiled kernels" if compiled else "gpubp warmup") in why
    else:
        assert why == "cupy cannot run here: gpubp doctor says why"
    assert backends.get("auto", work=work(sizes, counts)).name == name
    assert backends.get(Wanted(threads=1), work=work(sizes, counts)).threads == 1


def test_images_that_are_deformed_are_numbas_work(compiled):
    """By the count of their pixels: NumPy takes a hundred times as long for each."""
    network, counts = Network([784, 8, 10], seed=0), (600, 60, 60)
    plain, deforms = Work.of(network, *counts), Work.of(network, *counts, deforms=True)
    assert (plain.deformed, deforms.deformed) == (0, 60 * 600 * 784)
    assert backends.choose("auto", plain)[0] == ("numba" if compiled else "numpy")
    assert backends.choose("auto", deforms)[0] == "numba"


def test_a_plan_that_only_one_has_decides(compiled):
    small = work([4, 100, 3], IRIS)
    chosen = "numba", "the first that can run here and has the fused plan"
    assert backends.choose("auto", small, plan="fused") == chosen
    assert backends.choose("auto", work([784, 128, 10], MNIST), plan="inplace")[0] == "numpy"
    with pytest.raises(BackendUnavailable, match="numba: it has no units plan"):
        backends.choose("auto", small, plan="units")


def test_what_is_named_is_taken(compiled):
    for name in ("numpy", "numba"):
        assert backends.choose(name, work([4, 100, 3], IRIS)) == (name, "named")


def data(rng, n=60):
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def test_fit_says_what_it_took_and_why(compiled, rng):
    history = gpubp.fit(Network([4, 5, 3], seed=0), *data(rng), epochs=2)
    assert history.backend == "numpy"
    assert history.why_backend.startswith("about 0.")


def test_a_resumed_run_goes_on_where_it_ran(rng, tmp_path, monkeypatch):
    """Whatever has been compiled meanwhile: bits would not be those of one run."""
    x, y = data(rng)
    path, whole = tmp_path / "c.npz", Network([4, 5, 3], seed=0)
    gpubp.fit(whole, x, y, epochs=4, backend="numpy", batch_size=16)
    net = Network([4, 5, 3], seed=0)
    gpubp.fit(net, x, y, epochs=2, backend="numpy", batch_size=16, save_to=path)
    monkeypatch.setattr(Work, "seconds_of_numpy", lambda self: np.inf)
    again = Network([4, 5, 3], seed=0)
    history = gpubp.fit(again, x, y, epochs=4, batch_size=16, resume=path)
    assert (history.backend, history.why_backend) == ("numpy", "it trained the epochs before")
    for ours, theirs in zip(whole.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
    named = gpubp.fit(Network([4, 5, 3], seed=0), x, y, epochs=4, batch_size=16, resume=path, backend="numba")
    assert named.backend == "numba"
    header, arrays = npz.read(path, "checkpoint")
    del header["training"]["backend"]  # as of before it was kept
    npz.write(path, header, arrays)
    old = gpubp.fit(Network([4, 5, 3], seed=0), x, y, epochs=4, batch_size=16, resume=path)
    assert old.backend == "numba"


TRAIN = ("train", "iris", "--epochs", "2", "--splits", "1", "--no-report", "--json", "run.json")


def gpubp_in(folder, *arguments, **environment):
    """A process that has nothing compiled, unless the environment says where."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), **environment}
    command = [sys.executable, "-X", "importtime", "-m", "gpubp", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_a_small_run_waits_for_no_compiler_and_its_recipe_names_what_ran(tmp_path):
    done = gpubp_in(tmp_path, *TRAIN, "--folder", "first")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("backend "))
    assert line.startswith("backend numpy (about 0.")
    assert "gpubp warmup" in line
    assert "| numba" not in done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["backend"] == "numpy"
    kept = (tmp_path / "first" / "recipe.toml").read_text()
    assert 'backend = "numpy"' in kept
    again = gpubp_in(tmp_path, "train", "first/recipe.toml", "--no-report", "--folder", "second")
    assert "\nbackend numpy\n" in again.stdout
