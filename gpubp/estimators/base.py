"""The base of classifier and regressor: their parameters, and the course of a fit or a part of one."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, TypeGuard

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gpubp.backends import Wanted, most_threads
from gpubp.data.arrays import refuse_columns, refuse_masked
from gpubp.data.inputs import names_of
from gpubp.errors import TrainingWarning, UsageError
from gpubp.estimators.watch import Job, Stream, Watch
from gpubp.network import INITIALISERS, Network
from gpubp.optimizers import SGD, Adam, AdamW, Optimizer, Schedule
from gpubp.support.warning import warn_caller
from gpubp.training.budget import VERIFICATION
from gpubp.training.fit import fit
from gpubp.training.history import Epoch, History

_ALIASES = {"logistic": "sigmoid"}  # as scikit-learn calls them
_INITS = ("sklearn", "auto", *INITIALISERS)
_CLEARLY = 0.05  # above the best, as a part of the loss without learning: more than the noise of mini-batches


@dataclass(eq=False, repr=False)
class Parameters(BaseEstimator):
    """The parameters of both estimators, each said once: as dataclass fields they become ``__init__``'s signature."""

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str | Sequence[str] = "relu"
    _: KW_ONLY
    init: str = "sklearn"
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: str | Schedule = "constant"
    learning_rate_init: float = 0.001
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    dropout: float | Sequence[float] = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: int = 10
    backend: str = "auto"
    threads: int | None = None
    verify: str = "epoch"
    dtype: str = "float32"
    callbacks: Sequence[Callable] | None = None


