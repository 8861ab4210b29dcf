"""Many networks at once: which settings of a recipe to try, who trains them, and what came of it.

space → search → plan → trial → engine → running → result. What schedules,
and what learns where to search, are joblib and Optuna.
"""

from gpubp.sweeps.result import Sweep
from gpubp.sweeps.running import sweep
from gpubp.sweeps.space import Range

__all__ = ["Range", "Sweep", "sweep"]
