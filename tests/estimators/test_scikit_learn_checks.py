"""scikit-learn's own checks of an estimator."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpubp import MLPClassifier, MLPRegressor


def expected_failures(estimator):
    if estimator.dtype == "float32":
        weight = "the same sums in another order round differently; in float64 they agree to the 1e-7 that is asked for"
        kept = "predictions have the network's dtype, as scikit-learn's do for float32 inputs; float64 is asked for"
        return {
            "check_sample_weight_equivalence_on_dense_data": weight,
            "check_sample_weight_equivalence_on_sparse_data": weight,
            "check_regressor_multioutput": kept,
        }
    return {}


def checks_of(*settings):
    kinds = (MLPClassifier, 50), (MLPRegressor, 100)  # as many epochs as the checks of what is learned need
    estimators = [
        kind(backend=backend, max_iter=epochs, dtype=dtype)
        for backend, dtype in settings
        for kind, epochs in kinds
    ]
    return parametrize_with_checks(estimators, expected_failed_checks=expected_failures)


@pytest.mark.filterwarnings("ignore")  # few epochs: convergence is not what is checked
@checks_of(("numba", "float64"))
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
@checks_of(("numba", "float32"), ("numpy", "float32"), ("numpy", "float64"))
def test_scikit_learn_check_of_the_others(estimator, check):
    check(estimator)
