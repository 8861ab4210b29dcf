"""What was made of an array, kept for all who make the same of it, as long as the array lives.

Only arrays that :func:`share` was told of, and which nobody can write to, are remembered: any other may have changed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

_lock = threading.RLock()  # whoever comes second waits for what the first one makes
_made: dict[int, tuple[weakref.ref, dict[Hashable, Any]]] = {}


def share(array: np.ndarray) -> None:
    """Make the array read-only, and remember from now on what is made of it. One that is a view of another is left."""
    if array.base is not None:
        return
    array.flags.writeable = False
    place = id(array)
    with _lock:
        if place not in _made:
            _made[place] = weakref.ref(array, lambda _: _made.pop(place, None)), {}


def made_of(array: np.ndarray, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` returns; of a shared array, what the first call with this key made, which nobody may change.

    A view of all of it counts as the array itself.
    """
    owner = _owner(array)
    known = _made.get(id(owner))
    if known is None or known[0]() is not owner or owner.flags.writeable:
        return make()
    of_view = array.shape, array.strides, key
    with _lock:
        if of_view not in known[1]:
            known[1][of_view] = make()
        return known[1][of_view]


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory this is a view of, if it is of all of that."""
    base = array.base
    whole = isinstance(base, np.ndarray) and base.dtype == array.dtype and base.nbytes == array.nbytes
    return base if whole and base.ctypes.data == array.ctypes.data else array  # type: ignore[union-attr,return-value]
