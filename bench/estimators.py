"""``python -m bench.estimators``: test scores of the estimators beside scikit-learn's, as both are by default."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpubp
from gpubp.benchmark import terminal

CLASSIFIERS = {"gpubp": gpubp.MLPClassifier, "scikit-learn": neural_network.MLPClassifier}
REGRESSORS = {"gpubp": gpubp.MLPRegressor, "scikit-learn": neural_network.MLPRegressor}
INPUTS = ("raw", "scaled")


def _classification() -> Any:
    return datasets.make_classification(1000, n_informative=10, n_classes=3, random_state=0)


def _regression() -> Any:
    return datasets.make_regression(1000, n_features=20, noise=10, random_state=0)


DATA: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "iris": (CLASSIFIERS, lambda: datasets.load_iris(return_X_y=True)),
    "wine": (CLASSIFIERS, lambda: datasets.load_wine(return_X_y=True)),
    "breast_cancer": (CLASSIFIERS, lambda: datasets.load_breast_cancer(return_X_y=True)),
    "digits": (CLASSIFIERS, lambda: datasets.load_digits(return_X_y=True)),
    "make_classification": (CLASSIFIERS, _classification),
    "diabetes": (REGRESSORS, lambda: datasets.load_diabetes(return_X_y=True)),
    "make_regression": (REGRESSORS, _regression),
}


def scores(data: str, inputs: str, splits: int) -> dict[str, list[float]]:
    """The scores of each library's estimator on the tests of so many splits; a split's number is every seed in it."""
    kinds, load = DATA[data]
    x, y = load()
    found: dict[str, list[float]] = {library: [] for library in kinds}
    for seed in range(splits):
        x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=seed)
        for library, kind in kinds.items():
            network = kind(random_state=seed)
            model = make_pipeline(StandardScaler(), network) if inputs == "scaled" else network
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # 200 epochs are the default
                found[library].append(model.fit(x_train, y_train).score(x_test, y_test))
    return found


def table(medians: dict[str, list[float]]) -> str:
    """A row of Markdown for each data set, with the medians of each library on raw and on scaled inputs."""
    head = ["data", *(f"{inputs}, {library}" for inputs in INPUTS for library in CLASSIFIERS)]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |" for name, row in medians.items()]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Train, telling the progress, and print the table; the exit code."""
    medians: dict[str, list[float]] = {}
    for name in args.data or DATA:
        terminal.say(name)
        pairs = [scores(name, inputs, args.splits) for inputs in INPUTS]
        medians[name] = [median(values) for pair in pairs for values in pair.values()]
    print(table(medians))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimators", description=__doc__)
    parser.add_argument("--splits", type=int, default=12, help="into training and test data (%(default)s)")
    parser.add_argument("--data", nargs="+", choices=DATA, help="all of them by default")
    return terminal.exit_code(lambda: run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
