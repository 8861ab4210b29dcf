"""What tests of whole networks share: every optimizer, outputs held to the bound, networks compared bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest

from gpubp.backends.plan import Problem
from gpubp.data import check_split
from gpubp.data.samples import Samples, as_inputs
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.network import Network
from gpubp.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer
from gpubp.randomness.deform import Deformation
from gpubp.randomness.dropout import Dropout
from gpubp.randomness.settings import Deform
from gpubp.verification import bounds
from gpubp.verification.bounds import Bounded, Precision
from tests import param

DTYPES = ("float32", "float64")
# What is compiled anew for each dtype is tested in float32, and with --exhaustive in float64.
every_dtype = pytest.mark.parametrize("dtype", ["float32", param("float64", always=False)])
MOMENTUM = SGD(0.1, momentum=0.9)

# What is tested of every optimizer is tested of these: of each kind, every setting off its default at least once.
EVERY_OPTIMIZER = (
    SGD(0.1),
    SGD(0.05, weight_decay=0.1),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
    Adam(),
    Adam(0.01, beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1),
    AdamW(),
    AdamW(0.01, beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1),
)
for _cls in OPTIMIZERS.values():
    for _setting in fields(_cls):
        assert any(
            type(optimizer) is _cls and getattr(optimizer, _setting.name) != _setting.default
            for optimizer in EVERY_OPTIMIZER
        ), (
            f"EVERY_OPTIMIZER in tests/networks.py has no {_cls.__name__} whose {_setting.name} is not the default"
        )


def samples_of(net: Network, x, y, weight=None, loss: str = "cross_entropy") -> Samples:
    """Inputs and labels or targets, as a plan takes them."""
    return net.prepare(check_split(x, y, weight), LOSSES[loss]).samples


def problem_of(
    net: Network,
    samples: Samples,
    *,
    batch: int = 32,
    optimizer: Optimizer = MOMENTUM,
    loss: str = "cross_entropy",
    dropout: float | Sequence[float] = 0.0,
    deform: Deform | None = None,
    shape: tuple[int, int] | None = None,
    seed: int = 2**40 + 5,
) -> Problem:
    """What every plan in the tests is made of; the seed is that of dropout and of deformed images, of this shape."""
    chances = Dropout.of(dropout, len(net.layers), seed), Deformation.of(deform, samples.inputs, shape, seed)
    return Problem(net.layers, net.parameters, LOSSES[loss], optimizer, batch, samples, *chances)


def random_problem(
    sizes=(20, 37, 10),
    batch=32,
    *,
    dtype=np.float64,
    as_bytes=True,
    count=130,
    hidden="tanh",
    output="softmax",
    **options,
) -> Problem:
    """A problem of any shape: bytes or numbers in, one class each, weights off 1; the last batch is short."""
    rng = np.random.default_rng(0)
    net = Network(sizes, hidden=hidden, output=output, dtype=dtype, seed=1)
    inputs = rng.integers(0, 256, (count, sizes[0]), np.uint8)
    targets = np.eye(sizes[-1], dtype=dtype)[rng.integers(0, sizes[-1], count)]
    weight = (1 + rng.random(count)).astype(dtype)
    samples = Samples(inputs if as_bytes else (inputs / 255).astype(dtype), targets, weight)
    return problem_of(net, samples, batch=batch, **options)


def spread(net: Network, rng, bias: float = 1.0) -> Network:
    """The network with weights and biases that reach into the tails of every activation."""
    for weights, b in net.parameters:
        weights *= 3
        b += bias * rng.standard_normal(b.shape).astype(b.dtype)
    return net


def bounded_outputs(net: Network, x: np.ndarray) -> Bounded:
    """The outputs in float64, and how far a correct evaluation in the network's dtype may be off."""
    a = Bounded.exact(as_inputs(x, net.dtype).astype(np.float64))
    for layer, (w, b) in zip(net.layers, net.parameters, strict=True):
        w, b = w.astype(np.float64), b.astype(np.float64)
        _, a = bounds.forward(a, w, b, ACTIVATIONS[layer.activation], Precision.of(net.dtype))
    return a


def within(got: np.ndarray, bounded: Bounded) -> bool:
    return bool((np.abs(got - bounded.value) <= bounded.error).all())


def assert_same(ours: Network, theirs: Network) -> None:
    assert repr(ours) == repr(theirs)
    assert ours.classes == theirs.classes
    assert ours.inputs == theirs.inputs
    for pair, other in zip(ours.parameters, theirs.parameters, strict=True):
        for a, b in zip(pair, other, strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
