"""Weights as pictures that serve light and dark: the colour is the sign, how opaque it is the size.

What is transparent shows the page, so that a weight of 0 is white on a white page and black on a black one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.reports.charts import picture

POSITIVE, NEGATIVE = (
    (38, 126, 214),
    (226, 103, 24),
)  # blue and orange, of a lightness that shows on either page
LEVELS = 48  # of opacity; more would not be seen, and PNGs would be twice as large
PIXELS = 80_000  # in all the pictures of a page together
UNITS = 64
NUMBERS = (32, 8)  # rows and columns up to which a matrix is shown as numbers


@dataclass(frozen=True)
class UnitPictures:
    """The incoming weights of some units as images, each (unit number from 1, data URI); ``scale`` is full colour."""

    pictures: list[tuple[int, str]]
    scale: float
    units: int


@dataclass(frozen=True)
class Matrix:
    """A weight matrix turned so that columns are units and rows their inputs, or the heaviest of them.

    ``units`` and ``inputs`` are the numbers of the columns and rows shown, from 1; ``image`` is a data URI, or None for
    a matrix small enough for ``cells``: rows of (weight, CSS colour).
    """

    units: list[int]
    inputs: list[int]
    scale: float
    image: str | None
    cells: list[list[tuple[float, str]]]


def tint(share: float) -> str:
    """The colour of −1 … 1 as a background on which the page's text is read."""
    red, green, blue = POSITIVE if share >= 0 else NEGATIVE
    return f"rgba({red},{green},{blue},{0.5 * min(abs(share), 1):.2f})"


def coloured(weights: np.ndarray, scale: float) -> np.ndarray:
    """RGBA pixels (h, w, 4) of weights (h, w), fully opaque at ±``scale`` and beyond."""
    share = np.clip(np.abs(weights) / scale, 0, 1)
    pixels = np.zeros((*weights.shape, 4), np.uint8)
    pixels[..., :3] = np.where((weights >= 0)[..., None], POSITIVE, NEGATIVE)
    pixels[..., 3] = np.rint(share * (LEVELS - 1)) * (255 / (LEVELS - 1))
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def unit_pictures(weights: np.ndarray, image_shape: tuple[int, int]) -> UnitPictures:
    """The rows of ``weights``, (n_out, h·w), as images on a common scale: those with the largest norms, in order."""
    height, width = image_shape
    step = int(np.ceil(np.sqrt(height * width / PIXELS)))  # only images of a size that screens hardly have
    units = _heaviest(weights, min(UNITS, max(1, PIXELS // (height * width))))
    scale = _scale(weights[units])
    pictures = [
        (int(unit) + 1, picture(coloured(weights[unit].reshape(height, width)[::step, ::step], scale)))
        for unit in units
    ]
    return UnitPictures(pictures, scale, len(weights))


def matrix(weights: np.ndarray) -> Matrix:
    """``weights``, (n_out, n_in), as a table or a picture."""
    units, inputs = _heaviest(weights, UNITS), _heaviest(weights.T, UNITS)
    shown = weights[np.ix_(units, inputs)].T
    fits = shown.shape[0] <= NUMBERS[0] and shown.shape[1] <= NUMBERS[1]
    scale = float(np.abs(shown).max()) if fits else _scale(shown)
    scale = scale or 1.0
    cells = [[(float(w), tint(float(w) / scale)) for w in row] for row in shown] if fits else []
    image = None if fits else picture(coloured(shown, scale))
    return Matrix([int(u) + 1 for u in units], [int(i) + 1 for i in inputs], scale, image, cells)


def _heaviest(rows: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the rows with the largest norms, in order."""
    return np.sort(np.argsort(-np.linalg.norm(rows, axis=1), kind="stable")[:count])


def _scale(weights: np.ndarray) -> float:
    """Nearly the largest |w|: a few outliers must not pale all others."""
    return float(np.quantile(np.abs(weights), 0.998)) or float(np.abs(weights).max()) or 1.0
