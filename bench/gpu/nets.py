"""Nets that bench.gpu trains and times: the recipes' networks and two of bench.cpu's, by whom, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from gpubp.backends.cuda.backend import CupyBackend
from gpubp.benchmark import nets
from gpubp.benchmark.nets import CLASSIFIER, NETS, Net
from gpubp.benchmark.peers import FLOAT32, PRODUCTS, Peer, backend_peer, module_name
from gpubp.errors import UsageError
from gpubp.experiments.recipe import Recipe

BIG = "784-2048-2048-10"  # bound by its products, which are timed by themselves too
EXTRA = ("784-128-10", BIG)
OF_PRECISIONS = ("784-128-10", "mnist", BIG)  # the nets that are timed in other precisions too
SAMPLE, MNIST = "mnist-sample", "mnist"
FIRST_RECIPES = ("iris", SAMPLE, MNIST)  # that the first run trains, in float32; the second, all others
STAND_IN = "tests.cuda_host.fake_cupy"  # takes cupy's place on the host

AnyNet = TypeVar("AnyNet", bound=Net)


@dataclass(frozen=True)
class Variant:
    """A way for gpubp to train on a GPU: a plan, and the precision of its products."""

    plan: str
    precision: str = FLOAT32

    def __str__(self) -> str:
        return self.plan if self.precision == FLOAT32 else f"{self.plan} in {self.precision}"


# Only the fused plan has other precisions.
VARIANTS = (
    *(Variant(plan) for plan in CupyBackend.plans),
    *(Variant("fused", precision) for precision in CupyBackend.precisions if precision != FLOAT32),
)


def peers(host: bool, second: bool) -> list[Peer]:
    """gpubp's plans on the GPU, the other libraries, and what cuBLAS takes; in the second run more of them.

    These are Numba, which is slow on a large net, and the other precisions.
    """
    device = "cpu" if host else "gpu"

    def of(name: str, title: str, module: str, *needs: str, **options: str) -> Peer:
        return Peer(name, title, module_name(module), needs, device=device, options=options)

    plans = {
        plan: of(f"gpubp-{plan}", f"gpubp cupy, {plan}", "plan", backend="cupy", plan=plan)
        for plan in CupyBackend.plans
    }
    graph = of("torch-graph", "PyTorch, CUDA graph", "pytorch", "torch", step="graph")
    jax = of("jax", "JAX", "jax_scan", "jax")
    of_other_precisions = [
        *(
            plans[v.plan].with_precision(v.precision, OF_PRECISIONS)
            for v in VARIANTS
            if v.precision != FLOAT32
        ),
        graph.with_precision("tf32", OF_PRECISIONS),
        jax.with_precision("tf32", OF_PRECISIONS),
    ]
    return [
        *([backend_peer("numba")] if second else []),
        *plans.values(),
        of("torch", "PyTorch eager", "pytorch", "torch", step="eager"),
        graph,
        jax,
        replace(of(PRODUCTS, "cuBLAS, its products alone", "products"), nets=(BIG,)),
        *(of_other_precisions if second else []),
    ]


def of_recipe(recipe: Recipe) -> Net:
    """The recipe's network and optimizer, without weight decay; its learning rate stays what it is at first.

    Raises:
        UsageError: it trains otherwise than by SGD, with momentum perhaps.
    """
    if recipe.optimizer != "sgd" or recipe.nesterov:
        raise UsageError("only SGD is compared, with momentum perhaps")
    net, _ = nets.of_recipe(recipe)
    return replace(net, momentum=recipe.momentum or 0.0, dropout=recipe.dropout, deform=recipe.deform or None)


def extra(data: str) -> list[Net]:
    """Nets of bench.cpu, on ``data``: MNIST or the sample of it."""
    return [replace(net, data=data) for net in NETS if net.name in EXTRA]


@dataclass(frozen=True)
class Sizes:
    """The extent of each part. None: all that there is.

    width, batch, samples: no hidden layer, mini-batch and data set is larger. dtypes: that kernels are built for.
    blocks: grids whose barrier is timed.
    test_seconds: what one test may take; what takes longer hangs.
    """

    width: int | None = None
    batch: int | None = None
    samples: int | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")
    rounds: int = 3
    seconds_a_round: float = 0.2
    repeat_epochs: int = 2
    blocks: tuple[int, ...] = (16, 32, 64, 132)
    barriers: int = 1000
    launches: int = 1000
    copy_mb: int = 512
    product: int = 8192
    seeds: int = 3
    test_seconds: float = 60.0

    def cut(self, net: AnyNet) -> AnyNet:
        """The net with its hidden layers and batch no larger than these."""
        inputs, *hidden, outputs = net.layers
        layers = (inputs, *(min(n, self.width or n) for n in hidden), outputs)
        return replace(net, layers=layers, batch=min(net.batch, self.batch or net.batch))


ON_GPU = Sizes()
ON_HOST = Sizes(
    width=12, batch=8, samples=20, dtypes=("float32",), rounds=2, seconds_a_round=0.0, repeat_epochs=1,
    blocks=(2, 3, 4), barriers=5, launches=5, copy_mb=1, product=64, seeds=2, test_seconds=300.0,
)  # fmt: skip


@dataclass(frozen=True)
class Race(Net):
    """A race to an accuracy, by Adam; ``targets`` are the test accuracies whose times are wanted."""

    epochs: int = 3
    schedule: str = "cosine"
    warmup: float = 0.3
    targets: tuple[float, ...] = (0.97, 0.98)


# So, eight seeds of eight reached 0.981 to 0.983 on MNIST in three epochs of the Numba backend, and no seed did in two;
# so did few or none of eight with 256 or 384 units, or with batches of 512.
RACE = Race("race", (784, 512, 10), *CLASSIFIER, 0.008, 256, MNIST, "he")
SAMPLE_RACE = replace(RACE, data=SAMPLE, batch=64, epochs=8, lr=0.003, targets=(0.9, 0.92))
