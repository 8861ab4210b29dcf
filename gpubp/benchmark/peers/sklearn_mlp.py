"""scikit-learn: MLPClassifier.partial_fit, which is one epoch of its solver "sgd"."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import OrderedTrainer


class SklearnTrainer(OrderedTrainer):
    """Its outputs are softmax with the cross-entropy or, for several labels a sample, sigmoids with the binary
    cross-entropy; there is no squared error of sigmoids.
    """

    version, details = sklearn.__version__, "MLPClassifier.partial_fit, one epoch a call"

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        if not net.classifies:
            self.differs = "scikit-learn has no squared error of sigmoids: binary cross-entropy instead"
        self.take(data.floats(), data.targets(net).astype(np.int64))
        self.model = MLPClassifier(
            hidden_layer_sizes=net.layers[1:-1], activation="relu" if net.hidden == "relu" else "logistic",
            solver="sgd", alpha=0.0, batch_size=min(net.batch, len(data)), learning_rate="constant",
            learning_rate_init=net.lr, momentum=0.0, nesterovs_momentum=False, shuffle=False, random_state=0,
        )  # fmt: skip
        # The first call draws parameters; ours go into the same arrays, which the solver has hold of.
        first = slice(0, self.model.batch_size)
        self.model.partial_fit(self.inputs[first], self.targets[first], classes=np.arange(net.layers[-1]))
        for ours, theirs in zip(parameters[::2], self.model.coefs_, strict=True):
            theirs[...] = ours.T
        for ours, theirs in zip(parameters[1::2], self.model.intercepts_, strict=True):
            theirs[...] = ours

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        self.model.partial_fit(inputs, targets)
        return float(self.model.loss_)

    def parameters(self) -> list[np.ndarray]:
        model = self.model
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        return [p for w, b in pairs for p in (np.ascontiguousarray(w.T), b)]


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> SklearnTrainer:
    """Threads are those of NumPy's BLAS, from the environment."""
    return SklearnTrainer(net, data, parameters)
