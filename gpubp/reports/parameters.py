"""The weights of a run: the first layer as images, or all layers as heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.experiments.run import Result
from gpubp.reports import pictures

LAYERS_SHOWN = 6


def shown(result: Result) -> dict[str, Any] | None:
    """The first layer as images, or as many weight matrices as there are, as heat maps."""
    parameters = [w for w, _ in result.network.parameters]
    if not all(np.isfinite(w).all() for w in parameters):
        return None
    shape = result.dataset.image_shape if result.dataset else None
    if shape is not None:
        units = pictures.unit_pictures(parameters[0], shape)
        return {"kind": "images", "units": units, "width": shape[1], "unused": _unused(result)}
    return {
        "kind": "matrices",
        "matrices": [pictures.matrix(w) for w in parameters[:LAYERS_SHOWN]],
        "sizes": result.network.sizes,
        "inputs": _input_names(result),
        "heaviest": _heaviest_input(parameters[0], _input_names(result)),
    }


def _unused(result: Result) -> int:
    """How many inputs are 0 in every training sample, so that their weights never move."""
    if result.dataset is None or result.recipe.weight_decay or result.recipe.standardize:
        return 0
    return int((~result.dataset.train.inputs.any(axis=0)).sum())


def _input_names(result: Result) -> list[str]:
    count = result.network.sizes[0]
    if result.dataset is not None and result.dataset.name == "parity":
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
        f"The heaviest weights of the first layer are those of {names[top]}: {means[top]:.3g} in the mean of |w|, "
        f"where all others come to {others.mean():.3g}."
    )
