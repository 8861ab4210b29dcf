"""MLPRegressor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpubp.estimators.base import MLP, checked_weights, may_go_on
from gpubp.estimators.watch import Job
from gpubp.network import Network
from gpubp.training.history import Epoch


class MLPRegressor(RegressorMixin, MLP):
    """A multi-layer perceptron that learns values, by the quadratic loss ½‖y−a‖² over outputs without activation.

    Arguments and attributes are those of :class:`MLPClassifier`, less ``class_weight`` and ``classes_``. With
    ``early_stopping`` it watches R² on the part held out; of several outputs, of all together.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from inputs X (N, n_in), dense or sparse, and values y (N,) or (N, n_out)."""
        warm = bool(self.warm_start and hasattr(self, "network_"))
        self._fit_all(self._job(X, y, sample_weight, again=warm), warm=warm)
        return self

    @available_if(may_go_on)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over this part of the data, going on with the network and the optimizer of the last call."""
        self._fit_once(self._job(X, y, sample_weight, again=hasattr(self, "network_")))
        return self

    def _job(self, x: Any, y: Any, sample_weight: Any, *, again: bool) -> Job:
        x, y = self._checked(x, y, again=again, y_numeric=True)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        targets = np.asarray(y, np.float64).reshape(x.shape[0], -1)
        weight = checked_weights(sample_weight, x)
        return Job(x, targets, weight, targets.shape[1], "identity", "quadratic", {}, ())

    def _score_of(self, held: Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        targets, weight = held.targets, held.usable_weight
        mean = np.average(targets, axis=0, weights=weight)

        def determination(epoch: Epoch, network: Network) -> float:
            """R² = 1 − Σ‖y−a‖² / Σ‖y−ȳ‖², each sample times its weight, of all outputs together."""
            off, spread = (
                np.average(((targets - values) ** 2).sum(axis=1), weights=weight)
                for values in (network.forward(held.inputs), mean)
            )
            return float(1 - off / (spread or 1.0))  # of values that are all the same, any scale will do

        return determination, None

    def predict(self, X: Any) -> np.ndarray:
        """The values (N,) or (N, n_out) for inputs (N, n_in)."""
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
