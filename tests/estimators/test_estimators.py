"""The estimators as a scikit-learn user would use them; what they compute is held to scikit-learn's own."""

from __future__ import annotations

import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpubp
from bench import estimators
from gpubp import MLPClassifier, MLPRegressor
from gpubp.estimators import base
from gpubp.estimators.watch import Watch
from gpubp.training.budget import Budget

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = datasets.load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
DIGITS, DIGIT = datasets.load_digits(n_class=5, return_X_y=True)
DIGITS = DIGITS[:300] / 16
DIGIT = DIGIT[:300]


def quick(kind=MLPClassifier, **settings):
    usual = {"hidden_layer_sizes": (12,), "max_iter": 40, "random_state": 0, "backend": "numpy"}
    return kind(**usual | settings)


def at_the_start(kind, **settings):
    """Fitted, but not moved."""
    return kind(random_state=3, max_iter=1, learning_rate_init=1e-30, **settings).fit(X, Y)


@pytest.mark.parametrize("activation", ["relu", "logistic"])
@pytest.mark.parametrize("kinds", [(MLPClassifier, Theirs), (MLPRegressor, TheirRegressor)])
def test_the_start_is_scikit_learns_own(kinds, activation):
    settings = {"activation": activation, "hidden_layer_sizes": (7, 5)}
    ours, theirs = at_the_start(kinds[0], dtype="float64", **settings), at_the_start(kinds[1], **settings)
    for mine, their in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-12)


