"""One tensor against the reference: elementwise within its bound, and in norm as accurate as NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.verification.bounds import Bounded

NORM_FACTOR = 4  # as accurate as NumPy in the same dtype, within this factor
AMPLIFIED = 1e6  # how far inputs and weights may carry an error of underflow


@dataclass(frozen=True)
class TensorCheck:
    """One tensor against the reference: its worst element, and its error in norm.

    ``fraction`` is the worst |got − expected| / bound; above 1 no order of summation explains it.
    ``norm_fraction`` is ‖got − ref64‖₂ over what is allowed, four times NumPy's own error in the working dtype and a
    floor (see :func:`_norm_fraction`); None where that is not asked, or where it would measure underflow. ``typical``
    is the worst error in units of the probabilistic bound, in which √K stands for K; it is for information.
    """

    name: str
    index: tuple[int, ...]
    got: float
    expected: float
    bound: float
    fraction: float
    typical: float
    norm_fraction: float | None = None

    @property
    def ok(self) -> bool:
        return self.severity <= 1

    @property
    def severity(self) -> float:
        """The larger fraction of the two; the check passes up to 1."""
        return max(self.fraction, self.norm_fraction or 0.0)  # neither is ever NaN

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        norm = "" if self.norm_fraction is None else f", norm at {self.norm_fraction:.2g} of its bound"
        return (
            f"{'ok  ' if self.ok else 'FAIL'} {self.name}: worst element {self.name.split(' ')[0]}{place} "
            f"got {self.got:.9g}, expected {self.expected:.9g}, error at {self.fraction:.2g} of its bound "
            f"{self.bound:.2g} ({self.typical:.2g} of the probabilistic one){norm}"
        )


def compare(
    name: str, got: np.ndarray | float, bounded: Bounded, working: np.ndarray | None = None, *, terms: int = 1
) -> TensorCheck:
    """Check one tensor against its bounded value.

    Args:
        working: the reference's own result in the working dtype, where the norm is to be checked.
        terms: K, the length of the longest sums behind an element.
    """
    got = np.asarray(got, dtype=np.float64)
    expected, bound = np.asarray(bounded.value, np.float64), np.asarray(bounded.error, np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(got - expected)
        fraction = np.asarray(error / np.maximum(bound, np.finfo(np.float64).tiny))
        wrong = np.isnan(fraction) | (np.isinf(got) & np.isfinite(expected))
        wrong |= ~(error <= bound) & (fraction <= 1)
        fraction[wrong] = np.inf  # what cannot be compared fails
        fraction[(np.isnan(got) & np.isnan(expected)) | (got == expected)] = 0.0
    index = np.unravel_index(int(np.argmax(fraction)), fraction.shape)
    at, worst = tuple(int(i) for i in index), float(fraction[index])
    numbers = float(got[index]), float(expected[index]), float(bound[index]), worst, worst * terms**0.5
    norm = None if working is None else _norm_fraction(got, bounded, working)
    return TensorCheck(name, at, *numbers, norm)


def _norm_fraction(got: np.ndarray, bounded: Bounded, working: np.ndarray) -> float | None:
    """‖got − ref64‖₂ over four times that of NumPy in the working dtype, plus what is probable of any correct code.

    NumPy's own error alone is no measure: its sums run in many partial sums and can be far more accurate than a
    plain loop, which is no less right; and few or tied roundings can leave it small by luck.
    """
    if working.dtype == np.float64 or not np.isfinite(bounded.value).all():
        return None  # nothing more precise to measure against, or nothing to measure
    info = np.finfo(working.dtype)
    ulp = info.eps * np.abs(bounded.value).max()
    if ulp < AMPLIFIED * info.tiny:
        return None  # underflow decides, not rounding: one element is 0 where the other is not
    own = np.linalg.norm(working - bounded.value)
    allowed = NORM_FACTOR * (own + ulp) + np.linalg.norm(bounded.deviation)
    if bounded.kink is not None:
        allowed += np.linalg.norm(bounded.kink)
    distance = np.linalg.norm(got - bounded.value)
    if allowed == 0:  # all of the tensor is exactly 0 in both precisions
        return 0.0 if distance == 0 else np.inf
    fraction = float(distance / allowed)
    return fraction if fraction >= 0 else np.inf  # NaN fails
