"""bench.gpu.tasks with a fault: $GPUBP_TEST_FAULT is its name, its task, and words that the request must have."""

import os
import time

from bench.gpu.tasks import TASKS
from gpubp.benchmark import worker
from tests.cuda_host import fake_cupy


def lost() -> None:
    """The device is lost at the third launch from here on, for as long as the process lives."""
    fake_cupy.lost_after = fake_cupy.counts["launches"] + 2


def hang() -> None:
    time.sleep(600)


def with_fault(task, fault, words):
    def do(**fields):
        if all(f"'{word}'" in str(fields) for word in words):
            fault()
        return task(**fields)

    return do


if __name__ == "__main__":
    name, task, *words = os.environ["GPUBP_TEST_FAULT"].split()
    worker.main(TASKS | {task: with_fault(TASKS[task], globals()[name], words)})