@pytest.mark.parametrize("init", ["auto", "lecun", "normal"])
def test_init_is_that_of_a_network(init):
    net = at_the_start(MLPClassifier, activation="tanh", init=init)
    (w, b), sizes = net.network_.parameters[0], net.network_.sizes
    means = {"auto": np.sqrt(2 / sum(sizes[:2])), "lecun": 0.5, "normal": 1}
    assert w.std() == pytest.approx(means[init], rel=0.2)
    assert (np.abs(b).max() > 1e-20) == (init == "normal")


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("target", ["two classes", "three classes", "multilabel", "values", "several values"])
def test_an_epoch_is_scikit_learns_own(target, solver):
    """Same start, same batches in the same order, same α: the same parameters, to rounding."""
    classifier = "value" not in target
    kinds = (MLPClassifier, Theirs) if classifier else (MLPRegressor, TheirRegressor)
    y = {
        "two classes": (Y == 1).astype(int),
        "three classes": Y,
        "multilabel": np.c_[Y == 0, X[:, 0] > 0].astype(int),
        "values": X[:, 0] * 2 - X[:, 3],
        "several values": X[:, :2] - X[:, 2:],
    }[target]
    settings = {
        "hidden_layer_sizes": (7, 5), "activation": "tanh", "solver": solver, "alpha": 0.3, "batch_size": 30,
        "shuffle": False, "learning_rate_init": 0.05, "random_state": 0, "epsilon": 1e-15,
    }  # fmt: skip
    classes = {"classes": np.unique(y) if y.ndim == 1 else [0, 1]} if classifier else {}
    ours, theirs = kinds[0](dtype="float64", backend="numpy", **settings), kinds[1](**settings)
    for estimator in (ours, theirs):
        estimator.partial_fit(X, y, **classes)
    layers = zip(theirs.coefs_, theirs.intercepts_, strict=True)
    ours.network_.parameters = [(w.T.copy(), b.copy()) for w, b in layers]
    if solver == "sgd":
        lr, vs = settings["learning_rate_init"], theirs._optimizer.velocities
        slots = [(-v.T / lr,) for v in vs]  # theirs hold η within the velocity
    else:
        slots = [(m.T, v.T) for m, v in zip(theirs._optimizer.ms, theirs._optimizer.vs, strict=True)]
    ours.history_.state.slots[:] = [slots[i] for i in (0, 3, 1, 4, 2, 5)]  # theirs begin with all weights
    for estimator in (ours, theirs):
        estimator.partial_fit(X, y)
    for mine, their in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        # Adam's ε is next to nothing here, for it stands elsewhere in theirs: √v̂ + ε here, √v + ε there.
        np.testing.assert_allclose(mine, their, rtol=1e-9, atol=1e-9)
    predicted = [e.predict_proba(X) if classifier else e.predict(X) for e in (ours, theirs)]
    np.testing.assert_allclose(*predicted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
def test_it_learns_digits(solver, backend):
    net = quick(
        solver=solver, backend=backend, max_iter=20, learning_rate_init=0.1 if solver == "sgd" else 0.01,
        batch_size=100, verify="step",
    )  # fmt: skip
    assert net.fit(DIGITS, DIGIT).score(DIGITS, DIGIT) > 0.98
    assert net.history_.verification.ok
    assert net.history_.verification.steps == net.n_iter_ * 3


def test_more_alpha_means_smaller_weights():
    nets = [quick(alpha=a, solver="sgd", learning_rate_init=0.05).fit(X, Y) for a in (0, 1, 10, 100)]
    size = [sum(np.abs(w).sum() for w in net.coefs_) for net in nets]
    assert size == sorted(size, reverse=True)
    assert size[0] > 2 * size[-1]


def test_sample_weights_count_as_repetitions_and_relative_to_alpha():
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    settings = {"dtype": "float64", "batch_size": 1000, "shuffle": False, "solver": "sgd"}
    weighted = quick(**settings).fit(X, Y, weight)
    scaled = quick(alpha=7.5 * 0.0001, **settings).fit(X, Y, weight * 7.5)
    repeated = quick(**settings).fit(np.repeat(X, weight, axis=0), np.repeat(Y, weight))
    for w, s, r in zip(weighted.coefs_, scaled.coefs_, repeated.coefs_, strict=True):
        np.testing.assert_allclose(w, r, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(w, s, rtol=1e-7, atol=1e-9)


def test_class_weight_is_a_weight_for_every_sample_of_the_class():
    given = quick(class_weight={0: 1, 1: 2, 2: 5}).fit(X, Y)
    weighted = quick().fit(X, Y, np.array([1, 2, 5])[Y])
    np.testing.assert_array_equal(given.coefs_[0], weighted.coefs_[0])
    few = np.r_[0:50, 50:60, 100:103]
    plain, balanced = (quick(class_weight=w).fit(X[few], Y[few]) for w in (None, "balanced"))
    assert (balanced.predict(X) == 2).sum() > (plain.predict(X) == 2).sum()


def test_class_weight_may_name_a_class_that_y_lacks_but_not_misspell_one():
    """As scikit-learn's LogisticRegression has it, case by case."""
    for few, weights in [
        (Y < 2, {0: 1, 1: 2, 2: 5}),
        (Y < 3, {0: 1, 1: 2}),
        (Y < 2, {1: 2}),
        (Y < 3, {0: 1, 1: 1, 2: 1, 7: 1}),
    ]:
        LogisticRegression(class_weight=weights).fit(X[few], Y[few])
        quick(class_weight=weights, max_iter=2).fit(X[few], Y[few])
    for weights in ({7: 1}, {0: 1, 7: 1}, {0: 1, 1: 2, "2": 5}):
        for kind in (LogisticRegression, quick):
            with pytest.raises(ValueError, match="class_weight"):
                kind(class_weight=weights).fit(X, Y)
    absent, known = (
        quick(class_weight=w, max_iter=2).fit(X[:100], Y[:100]) for w in ({0: 1, 1: 2, 2: 5}, {1: 2})
    )
    np.testing.assert_array_equal(absent.coefs_[0], known.coefs_[0])
    balanced = {0: 1.0, 1: 2.0, 2: 3.0}
    scores = cross_val_score(quick(class_weight=balanced, max_iter=2), X, Y, cv=KFold(3), error_score="raise")
    assert scores.tolist() == [0, 0, 0]


def test_each_layer_may_have_its_own_activation():
    net = quick(hidden_layer_sizes=(6, 5), activation=("logistic", "relu")).fit(X, Y)
    assert [layer.activation for layer in net.network_.layers] == ["sigmoid", "relu", "softmax"]
    with pytest.raises(ValueError, match="2 hidden layers but 1 hidden activations"):
        quick(hidden_layer_sizes=(6, 5), activation=["relu"]).fit(X, Y)


def test_string_labels_are_the_networks_inside_too(tmp_path):
    names = np.array(["setosa", "versicolor", "virginica"])
    net = quick().fit(X, names[Y])
    assert net.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(net.predict(X), names[net.predict_proba(X).argmax(axis=1)])
    net.network_.save(tmp_path / "model.npz")
    assert gpubp.load(tmp_path / "model.npz").predict(X).tolist() == net.predict(X).tolist()


def test_two_classes_have_one_output_and_two_probabilities():
    net = quick().fit(X, np.where(Y == 0, "yes", "no"))
    proba = net.predict_proba(X)
    assert (net.n_outputs_, proba.shape) == (1, (150, 2))
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(net.predict(X), net.classes_[(proba[:, 1] > 0.5).astype(int)])
    np.testing.assert_allclose(net.predict_log_proba(X), np.log(proba))


@pytest.mark.parametrize("labels", [np.asarray, sp.csr_array])
def test_multilabel(labels):
    x, y = datasets.make_multilabel_classification(200, n_classes=4, random_state=0)
    net = quick(hidden_layer_sizes=50, max_iter=100, learning_rate_init=0.04).fit(x / x.max(), labels(y))
    assert net.predict(x / x.max()).shape == net.predict_proba(x / x.max()).shape == (200, 4)
    assert net.score(x / x.max(), y) > 0.7


@pytest.mark.parametrize(
    ("make", "backend"),
    [(sp.csr_matrix, "numba"), (sp.csr_array, "numba"), (sp.csc_matrix, "numpy"), (sp.coo_array, "numpy")],
)
def test_sparse_inputs_train_and_predict_like_dense_ones(make, backend):
    x = np.where(DIGITS > 0.7, DIGITS, 0)
    settings = {"backend": backend, "dtype": "float64", "max_iter": 10}
    dense, sparse = (quick(**settings).fit(i, DIGIT) for i in (x, make(x)))
    np.testing.assert_allclose(dense.predict_proba(x), sparse.predict_proba(make(x)), rtol=1e-9)
    if backend == "numba":
        assert "non-zero inputs only" in sparse.history_.plan


def test_bytes_are_images():
    pixels = (DIGITS * 255).astype(np.uint8)
    net, same = (quick(dtype="float64").fit(x, DIGIT) for x in (pixels, pixels / 255))
    np.testing.assert_allclose(net.predict_proba(pixels), same.predict_proba(pixels / 255), rtol=1e-9)
    with pytest.raises(ValueError, match="fitted on uint8 images, but these are numbers"):
        net.predict(DIGITS)


COUNTS = (DIGITS * 16).astype(np.uint8)
NAMES = [f"pixel {i}" for i in range(64)]
TABLES = {
    "uint8": pd.DataFrame(COUNTS, columns=NAMES),
    "no names": pd.DataFrame(COUNTS),
    "int64": pd.DataFrame(COUNTS.astype(int), columns=NAMES),
    "float32": pd.DataFrame(COUNTS.astype("f4"), columns=NAMES),
    "nullable": pd.DataFrame(COUNTS, columns=NAMES).astype("UInt8"),
    "mixed": pd.DataFrame({n: COUNTS[:, i].astype(["u1", "i8", "f4"][i % 3]) for i, n in enumerate(NAMES)}),
}


@pytest.mark.filterwarnings(
    "error::UserWarning", "ignore:X .*feature names", "ignore::sklearn.exceptions.ConvergenceWarning"
)
@pytest.mark.parametrize("fitted", TABLES)
def test_a_table_is_numbers_whatever_the_dtype_of_its_columns(fitted):
    expected = quick().fit(COUNTS.astype(float), DIGIT).predict_proba(COUNTS.astype(float))
    net, part = quick().fit(TABLES[fitted], DIGIT), quick().partial_fit(TABLES[fitted], DIGIT, range(5))
    for given in TABLES:
        if (fitted == "no names") == (given == "no names"):
            np.testing.assert_array_equal(net.predict_proba(TABLES[given]), expected)
            part.partial_fit(TABLES[given], DIGIT)
    with pytest.raises(ValueError, match="fitted on numbers, but these are uint8 images"):
        net.predict(COUNTS)


DATES = pd.date_range("2024-01-01", periods=len(X))


@pytest.mark.parametrize(
    "column",
    [DATES, DATES.tz_localize("UTC"), DATES - DATES[0], DATES.to_period("D"), ["a"] * len(X), [1j] * len(X)],
)
@pytest.mark.parametrize("others", [{}, {"u": np.uint8(1)}, {"f": 0.5}, {"b": True, "i": 3}])
def test_a_column_that_is_no_numbers_is_named(column, others):
    frame = pd.DataFrame({**others, "when": column})
    right = pd.DataFrame({**others, "when": np.arange(len(X)) / len(X)})
    fitted = quick().fit(right, Y)
    fitted.predict(right)
    for door in (
        lambda: quick().fit(frame, Y),
        lambda: quick().partial_fit(frame, Y, np.unique(Y)),
        lambda: fitted.predict(frame),
        lambda: fitted.network_.predict(frame),
        lambda: gpubp.fit(gpubp.Network([frame.shape[1], 3]), frame, Y, backend="numpy"),
    ):
        with pytest.raises(
            ValueError, match=r"columns of a DataFrame must be numbers, but 'when' is not: .*leave it out"
        ):
            door()


def test_columns_that_can_be_made_numbers_are_no_words():
    made = {"k": pd.Categorical([1, 2, 3] * (len(X) // 3)), "o": np.array([0.5] * len(X), object)}
    frame = pd.DataFrame({"u": np.uint8(1), **made, "n": pd.array([1] * len(X), "Int64")})[: len(X)]
    expected = quick().fit(frame.astype(float), Y).predict_proba(frame.astype(float))
    np.testing.assert_array_equal(quick().fit(frame, Y).predict_proba(frame), expected)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_bytes_at_another_scale_are_said_where_an_estimator_is_asked(make):
    pixels = make((DIGITS * 255).astype(np.uint8))
    net, bits = quick().fit(pixels, DIGIT), make((DIGITS > 0.5).astype(np.uint8))
    with pytest.warns(UserWarning, match="may be at another scale"):
        net.predict(bits)
    with pytest.warns(UserWarning, match="may be at another scale"):
        net.score(bits[:1], DIGIT[:1])
    with pytest.warns(UserWarning, match="may be at another scale"):
        net.partial_fit(bits, DIGIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (1, 5, 60):
            net.predict(pixels[:rows])


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_bytes_that_are_hardly_images_are_said_and_a_table_for_images_is_refused(make):
    with pytest.warns(
        UserWarning, match="taken for images and scaled by 1/255, but the largest of these is 16:"
    ):
        net = quick().fit(make(COUNTS), DIGIT)
    with pytest.raises(ValueError, match="fitted on uint8 images, but these are numbers"):
        net.predict(TABLES["no names"])
    for most, said in ((127, 1), (128, 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quick().fit(make(np.where(COUNTS == 16, most, COUNTS).astype(np.uint8)), DIGIT)
        assert sum("taken for images" in str(w.message) for w in caught) == said


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_partial_fits_are_the_epochs_of_a_fit(kind, solver):
    y = Y if kind is MLPClassifier else Y.astype(float)
    settings = {"kind": kind, "solver": solver, "shuffle": False, "batch_size": 40}
    whole = quick(max_iter=5, tol=0, n_iter_no_change=99, **settings).fit(X, y)
    parts = quick(**settings)
    for _ in range(5):
        parts.partial_fit(X, y, **({"classes": [0, 1, 2]} if kind is MLPClassifier else {}))
    np.testing.assert_equal(whole.coefs_, parts.coefs_)
    assert (parts.n_iter_, parts.t_) == (whole.n_iter_, whole.t_) == (5, 5 * len(X))
    assert parts.loss_curve_ == whole.loss_curve_


def test_partial_fit_sees_classes_that_come_late_and_never_stops():
    net = quick(learning_rate_init=0.01, n_iter_no_change=2, tol=10)
    net.partial_fit(X[:50], Y[:50], classes=[0, 1, 2])
    assert net.predict_proba(X).shape == (150, 3)
    for _ in range(60):
        net.partial_fit(X[50:], Y[50:])
    assert set(net.predict(X[50:])) == {1, 2}
    assert net.n_iter_ == 61


def test_what_partial_fit_refuses():
    with pytest.raises(ValueError, match="first call of partial_fit needs classes"):
        quick().partial_fit(X, Y)
    net = quick().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="cannot become"):
        net.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="labels that classes lacks"):
        net.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="needs all data at once"):
        quick(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(AttributeError, match="partial_fit"):
        quick(learning_rate="cosine").partial_fit(X, Y, classes=[0, 1, 2])
    for settings in ({"solver": "adam"}, {"momentum": 0.0}):
        net = quick(solver="sgd").partial_fit(X, Y, classes=[0, 1, 2])
        with pytest.raises(ValueError, match="another solver, or with momentum"):
            net.set_params(**settings).partial_fit(X, Y)


def test_warm_start_goes_on_and_cold_start_does_not():
    warm, cold = quick(warm_start=True, max_iter=10), quick(max_iter=10)
    warmer, colder = ([net.fit(X, Y).loss_ for _ in range(4)] for net in (warm, cold))
    assert warmer == sorted(set(warmer), reverse=True)
    assert len(set(colder)) == 1
    assert (warm.n_iter_, len(warm.loss_curve_), len(cold.loss_curve_)) == (10, 40, 10)


def test_what_warm_start_refuses():
    net = quick(warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="classes of the last fit"):
        net.fit(X[:100], Y[:100])
    with pytest.raises(ValueError, match="another network"):
        net.set_params(hidden_layer_sizes=(3,)).fit(X, Y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_early_stopping_keeps_the_best_epoch(kind):
    seen = []
    net = quick(
        kind, early_stopping=True, validation_fraction=0.3, max_iter=300, learning_rate_init=0.02, n_iter_no_change=5,
        callbacks=[lambda epoch, network: seen.append([w.copy() for w, _ in network.parameters])],
    )  # fmt: skip
    net.fit(X, Y)
    assert net.n_iter_ == len(net.validation_curve_) == len(seen) < 300
    assert net.validation_scores_ == net.validation_curve_
    best = int(np.argmax(net.validation_curve_))
    assert net.best_validation_score_ == net.validation_curve_[best]
    np.testing.assert_equal([w.T for w in net.coefs_], seen[best])


@pytest.fixture
def held_out(monkeypatch):
    """What was held out, once something was."""
    seen = []
    for kind in (MLPClassifier, MLPRegressor):
        usual = kind._score_of
        keep = lambda self, held, usual=usual: seen.append(held) or usual(self, held)  # noqa: E731
        monkeypatch.setattr(kind, "_score_of", keep)
    return seen


HALF_HELD_OUT = {"early_stopping": True, "max_iter": 3, "validation_fraction": 0.4}


@pytest.mark.parametrize("weight", [None, np.linspace(0, 1, 150)])
def test_the_score_of_a_regressor_is_r_squared_of_the_part_held_out(weight, held_out):
    net = quick(MLPRegressor, **HALF_HELD_OUT).fit(X, X[:, :2], weight)
    (held,) = held_out
    how = {"sample_weight": held.weight, "multioutput": "variance_weighted"}
    expected = r2_score(held.targets, net.predict(held.inputs), **how)
    assert (len(held.inputs), net.validation_curve_[-1]) == (60, pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("weight", [None, np.arange(150.0)])
def test_the_score_of_a_classifier_is_the_accuracy_on_the_part_held_out(weight, held_out):
    net = quick(solver="sgd", learning_rate_init=0.01, **HALF_HELD_OUT).fit(X, Y, weight)
    (held,) = held_out
    assert net.validation_curve_[-1] == pytest.approx(net.score(held.inputs, held.targets, held.weight))


def test_the_part_held_out_has_every_class_in_its_share(held_out):
    y = np.r_[np.zeros(130, int), np.ones(20, int)]
    quick(early_stopping=True, validation_fraction=0.2).fit(X, y)
    assert (len(held_out[0].targets), held_out[0].targets.sum()) == (30, 4)


def test_early_stopping_of_multilabel_targets_watches_all_labels_at_once():
    x, y = datasets.make_multilabel_classification(3000, n_features=50, n_classes=3, random_state=0)
    net = quick(early_stopping=True, max_iter=2).fit(x, y)
    assert all(0 <= score <= 1 for score in net.validation_curve_)
    # What was held out, 300 × 50 × 8 bytes, is not kept.
    assert len(pickle.dumps(net)) < 100_000


def test_partial_fit_with_early_stopping_stops_learning_once_nothing_is_gained():
    net = quick(early_stopping=True, n_iter_no_change=3, learning_rate_init=0.05)

    def stream():
        for _ in range(300):
            net.partial_fit(X, Y, classes=[0, 1, 2])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="stopped early"):
            stream()
    assert len(net.validation_curve_) < 300
    assert net.best_validation_score_ == max(net.validation_curve_)
    before = net.coefs_[0].copy()
    with pytest.warns(ConvergenceWarning, match="stopped early"):
        net.partial_fit(X, Y)
    np.testing.assert_array_equal(before, net.coefs_[0])


def test_warm_start_with_early_stopping_goes_on_from_the_best_epoch():
    net = quick(early_stopping=True, warm_start=True, max_iter=30, n_iter_no_change=3).fit(X, Y)
    scores, first = len(net.validation_curve_), net.loss_curve_[-1]
    net.fit(X, Y)
    assert len(net.validation_curve_) > scores
    assert net.loss_curve_[scores] < net.loss_curve_[0]
    assert net.loss_curve_[-1] < first


def test_training_stops_when_the_loss_no_longer_falls_by_tol():
    for four in (4, np.int64(4)):
        net = quick(tol=0.5, n_iter_no_change=four, max_iter=100).fit(X, Y)
        assert net.n_iter_ == 6  # the first epoch is a gain; then more than 4 without
    assert quick(tol=0.5, n_iter_no_change=np.inf, max_iter=20).fit(X, Y).n_iter_ == 20


def test_too_few_epochs_are_said_and_enough_are_not():
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        quick(max_iter=2).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        quick(tol=0.5, max_iter=100).fit(X, Y)


def watched(losses, **settings):
    """How many of these losses a watch sees before it stops, and the watch."""
    watch = Watch(tol=0.01, patience=3, **settings)
    for epoch, loss in enumerate(losses, 1):
        if watch(SimpleNamespace(loss=loss), None):
            return epoch, watch
    return None, watch


def test_a_loss_that_overshoots_may_come_down_again_and_a_flat_one_ends_training():
    overshooting = [3, 2, 1, 1.4, 1.6, 1.6, 1.5, 1.3, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert watched(overshooting)[0] == 7  # scikit-learn's rule
    epoch, watch = watched(overshooting, margin=0.2)
    assert (epoch, watch.best_loss, watch.overshot) == (14, 0.5, False)
    epoch, watch = watched([3, 2, 1, *[1.6] * 20], margin=0.2)
    assert (epoch, watch.best_loss, watch.overshot) == (11, 1, True)
    assert watched([3, 2, 1, *[1.1] * 20], margin=0.2)[0] == 7
    assert watched([3, 2, np.nan, np.nan, np.nan, np.nan], margin=0.2)[0] == 6


@pytest.mark.parametrize(
    ("y", "loss", "weight"),
    [
        (Y[Y < 2], np.log(2), None),
        (Y, np.log(3), None),
        (Y, np.log(2), (Y > 0) * 2.0),
        (np.c_[Y == 0, Y == 0].astype(int), 2 * (np.log(3) - np.log(2) * 2 / 3), None),
    ],
)
def test_the_loss_without_learning_is_that_of_the_best_constant(y, loss, weight):
    net = quick()
    x = X[: len(y)]
    job = net._job(x, y, weight, net._classes_of(y))
    assert job.unlearned_loss == pytest.approx(loss)


def test_the_loss_without_learning_of_values_is_half_their_variance():
    job = quick(MLPRegressor)._job(X, X[:, :2] * [2, 1], None, again=False)
    assert job.unlearned_loss == pytest.approx((4 + 1) / 2)


@pytest.mark.parametrize(
    ("stopped", "settings"),
    [
        ("done", {"max_iter": 20}),
        ("converged", {"max_iter": 60, "learning_rate": gpubp.Schedule("step", factor=1e-9, every=10)}),
    ],
)
def test_an_end_far_above_the_best_loss_is_said_once_with_what_to_do(stopped, settings):
    settings |= {"learning_rate_init": 10.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = quick(MLPRegressor, **settings).fit(X, Y)
    assert net.history_.stopped == stopped
    assert net.loss_ > 2 * net.best_loss_
    (said,) = (str(w.message) for w in caught if w.category is ConvergenceWarning)
    assert "clearly above its best" in said
    assert all(way in said for way in ("lower learning_rate_init", "scale the inputs", "early_stopping=True"))
    assert ("raise max_iter" in said) == (stopped == "done")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*above its best")
        quick(MLPRegressor, early_stopping=True, **settings).fit(X, Y)


ORDINARY = [
    {}, {"learning_rate_init": 0.01}, {"solver": "sgd", "learning_rate_init": 0.05},
    {"batch_size": 16, "activation": "tanh"}, {"solver": "adamw", "batch_size": 32, "learning_rate_init": 0.005},
]  # fmt: skip


@pytest.mark.filterwarnings("error:.*above its best")
@pytest.mark.parametrize("settings", ORDINARY)
@pytest.mark.parametrize("data", estimators.DATA)
def test_ordinary_training_is_not_said_to_have_overshot(data, settings):
    kinds, load = estimators.DATA[data]
    x, y = load()
    if kinds is estimators.REGRESSORS:
        y = (y - y.mean()) / y.std()
    for seed in range(2):
        rows = np.random.default_rng(seed).permutation(len(x))[:400]
        kinds["gpubp"](random_state=seed, backend="numba", threads=1, max_iter=60, **settings).fit(
            StandardScaler().fit_transform(x[rows]), y[rows]
        )


@pytest.mark.parametrize(("data", "inputs"), [("wine", "raw"), ("wine", "scaled"), ("iris", "scaled")])
def test_scores_are_as_good_as_scikit_learns_by_default(data, inputs):
    ours, theirs = (np.median(found) for found in estimators.scores(data, inputs, 12).values())
    assert ours >= theirs - 0.01


def test_values_are_learned_where_the_loss_overshoots():
    """Three columns of iris and the fourth: scikit-learn's rule stops half of these fits at an R² below 0.6."""
    x = datasets.load_iris().data
    scores = [MLPRegressor(random_state=s).fit(x[:, :3], x[:, 3]).score(x[:, :3], x[:, 3]) for s in range(4)]
    assert min(scores) > 0.9


def test_the_table_of_scores(capsys):
    assert estimators.main(["--splits", "1", "--data", "iris"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| data | raw, gpubp | raw, scikit-learn | scaled, gpubp | scaled, scikit-learn |"
    assert [float(cell) > 0.5 for cell in row.strip("| ").split("|")[1:]] == [True] * 4


def test_callbacks_see_every_epoch_and_can_stop():
    seen = []

    def stop_at_three(epoch, network):
        seen.append((epoch.epoch, type(network)))
        return np.bool_(epoch.epoch == 3)

    assert quick(callbacks=[stop_at_three]).fit(X, Y).n_iter_ == 3
    assert seen == [(1, gpubp.Network), (2, gpubp.Network), (3, gpubp.Network)]


def test_a_copy_goes_on_and_searches_find_their_way():
    copy = pickle.loads(pickle.dumps(quick(max_iter=5).fit(X, Y)))
    copy.partial_fit(X, Y)
    pipe = make_pipeline(StandardScaler(), quick(max_iter=50, learning_rate_init=0.02))
    assert cross_val_score(pipe, *datasets.load_iris(return_X_y=True), cv=3).mean() > 0.9
    grid = GridSearchCV(quick(), {"hidden_layer_sizes": [(2,), (8, 4)], "max_iter": [1, 20]}, cv=2)
    assert grid.fit(X, Y).best_params_["max_iter"] == 20


def test_parameters_and_defaults_are_scikit_learns_where_they_mean_the_same():
    for ours, theirs in ((MLPClassifier(), Theirs()), (MLPRegressor(), TheirRegressor())):
        mine, their = ours.get_params(), theirs.get_params()
        assert {k: v for k, v in mine.items() if k in their} == {k: their[k] for k in mine if k in their}
        assert set(their) - set(mine) == {"power_t", "max_fun"} | ({"loss"} if "loss" in their else set())
        more = {"class_weight"} if isinstance(ours, MLPClassifier) else set()
        assert set(mine) - set(their) == {
            "init", "dropout", "backend", "threads", "verify", "dtype", "callbacks", *more
        }  # fmt: skip
    for refused in ({"class_weight": "balanced"}, {"power_t": 0.5}):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            MLPRegressor(**refused)
    with pytest.raises(TypeError, match="positional"):
        MLPClassifier((5,), "relu", "adam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "lbfgs"}, "solver 'lbfgs' is not offered: choose sgd, adam or adamw"),
        ({"learning_rate": "adaptive"}, "'adaptive' is not offered: choose constant, step, exponential, cos"),
        ({"hidden_layer_sizes": -1}, "positive sizes"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"alpha": -1}, "alpha must be a number of 0 or more"),
        ({"max_iter": 0}, "max_iter must be an integer of 1 or more"),
        ({"max_iter": 1.5}, "max_iter must be an integer of 1 or more"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be"),
        ({"batch_size": "all"}, "batch_size must be a positive integer or 'auto'"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"learning_rate_init": -1}, "learning rate must be positive"),
        ({"momentum": 2, "solver": "sgd"}, "momentum must be in"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "validation_fraction must be between 0 and 1"),
        ({"backend": "torch"}, "unknown backend 'torch'"),
        ({"verify": "always"}, "unknown verify policy"),
        ({"dtype": "int8"}, "dtype must be float32 or float64"),
        ({"tol": "small"}, "tol must be a number"),
        ({"activation": None}, "activation must be a name"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes must be integers"),
        ({"hidden_layer_sizes": 50.0}, "hidden_layer_sizes must be integers"),
        ({"dropout": 1.0}, "from 0 up to below 1"),
        ({"dropout": [0.1, 0.2, 0.3]}, "3 rates for 1 hidden layers"),
        ({"dropout": None}, "a rate of dropout"),
        ({"init": "helium"}, "init 'helium' is not offered: choose sklearn, auto, normal"),
        ({"init": ["he"]}, r"init \['he'\] is not offered"),
        ({"callbacks": print}, "callbacks must be a list of functions"),
        ({"validation_fraction": "a"}, "validation_fraction must be a number"),
        ({"beta_1": "a"}, "beta_1 must be a number"),
    ],
)
def test_parameters_that_cannot_be_used_are_one_clear_message(settings, message):
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(X, Y)


def test_dropout_is_of_training_alone():
    plain, dropped, again = (
        quick(dropout=rate, random_state=1).fit(X, Y) for rate in (0.0, [0.1, 0.5], [0.1, 0.5])
    )
    assert "dropout 0.1, 0.5" in dropped.history_.plan
    assert (dropped.coefs_[0] != plain.coefs_[0]).any()
    np.testing.assert_array_equal(dropped.coefs_[0], again.coefs_[0])
    np.testing.assert_array_equal(dropped.predict_proba(X), dropped.predict_proba(X))


def test_going_on_warm_drops_and_shuffles_anew():
    """As one fit of as many epochs learns, not the same mask again and again."""
    net = quick(dropout=0.5, warm_start=True, max_iter=1, random_state=0)
    first = net.fit(X, Y).loss_
    start = [w.copy() for w in net.coefs_]
    losses = []
    for again in (0, 1):
        net._fits = again  # the same network goes on as the second fit, and as the third
        net.network_.parameters = [
            (w.T.copy(), b) for w, (_, b) in zip(start, net.network_.parameters, strict=True)
        ]
        losses.append(net.fit(X, Y).loss_)
    assert losses[0] != losses[1] != first
    assert quick(dropout=0.5, max_iter=1, random_state=0).fit(X, Y).loss_ == first  # a cold one is as before


def test_schedules_are_gpubps():
    falling = quick(solver="sgd", learning_rate="exponential", max_iter=4, tol=0).fit(X, Y)
    assert falling.history_["learning_rate"] == sorted(falling.history_["learning_rate"], reverse=True)
    half = quick(learning_rate=gpubp.Schedule("step", factor=0.5, every=1), max_iter=3, tol=0)
    assert clone(half).fit(X, Y).history_["learning_rate"] == pytest.approx([0.001, 0.0005, 0.00025])


def test_what_random_state_decides():
    one, same, *others = (quick(random_state=s, max_iter=3).fit(X, Y).coefs_[0] for s in (0, 0, 1, None))
    np.testing.assert_array_equal(one, same)
    assert all((one != other).any() for other in others)


def test_no_hidden_layer_is_logistic_regression():
    x, y = datasets.make_classification(200, random_state=0)
    net = quick(hidden_layer_sizes=(), max_iter=200, learning_rate_init=0.05).fit(x, y)
    assert net.n_layers_ == 2
    assert net.score(x, y) > 0.85


@pytest.mark.parametrize("early_stopping", [False, True])
def test_partial_fit_goes_on_after_a_fit_that_has_stopped(early_stopping):
    net = quick(tol=0.5, n_iter_no_change=2, max_iter=50, early_stopping=early_stopping).fit(X, Y)
    assert net.history_.stopped == ("early stopping" if early_stopping else "converged")
    before = net.coefs_[0].copy()
    net.partial_fit(X + 3, Y)
    assert (net.coefs_[0] != before).any()


def test_a_part_of_a_stream_may_lack_the_samples_for_every_class():
    rows = np.r_[0:10, 50:60, 100]
    net = quick(early_stopping=True).partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
    net.set_params(class_weight={0: 1, 2: 3}).partial_fit(X[:60], Y[:60])
    assert net.n_iter_ == 2
    with pytest.raises(ValueError, match="class_weight names 7"):
        net.set_params(class_weight={7: 1}).partial_fit(X, Y)


def test_a_single_class_is_certain():
    net = quick(learning_rate_init=0.05).fit(X, ["only"] * 150)
    assert net.predict_proba(X).shape == (150, 1)
    assert (net.predict_proba(X) > 0.5).all()
    assert set(net.predict(X)) == {"only"} == set(net.network_.predict(X))


def test_labels_are_set_before_a_warning_that_may_be_an_error():
    net = quick(max_iter=2).fit(X, np.array(["cat", "dog"])[(Y > 0).astype(int)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning):
            net.fit(X, np.array(["x", "y", "z"])[Y])
    assert set(net.predict(X)) <= {"x", "y", "z"}


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_failure_in_mid_training_leaves_the_estimator_as_it_was(call):
    net = quick(warm_start=True, max_iter=3).fit(X, Y)
    before, curve, epochs = net.predict_proba(X), list(net.loss_curve_), net.n_iter_
    net.set_params(callbacks=[lambda *_: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        getattr(net, call)(X, Y)
    np.testing.assert_array_equal(before, net.predict_proba(X))
    assert (net.loss_curve_, net.n_iter_) == (curve, epochs)
    net.set_params(callbacks=None).partial_fit(X, Y)


def test_more_threads_than_there_are_is_as_many_as_there_are():
    assert quick(backend="numba", threads=4096, max_iter=2).fit(X, Y).n_iter_ == 2


@pytest.mark.parametrize(("budget", "verified"), [(Budget(0, 0), 1), (Budget(np.inf, 0), 4)])
def test_verification_of_a_stream_costs_no_more_than_that_of_a_run(monkeypatch, budget, verified):
    monkeypatch.setattr(base, "VERIFICATION", budget)
    net = quick(verify="epoch")
    steps = [net.partial_fit(X, Y, classes=[0, 1, 2]).history_.verification.steps for _ in range(4)]
    assert np.count_nonzero(steps) == verified


def test_a_warning_points_at_the_line_that_called(recwarn):
    warnings.simplefilter("always")
    quick(max_iter=1).fit(X, Y)
    assert {w.filename for w in recwarn} == {__file__}


def test_targets_that_the_dtype_cannot_hold_are_named():
    with pytest.raises(ValueError, match="targets are too large for float32"):
        quick(MLPRegressor).fit(X, np.full(150, 1e39))


# Columns with names


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_names_of_columns_are_scikit_learns_to_warn_of(kind, early_stopping):
    frame, y = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1], 0, -1)]), Y
    net = quick(kind, early_stopping=early_stopping, warm_start=True, max_iter=3, backend="numpy")

    def said(do, x):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            do(x)
        return [str(w.message) for w in caught if "names" in str(w.message)]

    doors = [lambda x: net.fit(x, y), net.predict, lambda x: net.score(x, y), lambda x: net.partial_fit(x, y)]
    doors += [net.predict_proba] if kind is MLPClassifier else []
    for door in (*doors, *doors):
        assert said(door, frame) == []
    for door in doors[1:]:
        (words,) = said(door, X)
        assert words.startswith("X does not have valid feature names")
    assert net.network_.inputs.names == tuple(frame.columns)
    (words,) = said(net.network_.forward, X)
    assert "these have no names" in words
    assert said(net.network_.forward, frame) == []


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(
    "names",
    [range(2019, 2023), range(1, 5), [2.5, 3.5, 4.5, 5.5], pd.MultiIndex.from_product([["p"], list("abcd")])],
    ids=["years", "from 1", "floats", "pairs"],
)  # fmt: skip
def test_names_that_are_no_text_are_held_to_as_text_is(kind, names):
    frame, y = pd.DataFrame(np.array(X)[:, :4], columns=names), Y
    own = list(frame.columns)
    net = quick(kind, max_iter=3, backend="numpy", warm_start=True)
    turned, without, other = frame.iloc[:, ::-1], frame.to_numpy(), frame.set_axis(range(30, 34), axis=1)

    def said(do, x):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            do(x)
        return [str(w.message) for w in caught if "names" in str(w.message)]

    assert said(lambda x: net.fit(x, y), frame) == []
    assert net.feature_names_in_.tolist() == [str(name) for name in own]
    predicted = net.predict(frame).tolist()
    for door in (
        net.predict,
        lambda x: net.partial_fit(x, y),
        lambda x: net.fit(x, y),
        lambda x: net.score(x, y),
    ):
        for frames, words in ((turned, "same order"), (other, "unseen at fit time")):
            with pytest.raises(ValueError, match=words):
                door(frames)
    assert net.predict(frame).tolist() == predicted
    assert said(net.predict, frame) == []
    for x in (without, pd.DataFrame(without)):
        (words,) = said(net.predict, x)
        assert words.startswith("X does not have valid feature names")
    assert list(frame.columns) == own  # the caller's are left as they were


def test_numbers_that_pandas_gives_columns_are_no_names():
    frame = pd.DataFrame(np.array(X)[:, :4])
    net = quick(MLPClassifier, max_iter=3, backend="numpy").fit(frame, Y)
    assert not hasattr(net, "feature_names_in_")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(frame)
        net.predict(frame.to_numpy())
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        net.predict(frame[[3, 2, 1, 0]])
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        net.fit(frame.rename(columns={0: "a"}), Y)
