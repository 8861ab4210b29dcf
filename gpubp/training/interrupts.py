"""Ctrl-C, and what else ends a process, asked for between steps in place of an exception in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def until_interrupted(*, one_of_many: bool = False) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True once Ctrl-C was pressed. A second Ctrl-C interrupts at once, as usual.

    So does SIGTERM where it means the same, as on the command line, or where this process is one of many, whose
    launcher ends them by it. Elsewhere it ends the process at once: a pool of workers counts on that.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set  # only the main thread gets signals
        return
    usual = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
    of_ending = signal.getsignal(signal.SIGTERM)
    if of_ending is not None and (one_of_many or of_ending is signal.default_int_handler):
        usual[signal.SIGTERM] = of_ending

    def handler(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, handler)
    try:
        yield pressed.is_set
    finally:
        for number, before in usual.items():
            signal.signal(number, before)
