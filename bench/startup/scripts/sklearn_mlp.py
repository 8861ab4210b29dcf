"""784-128-10 in scikit-learn, tested once at the end. Usage: sklearn_mlp.py DATA BATCH SCHEDULE

MLPClassifier has no cosine: its rate is 0.1 throughout, whatever the schedule.
"""

import sys
import warnings

from common import load
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

path, batch = sys.argv[1], int(sys.argv[2])
x_train, y_train, x_test, y_test = load(path)

model = MLPClassifier(
    (128,), solver="sgd", learning_rate_init=0.1, momentum=0.9, nesterovs_momentum=False, alpha=0,
    batch_size=batch, max_iter=10, random_state=0,
)  # fmt: skip
warnings.simplefilter("ignore", ConvergenceWarning)  # ten epochs are what is asked for
model.fit(x_train, y_train)
print(f"test accuracy {model.score(x_test, y_test):.4f}")
