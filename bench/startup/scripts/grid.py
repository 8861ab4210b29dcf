"""GridSearchCV of 18 short fits on scikit-learn's digits, with two jobs. Usage: grid.py gpubp|sklearn"""

import os
import sys
from importlib import import_module

os.environ["PYTHONWARNINGS"] = "ignore"  # of the jobs: 30 epochs are what is asked for

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

module = import_module("gpubp" if sys.argv[1] == "gpubp" else "sklearn.neural_network")
x, y = load_digits(return_X_y=True)
candidates = {"hidden_layer_sizes": [(32,), (64,), (128,)], "alpha": [1e-4, 1e-2]}
model = module.MLPClassifier(max_iter=30, random_state=0)
search = GridSearchCV(model, candidates, cv=3, n_jobs=2, refit=False).fit(x / 16, y)
print(f"best score {search.best_score_:.4f}")
