"""What is made of shared arrays: once, while they live, and of no array that may have changed."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from gpubp.support import shared
from gpubp.support.shared import made_of, share


def test_a_shared_array_has_each_thing_made_once():
    array, made = np.arange(6.0), []
    share(array)

    def sums():
        made.append(1)
        return array.sum()

    assert [made_of(array, "sum", sums) for _ in range(3)] == [15.0] * 3
    assert len(made) == 1
    assert made_of(array, "mean", array.mean) == 2.5
    assert made_of(array.reshape(2, 3), "sum", sums) == 15.0  # of another shape, something else may be made
    assert made_of(array.reshape(2, 3), "sum", sums) == 15.0
    assert len(made) == 2
    part = array[1:]
    assert [made_of(part, "sum", part.sum) for _ in range(2)] == [15.0] * 2


def test_nobody_can_write_to_it():
    array = np.arange(6.0)
    share(array)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        array.reshape(2, 3)[0] = 1


def test_an_array_that_can_be_changed_is_looked_at_anew():
    array = np.arange(6.0)
    assert made_of(array, "sum", array.sum) == 15.0
    array[0] = 5
    assert made_of(array, "sum", array.sum) == 20.0
    share(array)
    assert made_of(array, "sum", array.sum) == 20.0
    array.flags.writeable = True
    array[0] = 0
    assert made_of(array, "sum", array.sum) == 15.0


def test_a_view_is_not_shared():
    whole = np.arange(6.0)
    share(whole[:3])
    whole[0] = 7
    assert made_of(whole[:3], "sum", whole[:3].sum) == 10.0


def test_nothing_is_kept_of_an_array_that_is_gone():
    before = len(shared._made)
    array = np.arange(6.0)
    share(array)
    made_of(array, "copy", array.copy)
    assert len(shared._made) == before + 1
    del array
    gc.collect()
    assert len(shared._made) == before


def test_whoever_comes_second_waits_for_the_first():
    array, made = np.arange(6.0), []
    share(array)
    started = threading.Event()

    def slow():
        started.set()
        made.append(threading.current_thread())
        threading.Event().wait(0.05)
        return object()

    found = []
    threads = [threading.Thread(target=lambda: found.append(made_of(array, "x", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started.is_set()
    assert len(made) == 1
    assert len(set(map(id, found))) == 1
