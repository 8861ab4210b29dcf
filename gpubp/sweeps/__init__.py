"""Many networks at once: which settings of a recipe to try, who trains them, and what came of it.

space → search → trials → engine → running. What schedules, and what learns where to search, are joblib and Optuna.
"""

from gpubp.sweeps.running import Sweep, sweep
from gpubp.sweeps.space import Range

__all__ = ["Range", "Sweep", "sweep"]
