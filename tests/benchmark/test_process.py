"""A worker from the parent's side: what it answers, and what becomes of it when something goes wrong."""

from __future__ import annotations

import io
import json
import os
import time

import pytest

from gpubp.benchmark import process
from gpubp.benchmark.process import NoAnswer, OutOfTime, Refused, Worker, WorkerFailed
from gpubp.benchmark.worker import serve
from gpubp.errors import BackendUnavailable, GpubpError

OBEDIENT = """
import json, os, sys, time

for line in sys.stdin:
    request = json.loads(line)
    if "print" in request:
        print(request["print"], file=sys.stderr, flush=True)
    if "write" in request:
        os.write(1, request["write"].encode())
    if "exit" in request:
        os._exit(request["exit"])
    if "signal" in request:
        os.kill(os.getpid(), request["signal"])
    time.sleep(request.get("sleep", 0))
    print(json.dumps(request.get("answer", {"process": os.getpid()})), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    """A worker that does what it is asked."""
    (tmp_path / "obedient.py").write_text(OBEDIENT)
    made = Worker(tmp_path / "stderr", {**os.environ, "PYTHONPATH": str(tmp_path)}, "obedient")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        ({"exit": 3}, WorkerFailed, "exit code 3"),
        ({"print": "no lib in /home/me/lib.so", "exit": 1}, WorkerFailed, "no lib in lib.so (exit code 1)"),
        ({"signal": 11}, WorkerFailed, "ended by SIGSEGV"),
        ({"write": '{"ok": tr', "exit": 3}, WorkerFailed, "exit code 3"),
        ({"write": '{"ok": tr\n'}, WorkerFailed, "its answer cannot be read: '{\"ok\": tr'"),
        ({"sleep": 60}, NoAnswer, "no answer for 0.2 s"),
        ({"answer": {"failed": "the GPU stopped answering"}}, WorkerFailed, "the GPU stopped answering"),
        ({"answer": {"refused": "no such thing in /home/me/data"}}, Refused, "no such thing in data"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_is_answered(worker, request_, kind, message):
    before = worker.ask("nothing", 20)["process"]
    with pytest.raises(WorkerFailed) as error:
        worker.ask("it", 0.2 if kind is NoAnswer else 20, **request_)
    assert (type(error.value), str(error.value)) == (kind, message)
    # After some errors of CUDA, whatever else the process asks of the device fails too.
    assert (worker.ask("nothing", 20)["process"] == before) == (kind is Refused)


def test_what_there_is_no_time_for_has_not_failed(worker):
    worker.until = time.perf_counter() + 0.5
    with pytest.raises(OutOfTime):
        worker.ask("late", 20)
    worker.until = time.perf_counter() + 1.5
    with pytest.raises(OutOfTime):
        worker.ask("slow", 20, sleep=60)


def test_a_worker_answers_why_it_cannot():
    def raises(error):
        raise error

    errors = {
        "unavailable": BackendUnavailable("no GPU"),
        "lost": GpubpError("the GPU stopped answering"),
        "absent": ModuleNotFoundError(name="no_such_library.part"),
        "ours": ModuleNotFoundError(name="gpubp.nonsense"),
    }
    tasks = {name: lambda error=error: raises(error) for name, error in errors.items()}
    answers = io.StringIO()
    with pytest.raises(ModuleNotFoundError):
        serve(tasks, [json.dumps({"do": name}) for name in errors], answers)
    assert list(map(json.loads, answers.getvalue().splitlines())) == [
        {"refused": "no GPU"},
        {"failed": "the GPU stopped answering"},
        {"refused": "no_such_library.part is not installed"},
    ]


def test_the_environment(monkeypatch):
    cpu, gpu = process.environment(2), process.environment(2, gpu=True)
    assert (cpu["NUMBA_NUM_THREADS"], cpu["CUDA_VISIBLE_DEVICES"], cpu["JAX_PLATFORMS"]) == ("2", "", "cpu")
    assert (gpu["CUPY_TF32"], gpu["JAX_PLATFORMS"]) == ("0", "cuda")  # full float32
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert process.environment(None)["OMP_NUM_THREADS"] == "7"


def test_messages_do_not_tell_where_things_are():
    said = process.without_folders("no file '/home/me/x/lib.so.1': a/b or 1/2")
    assert said == "no file 'lib.so.1': a/b or 1/2"
