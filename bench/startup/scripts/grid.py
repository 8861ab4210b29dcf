"""GridSearchCV of 18 short fits on scikit-learn's digits, with two jobs: how long it takes, and once more with the same
two processes. Usage: grid.py gpubp|sklearn|dummy, the last for what the search takes when its fits take nothing."""

import json
import os
import sys
import time
from importlib import import_module

os.environ["PYTHONWARNINGS"] = "ignore"  # of the jobs: 30 epochs are what is asked for

from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

library = sys.argv[1]
x, y = load_digits(return_X_y=True)
candidates = {"hidden_layer_sizes": [(32,), (64,), (128,)], "alpha": [1e-4, 1e-2]}
if library == "dummy":
    model, candidates = DummyClassifier(strategy="uniform"), {"random_state": list(range(6))}
else:
    module = import_module("gpubp" if library == "gpubp" else "sklearn.neural_network")
    model = module.MLPClassifier(max_iter=30, random_state=0)
if library == "gpubp":  # kernels are compiled before
    module.MLPClassifier(max_iter=1, backend="numba").fit([[0.0], [1.0]], [0, 1])
search, seconds = GridSearchCV(model, candidates, cv=3, n_jobs=2, refit=False), []
for _ in range(2):
    started = time.perf_counter()
    search.fit(x / 16, y)
    seconds.append(time.perf_counter() - started)
print(f"best score {search.best_score_:.4f}")
print(json.dumps({"grid-first": {library: seconds[0]}, "grid-again": {library: seconds[1]}}))
