"""Nets that are measured, a line each. All train by SGD in float32, from the same parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self, TypeVar

from gpubp.errors import UsageError
from gpubp.experiments.recipe import Recipe
from gpubp.functions import lookup
from gpubp.network import Network
from gpubp.randomness.settings import Deform

T = TypeVar("T")

SEED = 0  # of the first parameters, and of the order of the samples


@dataclass(frozen=True)
class Net:
    """A network and how it is trained.

    layers: inputs, hidden widths, outputs. batch: samples a mini-batch. lr: the learning rate.
    data: a name of ``gpubp.benchmark.data.SOURCES``. init: as ``gpubp.Network`` takes it. momentum: plain SGD if 0.
    dropout, deform: as ``gpubp.fit`` takes them, by which it is verified on a GPU; times are without.
    """

    name: str
    layers: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    lr: float
    batch: int
    data: str
    init: str = "auto"
    momentum: float = 0.0
    dropout: tuple[float, ...] = ()
    deform: Deform | None = None

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        if deform := values.get("deform"):
            values["deform"] = Deform(**deform)
        return cls(**values)

    @property
    def classifies(self) -> bool:
        """Return True if its loss is the cross-entropy of labels; else it is a squared error."""
        return self.loss == "cross_entropy"

    @property
    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.layers))

    def network(self, seed: int = SEED) -> Network:
        """The network with its first parameters."""
        layers, options = list(self.layers), {"hidden": self.hidden, "output": self.output, "init": self.init}
        return Network(layers, **options, seed=seed, dtype="float32")


CLASSIFIER = ("relu", "softmax", "cross_entropy")

# The learning rates of the dense inputs are lower: all their 784 columns have a mean of ½, and MNIST's rates diverge.
NETS = (
    Net("784-32-10", (784, 32, 10), "sigmoid", "sigmoid", "squared_error", 0.3, 256, "mnist", "glorot"),
    Net("784-30-10", (784, 30, 10), "sigmoid", "sigmoid", "quadratic", 3.0, 10, "mnist", "lecun"),
    Net("784-128-10", (784, 128, 10), *CLASSIFIER, 0.1, 128, "mnist"),
    Net("784-512-512-10", (784, 512, 512, 10), *CLASSIFIER, 0.1, 256, "mnist"),
    Net("784-2048-2048-10", (784, 2048, 2048, 10), *CLASSIFIER, 0.1, 512, "mnist"),
    Net(
        "dense-784-32-10", (784, 32, 10), "sigmoid", "sigmoid", "squared_error", 0.03, 256, "dense", "glorot"
    ),
    Net("dense-784-30-10", (784, 30, 10), "sigmoid", "sigmoid", "quadratic", 0.1, 10, "dense", "lecun"),
    Net("dense-784-128-10", (784, 128, 10), *CLASSIFIER, 0.003, 128, "dense"),
    Net("dense-784-512-512-10", (784, 512, 512, 10), *CLASSIFIER, 0.003, 256, "dense"),
    Net("dense-784-2048-2048-10", (784, 2048, 2048, 10), *CLASSIFIER, 0.003, 512, "dense"),
    Net("smooth-784-128-10", (784, 128, 10), *CLASSIFIER, 0.01, 128, "smooth"),
    Net("onehot-800-128-10", (800, 128, 10), *CLASSIFIER, 0.1, 128, "onehot"),
    Net("words-2000-64-10", (2000, 64, 10), *CLASSIFIER, 0.1, 64, "words"),
    Net("digits", (64, 64, 10), *CLASSIFIER, 0.1, 32, "digits"),
    Net("iris", (4, 50, 20, 10, 3), "sigmoid", "softmax", "cross_entropy", 0.5, 2, "iris", "glorot"),
)
QUICK = ("784-128-10",)  # starting nine processes and compiling takes most of its minute


def of_recipe(recipe: Recipe) -> tuple[Net, list[str]]:
    """The recipe's network, batch, loss and data, and in words where the comparison departs from the recipe.

    All peers train by plain SGD at the learning rate that the recipe begins with, in float32.

    Raises:
        UsageError: the recipe gives its hidden layers different activations.
    """
    optimizer = recipe.build_optimizer()
    if len(set(recipe.hidden)) > 1:
        raise UsageError(
            f"recipe {recipe.name}: only nets with one activation for all hidden layers are compared"
        )
    differs = [] if recipe.optimizer == "sgd" else [recipe.optimizer]
    differs += ["momentum"] if recipe.momentum else []
    differs += ["weight decay"] if recipe.weight_decay else []
    differs += ["dropout"] if any(recipe.dropout) else []
    differs += ["deformed images"] if recipe.deform else []
    differs += [f"a {recipe.schedule} schedule"] if recipe.schedule != "constant" or recipe.warmup else []
    notes = [f"plain SGD here; the recipe trains with {', '.join(differs)}"] if differs else []
    notes += [f"float32 here; the recipe has {recipe.dtype}"] if recipe.dtype != "float32" else []
    net = Net(
        recipe.name, recipe.layers, recipe.hidden[0], recipe.output, recipe.loss, optimizer.lr, recipe.batch_size,
        recipe.data, recipe.init,
    )  # fmt: skip
    net.network()  # refuses what it cannot build
    return net, notes


def select(names: list[str]) -> list[Net]:
    """The nets of these names, each net once; what is no name is taken as the beginning of some.

    Raises:
        UsageError: no net's name begins so.
    """
    return named({net.name: net for net in NETS}, names, "net")


def named(table: dict[str, T], names: list[str], what: str) -> list[T]:
    """Those of a table that these names, or beginnings of names, mean, each once.

    Raises:
        UsageError: no name in the table begins so; it is called ``what``.
    """
    chosen: dict[str, T] = {}
    for name in names:
        begun = [key for key in table if key.startswith(name)] if name not in table else [name]
        if not begun:
            lookup(table, name, what)  # raises
        chosen |= {key: table[key] for key in begun}
    return list(chosen.values())


def parse(layers: str, batch: int, lr: float, data: str) -> Net:
    """A classifier of ReLUs from sizes such as 784-300-100-10, trained on ``data``.

    Raises:
        UsageError: sizes, batch or learning rate that make no net.
    """
    try:
        sizes = tuple(int(n) for n in layers.split("-"))
    except ValueError:
        raise UsageError(f"--net takes sizes such as 784-300-100-10, not {layers!r}") from None
    if batch < 1 or not 0 < lr < float("inf"):
        raise UsageError(f"--batch and --lr must be positive, not {batch} and {lr}")
    net = Net(layers, sizes, *CLASSIFIER, lr, batch, data)
    net.network()  # refuses what it cannot build
    return net if data == "mnist" else replace(net, name=f"{data}-{layers}")
