"""Keras: model.fit, one epoch a call, on JAX if that is installed, else PyTorch, else TensorFlow."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

if "KERAS_BACKEND" not in os.environ:
    os.environ["KERAS_BACKEND"] = next(filter(find_spec, ("jax", "torch", "tensorflow")))

import keras
import numpy as np

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import OrderedTrainer


class KerasTrainer(OrderedTrainer):
    """model.fit; Keras clips probabilities, so that losses are of logits."""

    version = keras.__version__

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.details = f"model.fit on {keras.backend.backend()}, default compile options"
        self.batch = net.batch
        self.take(data.floats(), data.targets(net))
        hidden = [keras.layers.Dense(n, activation=net.hidden) for n in net.layers[1:-1]]
        output = keras.layers.Dense(net.layers[-1], activation=None if net.classifies else net.output)
        self.model = keras.Sequential([keras.layers.Input((net.layers[0],)), *hidden, output])
        self.model.set_weights([p.T for p in parameters])
        if net.classifies:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        else:
            scale = 0.5 if net.loss == "quadratic" else 1.0

            def loss(y, a):  # Keras's own squared error is a mean over the outputs
                return scale * keras.ops.sum(keras.ops.square(a - y), axis=-1)

        self.model.compile(optimizer=keras.optimizers.SGD(net.lr), loss=loss)

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        history = self.model.fit(inputs, targets, batch_size=self.batch, epochs=1, shuffle=False, verbose=0)
        return float(history.history["loss"][0])

    def parameters(self) -> list[np.ndarray]:
        return [np.ascontiguousarray(p.T) for p in self.model.get_weights()]


def ready(options: dict[str, Any]) -> None:
    """Set the threads of the library below; JAX takes them from the environment."""
    threads = options["threads"]
    if keras.backend.backend() == "torch":
        from gpubp.benchmark.peers.pytorch import set_threads

        set_threads(threads)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> KerasTrainer:
    return KerasTrainer(net, data, parameters)
