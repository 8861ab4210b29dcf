"""PyTorch modules as networks, and networks as PyTorch modules: the same parameters, copied bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE
from gpubp.model import LOGITS, UNKNOWN, VALUES
from gpubp.network import Network
from gpubp.support.optional import need
from gpubp.support.warning import warn_caller

torch = need("torch", "torch")
nn = torch.nn


class LecunTanh(nn.Module):  # type: ignore[name-defined]
    """1.7159 tanh(2z/3), which PyTorch has no module for (LeCun et al., Efficient BackProp, 1998, section 4.4)."""

    def forward(self, z: Any) -> Any:
        return LECUN_SCALE * torch.tanh(LECUN_RATE * z)


_MODULES = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "lecun_tanh": LecunTanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
    "softmax": lambda: nn.Softmax(dim=1),
}
_TAKEN = "Linear, ReLU, LeakyReLU(0.01), Sigmoid, Tanh, Softmax(dim=1), Identity, Flatten first, and Dropout"


def to_torch(network: Network) -> Any:
    """The network as an ``nn.Sequential`` on the CPU: a Linear and an activation for each layer.

    Its parameters are copies. Bytes must be scaled by 1/255 first; a scaling of the inputs becomes part of the first
    Linear, to the precision of the network's dtype.

    Raises:
        UsageError: an activation that has no module here.
    """
    modules = []
    for layer, (weights, bias) in zip(network.layers, _unscaled(network), strict=True):
        if layer.activation not in _MODULES:
            raise UsageError(
                f"to_torch has no module for the activation {layer.activation!r}; safetensors keeps any"
            )
        linear = nn.Linear(layer.n_in, layer.n_out, dtype=getattr(torch, str(network.dtype)))
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weights))
            linear.bias.copy_(torch.tensor(bias))
        modules += [linear, _MODULES[layer.activation]()]
    return nn.Sequential(*modules)


def _unscaled(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """The parameters of the same function of inputs that are not scaled."""
    if network.inputs.scaling is None:
        return network.parameters
    if network.inputs.scaling.far and network.dtype == np.float32:
        warn_caller(
            "a column is so far from 0 that float32 hardly tells its values apart: scale inputs before the module, or "
            "train with dtype float64"
        )
    (weights, bias), *others = network.parameters
    wide = weights.astype(np.float64) / network.inputs.scaling.scale
    moved = bias.astype(np.float64) - wide @ network.inputs.scaling.shift
    return [(wide.astype(network.dtype), moved.astype(network.dtype)), *others]


def from_torch(module: Any, *, outputs: str | None = None) -> Network:
    """A network with copies of the parameters of an ``nn.Sequential``.

    ``outputs`` says what a module that ends in a Linear gives: "logits" of classes, as is usual with PyTorch's losses,
    so that ``predict`` gives their labels, or "values". Without it a warning is given, and ``predict`` gives outputs.

    It may hold Linear (without a bias, b is 0), each perhaps followed by ReLU, LeakyReLU(0.01), Sigmoid, Tanh or
    Softmax over a row; Sequential, Identity and, in front, Flatten; Dropout is left out, with a warning.

    Raises:
        UsageError: anything else, named with its place; logits of a module that ends in an activation.
    """
    if outputs not in (None, "logits", "values"):
        raise UsageError(f"outputs are 'logits' or 'values', not {outputs!r}")
    if not isinstance(module, nn.Sequential):
        raise UsageError(f"from_torch takes an nn.Sequential, not {type(module).__name__}")
    linears, names = _layers(module)
    pairs = [_parameters(place, linear) for place, linear in linears]
    sizes = [linears[0][1].in_features] + [linear.out_features for _, linear in linears]
    for (place, linear), expected in zip(linears, sizes, strict=False):
        if linear.in_features != expected:
            raise UsageError(
                f"{_at(place, linear)} takes {linear.in_features} inputs, the layer before gives {expected}"
            )
    dtypes = {str(array.dtype) for pair in pairs for array in pair}
    if len(dtypes) > 1:
        raise UsageError(
            f"the module's parameters have several dtypes ({', '.join(sorted(dtypes))}); give it one"
        )
    network = Network(sizes, hidden=names[:-1], output=names[-1], dtype=dtypes.pop())
    network.parameters = pairs
    if outputs == "logits" and names[-1] != "identity":
        raise UsageError(f"the module ends in {names[-1]}, so that its outputs are no logits")
    if outputs is None and names[-1] == "identity":
        warn_caller(
            "the module ends in a Linear, whose outputs may be logits of classes or values: say outputs='logits' or "
            "outputs='values'; predict gives them as they are"
        )
    network.meaning = {"logits": LOGITS, "values": VALUES}.get(outputs or "", UNKNOWN)
    return network


def _layers(module: Any) -> tuple[list[tuple[str, Any]], list[str]]:
    """The Linear modules with their places, and the name of the activation that follows each."""
    linears: list[tuple[str, Any]] = []
    names: list[str] = []
    for place, part in _flat(module):
        if isinstance(part, nn.Linear):
            names += ["identity"] * (len(linears) - len(names))
            linears.append((place, part))
        elif isinstance(part, nn.Flatten) and not linears and (part.start_dim, part.end_dim) == (1, -1):
            continue  # a network flattens its inputs itself
        elif isinstance(part, nn.Dropout):
            if part.p:
                warn_caller(
                    f"{_at(place, part)} is left out: it does nothing to predictions, and gpubp has none in training"
                )
        elif not isinstance(part, nn.Identity):
            name = _activation(place, part)
            if len(names) == len(linears):
                told = f"{'an activation' if linears else 'no Linear'} before it"
                raise UsageError(f"{_at(place, part)} has {told}; gpubp takes one for each Linear")
            names.append(name)
    if not linears:
        raise UsageError("the nn.Sequential holds no Linear, and a network needs one or more")
    return linears, names + ["identity"] * (len(linears) - len(names))


def _flat(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in module._modules.items():  # named_children leaves out a module that is there twice
        if isinstance(part, nn.Sequential):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _at(place: str, part: Any) -> str:
    return f"{part!r} at place {place}"


def _activation(place: str, part: Any) -> str:
    """The name of an activation module, by its own class: a subclass may compute anything."""
    names = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", LecunTanh: "lecun_tanh"}
    names |= {nn.LeakyReLU: "leaky_relu", nn.Softmax: "softmax"}
    kind, why_not = type(part), None
    if kind is nn.LeakyReLU and part.negative_slope != LEAKY_SLOPE:
        why_not = f": gpubp's leaky_relu has the slope {LEAKY_SLOPE}"
    elif kind is nn.Softmax and part.dim not in (1, -1):
        why_not = ": gpubp's softmax is over a row, dim=1"
    elif kind is nn.LogSoftmax:
        why_not = ": gpubp's outputs are probabilities, not their logarithms; put nn.Softmax(dim=1) there"
    elif kind not in names:
        why_not = f" has no counterpart in a gpubp network; it takes {_TAKEN}"
    if why_not:
        raise UsageError(_at(place, part) + why_not)
    return names[kind]


def _parameters(place: str, linear: Any) -> tuple[np.ndarray, np.ndarray]:
    """W and b as arrays of their own; without a bias, b is 0."""
    kind = linear.weight.dtype
    if kind not in (torch.float32, torch.float64):
        raise UsageError(
            f"{_at(place, linear)} has {kind} weights; .float() or .double() makes them float32 or float64"
        )
    bias = torch.zeros(linear.out_features, dtype=kind) if linear.bias is None else linear.bias
    weights, bias = (parameter.detach().cpu().numpy().copy() for parameter in (linear.weight, bias))
    return weights, bias
