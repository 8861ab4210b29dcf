"""``python -m bench.deformed.tasks``: gpubp.benchmark.worker with one task more, what a peer makes of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.deformed.peers import NET, SHAPE
from gpubp.benchmark import data, worker
from gpubp.benchmark.worker import Answer

COUNT = 4 * NET.batch  # images that are looked at
STEP = 9  # from a byte to the next in a slope: 28 of them fit
MARGIN = 8  # pixels, from where on a deformed one comes from within the image

Deformed = Callable[[np.ndarray], np.ndarray]  # bytes (B, h·w) to floats from 0 to 1


def images(samples: str) -> Answer:
    """What the peer makes of the first images; None if it leaves them as they are."""
    deformed = getattr(worker.Present.trainer, "deformed", None)
    if deformed is None:
        return {"images": None}
    return {"images": statistics(deformed, data.load(Path(samples)).inputs[:COUNT])}


def statistics(deformed: Deformed, originals: np.ndarray) -> dict[str, float]:
    """How images are deformed, by means that do not go by which random numbers were drawn.

    displacement: how far a pixel near the middle is moved along x or y, the mean of its amount, in pixels; seen by
    what becomes of slopes, in which a byte says where it is. change: of a pixel, the mean of its amount. ink: the mean
    pixel.
    """
    count, (h, w) = len(originals), SHAPE
    moved = []
    for places in np.indices(SHAPE):
        slope = (STEP * places).astype(np.uint8).reshape(1, -1)
        found = _batches(deformed, slope.repeat(count, axis=0)) * (255 / STEP)
        middle = (found.reshape(-1, h, w) - places)[:, MARGIN : h - MARGIN, MARGIN : w - MARGIN]
        moved.append(np.abs(middle).mean())
    made = _batches(deformed, originals)
    return {
        "displacement": float(np.mean(moved)),
        "change": float(np.abs(made - originals / np.float32(255)).mean()),
        "ink": float(made.mean()),
    }


def _batches(deformed: Deformed, originals: np.ndarray) -> np.ndarray:
    """A mini-batch at a time, as in training: one that is compiled is so for its size."""
    return np.concatenate(
        [deformed(originals[start : start + NET.batch]) for start in range(0, len(originals), NET.batch)]
    )


if __name__ == "__main__":
    worker.main(worker.TASKS | {"images": images})
