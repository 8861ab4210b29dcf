"""Backends with one planted fault: each is the real one, with what an operation left behind changed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from gpubp.backends.backend import Backend

# operation -> its output arguments
OUTPUTS = {
    "gather": ("out",),
    "forward": ("z", "a"),
    "output_delta": ("delta", "row_cost"),
    "drop": ("out",),
    "hidden_delta": ("delta",),
    "weight_grad": ("grad_weights", "grad_bias"),
    "update": ("parameter", "slots"),
}

Arrays = dict[str, Any]
Fault = Callable[[Arrays, Arrays, Arrays], None]  # (inputs, before, after): change after


def dropped_row(i, before, after):
    for name, array in after.items():
        array[-1] = before[name][-1] if name == "parameter" else 0


def dropped_sample(i, before, after):
    after["grad_weights"] -= np.outer(i["delta"][-1], i["a_prev"][-1]) / len(i["delta"])


def swapped_index(i, before, after):
    for array in after.values():
        if array.ndim == 2 and array.shape[1] > 1:
            array[:, [0, 1]] = array[:, [1, 0]]


def stale_buffer(i, before, after):
    for name, array in after.items():
        array[...] = before[name]


def missing_bias(i, before, after):
    z = i["a_prev"] @ i["weights"].T
    after["z"][...] = z
    after["a"][...] = i["activation"].apply(z)


def missing_bias_gradient(i, before, after):
    after["grad_bias"][...] = 0


def batch_size_off_by_one(i, before, after):
    b = len(i["delta"])
    after["grad_weights"] *= b / (b + 1)
    after["grad_bias"] *= b / (b + 1)


def rate_off(i, before, after):
    after["parameter"][...] = before["parameter"] + 1.01 * (after["parameter"] - before["parameter"])


def wrong_tail_of_product(i, before, after):
    """The last element without the last term of its sum."""
    z = after["z"]
    z[-1, -1] -= i["a_prev"][-1, -1] * i["weights"][-1, -1]
    after["a"][...] = i["activation"].apply(z)


def wrong_tail_of_delta(i, before, after):
    delta = after["delta"]
    delta[-1, -1] *= 1.01


def wrong_tail_of_gradient(i, before, after):
    after["grad_weights"][-1, -1] -= i["delta"][-1, -1] * i["a_prev"][-1, -1] / len(i["delta"])


def wrong_tail(i, before, after):
    name = next(iter(after))
    after[name].reshape(-1)[-1] = before[name].reshape(-1)[-1]


def cost_without_last_row(i, before, after):
    after["row_cost"][-1] = 0


def nothing_dropped(i, before, after):
    after["out"][...] = i["a"]


def not_multiplied(i, before, after):
    after["out"][...] = np.where(after["out"] == 0, 0, i["a"])


def dropped_as_in(what: str) -> Fault:
    """With the mask of another sample, step or layer."""

    def fault(i, before, after):
        mask, order = i["mask"], i["order"]
        if what == "sample":
            order = np.roll(order, 1)
        else:
            mask = replace(mask, **{what: getattr(mask, what) + 1})
        after["out"][...] = i["a"] * mask.of(order, i["a"].shape[1], i["a"].dtype)

    return fault


def deformed_by(i, step=0, sample=0):
    """The images of a batch, deformed with the random numbers of another step or of other samples."""
    order, classes = i["order"], i["classes"]
    labels = None if classes is None else classes[order]
    images = i["deformation"].images(i["source"][order], order + sample, i["step"] + step, labels)
    return images / np.float64(255)


def undeformed(i, before, after):
    after["out"][...] = i["source"][i["order"]] / np.float64(255)


def deformed_by_another_step(i, before, after):
    after["out"][...] = deformed_by(i, step=1)


def deformed_by_another_sample(i, before, after):
    after["out"][...] = deformed_by(i, sample=1)


def one_level_off(i, before, after):
    after["out"][-1, -1] = (round(after["out"][-1, -1] * 255) ^ 1) / 255


OF_ALL = {"dropped row": dropped_row, "swapped index": swapped_index, "stale buffer": stale_buffer}
# Of training with dropout; in hidden_delta the mask is not asked for.
OF_DROPOUT: dict[tuple[str, str], Fault | None] = {
    ("drop", "nothing dropped"): nothing_dropped,
    ("drop", "not multiplied"): not_multiplied,
    ("drop", "wrong tail element"): wrong_tail,
    **{
        ("drop", f"the mask of another {what}"): dropped_as_in(what) for what in ("sample", "step", "purpose")
    },
    ("hidden_delta", "nothing dropped"): None,
}
FAULTS: dict[tuple[str, str], Fault] = {
    **{
        (operation, name): fault
        for operation in OUTPUTS
        if operation != "drop"
        for name, fault in OF_ALL.items()
    },
    ("gather", "wrong tail element"): wrong_tail,
    ("forward", "missing bias"): missing_bias,
    ("forward", "wrong tail element"): wrong_tail_of_product,
    ("output_delta", "wrong tail element"): wrong_tail_of_delta,
    ("output_delta", "cost without its last row"): cost_without_last_row,
    ("hidden_delta", "wrong tail element"): wrong_tail_of_delta,
    ("weight_grad", "dropped sample"): dropped_sample,
    ("weight_grad", "missing bias"): missing_bias_gradient,
    ("weight_grad", "1/B off by one"): batch_size_off_by_one,
    ("weight_grad", "wrong tail element"): wrong_tail_of_gradient,
    ("update", "learning rate 1% off"): rate_off,
    ("update", "wrong tail element"): wrong_tail,
}

DEFORMED = {  # of the operation deform, which only problems with a deformation have
    "undeformed": undeformed,
    "another step's numbers": deformed_by_another_step,
    "another sample's numbers": deformed_by_another_sample,
    "one level off in the last pixel": one_level_off,
}


def overridden(backend: Backend, **methods: Callable) -> Backend:
    """A copy of ``backend`` with these methods in place of its own."""
    copy = object.__new__(type("Faulty", (type(backend),), methods))
    copy.__dict__.update(backend.__dict__)
    return copy


def plant(backend: Backend, operation: str, fault: Fault) -> Backend:
    """A copy of ``backend`` whose ``operation`` has the fault."""
    names = list(signature(getattr(Backend, operation)).parameters)[1:]

    def faulty(self, *args):
        arguments = dict(zip(names, args, strict=False))  # the last may be left out
        outputs = {name: arguments[name] for name in OUTPUTS.get(operation, ("out",))}
        outputs |= {f"slots{k}": slot for k, slot in enumerate(outputs.pop("slots", ()))}
        inputs = {
            name: self.to_host(value) if hasattr(value, "dtype") else value
            for name, value in arguments.items()
        }
        before = {name: self.to_host(value) for name, value in outputs.items()}
        getattr(type(backend), operation)(self, *args)
        after = {name: self.to_host(value) for name, value in outputs.items()}
        fault(inputs, before, after)
        for name, value in outputs.items():
            self.to_device(np.ascontiguousarray(after[name]), out=value)

    return overridden(backend, **{operation: faulty})


def without_mask_on_the_way_back(backend: Backend) -> Backend:
    """A copy of ``backend`` whose hidden_delta drops nothing."""
    return overridden(backend, hidden_delta=lambda self, *args: type(backend).hidden_delta(self, *args[:5]))
