"""What has passed verification before, kept for later runs on the same machine."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import gpubp
from gpubp.network import Network
from gpubp.training import passed

ON_DISK, TO_DISK = passed._on_disk, passed._to_disk


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(passed, "_on_disk", ON_DISK)
    monkeypatch.setattr(passed, "_to_disk", TO_DISK)
    monkeypatch.setattr(passed, "_origin", passed._origin.__wrapped__)
    return tmp_path / "verified"


def verified(monkeypatch, **settings):
    """The report of a run in a new process."""
    monkeypatch.setattr(passed, "_passed", {})
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    settings = {"epochs": 3, "backend": "numpy", **settings}
    return gpubp.fit(Network([4, 5, 3], seed=0), x, y, **settings).verification


def test_what_passed_in_another_process_is_not_verified_in_full_again(folder, monkeypatch):
    first, again = (verified(monkeypatch) for _ in range(2))
    assert (first.steps_before, again.steps_before) == (0, first.steps)
    assert again.steps == 1
    (path,) = folder.iterdir()
    assert path.name.endswith(f"-{first.steps}")
    assert verified(monkeypatch, verify="step").steps == 3
    assert verified(monkeypatch, verify="off").steps_before == 0


@pytest.mark.parametrize(
    ("what", "other"),
    [("processor", lambda: "another"), ("SOURCES", ("reference.py",)), ("FORGOTTEN", -1)],
)
def test_other_sources_another_machine_and_long_ago_are_verified_anew(folder, monkeypatch, what, other):
    verified(monkeypatch)
    assert verified(monkeypatch).steps_before > 0
    monkeypatch.setattr(passed, what, other)
    assert verified(monkeypatch).steps_before == 0


def test_every_source_that_computes_or_verifies_counts(folder):
    package = passed.Path(gpubp.__file__).parent
    for name in passed.SOURCES:
        assert (package / name).exists(), name


def test_a_foreign_file_or_a_cache_that_cannot_be_written_costs_time_only(folder, monkeypatch):
    verified(monkeypatch)
    (path,) = folder.iterdir()
    path.rename(f"{path}x")
    assert verified(monkeypatch).steps_before == 0
    for found in folder.iterdir():
        found.unlink()
    folder.rmdir()
    folder.touch()
    assert verified(monkeypatch).steps >= 3


def test_what_is_old_is_replaced(folder, monkeypatch):
    verified(monkeypatch)
    (path,) = folder.iterdir()
    before = time.time() - 2 * passed.FORGOTTEN
    os.utime(path, (before, before))
    first = verified(monkeypatch)
    assert (first.steps_before, first.steps >= 3) == (0, True)
    (path,) = folder.iterdir()
    assert path.stat().st_mtime > before + passed.FORGOTTEN
