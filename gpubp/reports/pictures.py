"""Weights as pictures that serve light and dark: the colour is the sign, how opaque it is the size; deformed images.

What is transparent shows the page, so that a weight of 0 is white on a white page and black on a black one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.experiments.run import Result
from gpubp.randomness.deform import Deformation
from gpubp.reports.charts import picture

POSITIVE, NEGATIVE = (38, 126, 214), (226, 103, 24)  # blue and orange, light enough to show on either page
LEVELS = 48  # of opacity; more would not be seen, and PNGs would be twice as large
PIXELS = 80_000  # in all the pictures of a page together
UNITS = 64
LAYERS_SHOWN = 6
DEFORMED = 7  # of each example
NUMBERS = (32, 8)  # rows and columns up to which a matrix is shown as numbers


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


def weights(result: Result) -> dict[str, Any] | None:
    """The first layer as images, or all layers as heat maps; None for weights that are not finite."""
    parameters = [w for w, _ in result.network.parameters]
    if not all(np.isfinite(w).all() for w in parameters):
        return None
    shape = result.data.image_shape if result.data else None
    if shape is not None:
        return {"kind": "images", "unused": _unused(result), **_unit_pictures(parameters[0], shape)}
    names = _input_names(result)
    return {
        "kind": "matrices",
        "matrices": [matrix(w) for w in parameters[:LAYERS_SHOWN]],
        "sizes": result.network.sizes,
        "inputs": names,
        "heaviest": _heaviest_input(parameters[0], names),
    }


def deformed(result: Result) -> dict[str, Any] | None:
    """A few training images, each with what the first steps of training make of it; None of a run without.

    ``rows`` are of (class, its image, deformed ones), images as data URIs.
    """
    examples = result.evidence[-1].examples if result.evidence else None
    shape = result.data.image_shape if result.data else None
    settings = result.recipe.deform
    if examples is None or shape is None or not settings:
        return None
    count = max(1, min(len(examples.images), PIXELS // ((DEFORMED + 1) * shape[0] * shape[1])))
    images, places, labels = (array[:count] for array in vars(examples).values())
    seed = result.recipe.seed + len(result.evidence) - 1  # of the last split
    made = Deformation.of(settings, images, shape, seed)
    if made is None:
        return None
    steps = [made.images(images, places, step, labels) for step in range(DEFORMED)]
    names = result.data.class_names if result.data else None
    rows = [
        (
            names[label] if names and label < len(names) else str(label),
            picture(images[k].reshape(shape)),
            [picture(step[k].reshape(shape)) for step in steps],
        )
        for k, label in enumerate(labels.tolist())
    ]
    return {"rows": rows, "settings": str(settings), "columns": DEFORMED + 1}


def _unit_pictures(rows: np.ndarray, image_shape: tuple[int, int]) -> dict[str, Any]:
    """``rows``, (n_out, h·w), as images on a common scale, those with the largest norms, in order: (number, image)."""
    height, width = image_shape
    step = int(np.ceil(np.sqrt(height * width / PIXELS)))  # only images of a size that screens hardly have
    units = _heaviest(rows, min(UNITS, max(1, PIXELS // (height * width))))
    scale = _scale(rows[units])
    images = rows[units].reshape(-1, height, width)[:, ::step, ::step]
    shown = [(int(u) + 1, picture(coloured(image, scale))) for u, image in zip(units, images, strict=True)]
    return {"pictures": shown, "scale": scale, "units": len(rows)}


def matrix(weights: np.ndarray) -> Matrix:
    """``weights``, (n_out, n_in), as a table or a picture."""
    units, inputs = _heaviest(weights, UNITS), _heaviest(weights.T, UNITS)
    shown = weights[np.ix_(units, inputs)].T
    numbers = (units + 1).tolist(), (inputs + 1).tolist()
    if shown.shape[0] > NUMBERS[0] or shown.shape[1] > NUMBERS[1]:
        scale = _scale(shown)
        return Matrix(*numbers, scale, picture(coloured(shown, scale)), [])
    scale = float(np.abs(shown).max()) or 1.0
    return Matrix(*numbers, scale, None, [[(w, tint(w / scale)) for w in row] for row in shown.tolist()])


def _heaviest(rows: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the rows with the largest norms, in order."""
    return np.sort(np.argsort(-np.linalg.norm(rows, axis=1), kind="stable")[:count])


def _scale(weights: np.ndarray) -> float:
    """Nearly the largest |w|: a few outliers must not pale all others."""
    return float(np.quantile(np.abs(weights), 0.998)) or float(np.abs(weights).max()) or 1.0


def _unused(result: Result) -> int:
    """The number of inputs that are 0 in every training sample, so that their weights never move."""
    recipe = result.recipe
    if result.data is None or recipe.weight_decay or recipe.standardize or recipe.deform:
        return 0
    return result.data.unused


def _input_names(result: Result) -> list[str]:
    count = result.network.sizes[0]
    if result.data is not None and result.data.name == "parity":
        return [f"bit {2**i}" for i in range(count - 1, 0, -1)] + ["bit 1, the least significant"]
    return [f"input {i}" for i in range(1, count + 1)]


def _heaviest_input(first: np.ndarray, names: list[str]) -> str:
    """The input whose weights are the heaviest, in words; "" if none stands out."""
    means = np.abs(first).mean(axis=0)
    top = int(means.argmax())
    others = np.delete(means, top)
    if not len(others) or means[top] < 2 * others.mean():
        return ""
    return (
        f"The heaviest weights of the first layer are those of {names[top]}: their mean |w| is {means[top]:.3g}, "
        f"and that of all others is {others.mean():.3g}."
    )
