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


def _training(data: str) -> Data:
    train = gpubp.load_data(data, quiet=True).train
    return Data(train.inputs, train.targets)


def _orders(count: int, samples: int) -> np.ndarray:
    """An order of the samples for each network, (count, samples)."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(samples) for _ in range(count)])


def sweep(nets: Sequence[Net], data: str, threads: int) -> Pass:
    """``gpubp.sweep``, all of it: reading, a tenth held out, watched after each epoch, verified, models written."""
    from gpubp.experiments.recipe import RunSettings, load_recipe

    base = load_recipe(data, {"momentum": 0.0, "schedule": "constant"})
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


def one_by_one(nets: Sequence[Net], data: str, threads: int) -> Pass:
    """``gpubp.fit`` of one network after the other, each on all threads, verified and watched likewise."""
    from gpubp import backends

    given_data = _training(data)
    x, y = given_data.inputs, np.asarray(given_data.labels)
    first = len(x) * 9 // 10
    train, watched = (x[:first], y[:first]), (x[first:], y[first:])

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


def jax(nets: Sequence[Net], data: str, threads: int, *, same_batches: bool = False) -> Pass:
    """JAX: an epoch of all networks that are alike is one vmap of a scan, each on its own mini-batches, as seeds have.

    same_batches: all networks have the same ones, so that their first layers are one product.
    """
    import jax as library
    from jax import numpy as jnp

    from gpubp.benchmark.peers.jax_scan import epoch

    samples = _training(data)
    inputs, targets = jnp.asarray(samples.floats()), jnp.asarray(samples.targets(nets[0]))
    states: list[Any] = [
        ([jnp.asarray(a) for pair in net.network(seed).parameters for a in pair], [])
        for seed, net in enumerate(nets)
    ]
    orders = _orders(len(nets), len(samples)).astype(np.int32)

    def batches(order: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
        full = order.shape[-1] // batch * batch
        return order[..., :full].reshape(*order.shape[:-1], -1, batch), order[..., full:]

    if len(set(nets)) == 1:
        stacked: Any = library.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        own = None if same_batches else 0
        whole = library.jit(
            library.vmap(partial(epoch, nets[0]), in_axes=(0, None, None, own, own)), donate_argnums=0
        )
        kept = [stacked]

        def run(epochs: int) -> None:
            for number in range(epochs):
                order = orders[number % 4] if same_batches else np.roll(orders, number, axis=0)
                kept[0], _ = whole(kept[0], inputs, targets, *batches(order, nets[0].batch))
            library.block_until_ready(kept[0])

        return run
    compiled = {net: library.jit(partial(epoch, net), donate_argnums=0) for net in set(nets)}

    def run_each(epochs: int) -> None:
        for place, net in enumerate(nets):
            for number in range(epochs):
                given = states[place], inputs, targets, *batches(orders[(place + number) % 16], net.batch)
                states[place], _ = compiled[net](*given)
            library.block_until_ready(states[place])

    return run_each


def torch(nets: Sequence[Net], data: str, threads: int, *, same_batches: bool = False) -> Pass:
    """PyTorch: networks that are alike are one product of stacked matrices (baddbmm), each on its own mini-batches.

    same_batches: all networks have the same ones.
    """
    import torch as library
    from torch.nn import functional as F

    from gpubp.benchmark.peers.pytorch import mean_loss

    library.set_num_threads(threads)
    samples, count = _training(data), len(nets)
    x, y = library.from_numpy(samples.floats()), library.from_numpy(samples.targets(nets[0]))
    orders = library.from_numpy(_orders(count, len(samples)))
    made = [[library.tensor(a) for pair in n.network(s).parameters for a in pair] for s, n in enumerate(nets)]
    if len(set(nets)) == 1:
        stacked = [library.stack(same).requires_grad_() for same in zip(*made, strict=True)]
        w1, b1, w2, b2 = stacked
        optimizer = library.optim.SGD(stacked, lr=nets[0].lr, fused=True)

        def run(epochs: int) -> None:
            for number in range(epochs):
                own = orders.roll(number, 0)
                for batch in (own[:1] if same_batches else own).split(nets[0].batch, dim=1):
                    taken = x[batch].expand(count, -1, -1)
                    labels = y[batch].expand(count, -1)
                    hidden = F.relu(library.baddbmm(b1[:, None], taken, w1.transpose(1, 2)))
                    z = library.baddbmm(b2[:, None], hidden, w2.transpose(1, 2))
                    losses = F.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="sum")
                    optimizer.zero_grad(set_to_none=True)
                    (losses / batch.shape[1]).backward()
                    optimizer.step()

        return run
    each = [[a.requires_grad_() for a in tensors] for tensors in made]
    optimizers = [library.optim.SGD(t, lr=net.lr, fused=True) for t, net in zip(each, nets, strict=True)]

    def run_each(epochs: int) -> None:
        for place, (tensors, optimizer, net) in enumerate(zip(each, optimizers, nets, strict=True)):
            for number in range(epochs):
                for batch in orders[(number + place) % count].split(net.batch):
                    optimizer.zero_grad(set_to_none=True)
                    mean_loss(net, tensors, x.index_select(0, batch), y.index_select(0, batch)).backward()
                    optimizer.step()

    return run_each


def sklearn(nets: Sequence[Net], data: str, threads: int) -> Pass:
    """scikit-learn: GridSearchCV of its MLPClassifier with n_jobs, on nine tenths, scored on the rest."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(solver="sgd", momentum=0.0, alpha=0.0, tol=0.0, n_iter_no_change=1000)
    samples = _training(data)
    return _grid_search(model, samples.floats(), samples, nets, threads)


