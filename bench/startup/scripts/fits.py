"""Later fits of MLPClassifier as it is by default, on scaled data, kernels compiled: the medians of three, in turn.

Usage: fits.py ROUND, the number of which says who is first
"""

import json
import sys
import time
import warnings
from statistics import median

from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import gpubp

KINDS = {"gpubp": gpubp.MLPClassifier, "sklearn": neural_network.MLPClassifier}

warnings.simplefilter("ignore", ConvergenceWarning)
gpubp.MLPClassifier(max_iter=1, backend="numba").fit([[0.0], [1.0]], [0, 1])
turns = list(KINDS)[:: -1 if int(sys.argv[1]) % 2 else 1]
seconds = {}
for name in ("iris", "breast_cancer", "digits"):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    for kind in KINDS.values():
        kind(max_iter=2, random_state=0).fit(x, y)  # loads what is loaded once
    times: dict[str, list[float]] = {library: [] for library in turns}
    for library in turns * 3:
        started = time.perf_counter()
        KINDS[library](random_state=0).fit(x, y)
        times[library].append(time.perf_counter() - started)
    seconds[f"fits-{name}"] = {library: median(times[library]) for library in turns}
print(json.dumps(seconds))
