"""The front door for scikit-learn users: ``MLPClassifier`` and ``MLPRegressor``.

They have the parameters of ``sklearn.neural_network``'s, by the same names and with the same defaults, where these mean
the same; besides, ``backend``, ``threads``, ``verify``, ``dtype``, ``callbacks`` and ``class_weight``, and an
``activation`` for each layer. What is not offered is refused by name: the solver lbfgs, and the learning rates
"invscaling" and "adaptive", in place of which there are gpubp's schedules.
"""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
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
from gpubp.backends.base import Backend
from gpubp.errors import UsageError
from gpubp.network import Network, labels_of
from gpubp.optimizers import SGD, Adam, AdamW, Optimizer, Schedule
from gpubp.trainer import VERIFY_SECONDS, VERIFY_SHARE, Epoch, History, fit

_ALIASES = {"logistic": "sigmoid"}  # as scikit-learn calls them
_INPUTS: dict[str, Any] = {"accept_sparse": "csr", "dtype": [np.float64, np.float32, np.uint8]}


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Job:
    """What a call of ``fit`` or ``partial_fit`` is to learn: targets (N,) class numbers or (N, n_out) values.

    ``labels`` are the fitted attributes that say what outputs stand for, ``names`` the network's own.
    """

    inputs: Any
    targets: np.ndarray
    weight: np.ndarray | None
    n_out: int
    output: str
    loss: str
    labels: dict[str, Any]
    names: tuple

    def take(self, rows: np.ndarray) -> _Job:
        weight = None if self.weight is None else self.weight[rows]
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows], weight=weight)


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

    def copy(self) -> _Watch:
        """Another one that stands where this does, so that a run that fails leaves nothing behind."""
        return replace(self, losses=[*self.losses], scores=[*self.scores])


@dataclass
class _Stream:
    """What calls of ``partial_fit`` hand on: the watch, the next seed, and what verification has cost in all."""

    watch: _Watch
    seed: int
    verified: float = 0.0
    seconds: float = 0.0