class MLP(Parameters):
    """The course of a fit, or of a part of one."""

    network_: Network
    history_: History
    loss_curve_: list[float]
    validation_curve_: list[float]
    n_iter_: int
    t_: int
    _stream: Stream | None
    _fits: int = 0  # that went on with the network of the one before

    def _check(self) -> None:
        """Refuse with a UsageError what nothing else would refuse with a message about the parameter."""
        for name in ("max_iter", "n_iter_no_change"):
            value = getattr(self, name)
            endless = name == "n_iter_no_change" and isinstance(value, float) and value == np.inf
            if not ((is_whole(value) and value >= 1) or endless):
                raise UsageError(f"{name} must be an integer of 1 or more, not {value!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and (
                isinstance(value, bool) or not isinstance(value, float | int | np.number)
            ):
                raise UsageError(f"{field.name} must be a number, not {value!r}")
        for name in ("alpha", "tol"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be a number of 0 or more, not {getattr(self, name)!r}")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction must be between 0 and 1, not {self.validation_fraction!r}")
        if self.callbacks is not None and not isinstance(self.callbacks, Sequence):
            raise UsageError(f"callbacks must be a list of functions, not {self.callbacks!r}")

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if not is_whole(self.batch_size) or self.batch_size < 1:
            raise UsageError(f"batch_size must be a positive integer or 'auto', not {self.batch_size!r}")
        if self.batch_size > n:
            warn_caller(f"batch_size is {self.batch_size}, more than the {n} samples: {n} is used")
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

    def _new_network(self, job: Job, seed: int) -> Network:
        sizes, hidden = self._hidden()
        sizes = [job.inputs.shape[1], *sizes, job.n_out]
        if self.init not in _INITS:
            raise UsageError(f"init {self.init!r} is not offered: choose {', '.join(_INITS)}")
        init = "auto" if self.init == "sklearn" else self.init
        network = Network(sizes, hidden=hidden, output=job.output, init=init, seed=seed, dtype=self.dtype)
        if self.init == "sklearn":
            self._draw_as_scikit_learn(network)
        return network

    def _draw_as_scikit_learn(self, network: Network) -> None:
        """Draw the parameters that scikit-learn draws with this ``random_state``, uniformly, biases too."""
        rng = check_random_state(self.random_state)
        factor = 2 if {layer.activation for layer in network.layers[:-1]} == {"sigmoid"} else 6
        for i, layer in enumerate(network.layers):
            limit = (factor / (layer.n_in + layer.n_out)) ** 0.5
            weights = rng.uniform(-limit, limit, (layer.n_in, layer.n_out)).T
            bias = rng.uniform(-limit, limit, layer.n_out)
            network.parameters[i] = weights.astype(self.dtype, "C"), bias.astype(self.dtype)

    def _network_again(self, job: Job) -> Network:
        """A copy of the present network to go on with; its parameters are replaced, not written into.

        Raises:
            UsageError: the parameters, or the data, ask for another network.
        """
        sizes, hidden = self._hidden()
        asked = [job.inputs.shape[1], *sizes, job.n_out], [*hidden, job.output], np.dtype(self.dtype)
        network = self.network_
        if (network.sizes, [layer.activation for layer in network.layers], network.dtype) != asked:
            raise UsageError(
                f"training cannot go on with another network: {network!r} does not have sizes {asked[0]}, activations "
                f"{asked[1]} and {asked[2]}; fit a new one with warm_start=False"
            )
        return network.without_names()  # scikit-learn has held the columns to them

    def _train(
        self, job: Job, network: Network, watch: Watch, epochs: int, seed: int, **settings: Any
    ) -> tuple[History, int]:
        """Train ``network``; ``watch`` sees every epoch. The history, and how many samples were seen."""
        self._check()
        validation = None
        if self.early_stopping:
            job, held = self._hold_out(job, seed, stratify=epochs > 1)
            watch.score, validation = self._score_of(held)
        else:
            watch.margin = max(self.tol, _CLEARLY * job.unlearned_loss)
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
            dropout=self.dropout,
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
        return history, n * len(history)

    def _fit_all(self, job: Job, *, warm: bool) -> None:
        """Up to ``max_iter`` epochs, with a new network or, ``warm``, the one there is."""
        seed = self._new_seed()
        network = self._network_again(job) if warm else self._new_network(job, seed)
        self._fits = self._fits + 1 if warm else 0
        seed += self._fits  # so that what is shuffled and dropped is not the same again
        watch = self._new_watch(self.n_iter_no_change, again=warm)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # said below, unless there is more to say
            history, seen = self._train(job, network, watch, int(self.max_iter), seed, verify=self.verify)
        if watch.best_parameters is not None:
            network.parameters = watch.best_parameters
        self.n_iter_, self.t_, self._stream = len(history), seen, None
        self._keep(job, network, history, watch)
        done = history.stopped == "done"
        overshot = (done or history.stopped == "converged") and watch.overshot
        for said in [] if overshot else history.warnings:
            warn_caller(said, TrainingWarning)
        if overshot:
            warn_caller(
                f"training ended at a loss of {self.loss_:.3g}, clearly above its best, {self.best_loss_:.3g}: "
                f"{'raise max_iter, ' if done else ''}lower learning_rate_init, scale the inputs (StandardScaler), "
                "or set early_stopping=True",
                ConvergenceWarning,
            )
        elif done:
            warn_caller(
                f"{self.max_iter} epochs were not enough for training to stop by itself: raise max_iter",
                ConvergenceWarning,
            )

    def _fit_once(self, job: Job) -> None:
        """One epoch, going on from where the last one ended, if there was one."""
        known = hasattr(self, "network_")
        stream = (self._stream if known else None) or self._new_stream()
        if stream.watch.stopped:
            warn_caller(
                "training has stopped early, with the best parameters; fit starts anew", ConvergenceWarning
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
        cheap = VERIFICATION.allows(stream.verified, stream.calls, stream.seconds)
        verify = self.verify if cheap or self.verify == "step" else "off"
        with warnings.catch_warnings():
            if stream.warned:
                warnings.simplefilter("ignore", TrainingWarning)
            history, seen = self._train(job, network, watch, 1, stream.seed, state=state, verify=verify)
        if watch.stopped and watch.best_parameters is not None:
            network.parameters = watch.best_parameters
        self.n_iter_ = len(history) + (self.n_iter_ if known else 0)
        self.t_ = seen + (self.t_ if known else 0)
        self._stream = Stream(
            watch,
            stream.seed + 1,
            stream.verified + history.verification.seconds,
            stream.calls + bool(history.verification.steps),
            stream.seconds + sum(history["seconds"]),
            stream.warned or bool(history.warnings),
        )
        self._keep(job, network, history, watch)

    def _new_stream(self) -> Stream:
        """For the first call of ``partial_fit``, or the first after a ``fit``.

        Parts of the data differ from each other, so that their losses say nothing of convergence; scores may.
        """
        self._check()
        patience = self.n_iter_no_change if self.early_stopping else np.inf
        return Stream(self._new_watch(patience, again=hasattr(self, "network_")), self._new_seed())

    def _new_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _new_watch(self, patience: float, *, again: bool) -> Watch:
        """A watch whose curves go on where the last ones ended, if ``again``."""
        curves = ([*self.loss_curve_], [*self.validation_curve_]) if again else ([], [])
        return Watch(self.tol, patience, losses=curves[0], scores=curves[1])

    def _keep(self, job: Job, network: Network, history: History, watch: Watch) -> None:
        """The fitted attributes, all that depend on a run, at once; and then a word if it was cut short."""
        network.classes = job.names
        columns = tuple(getattr(self, "feature_names_in_", ()))
        network.inputs = replace(network.inputs, names=columns)
        self.__dict__.update(job.labels)
        self.bytes_ = job.inputs.dtype == np.uint8
        self.network_, self.history_ = network, history
        self.loss_curve_, self.validation_curve_ = watch.losses, watch.scores
        self.loss_, self.best_loss_ = watch.losses[-1] if watch.losses else np.nan, watch.best_loss
        self.best_validation_score_ = watch.best_score if watch.scores else None
        self.n_layers_, self.n_outputs_ = len(network.sizes), network.sizes[-1]
        self.out_activation_ = network.layers[-1].activation
        if history.stopped == "interrupted":
            warn_caller("training was interrupted; the model is as far as training got")

    def _hold_out(self, job: Job, seed: int, *, stratify: bool) -> tuple[Job, Job]:
        """Part a job into one to train on and one to watch; a part of a stream may be too small to stratify."""
        labels = job.targets if job.targets.dtype.kind == "i" and len(np.unique(job.targets)) > 1 else None
        rows = np.arange(job.inputs.shape[0])
        train, held = train_test_split(
            rows, test_size=self.validation_fraction, random_state=seed, stratify=labels if stratify else None
        )
        return job.take(train), job.take(held)

    def _checked(self, x: Any, y: Any, *, again: bool, **how: Any) -> tuple[Any, Any]:
        """Inputs and targets as scikit-learn has them; ``again``, if they must be like those of the last time."""
        _refuse(x)
        refuse_masked(y, "the targets")
        x = _named_by_text(x)
        x, y = validate_data(self, x, y, multi_output=True, reset=not again, **how, **_ways_to_take(x))
        self._check_bytes(x, again=again)
        return x, y

    def _check_bytes(self, x: Any, *, again: bool) -> None:
        as_bytes = x.dtype == np.uint8
        if again and as_bytes != self.bytes_:
            there, here = ("uint8 images", "numbers") if self.bytes_ else ("numbers", "uint8 images")
            raise UsageError(
                f"this {type(self).__name__} was fitted on {there}, but these are {here}: an array of uint8 is taken "
                "for images and scaled by 1/255, a DataFrame or another dtype is not; convert one of them with .astype"
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
        _refuse(x)
        x = _named_by_text(x)
        x = validate_data(self, x, reset=False, **_ways_to_take(x))
        self._check_bytes(x, again=True)
        return self.network_.without_names().forward(x)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _score_of(self, held: Job) -> tuple[Callable[[Epoch, Network], float], tuple | None]:
        """Return the score of an epoch by what was held out, and what ``fit`` is to evaluate for it, if anything."""
        raise NotImplementedError


def _refuse(x: Any) -> None:
    """Refuse by a DataError inputs that scikit-learn would take for numbers, or refuse by a message of NumPy's."""
    refuse_masked(x, "the inputs")
    if hasattr(x, "columns"):
        refuse_columns(x, "the inputs")


def _named_by_text(x: Any) -> Any:
    """A DataFrame with names that scikit-learn keeps: those that are years, say, as text, unless they but count from 0.

    Names some of which are text already are as they are, for scikit-learn to refuse.
    """
    names = names_of(x)
    if not names or not hasattr(x, "iloc") or any(isinstance(name, str) for name in x.columns):
        return x
    x = x.copy(deep=False)
    x.columns = list(names)
    return x


def _ways_to_take(x: Any) -> dict[str, Any]:
    """How scikit-learn is to take inputs: a DataFrame's columns are numbers of any dtype; an array may be bytes."""
    floats = [np.float64, np.float32]
    return {"accept_sparse": "csr", "dtype": floats if hasattr(x, "columns") else [*floats, np.uint8]}


def is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def checked_weights(sample_weight: Any, x: Any) -> np.ndarray | None:
    return None if sample_weight is None else _check_sample_weight(sample_weight, x, ensure_non_negative=True)


def _backend(name: str, threads: int | None) -> Wanted:
    """The backend; of more threads than a process of a parallel search may have, as many as it may."""
    if name in ("auto", "numba") and is_whole(threads) and threads >= 1:
        threads = min(threads, most_threads())
    return Wanted(name, threads)


def may_go_on(estimator: MLP) -> bool:
    schedule = estimator.learning_rate
    if schedule != "constant" and schedule != Schedule():
        raise AttributeError(
            "partial_fit needs learning_rate='constant': it does not know how many epochs will come"
        )
    return True
