"""MLPClassifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from gpubp.errors import UsageError
from gpubp.estimators.base import MLP, checked_weights, may_go_on
from gpubp.estimators.watch import Job
from gpubp.model import labels_of
from gpubp.network import Network
from gpubp.training.history import Epoch


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(ClassifierMixin, MLP):
    """A multi-layer perceptron that learns classes, trained by backpropagation on the backend of your choice.

    The loss is cross-entropy: over softmax outputs for three or more classes, over one sigmoid output for two, and
    over one for each label where the targets are a matrix of 0 and 1 (multilabel).

    Args:
        hidden_layer_sizes: units of each hidden layer; () for none.
        activation: of the hidden layers, one name for all or a list of one each: identity, sigmoid (or logistic),
            tanh, lecun_tanh, relu, leaky_relu.
        init: how initial weights are drawn: "sklearn", the very ones, and biases, that scikit-learn draws with this
            ``random_state``; "auto" or a name of ``gpubp.network.INITIALISERS``, as :class:`gpubp.Network` has them.
        solver: adam, adamw or sgd.
        alpha: strength of the L2 term, as scikit-learn has it: weight decay alpha / batch size.
        batch_size: samples a step; "auto" is min(200, samples).
        learning_rate: over time, a factor on ``learning_rate_init``: constant, step, exponential, cosine, or a
            :class:`gpubp.Schedule`.
        learning_rate_init: η.
        max_iter: epochs at most.
        shuffle: whether each epoch shuffles the samples.
        random_state: of initial weights, shuffling and the part held out.
        tol, n_iter_no_change: training stops when the loss, or with ``early_stopping`` the validation score, has not
            improved by ``tol`` for more than ``n_iter_no_change`` epochs. A loss that is then clearly above its best,
            by a twentieth of what the best constant outputs lose, has overshot: training goes on from there by the
            same rule. A fit that ends so far above its best warns.
        verbose: show progress on stderr.
        warm_start: ``fit`` goes on from the network of the last one, with a new optimizer.
        momentum, nesterovs_momentum: of sgd.
        dropout: the rate at which training drops activations of the hidden layers, one for all or one each; or one
            more, the first of which is the inputs'. Predictions have none.
        early_stopping, validation_fraction: hold out that part of the training data, stratified by class, watch
            the accuracy on it, and keep the best epoch's parameters. With ``partial_fit`` each call holds out a part
            of its own; once the score has stopped improving the best parameters are kept, and further calls warn and
            change nothing.
        beta_1, beta_2, epsilon: of adam and adamw.
        class_weight: {class: weight} or "balanced": factors on the samples' weights. A class that y lacks may be
            named; if a class of y is not named besides, that is taken for a misspelling and refused.
        backend: auto, numpy, numba or cupy. threads: how many of the processor's it may use; None for all.
        verify: how often a step is held to the reference: off, first, epoch, step.
        dtype: float32 or float64, of weights and arithmetic.
        callbacks: functions called as callback(epoch, network) after every epoch; one that returns True ends training.

    Inputs are dense or sparse (trained on as rows of non-zeros by the Numba backend). The columns of a DataFrame are
    numbers, of whatever dtype. An array of bytes (uint8) is images, scaled by 1/255 in ``fit`` and ``predict`` alike,
    with a warning if none of them exceeds 127; an array of another dtype is numbers. The two must not be mixed.

    Attributes:
        classes_: the labels. network_: the :class:`gpubp.Network`. history_: of the last fit, a :class:`gpubp.History`.
        loss_curve_: mean loss of each epoch, without the L2 term. loss_, best_loss_: its last and least.
        validation_curve_: with ``early_stopping``, the accuracy of each epoch (of multilabel targets: of all labels at
            once). best_validation_score_: the best that the last fit saw.
        n_iter_: epochs run. t_: samples seen. coefs_, intercepts_, n_layers_, n_outputs_, out_activation_,
        n_features_in_, feature_names_in_: as scikit-learn has them.

    Raises:
        ValueError: parameters or data that cannot be used. VerificationError: the backend computed something else than
            the equations say. BackendUnavailable: it cannot run here.
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Learn from inputs X (N, n_in), dense or sparse, and labels y (N,), or (N, labels) of 0 and 1.

        sample_weight: (N,) factors on each sample's loss; what counts is their size relative to each other and to
            alpha.
        """
        warm = bool(self.warm_start and hasattr(self, "network_"))
        X, y = self._checked(X, y, again=warm)
        classes = self._classes_of(y)
        if warm and not np.array_equal(classes, self.classes_):
            raise UsageError(
                f"with warm_start, y must have the classes of the last fit, {self.classes_}, not {classes}"
            )
        self._fit_all(self._job(X, y, sample_weight, classes), warm=warm)
        return self

    @available_if(may_go_on)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """One epoch over this part of the data, going on with the network and the optimizer of the last call.

        classes: all labels that will ever come, in the first call. Callbacks see every call as epoch 1.
        """
        again = hasattr(self, "network_")
        X, y = self._checked(X, y, again=again)
        if not again and classes is None:
            raise UsageError("the first call of partial_fit needs classes: all labels that will ever come")
        if isinstance(self.class_weight, str):
            raise UsageError(
                f"class_weight {self.class_weight!r} needs all data at once: give partial_fit weights"
            )
        known = self.classes_ if again else self._classes_of(y if _is_multilabel(y) else classes)
        if classes is not None and not _is_multilabel(y) and not np.array_equal(np.unique(classes), known):
            raise UsageError(f"classes are {known}, and cannot become {np.unique(classes)}")
        self._fit_once(self._job(X, y, sample_weight, known))
        return self

    def _classes_of(self, y: Any) -> np.ndarray:
        check_classification_targets(y)
        return np.arange(y.shape[1]) if _is_multilabel(y) else np.unique(column_or_1d(y, warn=True))

    def _job(self, x: Any, y: Any, sample_weight: Any, classes: np.ndarray) -> Job:
        labels = {"classes_": classes, "multilabel_": _is_multilabel(y)}
        if labels["multilabel_"]:
            targets = (y.toarray() if hasattr(y, "toarray") else np.asarray(y)).astype(np.float64)
            weight = self._class_weights(classes, targets, checked_weights(sample_weight, x))
            return Job(x, targets, weight, targets.shape[1], "sigmoid", "binary_cross_entropy", labels, ())
        y = column_or_1d(y)
        targets = np.searchsorted(classes, y)
        strange = (targets >= len(classes)) | (classes[np.minimum(targets, len(classes) - 1)] != y)
        if strange.any():
            raise UsageError(f"y has labels that classes lacks: {np.unique(y[strange])[:5]}")
        weight = self._class_weights(classes, targets, checked_weights(sample_weight, x))
        several = len(classes) > 2
        n_out, output = (len(classes), "softmax") if several else (1, "sigmoid")
        loss = "cross_entropy" if several else "binary_cross_entropy"
        # A single class is both labels of the one output.
        names = tuple(classes.tolist() * (2 if len(classes) == 1 else 1))
        return Job(x, targets, weight, n_out, output, loss, labels, names)

    def _class_weights(
        self, classes: np.ndarray, targets: np.ndarray, weight: np.ndarray | None
    ) -> np.ndarray | None:
        """The samples' weights times those of their classes; a part of the data may lack some of these."""
        if self.class_weight is None:
            return weight
        if isinstance(self.class_weight, str) or targets.ndim == 2:
            of_samples = compute_sample_weight(self.class_weight, targets)
        else:
            given, known = dict(self.class_weight), classes.tolist()
            strange = [name for name in given if name not in known]
            without = [name for name in known if name not in given]
            if (
                strange and without
            ):  # scikit-learn's rule: a strange name alone may be a class that y happens to lack
                raise UsageError(
                    f"class_weight names {strange[0]!r} and not {without[0]!r}: the classes are {known}"
                )
            of_samples = np.array([given.get(name, 1.0) for name in known])[targets]
        return of_samples if weight is None else of_samples * weight

    def _score_of(self, held: Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        if held.weight is None and held.targets.ndim == 1:
            return _accuracy, (held.inputs, held.targets)

        def accuracy(epoch: Epoch, network: Network) -> float:
            """The weight of samples whose label, or all of whose labels, are right, of the weight of all."""
            outputs, targets = network.forward(held.inputs), held.targets
            several = targets.ndim == 2
            right = (
                ((outputs > 0.5) == (targets > 0.5)).all(axis=1) if several else labels_of(outputs) == targets
            )
            return float(np.average(right, weights=held.usable_weight))

        return accuracy, None

    def predict(self, X: Any) -> np.ndarray:
        """The labels (N,) of inputs (N, n_in), or (N, labels) of 0 and 1."""
        outputs = self._outputs(X)
        if self.multilabel_:
            return (outputs > 0.5).astype(np.int64)
        return self.classes_[np.minimum(labels_of(outputs), len(self.classes_) - 1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (N, classes), in the order of ``classes_``; of multilabel, of each label."""
        outputs = self._outputs(X)
        if outputs.shape[1] == 1 and not self.multilabel_:
            return np.hstack([1 - outputs, outputs])[:, : len(self.classes_)]
        return outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of :meth:`predict_proba`; −inf where that is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _is_multilabel(y: Any) -> bool:
    return type_of_target(y).startswith("multilabel")


def _accuracy(epoch: Epoch, network: Network) -> float:
    assert epoch.validation_accuracy is not None
    return epoch.validation_accuracy