class _MLP(BaseEstimator):
    """What classifier and regressor share."""

    network_: Network
    history_: History
    loss_curve_: list[float]
    validation_curve_: list[float]
    n_iter_: int
    t_: int
    _stream: _Stream | None

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

    def _check(self) -> None:
        """What nothing else would refuse with a message about the parameter.

        Raises:
            UsageError: a parameter that cannot be used.
        """
        for name, least in (("max_iter", 1), ("n_iter_no_change", 1)):
            value = getattr(self, name)
            endless = name == "n_iter_no_change" and isinstance(value, float) and value == np.inf
            if not ((_is_whole(value) and value >= least) or endless):
                raise UsageError(f"{name} must be an integer of {least} or more, not {value!r}")
        for name in (
            *("alpha", "tol", "learning_rate_init", "momentum"),
            *("validation_fraction", "beta_1", "beta_2", "epsilon"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, float | int | np.number):
                raise UsageError(f"{name} must be a number, not {value!r}")
        for name in ("alpha", "tol"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be a number of 0 or more, not {getattr(self, name)!r}")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction lies between 0 and 1, and is {self.validation_fraction!r}")
        if self.callbacks is not None and not isinstance(self.callbacks, Sequence):
            raise UsageError(f"callbacks must be a list of functions, not {self.callbacks!r}")

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if not _is_whole(self.batch_size) or self.batch_size < 1:
            raise UsageError(f"batch_size must be a positive integer or 'auto', not {self.batch_size!r}")
        if self.batch_size > n:
            _warn(f"batch_size is {self.batch_size}, more than the {n} samples: {n} is used", UserWarning)
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

    def _hidden(self) -> tuple[list[int], list[str]]:
        """The hidden layers' sizes and activations."""
        given = self.hidden_layer_sizes
        try:
            sizes = [operator.index(n) for n in (given if isinstance(given, Iterable) else [given])]
        except TypeError:
            raise UsageError(
                f"hidden_layer_sizes must be integers such as (100, 50), not {given!r}"
            ) from None
        names = [self.activation] * len(sizes) if isinstance(self.activation, str) else self.activation
        if not isinstance(names, Iterable):
            raise UsageError(f"activation must be a name, or a list of one for each layer, not {names!r}")
        return sizes, [_ALIASES.get(name, name) for name in names]

    def _new_network(self, job: _Job, seed: int) -> Network:
        sizes, hidden = self._hidden()
        sizes = [job.inputs.shape[1], *sizes, job.n_out]
        return Network(sizes, hidden=hidden, output=job.output, seed=seed, dtype=self.dtype)

    def _network_again(self, job: _Job) -> Network:
        """A copy of the present network to go on with; its parameters are replaced, not written into.

        Raises:
            UsageError: the parameters, or the data, ask for another network.
        """
        sizes, hidden = self._hidden()
        asked = [job.inputs.shape[1], *sizes, job.n_out], [*hidden, job.output], np.dtype(self.dtype)
        network = self.network_
        if (network.sizes, [layer.activation for layer in network.layers], network.dtype) != asked:
            raise UsageError(
                f"training cannot go on with another network: {network!r} has not sizes {asked[0]}, activations "
                f"{asked[1]} and {asked[2]}; fit a new one with warm_start=False"
            )
        return copy(network)

    def _train(
        self, job: _Job, network: Network, watch: _Watch, epochs: int, seed: int, **settings: Any
    ) -> History:
        """Train ``network``; ``watch`` sees every epoch."""
        self._check()
        validation = None
        if self.early_stopping:
            job, held = self._hold_out(job, seed, stratify=epochs > 1)
            watch.score, validation = self._score_of(held)
        n = job.inputs.shape[0]
        batch_size = self._batch_size(n)
        mean_weight = 1.0 if job.weight is None else float(job.weight.mean()) or 1.0
        history = fit(
            network,
            job.inputs,
            job.targets,
            loss=job.loss,
            optimizer=self._optimizer(batch_size * mean_weight),
            schedule=self._schedule(),
            batch_size=batch_size,
            epochs=epochs,
            sample_weight=None if job.weight is None else job.weight / mean_weight,
            validation=validation,
            callbacks=[watch, *(self.callbacks or ())],
            backend=_backend(self.backend, self.threads),
            seed=seed,
            shuffle=self.shuffle,
            progress=bool(self.verbose),
            **settings,
        )
        watch.score = None  # it may hold what was held out
        if watch.stopped:
            history.stopped = "early stopping" if self.early_stopping else "converged"
        self._samples_seen = n * len(history)
        return history

    def _fit_all(self, job: _Job, *, warm: bool) -> None:
        """Up to ``max_iter`` epochs, with a new network or, ``warm``, the one there is."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        network = self._network_again(job) if warm else self._new_network(job, seed)
        watch = _Watch(self.tol, self.n_iter_no_change)
        if warm:
            watch.losses, watch.scores = [*self.loss_curve_], [*self.validation_curve_]
        history = self._train(job, network, watch, int(self.max_iter), seed, verify=self.verify)
        if watch.best_parameters is not None:
            network.parameters = watch.best_parameters
        self.n_iter_, self.t_, self._stream = len(history), self._samples_seen, None
        self._keep(job, network, history, watch)
        if history.stopped == "interrupted":
            _warn("training was interrupted; the model is as far as it came", UserWarning)
        elif history.stopped == "done":
            _warn(
                f"{self.max_iter} epochs were not enough for training to stop by itself: raise max_iter",
                ConvergenceWarning,
            )

    def _fit_once(self, job: _Job) -> None:
        """One epoch, going on from where the last one ended, if there was one."""
        known = hasattr(self, "network_")
        stream = (self._stream if known else None) or self._new_stream()
        if stream.watch.stopped:
            _warn(
                "training has stopped early, with the best parameters; fit starts anew",
                ConvergenceWarning,
            )
            return
        network = self._network_again(job) if known else self._new_network(job, stream.seed)
        state = self.history_.state if known else None
        if state is not None and len(state.slots[0]) != len(self._optimizer(1.0).slots):
            raise UsageError(
                "partial_fit cannot go on with another solver, or with momentum where there was none, or without it "
                "where there was: fit a new network"
            )
        watch = stream.watch.copy()
        cheap = stream.verified <= max(VERIFY_SECONDS, VERIFY_SHARE * stream.seconds)
        verify = self.verify if cheap or self.verify == "step" else "off"
        history = self._train(job, network, watch, 1, stream.seed, state=state, verify=verify)
        if watch.stopped and watch.best_parameters is not None:
            network.parameters = watch.best_parameters
        self.n_iter_ = len(history) + (self.n_iter_ if known else 0)
        self.t_ = self._samples_seen + (self.t_ if known else 0)
        self._stream = _Stream(
            watch,
            stream.seed + 1,
            stream.verified + history.verification.seconds,
            stream.seconds + sum(history["seconds"]),
        )
        self._keep(job, network, history, watch)
        if history.stopped == "interrupted":
            _warn("training was interrupted; the model is as far as it came", UserWarning)

    def _new_stream(self) -> _Stream:
        """For the first call of ``partial_fit``, or the first after a ``fit``.

        Parts of the data differ from each other, so that their losses say nothing of convergence; scores may.
        """
        self._check()
        watch = _Watch(self.tol, self.n_iter_no_change if self.early_stopping else np.inf)
        if hasattr(self, "network_"):
            watch.losses, watch.scores = [*self.loss_curve_], [*self.validation_curve_]
        return _Stream(watch, int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)))

    def _keep(self, job: _Job, network: Network, history: History, watch: _Watch) -> None:
        """The fitted attributes, all that depend on a run, at once."""
        network.classes = job.names
        self.__dict__.update(job.labels)
        self.bytes_ = job.inputs.dtype == np.uint8
        self.network_, self.history_ = network, history
        self.loss_curve_, self.validation_curve_ = watch.losses, watch.scores
        self.loss_, self.best_loss_ = watch.losses[-1] if watch.losses else np.nan, watch.best_loss
        self.best_validation_score_ = watch.best_score if watch.scores else None
        self.n_layers_, self.n_outputs_ = len(network.sizes), network.sizes[-1]
        self.out_activation_ = network.layers[-1].activation

    def _hold_out(self, job: _Job, seed: int, *, stratify: bool) -> tuple[_Job, _Job]:
        """What to train on and what to watch; a part of a stream may lack the samples to have every class in both."""
        labels = job.targets if job.targets.dtype.kind == "i" and len(np.unique(job.targets)) > 1 else None
        rows = np.arange(job.inputs.shape[0])
        train, held = train_test_split(
            rows, test_size=self.validation_fraction, random_state=seed, stratify=labels if stratify else None
        )
        return job.take(train), job.take(held)

    def _checked(self, x: Any, y: Any, *, again: bool, **how: Any) -> tuple[Any, Any]:
        """Inputs and targets as scikit-learn has them; ``again``, if they must be like those of the last time."""
        x, y = validate_data(self, x, y, multi_output=True, reset=not again, **how, **_INPUTS)
        self._check_bytes(x, again=again)
        return x, y

    def _check_bytes(self, x: Any, *, again: bool) -> None:
        as_bytes = x.dtype == np.uint8
        if again and as_bytes != self.bytes_:
            there, here = (
                ("uint8", x.dtype) if self.bytes_ else (f"not uint8 but {self.network_.dtype}", "uint8")
            )
            raise UsageError(
                f"this {type(self).__name__} was fitted on inputs that were {there}, and these are {here}: bytes are "
                "images, scaled by 1/255, and other numbers are not; convert one of them with .astype"
            )
        if not again and as_bytes and x.max() <= 1:
            _warn(
                "uint8 inputs are taken for images and scaled by 1/255, and these are 0 and 1 only: "
                "if they are no images, convert them with .astype('float32')",
                UserWarning,
            )

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
        self._check_bytes(x, again=True)
        outputs = self.network_.forward(x)
        return outputs if x.dtype == np.uint8 else outputs.astype(np.result_type(x, outputs), copy=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _score_of(self, held: _Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        """How an epoch is scored by what was held out, and what ``fit`` is to evaluate for that, if anything."""
        raise NotImplementedError


def _warn(message: str, kind: type[Warning]) -> None:
    """A warning at the line outside of this module that called into it."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


def _backend(name: str, threads: int | None) -> Backend:
    """The backend; of more threads than a process of a parallel search may have, as many as it may."""
    try:
        return backends.get(name, threads=threads)
    except UsageError:
        if not _is_whole(threads) or threads < 1:
            raise
        return backends.get(name)


def _may_go_on(estimator: _MLP) -> bool:
    schedule = estimator.learning_rate
    if schedule != "constant" and schedule != Schedule():
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
        warm = bool(self.warm_start and hasattr(self, "network_"))
        X, y = self._checked(X, y, again=warm)
        classes = self._classes_of(y)
        if warm and not np.array_equal(classes, self.classes_):
            raise UsageError(
                f"with warm_start, y must have the classes of the last fit, {self.classes_}, not {classes}"
            )
        self._fit_all(self._job(X, y, sample_weight, classes), warm=warm)
        return self

    @available_if(_may_go_on)
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

    def _job(self, x: Any, y: Any, sample_weight: Any, classes: np.ndarray) -> _Job:
        labels = {"classes_": classes, "multilabel_": _is_multilabel(y)}
        if labels["multilabel_"]:
            targets = (y.toarray() if hasattr(y, "toarray") else np.asarray(y)).astype(np.float64)
            weight = _weights(sample_weight, x)
            if self.class_weight is not None:
                weight = compute_sample_weight(self.class_weight, targets) * (1 if weight is None else weight)
            n_out = targets.shape[1]
            return _Job(x, targets, weight, n_out, "sigmoid", "binary_cross_entropy", labels, ())
        y = column_or_1d(y)
        targets = np.searchsorted(classes, y)
        strange = (targets >= len(classes)) | (classes[np.minimum(targets, len(classes) - 1)] != y)
        if strange.any():
            raise UsageError(f"y has labels that classes has not: {np.unique(y[strange])[:5]}")
        weight = self._class_weights(classes, targets, _weights(sample_weight, x))
        several = len(classes) > 2
        n_out, output = (len(classes), "softmax") if several else (1, "sigmoid")
        loss = "cross_entropy" if several else "binary_cross_entropy"
        names = tuple(classes.tolist()) * (
            2 if len(classes) == 1 else 1
        )  # a single class, whatever the output
        return _Job(x, targets, weight, n_out, output, loss, labels, names)

    def _class_weights(
        self, classes: np.ndarray, targets: np.ndarray, weight: np.ndarray | None
    ) -> np.ndarray | None:
        """The samples' weights times those of their classes; a part of the data may lack some of these."""
        if self.class_weight is None:
            return weight
        if isinstance(self.class_weight, str):
            of_samples = compute_sample_weight(self.class_weight, targets)
        else:
            given, known = dict(self.class_weight), classes.tolist()
            if strange := [name for name in given if name not in known]:
                raise UsageError(f"class_weight names {strange[0]!r}, and the classes are {known}")
            of_samples = np.array([given.get(name, 1.0) for name in known])[targets]
        return of_samples if weight is None else of_samples * weight

    def _score_of(self, held: _Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        if held.weight is None and held.targets.ndim == 1:
            return _accuracy, (held.inputs, held.targets)
        return _Accuracy(held), None

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


def _weights(sample_weight: Any, x: Any) -> np.ndarray | None:
    return None if sample_weight is None else _check_sample_weight(sample_weight, x, ensure_non_negative=True)


def _accuracy(epoch: Epoch, network: Network) -> float:
    assert epoch.validation_accuracy is not None
    return epoch.validation_accuracy


@dataclass
class _Accuracy:
    """The weight of samples whose label, or all of whose labels, are right, of the weight of all."""

    held: _Job

    def __call__(self, epoch: Epoch, network: Network) -> float:
        outputs, targets = network.forward(self.held.inputs), self.held.targets
        several = targets.ndim == 2
        right = ((outputs > 0.5) == (targets > 0.5)).all(axis=1) if several else labels_of(outputs) == targets
        return float(np.average(right, weights=_of_some_weight(self.held)))


@dataclass
class _Determination:
    """R² = 1 − Σ‖y−a‖² / Σ‖y−ȳ‖², each sample times its weight, of all outputs together."""

    held: _Job

    def __call__(self, epoch: Epoch, network: Network) -> float:
        targets, weight = self.held.targets, _of_some_weight(self.held)
        mean = np.average(targets, axis=0, weights=weight)
        off, spread = (
            np.average(((targets - values) ** 2).sum(axis=1), weights=weight)
            for values in (network.forward(self.held.inputs), mean)
        )
        return float(1 - off / (spread or 1.0))  # of values that are all the same, any scale will do


def _of_some_weight(held: _Job) -> np.ndarray | None:
    """The weights; none, where they are all 0."""
    return held.weight if held.weight is not None and held.weight.any() else None


class MLPRegressor(RegressorMixin, _MLP):
    """A multi-layer perceptron that learns values, by the quadratic loss ½‖y−a‖² over outputs without activation.

    Arguments and attributes are those of :class:`MLPClassifier`, less ``class_weight`` and ``classes_``. With
    ``early_stopping`` it watches R² on the part held out; of several outputs, of all together.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from inputs X (N, n_in), dense or sparse, and values y (N,) or (N, n_out)."""
        warm = bool(self.warm_start and hasattr(self, "network_"))
        self._fit_all(self._job(X, y, sample_weight, again=warm), warm=warm)
        return self

    @available_if(_may_go_on)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over this part of the data, going on with the network and the optimizer of the last call."""
        self._fit_once(self._job(X, y, sample_weight, again=hasattr(self, "network_")))
        return self

    def _job(self, x: Any, y: Any, sample_weight: Any, *, again: bool) -> _Job:
        x, y = self._checked(x, y, again=again, y_numeric=True)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        targets = np.asarray(y, np.float64).reshape(x.shape[0], -1)
        return _Job(x, targets, _weights(sample_weight, x), targets.shape[1], "identity", "quadratic", {}, ())

    def _score_of(self, held: _Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        return _Determination(held), None

    def predict(self, X: Any) -> np.ndarray:
        """The values (N,) or (N, n_out) for inputs (N, n_in)."""
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
