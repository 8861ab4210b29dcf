"""What the scripts beside this file share: the digits, and the rates of the recipes."""

import gzip
from pathlib import Path

import numpy as np


def load(path):
    """Training images (N, 784) float32 and labels, then those to test on: of MNIST's folder or gpubp's sample."""
    parts = sample(path) if path.endswith(".npz") else mnist(Path(path))
    return [part.astype(np.float32) / 255 if part.ndim == 2 else part.astype(np.int64) for part in parts]


def mnist(folder):
    parts = []
    for name in ("train", "t10k"):
        with gzip.open(folder / f"{name}-images-idx3-ubyte.gz") as file:
            parts.append(np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784))
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz") as file:
            parts.append(np.frombuffer(file.read(), np.uint8, offset=8))
    return parts


def sample(path):
    """100 images of each digit are to test on, the same as gpubp's."""
    content, rng = np.load(path), np.random.default_rng(0)
    x, y = content["X"], content["y"]
    test = np.concatenate([rng.permutation(np.flatnonzero(y == digit))[:100] for digit in range(10)])
    train = np.setdiff1d(np.arange(len(y)), test)
    return x[train], y[train], x[test], y[test]


def learning_rates(schedule, steps):
    """The rate of every step of the run, from 0.1 down to 0 by a cosine, or 0.1 throughout."""
    part = np.arange(steps) / steps
    return 0.05 * (1 + np.cos(np.pi * part)) if schedule == "cosine" else np.full(steps, 0.1)
