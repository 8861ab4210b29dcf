"""The front door for scikit-learn users: ``MLPClassifier`` and ``MLPRegressor``.

They have the parameters of ``sklearn.neural_network``'s, by the same names and with the same defaults, where these mean
the same; besides, ``init``, ``backend``, ``threads``, ``verify``, ``dtype``, ``callbacks`` and ``class_weight``, and an
``activation`` for each layer. What is not offered is refused by name: the solver lbfgs, and the learning rates
"invscaling" and "adaptive", in place of which there are gpubp's schedules.
"""

from gpubp.estimators.classifier import MLPClassifier
from gpubp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
