"""bench.gpu_worker with a fault: $GPUBP_TEST_FAULT is its name, its task, and words that the request must have."""

import os
import time

from bench import gpu_worker
from tests.cuda_host import fake_cupy

ANSWERS = os.dup(1)  # the worker's own are its alone


def lost() -> None:
    """The device is lost at the third launch from here on, for as long as the process lives."""
    fake_cupy.lost_after = fake_cupy.counts["launches"] + 2


def hang() -> None:
    time.sleep(600)


def end() -> None:
    os._exit(3)


def end_in_mid_line() -> None:
    os.write(ANSWERS, b'{"ok": tr')
    os._exit(3)


def garble() -> None:
    os.write(ANSWERS, b'{"ok": tr\n')
    time.sleep(600)


def with_fault(task, fault, words):
    def do(**fields):
        if all(f"'{word}'" in str(fields) for word in words):
            fault()
        return task(**fields)

    return do


if __name__ == "__main__":
    name, task, *words = os.environ["GPUBP_TEST_FAULT"].split()
    gpu_worker.TASKS[task] = with_fault(gpu_worker.TASKS[task], globals()[name], words)
    gpu_worker.main()
