"""Predictions for data larger than memory: memory maps, iterators, files read and written some rows at a time."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gpubp import model as predicting
from gpubp.data.predictions import write_predictions
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.network import Network

MB = 1 << 20


def sparse_npy(path: Path, shape: tuple[int, ...], dtype: str, order: bool = False) -> np.memmap:
    """An .npy file of zeros that takes no room on the disk, mapped for reading."""
    np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape, order)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize(
    ("method", "dtype", "fortran", "shape"),
    [
        ("forward", "<f8", False, (32_000, 128)),
        ("predict_proba", "<f8", False, (32_000, 128)),
        ("predict", "<f8", True, (32_000, 128)),
        ("predict", ">f4", False, (64_000, 128)),
        ("predict", "<f2", True, (128_000, 8, 16)),
        ("predict", "<i8", False, (32_000, 128)),
        ("predict", "u1", False, (256_000, 128)),
        ("predict", "<f4", False, (80, 400_000)),  # in chunks of 20 rows
    ],
)
def test_memory_maps_take_the_memory_of_a_chunk(tmp_path, monkeypatch, method, dtype, fortran, shape):
    monkeypatch.setattr(predicting, "CHUNK", predicting.CHUNK // 8)
    monkeypatch.setattr(predicting, "CHUNK_NUMBERS", predicting.CHUNK_NUMBERS // 8)
    mapped = sparse_npy(tmp_path / "x.npy", shape, dtype, fortran)
    net = Network([int(np.prod(shape[1:])), 2])
    tracemalloc.start()
    try:
        outputs = getattr(net, method)(mapped)
        peak = tracemalloc.get_traced_memory()[1] - outputs.nbytes
    finally:
        tracemalloc.stop()
    assert len(outputs) == shape[0]
    assert mapped.nbytes >= 30 * MB
    assert peak < mapped.nbytes / 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integers_are_what_they_are_whatever_else_is_in_their_chunk(dtype, rng):
    x = rng.integers(-9, 9, (10_000, 3)) + np.where(np.arange(10_000) < 5000, 0, 2**24 + 1)[:, None]
    net = Network([3, 4, 2], output="identity", dtype=dtype)
    np.testing.assert_array_equal(net.forward(x), net.forward(x.astype(np.float64)))


def test_an_iterator_of_arrays_is_one_array_in_parts(rng):
    net = Network([5, 4, 3], seed=1)
    net.classes = ("a", "bc", "def")
    x = rng.standard_normal((9000, 5)).astype(np.float32)
    parts = [x[:1], x[1:6000], x[6000:]]
    for method in ("forward", "predict", "predict_proba"):
        whole = getattr(net, method)(x)
        np.testing.assert_allclose(*map(as_numbers, (getattr(net, method)(iter(parts)), whole)), rtol=1e-6)
        streamed = list(net.stream(iter(parts), method))
        assert [len(part) for part in streamed] == [1, 4096, 1903, 3000]
        np.testing.assert_allclose(*map(as_numbers, (np.concatenate(streamed), whole)), rtol=1e-6)


def as_numbers(outputs: np.ndarray) -> np.ndarray:
    """Labels as the places of their letters, numbers as they are."""
    return np.unique(outputs, return_inverse=True)[1] if outputs.dtype.kind == "U" else outputs


def test_a_stream_reads_no_further_than_it_is_read(rng):
    read = []

    def parts():
        for i in range(3):
            read.append(i)
            yield rng.standard_normal((10, 4))

    stream = Network([4, 2]).stream(parts())
    next(stream)
    assert read == [0]


@pytest.mark.parametrize("at", [(0, 0), (4095, 2), (4096, 1), (9999, 3)])
def test_the_row_that_is_not_finite_is_named_as_it_stands_in_the_whole(at):
    x = np.zeros((10_000, 4))
    x[at] = np.inf
    says = f"data: the input in row {at[0]}, column {at[1]} is inf"
    for inputs in (x, np.asfortranarray(x), iter([x[:3], x[3:5000], x[5000:]])):
        with pytest.raises(DataError, match=says):
            Network([4, 2]).predict(inputs)


def test_streams_that_cannot_be_are_refused_at_once():
    net = Network([4, 2], output="identity")
    with pytest.raises(UsageError, match="unknown method 'predcit': did you mean 'predict'"):
        net.stream(np.zeros((3, 4)), "predcit")
    with pytest.raises(UsageError, match="softmax or sigmoid"):
        net.stream(np.zeros((3, 4)), "predict_proba")
    with pytest.raises(DataError, match="no data"):
        net.predict(iter([]))
    with pytest.raises(DataError, match=r"shape \(2, 5\).* rows of 4"):
        net.predict(iter([np.zeros((3, 4)), np.zeros((2, 5))]))


@pytest.mark.parametrize(
    "outputs",
    [
        np.arange(700) % 10,
        np.array(["yes", "über, alles", "no"] * 200),
        np.linspace(0, 1, 700, dtype=np.float32)[:, None],
        np.random.default_rng(0).random((500, 3)),
    ],
)
def test_predictions_are_written_as_they_are(tmp_path, outputs):
    parts = lambda: iter(np.array_split(outputs, 9))  # noqa: E731
    assert write_predictions(tmp_path / "p.npy", parts()) == len(outputs)
    written = np.load(tmp_path / "p.npy")
    assert written.dtype == outputs.dtype
    np.testing.assert_array_equal(written, outputs)
    classes = ("a", "b", "c")
    assert write_predictions(tmp_path / "p.csv", parts(), classes) == len(outputs)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = outputs.shape[1] if outputs.ndim == 2 else 0
    assert header == {0: ["label"], 1: ["0"], 3: ["a", "b", "c"]}[columns]
    got = np.array(rows).astype(outputs.dtype)
    np.testing.assert_array_equal(got.reshape(outputs.shape), outputs)


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path):
    def parts():
        yield np.arange(3)
        raise DataError("row 3 is bad")

    for name in ("p.npy", "p.csv"):
        (tmp_path / name).write_text("old")
        with pytest.raises(DataError, match="row 3 is bad"):
            write_predictions(tmp_path / name, parts())
        assert (tmp_path / name).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "p.npy"]
    with pytest.raises(GpubpError, match="cannot write"):
        write_predictions(tmp_path / "p.csv" / "q.npy", iter([np.arange(3)]))


GPUBP = (sys.executable, "-m", "gpubp")


@pytest.fixture
def model(tmp_path):
    net = Network([784, 4], seed=1)
    net.save(tmp_path / "m.npz")
    return net


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from Linux's /proc")
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("size", [256, pytest.param(1024, marks=pytest.mark.exhaustive)])
def test_predict_reads_a_large_file_in_the_memory_of_a_few_chunks(tmp_path, model, fortran, size):
    rows = size * MB // (784 * 4)
    sparse_npy(tmp_path / "large.npy", (rows, 784), "f4", fortran)
    np.save(tmp_path / "small.npy", np.zeros((10, 784), np.float32))
    peak_of = (
        "import sys, re; from gpubp import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    peaks = []
    for name in ("small", "large"):
        args = ("predict", "m.npz", f"{name}.npy", "--out", f"{name}-out.npy")
        command = [sys.executable, "-c", peak_of, *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
        peaks.append(int(done.stderr) / 1024)
    labels = np.load(tmp_path / "large-out.npy")
    assert labels.shape == (rows,)
    assert (labels == model.predict(np.zeros((1, 784)))).all()
    assert peaks[1] - peaks[0] < 100


def test_labels_come_while_the_rest_is_still_to_be_read(tmp_path, model):
    os.mkfifo(tmp_path / "x.csv")
    command = (*GPUBP, "predict", "m.npz", "x.csv")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        with (tmp_path / "x.csv").open("w") as file:
            file.write((",".join(["0"] * 784) + "\n") * 5000)
            file.flush()
            labels = [process.stdout.readline() for _ in range(4096)]
        assert set(labels) == {f"{model.predict(np.zeros((1, 784)))[0]}\n"}
        assert len(process.stdout.readlines()) == 5000 - 4096
        assert process.wait(60) == 0


def test_a_reader_that_has_read_enough_ends_it_without_a_word(tmp_path, model):
    sparse_npy(tmp_path / "x.npy", (200_000, 784), "u1")
    command, pipe = (*GPUBP, "predict", "m.npz", "x.npy"), subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == f"{model.predict(np.zeros((1, 784)))[0]}\n"
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "e.onnx", "e.safetensors", "e.npz"])
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, model, name):
    sparse_npy(tmp_path / "x.npy", (20_000, 784), "u1")
    (tmp_path / name).write_text("old")
    command = ["predict", "m.npz", "x.npy", "--out", name] if name[0] == "p" else ["export", "m.npz", name]
    how = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (5000, 5000))
    done = subprocess.run([*GPUBP, *command], preexec_fn=full, **how)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot write {name}: File too large\n"
    assert (tmp_path / name).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["m.npz", "x.npy", name])
