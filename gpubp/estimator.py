"""The front door for scikit-learn users: ``MLPClassifier`` and ``MLPRegressor``.

They have the parameters of ``sklearn.neural_network``'s, by the same names and with the same defaults, where these mean
the same; besides, ``backend``, ``threads``, ``verify``, ``dtype``, ``callbacks`` and ``class_weight``, and an
``activation`` for each layer. What is not offered is refused by name: the solver lbfgs, and the learning rates
"invscaling" and "adaptive", in place of which there are gpubp's schedules.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gpubp import backends
from gpubp.errors import UsageError
from gpubp.network import Network, labels_of
from gpubp.optimizers import SGD, Adam, AdamW, Optimizer, Schedule
from gpubp.trainer import Epoch, History, fit

_ALIASES = {"logistic": "sigmoid"}  # as scikit-learn calls them
_INPUTS: dict[str, Any] = {"accept_sparse": "csr", "dtype": [np.float64, np.float32, np.uint8]}


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass
class _Watch:
    """What is watched from epoch to epoch: the curves, and when they have stopped getting better.

    That is, scikit-learn's rule, when the validation score, or without one the training loss, has not improved by
    ``tol`` for more than ``patience`` epochs in a row.
    """

    tol: float
    patience: float
    score: Callable[[Epoch, Network], float] | None = None
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    best_score: float = -np.inf
    best_parameters: list | None = None
    without_gain: int = 0

    def __call__(self, epoch: Epoch, network: Network) -> bool:
        self.losses.append(epoch.loss)
        if self.score is None:
            gained = epoch.loss <= self.best_loss - self.tol
        else:
            score = self.score(epoch, network)
            self.scores.append(score)
            gained = score >= self.best_score + self.tol
            if score > self.best_score:
                self.best_score, self.best_parameters = score, network.parameters
        self.best_loss = min(self.best_loss, epoch.loss)
        self.without_gain = 0 if gained else self.without_gain + 1
        return self.stopped

    @property
    def stopped(self) -> bool:
        return self.without_gain > self.patience


class _MLP(BaseEstimator):
    """What classifier and regressor share."""

    network_: Network
    history_: History
    loss_curve_: list[float]
    validation_curve_: list[float]
    n_iter_: int
    t_: int
    _watch: _Watch
    _next_seed: int

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        backend: str = "auto",
        threads: int | None = None,
        verify: str = "epoch",
        dtype: str = "float32",
        callbacks: Sequence[Callable] | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.backend = backend
        self.threads = threads
        self.verify = verify
        self.dtype = dtype
        self.callbacks = callbacks

    def _settings(self, n: int, mean_weight: float) -> dict[str, Any]:
        """The arguments of :func:`gpubp.fit` that follow from the parameters, for n training samples."""
        for name, least in (("max_iter", 1), ("n_iter_no_change", 1)):
            value = getattr(self, name)
            endless = name == "n_iter_no_change" and value == np.inf
            if not ((_is_whole(value) and value >= least) or endless):
                raise UsageError(f"{name} must be an integer of {least} or more, not {value!r}")
        for name in ("alpha", "tol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, float | int | np.number) or not value >= 0:
                raise UsageError(f"{name} must be a number of 0 or more, not {value!r}")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction lies between 0 and 1, and is {self.validation_fraction!r}")
        batch_size = self._batch_size(n)
        return {
            "optimizer": self._optimizer(batch_size * mean_weight),
            "schedule": self._schedule(),
            "batch_size": batch_size,
            "shuffle": self.shuffle,
            "backend": backends.get(self.backend, threads=self.threads),
            "verify": self.verify,
            "progress": bool(self.verbose),
        }

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if not _is_whole(self.batch_size) or self.batch_size < 1:
            raise UsageError(f"batch_size must be a positive integer or 'auto', not {self.batch_size!r}")
        if self.batch_size > n:
            warnings.warn(
                f"batch_size is {self.batch_size}, more than the {n} samples: {n} is used", stacklevel=5
            )
        return min(int(self.batch_size), n)

    def _optimizer(self, batch_weight: float) -> Optimizer:
        """scikit-learn divides its L2 term, α/2 Σ W², by the weight of a mini-batch: weight decay λ = α / Σ w."""
        decay = self.alpha / batch_weight
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum and self.momentum > 0)
            return SGD(self.learning_rate_init, self.momentum, nesterov, decay)
        if self.solver in ("adam", "adamw"):
            rule = {"adam": Adam, "adamw": AdamW}[self.solver]
            return rule(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon, decay)
        raise UsageError(f"solver {self.solver!r} is not offered: choose sgd, adam or adamw")

    def _schedule(self) -> Schedule:
        if isinstance(self.learning_rate, Schedule):
            return self.learning_rate
        if self.learning_rate in Schedule.KINDS:
            return Schedule(self.learning_rate)
        raise UsageError(
            f"learning_rate {self.learning_rate!r} is not offered: choose {', '.join(Schedule.KINDS)}, "
            "or give a gpubp.Schedule(…)"
        )

    def _new_network(self, n_in: int, n_out: int, output: str, seed: int) -> Network:
        sizes = self.hidden_layer_sizes
        sizes = [sizes] if isinstance(sizes, int | np.integer) else list(sizes)
        names = [self.activation] * len(sizes) if isinstance(self.activation, str) else self.activation
        hidden = [_ALIASES.get(name, name) for name in names]
        return Network([n_in, *sizes, n_out], hidden=hidden, output=output, seed=seed, dtype=self.dtype)

    def _train(
        self,
        x: Any,
        targets: np.ndarray,
        weight: np.ndarray | None,
        output: tuple[int, str, str],
        *,
        keep: bool,
        once: bool,
    ) -> None:
        """Fit a new network, or go on with the one there is (``keep``), for all epochs or a single one (``once``)."""
        n_out, activation, loss = output
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        if once and keep:
            seed = self._next_seed
        self._next_seed = seed + 1
        mean_weight = 1.0 if weight is None else float(weight.mean())
        settings = self._settings(x.shape[0], mean_weight or 1.0)
        network = self._new_network(x.shape[1], n_out, activation, seed)
        if keep:
            if network.layers != self.network_.layers or network.dtype != self.network_.dtype:
                raise UsageError(
                    f"training cannot go on with another network: {network!r} is not {self.network_!r}; "
                    "set warm_start=False and fit"
                )
            network = self.network_

        validation = None
        if self.early_stopping:
            x, targets, weight, validation = self._hold_out(x, targets, weight, seed)
        watch = self._watch if once and keep else _Watch(self.tol, self.n_iter_no_change)
        watch.score = None if validation is None else self._score_of(*validation)
        if once and watch.stopped:
            warnings.warn("training has stopped early; fit starts anew", ConvergenceWarning, stacklevel=3)
            return
        if keep and not once:
            watch.losses, watch.scores = self.loss_curve_, self.validation_curve_
        history = fit(
            network,
            x,
            targets,
            loss=loss,
            epochs=1 if once else int(self.max_iter),
            sample_weight=None if weight is None else weight / (mean_weight or 1.0),
            validation=validation,
            callbacks=[watch, *(self.callbacks or ())],
            seed=seed,
            state=self.history_.state if once and keep else None,
            **settings,
        )
        if watch.best_parameters is not None and (not once or watch.stopped):
            network.parameters = watch.best_parameters
        self._keep(network, history, watch, x.shape[0], once=once and keep)
        self._warn(once)

    def _keep(self, network: Network, history: History, watch: _Watch, n: int, *, once: bool) -> None:
        """The fitted attributes."""
        self.n_iter_ = len(history) + (self.n_iter_ if once else 0)
        self.t_ = n * len(history) + (self.t_ if once else 0)
        self.network_, self.history_, self._watch = network, history, watch
        self.loss_curve_, self.validation_curve_ = watch.losses, watch.scores
        self.loss_, self.best_loss_ = watch.losses[-1] if watch.losses else np.nan, watch.best_loss
        self.best_validation_score_ = watch.best_score if watch.scores else None
        self.n_layers_, self.n_outputs_ = len(network.sizes), network.sizes[-1]
        self.out_activation_ = network.layers[-1].activation

    def _warn(self, once: bool) -> None:
        if self.history_.stopped == "interrupted":
            warnings.warn("training was interrupted; the model is as far as it came", stacklevel=4)
        elif not once and self.history_.stopped == "done":
            warnings.warn(
                f"{self.max_iter} epochs were not enough for training to stop by itself: raise max_iter",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _hold_out(self, x: Any, targets: np.ndarray, weight: np.ndarray | None, seed: int) -> tuple:
        """Training inputs, targets and weights, and the (inputs, targets) held out to watch."""
        labels = targets if targets.dtype.kind == "i" and len(np.unique(targets)) > 1 else None
        train, held = train_test_split(
            np.arange(x.shape[0]), test_size=self.validation_fraction, random_state=seed, stratify=labels
        )
        rest = None if weight is None else weight[train]
        return x[train], targets[train], rest, (x[held], targets[held])

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each layer as scikit-learn has them, (n_in, n_out): Wᵀ."""
        return [weights.T for weights, _ in self.network_.parameters]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer, (n_out,)."""
        return [bias for _, bias in self.network_.parameters]

    @property
    def validation_scores_(self) -> list[float]:
        """``validation_curve_``, by scikit-learn's name."""
        return self.validation_curve_

    def _outputs(self, x: Any) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, x, reset=False, **_INPUTS)
        outputs = self.network_.forward(x)
        return outputs if x.dtype == np.uint8 else outputs.astype(np.result_type(x, outputs), copy=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _score_of(self, x: Any, targets: np.ndarray) -> Callable[[Epoch, Network], float]:
        raise NotImplementedError


def _may_go_on(estimator: _MLP) -> bool:
    if estimator.learning_rate != "constant":
        raise AttributeError(
            "partial_fit needs learning_rate='constant': it does not know how many epochs will come"
        )
    return True


class MLPClassifier(ClassifierMixin, _MLP):
    """A multi-layer perceptron that learns classes, trained by backpropagation on the backend of your choice.

    The loss is cross-entropy: over softmax outputs for three or more classes, over one sigmoid output for two, and
    over one for each label where the targets are a matrix of 0 and 1 (multilabel).

    Args:
        hidden_layer_sizes: units of each hidden layer; () for none.
        activation: of the hidden layers, one name for all or a list of one each: identity, sigmoid (or logistic),
            tanh, lecun_tanh, relu, leaky_relu.
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
            improved by ``tol`` for more than ``n_iter_no_change`` epochs.
        verbose: show progress on stderr.
        warm_start: ``fit`` goes on from the network of the last one, with a new optimizer.
        momentum, nesterovs_momentum: of sgd.
        early_stopping, validation_fraction: hold out that part of the training data, stratified by class, watch
            the accuracy on it, and keep the best epoch's parameters. With ``partial_fit`` each call holds out a part
            of its own; once the score has stopped improving the best parameters are kept, and further calls warn and
            change nothing.
        beta_1, beta_2, epsilon: of adam and adamw.
        class_weight: {class: weight} or "balanced": factors on the samples' weights.
        backend: auto, numpy, numba or cupy. threads: how many of the processor's it may use; None for all.
        verify: how often a step is held to the reference: off, first, epoch, step.
        dtype: float32 or float64, of weights and arithmetic.
        callbacks: functions called as callback(epoch, network) after every epoch; one that returns True ends training.

    Inputs are dense or sparse (trained on as rows of non-zeros by the Numba backend), floats or bytes; bytes (uint8)
    are images, scaled by 1/255 in ``fit`` and ``predict`` alike.

    Attributes:
        classes_: the labels. network_: the :class:`gpubp.Network`. history_: of the last fit, a :class:`gpubp.History`.
        loss_curve_: mean loss of each epoch, without the L2 term. loss_, best_loss_: its last and least.
        validation_curve_: with ``early_stopping``, the accuracy of each epoch (of multilabel targets: of all labels at
            once). best_validation_score_: the best of it.
        n_iter_: epochs run. t_: samples seen. coefs_, intercepts_, n_layers_, n_outputs_, out_activation_,
        n_features_in_, feature_names_in_: as scikit-learn has them.

    Raises:
        ValueError: parameters or data that cannot be used. VerificationError: the backend computed something else than
            the equations say. BackendUnavailable: it cannot run here.
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        backend: str = "auto",
        threads: int | None = None,
        verify: str = "epoch",
        dtype: str = "float32",
        callbacks: Sequence[Callable] | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            backend=backend,
            threads=threads,
            verify=verify,
            dtype=dtype,
            callbacks=callbacks,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Learn from inputs X (N, n_in), dense or sparse, and labels y (N,), or (N, labels) of 0 and 1.

        sample_weight: (N,) factors on each sample's loss; what counts is their size relative to each other and to
            alpha.
        """
        keep = bool(self.warm_start and hasattr(self, "network_"))
        X, y = validate_data(self, X, y, multi_output=True, reset=not keep, **_INPUTS)
        classes = self._classes_of(y)
        if keep and not np.array_equal(classes, self.classes_):
            raise UsageError(
                f"with warm_start, y must have the classes of the last fit, {self.classes_}, not {classes}"
            )
        return self._fit(X, y, sample_weight, classes, keep=keep, once=False)

    @available_if(_may_go_on)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """One epoch over this part of the data, going on with the network and the optimizer of the last call.

        classes: all labels that will ever come, in the first call.
        """
        keep = hasattr(self, "network_")
        X, y = validate_data(self, X, y, multi_output=True, reset=not keep, **_INPUTS)
        if not keep and classes is None:
            raise UsageError("the first call of partial_fit needs classes: all labels that will ever come")
        if isinstance(self.class_weight, str):
            raise UsageError(
                f"class_weight {self.class_weight!r} needs all data at once: give partial_fit weights"
            )
        known = self.classes_ if keep else np.unique(classes)
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise UsageError(f"classes are {known}, and cannot become {np.unique(classes)}")
        return self._fit(X, y, sample_weight, known, keep=keep, once=True)

    def _classes_of(self, y: Any) -> np.ndarray:
        check_classification_targets(y)
        if type_of_target(y).startswith("multilabel"):
            return np.arange(y.shape[1])
        return np.unique(column_or_1d(y, warn=True))

    def _fit(
        self, x: Any, y: Any, sample_weight: Any, classes: np.ndarray, *, keep: bool, once: bool
    ) -> MLPClassifier:
        multilabel = type_of_target(y).startswith("multilabel")
        weight = (
            None
            if sample_weight is None
            else _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        )
        if self.class_weight is not None:
            weight = compute_sample_weight(self.class_weight, y) * (1 if weight is None else weight)
        if multilabel:
            targets = (y.toarray() if hasattr(y, "toarray") else np.asarray(y)).astype(np.float64)
            output = (targets.shape[1], "sigmoid", "binary_cross_entropy")
        else:
            y = column_or_1d(y)
            targets = np.searchsorted(classes, y)
            strange = (targets >= len(classes)) | (classes[np.minimum(targets, len(classes) - 1)] != y)
            if strange.any():
                raise UsageError(f"y has labels that classes has not: {np.unique(y[strange])[:5]}")
            several = len(classes) > 2
            output = (
                (len(classes), "softmax", "cross_entropy")
                if several
                else (1, "sigmoid", "binary_cross_entropy")
            )
        self._train(x, targets, weight, output, keep=keep, once=once)
        self.classes_, self.multilabel_ = classes, multilabel
        self.network_.classes = () if multilabel else tuple(classes.tolist())
        return self

    def _score_of(self, x: Any, targets: np.ndarray) -> Callable[[Epoch, Network], float]:
        return _AllLabels(x, targets) if targets.ndim == 2 else _accuracy

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
            return np.hstack([1 - outputs, outputs])[:, -max(len(self.classes_), 1) :]
        return outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of :meth:`predict_proba`; −inf where that is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _accuracy(epoch: Epoch, network: Network) -> float:
    assert epoch.validation_accuracy is not None
    return epoch.validation_accuracy


@dataclass
class _AllLabels:
    """The share of samples all of whose labels are right. No closure, so that estimators can be pickled."""

    inputs: Any
    targets: np.ndarray

    def __call__(self, epoch: Epoch, network: Network) -> float:
        return float(((network.forward(self.inputs) > 0.5) == (self.targets > 0.5)).all(axis=1).mean())


@dataclass
class _Determination:
    """R² = 1 − Σ‖y−a‖² / Σ‖y−ȳ‖² from the quadratic loss, the mean of ½‖y−a‖²; ``spread`` is the mean of ‖y−ȳ‖²."""

    spread: float

    def __call__(self, epoch: Epoch, network: Network) -> float:
        assert epoch.validation_loss is not None
        return 1 - 2 * epoch.validation_loss / self.spread


class MLPRegressor(RegressorMixin, _MLP):
    """A multi-layer perceptron that learns values, by the quadratic loss ½‖y−a‖² over outputs without activation.

    Arguments and attributes are those of :class:`MLPClassifier`, less ``class_weight`` and ``classes_``. With
    ``early_stopping`` it watches R² on the part held out; of several outputs, of all together.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from inputs X (N, n_in), dense or sparse, and values y (N,) or (N, n_out)."""
        return self._fit(
            X, y, sample_weight, keep=bool(self.warm_start and hasattr(self, "network_")), once=False
        )

    @available_if(_may_go_on)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over this part of the data, going on with the network and the optimizer of the last call."""
        return self._fit(X, y, sample_weight, keep=hasattr(self, "network_"), once=True)

    def _fit(self, x: Any, y: Any, sample_weight: Any, *, keep: bool, once: bool) -> MLPRegressor:
        x, y = validate_data(self, x, y, multi_output=True, y_numeric=True, reset=not keep, **_INPUTS)
        weight = (
            None
            if sample_weight is None
            else _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        )
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        targets = np.asarray(y, np.float64).reshape(x.shape[0], -1)
        self._train(x, targets, weight, (targets.shape[1], "identity", "quadratic"), keep=keep, once=once)
        return self

    def _score_of(self, x: Any, targets: np.ndarray) -> Callable[[Epoch, Network], float]:
        spread = float(((targets - targets.mean(axis=0)) ** 2).sum(axis=1).mean())
        return _Determination(spread or 1.0)  # of values that are all the same, any scale will do

    def predict(self, X: Any) -> np.ndarray:
        """The values (N,) or (N, n_out) for inputs (N, n_in)."""
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
