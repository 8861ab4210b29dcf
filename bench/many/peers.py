"""Who trains them, and how: each peer is made ready once, and then trains all networks for some epochs when asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpubp
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net

Pass = Callable[[int], None]  # trains all networks for so many epochs, from where they are or from the start


def _mnist() -> Data:
    train = gpubp.load_data("mnist", quiet=True).train
    return Data(train.inputs, train.targets)


def _orders(count: int, samples: int = 60_000) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(samples) for _ in range(count)]


def sweep(nets: Sequence[Net], threads: int) -> Pass:
    """``gpubp.sweep``, all of it: reading, a tenth held out, watched after each epoch, verified, models written."""
    from gpubp.experiments.recipe import RunSettings, load_recipe

    base = load_recipe("mnist", {"momentum": 0.0, "schedule": "constant"})
    alike = len(set(nets)) == 1

    def run(epochs: int) -> None:
        recipe = replace(base, epochs=epochs, layers=nets[0].layers, lr=nets[0].lr, batch_size=nets[0].batch)
        with tempfile.TemporaryDirectory() as folder:
            given: dict[str, Any] = {
                "jobs": threads,
                "run": RunSettings(backend="numba", threads=1),
                "folder": Path(folder) / "sweep",
            }
            if alike:
                gpubp.sweep(recipe, seeds=len(nets), **given)
                return
            gpubp.sweep(
                recipe, [{"layers": n.layers, "lr": n.lr, "batch_size": n.batch} for n in nets], **given
            )

    return run


def one_by_one(nets: Sequence[Net], threads: int) -> Pass:
    """``gpubp.fit`` of one network after the other, each on all threads, verified and watched likewise."""
    from gpubp import backends

    data = _mnist()
    x, y = data.inputs, np.asarray(data.labels)
    train, watched = (x[:54_000], y[:54_000]), (x[54_000:], y[54_000:])

    def run(epochs: int) -> None:
        for seed, net in enumerate(nets):
            given: dict[str, Any] = {
                "epochs": epochs,
                "batch_size": net.batch,
                "validation": watched,
                "seed": seed,
            }
            backend = backends.get("numba", threads=threads)
            gpubp.fit(net.network(seed), *train, optimizer=gpubp.SGD(net.lr), backend=backend, **given)

    return run


def jax(nets: Sequence[Net], threads: int) -> Pass:
    """JAX: an epoch of all networks that are alike is one vmap of a scan, all of them on the same mini-batches."""
    import jax as library
    from jax import numpy as jnp

    from gpubp.benchmark.peers.jax_scan import epoch

    data = _mnist()
    inputs, targets = jnp.asarray(data.floats()), jnp.asarray(data.targets(nets[0]))
    states: list[Any] = [
        ([jnp.asarray(a) for pair in net.network(seed).parameters for a in pair], [])
        for seed, net in enumerate(nets)
    ]
    orders = [order.astype(np.int32) for order in _orders(4)]
    alike = len(set(nets)) == 1

    def batches(order: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
        full = len(order) // batch * batch
        return order[:full].reshape(-1, batch), order[full:]

    if alike:
        stacked: Any = library.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        whole = library.jit(
            library.vmap(partial(epoch, nets[0]), in_axes=(0, None, None, None, None)), donate_argnums=0
        )
        kept = [stacked]

        def run(epochs: int) -> None:
            for number in range(epochs):
                kept[0], _ = whole(kept[0], inputs, targets, *batches(orders[number % 4], nets[0].batch))
            library.block_until_ready(kept[0])

        return run
    compiled = {net: library.jit(partial(epoch, net), donate_argnums=0) for net in set(nets)}

    def run_each(epochs: int) -> None:
        for place, net in enumerate(nets):
            for number in range(epochs):
                given = states[place], inputs, targets, *batches(orders[number % 4], net.batch)
                states[place], _ = compiled[net](*given)
            library.block_until_ready(states[place])

    return run_each


def torch(nets: Sequence[Net], threads: int) -> Pass:
    """PyTorch: networks that are alike are one product of stacked matrices (baddbmm), all on the same mini-batches."""
    import torch as library
    from torch.nn import functional as F

    from gpubp.benchmark.peers.pytorch import mean_loss

    library.set_num_threads(threads)
    data = _mnist()
    x, y = library.from_numpy(data.floats()), library.from_numpy(data.targets(nets[0]))
    orders = [library.from_numpy(order) for order in _orders(4)]
    made = [[library.tensor(a) for pair in n.network(s).parameters for a in pair] for s, n in enumerate(nets)]
    if len(set(nets)) == 1:
        stacked = [library.stack(same).requires_grad_() for same in zip(*made, strict=True)]
        w1, b1, w2, b2 = stacked
        optimizer = library.optim.SGD(stacked, lr=nets[0].lr, fused=True)

        def run(epochs: int) -> None:
            for number in range(epochs):
                for batch in orders[number % 4].split(nets[0].batch):
                    taken, labels = x.index_select(0, batch), y.index_select(0, batch)
                    hidden = F.relu(
                        library.baddbmm(b1[:, None], taken.expand(len(nets), -1, -1), w1.transpose(1, 2))
                    )
                    z = library.baddbmm(b2[:, None], hidden, w2.transpose(1, 2))
                    losses = F.cross_entropy(
                        z.reshape(-1, z.shape[2]), labels.repeat(len(nets)), reduction="sum"
                    )
                    optimizer.zero_grad(set_to_none=True)
                    (losses / len(batch)).backward()
                    optimizer.step()

        return run
    each = [[a.requires_grad_() for a in tensors] for tensors in made]
    optimizers = [library.optim.SGD(t, lr=net.lr, fused=True) for t, net in zip(each, nets, strict=True)]

    def run_each(epochs: int) -> None:
        for tensors, optimizer, net in zip(each, optimizers, nets, strict=True):
            for number in range(epochs):
                for batch in orders[number % 4].split(net.batch):
                    optimizer.zero_grad(set_to_none=True)
                    mean_loss(net, tensors, x.index_select(0, batch), y.index_select(0, batch)).backward()
                    optimizer.step()

    return run_each


def sklearn(nets: Sequence[Net], threads: int) -> Pass:
    """scikit-learn: GridSearchCV of MLPClassifier with n_jobs, on nine tenths of the samples, scored on the last."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    data = _mnist()
    x, y = data.floats(), np.asarray(data.labels)
    one_split = PredefinedSplit(np.where(np.arange(len(x)) < 54_000, -1, 0))
    grid = [
        {"hidden_layer_sizes": [net.layers[1:-1]], "learning_rate_init": [net.lr], "batch_size": [net.batch],
         "random_state": [seed]}
        for seed, net in enumerate(nets)
    ]  # fmt: skip

    def run(epochs: int) -> None:
        model = MLPClassifier(
            solver="sgd", momentum=0.0, alpha=0.0, max_iter=epochs, tol=0.0, n_iter_no_change=1000
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            GridSearchCV(model, grid, cv=one_split, n_jobs=threads, refit=False).fit(x, y)

    return run


# By name: what it is called, what it needs, and what makes it ready. The first is what the others are compared with.
PEERS: dict[str, tuple[str, str, Callable[[Sequence[Net], int], Pass]]] = {
    "gpubp": ("gpubp sweep", "numba", sweep),
    "gpubp-one-by-one": ("gpubp, one by one on all threads", "numba", one_by_one),
    "jax": ("JAX", "jax", jax),
    "torch": ("PyTorch", "torch", torch),
    "sklearn": ("scikit-learn, GridSearchCV", "sklearn", sklearn),
}