def estimator(nets: Sequence[Net], data: str, threads: int) -> Pass:
    """The same search of gpubp's MLPClassifier, under joblib's threads as docs/tabular.md says."""
    from joblib import parallel_config

    model = gpubp.MLPClassifier(
        solver="sgd",
        momentum=0.0,
        alpha=0.0,
        tol=0.0,
        n_iter_no_change=1000,
        init="he",
        backend="numba",
        threads=1,
    )
    samples = _training(data)
    search = _grid_search(model, samples.inputs, samples, nets, threads)

    def run(epochs: int) -> None:
        with parallel_config("threading"):
            search(epochs)

    return run


def _grid_search(model: Any, x: np.ndarray, samples: Data, nets: Sequence[Net], threads: int) -> Pass:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    one_split = PredefinedSplit(np.where(np.arange(len(x)) < len(x) * 9 // 10, -1, 0))
    grid = [
        {"hidden_layer_sizes": [net.layers[1:-1]], "learning_rate_init": [net.lr], "batch_size": [net.batch],
         "random_state": [seed]}
        for seed, net in enumerate(nets)
    ]  # fmt: skip

    def run(epochs: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            each = model.set_params(max_iter=epochs)
            GridSearchCV(each, grid, cv=one_split, n_jobs=threads, refit=False).fit(
                x, np.asarray(samples.labels)
            )

    return run


# By name: what it is called, what it needs, and what makes it ready. The first is what the others are compared with.
PEERS: dict[str, tuple[str, str, Callable[[Sequence[Net], str, int], Pass]]] = {
    "gpubp": ("gpubp sweep", "numba", sweep),
    "gpubp-one-by-one": ("gpubp, one by one on all threads", "numba", one_by_one),
    "gpubp-grid": ("gpubp's MLPClassifier, GridSearchCV", "numba", estimator),
    "jax": ("JAX", "jax", jax),
    "torch": ("PyTorch", "torch", torch),
    "jax-same": ("JAX, the same mini-batches for all", "jax", partial(jax, same_batches=True)),
    "torch-same": ("PyTorch, the same mini-batches for all", "torch", partial(torch, same_batches=True)),
    "sklearn": ("scikit-learn, GridSearchCV", "sklearn", sklearn),
}
