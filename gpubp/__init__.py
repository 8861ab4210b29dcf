"""gpubp: multi-layer perceptrons from first principles, on NumPy, Numba and CUDA, every step held to the reference.

Names are loaded on first use: importing gpubp loads neither numba nor cupy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Network": "gpubp.network",
    "Ensemble": "gpubp.ensemble",
    "SGD": "gpubp.optimizers",
    "Adam": "gpubp.optimizers",
    "AdamW": "gpubp.optimizers",
    "Schedule": "gpubp.optimizers",
    "Deform": "gpubp.randomness.settings",
    "EarlyStopping": "gpubp.training.stopping",
    "History": "gpubp.training.history",
    "fit": "gpubp.training.fit",
    "gradients": "gpubp.training.fit",
    "sweep": "gpubp.sweeps",
    "verify": "gpubp.verification.verify",
    "VerificationError": "gpubp.verification.report",
    "Dataset": "gpubp.data",
    "load_data": "gpubp.data",
    "load": "gpubp.formats",
    "save": "gpubp.formats",
    "to_torch": "gpubp.formats.torch",
    "from_torch": "gpubp.formats.torch",
    "available": "gpubp.backends",
    "MLPClassifier": "gpubp.estimators",
    "MLPRegressor": "gpubp.estimators",
    "GpubpError": "gpubp.errors",
    "UsageError": "gpubp.errors",
    "DataError": "gpubp.errors",
    "TrainingWarning": "gpubp.errors",
    "BackendUnavailable": "gpubp.errors",
}
_RENAMED = {"load_data": "load"}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from gpubp.backends import available
    from gpubp.data import Dataset
    from gpubp.data import load as load_data
    from gpubp.ensemble import Ensemble
    from gpubp.errors import BackendUnavailable, DataError, GpubpError, TrainingWarning, UsageError
    from gpubp.estimators import MLPClassifier, MLPRegressor
    from gpubp.formats import load, save
    from gpubp.formats.torch import from_torch, to_torch
    from gpubp.network import Network
    from gpubp.optimizers import SGD, Adam, AdamW, Schedule
    from gpubp.randomness.settings import Deform
    from gpubp.sweeps import sweep
    from gpubp.training.fit import fit, gradients
    from gpubp.training.history import History
    from gpubp.training.stopping import EarlyStopping
    from gpubp.verification.report import VerificationError
    from gpubp.verification.verify import verify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpubp' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), _RENAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
