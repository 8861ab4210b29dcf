"""MLPClassifier().fit(iris) in a new process, and how long the fit alone took. Usage: first_fit.py gpubp|sklearn"""

import json
import sys
import time
import warnings
from importlib import import_module

from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

library = sys.argv[1]
module = import_module("gpubp" if library == "gpubp" else "sklearn.neural_network")

warnings.simplefilter("ignore", ConvergenceWarning)
x, y = load_iris(return_X_y=True)
started = time.perf_counter()
module.MLPClassifier().fit(x, y)
print(json.dumps({"first-fit-alone": {library: time.perf_counter() - started}}))
