"""Deformed images: bytes (h, w) to bytes (h, w), elastically and by rotation, scaling and shear, in whole numbers.

An output pixel takes what the image has at a place nearby, between four pixels (Simard, Steinkraus, Platt: Best
practices for convolutional neural networks applied to visual document analysis, ICDAR 2003; Cireşan, Meier,
Gambardella, Schmidhuber: Deep, big, simple neural nets for handwritten digit recognition, 2010)::

    place = middle + M (pixel − middle) + field(pixel)          M = rotation × (scaling and shear)

Every step below is in whole numbers, or in float32 that is exact, so that NumPy, Numba and CUDA give the same bits, in
any order and on any number of threads.

**Random numbers.** A sample has a stream of bytes for each step, from Philox's counters (counter, sample, step,
``PURPOSE``) as in :mod:`gpubp.randomness.philox`. Eight counters make 128 bytes: the first two words of each of the
eight, then the last two of each. A vector of 64-bit lanes keeps one counter in each, whose products it needs no shuffle
for, and stores the words in pairs as they are. The first four words say how the image is turned, scaled and sheared;
all bytes after these are noise, row by row, in turn that of x and that of y.

**The field.** Simard's is α times uniform noise in [−1, 1] of variance 1/3, smoothed by a Gaussian g of standard
deviation σ: its variance is α²/3 Σg² = α²/3 · 1/(4πσ²), its autocorrelation at distance d is exp(−d²/4σ²). Smoothed
noise is Gaussian and isotropic all but exactly, and so these two say all of its law; neither asks for noise at each
pixel. So from σ = 3 on the noise is that of every second pixel, smoothed by σ/2 and then interpolated: half the side, a
fourth of the noise, and half the weights. A number of noise is u = (byte | 1) − 128, odd, from −127 to 127, of variance
5461; weights are whole numbers; x lies a quarter of a step from the nearest point of the grid, always, so that
interpolation takes 3 parts of that and 1 of the next, and the variance is the same at each pixel. It lessens the
variance and adds 3/16 of a step² to the Gaussian's; the weights are those whose second moment makes up for it, and
``scale`` is what makes the variance Simard's, from the very weights. Noise goes on beyond the image as far as the
weights reach: at the border the field is what it is inside.

Sums of u times weights stay below 2²⁴. The field in 1/256 pixel is the sum times ``scale``, a float32: exact in
float64, and rounded once, to the nearest whole number, ties to even. A fused multiply-add with 1.5 · 2²³ does it in
float32.

**Turning.** M is in fixed point, 2¹⁴ for 1; cosines and sines are those of ``ANGLES`` angles. Places count from the
middle in half pixels, (2x − w + 1, 2y − h + 1).

**Pixels** lie between four with weights of 8 bits a side; outside the image all is 0. Zeros away from what is drawn
stay zeros, so that inputs stay sparse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpubp.errors import UsageError
from gpubp.randomness import philox
from gpubp.randomness.settings import Deform

PURPOSE = 0x01000000  # of the counters; dropout has the numbers of the layers
COUNTERS = 8  # whose words lie together
BLOCK = 16 * COUNTERS  # bytes of them
HEAD = 16  # bytes of a stream before the noise
LARGEST = 1024  # pixels of a side
ONE = 1 << 14  # 1 in fixed point
ANGLES = 256
SPACED = 3.0  # pixels of σ from which on the noise is that of every second pixel
VARIANCE = 5461  # of odd numbers from −127 to 127
WEIGHTS = {
    1: 128,
    2: 90,
}  # the largest sum of weights, by the grid's spacing: 127 · 128² and 127 · 16 · 90² < 2²⁴
SOME = 1 << 21  # numbers that are in work at a time

Matrix = tuple[Any, Any, Any, Any]  # M by rows, in fixed point, numbers or (B,) each


@dataclass(frozen=True)
class Deformation:
    """Deformations of images (h, w) of bytes by these settings, drawn under a key, which is the seed's."""

    settings: Deform
    shape: tuple[int, int]
    key: tuple[int, int]

    @classmethod
    def of(cls, settings: Deform | None, inputs: Any, shape: Any, seed: int) -> Deformation | None:
        """How inputs (N, n_in) are deformed, each an image of this shape (h, w); None if nothing is.

        Raises:
            UsageError: inputs that are no bytes, a shape that is not known or not theirs, or of a side of more than
                1024 pixels; no :class:`gpubp.Deform`; α so large that places would have no room.
        """
        if settings is None:
            return None
        if not isinstance(settings, Deform):
            raise UsageError(f"deform must be gpubp.Deform(…), not {settings!r}")
        if not settings:
            return None
        if getattr(inputs, "dtype", None) != np.uint8 or not isinstance(inputs, np.ndarray):
            raise UsageError(
                "only images of bytes are deformed, and these inputs are other numbers: give an array of uint8, "
                "0 to 255 (of a table, --pixels), which is scaled by 1/255 on its way into the network"
            )
        sides = tuple(int(side) for side in shape or ())
        if len(sides) == 3 and 1 in (sides[0], sides[-1]):  # of one channel
            sides = sides[1:] if sides[0] == 1 else sides[:2]
        if len(sides) != 2 or not all(1 <= side <= LARGEST for side in sides):
            known = f"their shape is {' × '.join(map(str, sides))}" if sides else "their shape is not known"
            raise UsageError(
                f"only grey images of up to {LARGEST} × {LARGEST} pixels are deformed, and {known}: give inputs of "
                "shape (N, height, width)"
            )
        if math.prod(sides) != inputs.shape[1]:
            raise UsageError(
                f"images of {sides[0]} × {sides[1]} pixels are not rows of {inputs.shape[1]} inputs"
            )
        made = cls(settings, (sides[0], sides[1]), philox.key_of(seed))
        most = 127 * int(made.gains.sum()) ** 2
        if most * float(made.scale) >= 1 << 22:
            largest = settings.alpha * (1 << 22) / (most * float(made.scale))
            raise UsageError(
                f"alpha is below {largest:.3g} with sigma {settings.sigma:g}, not {settings.alpha:g}"
            )
        return made

    @property
    def spacing(self) -> int:
        """Pixels from one number of noise to the next."""
        return 2 if self.settings.sigma >= SPACED else 1

    @cached_property
    def weights(self) -> np.ndarray:
        """Those of one pass of smoothing, (2 reach + 1,) int64."""
        return _weights(self.settings.sigma / self.spacing, WEIGHTS[self.spacing], self.spacing)

    @cached_property
    def gains(self) -> np.ndarray:
        """By which numbers of noise along one side come into one pixel, int64: the weights, and interpolation."""
        w = self.weights
        return w if self.spacing == 1 else 3 * np.append(w, 0) + np.append(0, w)

    @cached_property
    def scale(self) -> np.float32:
        """From sums to 1/256 pixel."""
        deviation = self.settings.alpha * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * self.settings.sigma)
        return np.float32(256 * deviation / (math.sqrt(VARIANCE) * float((self.gains**2).sum())))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the smoothed noise."""
        h, w = self.shape
        return (h, w) if self.spacing == 1 else (h // 2 + 2, w // 2 + 2)

    @property
    def noise(self) -> tuple[int, int]:
        """Rows and columns of the noise, for either field; none without α."""
        margin = len(self.weights) - 1
        return (self.grid[0] + margin, self.grid[1] + margin) if self.settings.alpha else (0, 0)

    @property
    def blocks(self) -> int:
        """Of counters, for a sample."""
        return -(-(HEAD + 2 * math.prod(self.noise)) // BLOCK)

    @cached_property
    def limits(self) -> list[float]:
        """The limits of rotation that there are, in degrees; the first is that of most classes."""
        return list(dict.fromkeys([self.settings.rotation, *dict(self.settings.rotation_by_class).values()]))

    @cached_property
    def turns(self) -> np.ndarray:
        """Cosines and sines, (limits, ANGLES, 2) int32."""
        shares = (2 * np.arange(ANGLES) + 1 - ANGLES) / ANGLES
        angles = np.radians(self.limits)[:, None] * shares
        return np.rint(ONE * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).astype(np.int32)

    def limit_of(self, classes: np.ndarray | None, count: int) -> np.ndarray:
        """Which limit each of ``count`` samples has by its class, if that is given, (count,) int64."""
        which = np.zeros(count, np.int64)
        if classes is not None:
            for label, limit in self.settings.rotation_by_class:
                which[classes == label] = self.limits.index(limit)
        return which

    @property
    def ranges(self) -> tuple[int, int]:
        """The largest change by scaling and by shear, in fixed point."""
        return round(self.settings.scaling * ONE), round(self.settings.shear * ONE)

    @property
    def by_class(self) -> bool:
        """Whether a sample's class makes a difference."""
        return bool(self.settings.rotation_by_class)

    def images(
        self, images: np.ndarray, samples: np.ndarray, step: int, classes: np.ndarray | None = None
    ) -> np.ndarray:
        """Images (B, h·w) of bytes as they are deformed at a step, (B, h·w) uint8.

        Args:
            images: those of the samples, in order.
            samples: (B,), their places in the training data.
            step: updates made before it.
            classes: (B,) labels; without, all have the limit of ``rotation``.
        """
        out = np.empty_like(images)
        some = max(1, SOME // (2 * math.prod(self.noise) + 8 * math.prod(self.shape)))
        for start in range(0, len(images), some):
            rows = slice(start, start + some)
            words = self.stream(samples[rows], step)
            labels = None if classes is None else classes[rows]
            out[rows] = interpolated(
                images[rows], *self.places(self.matrix(words, labels), self.field(words))
            )
        return out

    def stream(self, samples: np.ndarray, step: int) -> np.ndarray:
        """The words of these samples (B,), (B, 32 blocks) uint32."""
        counters = np.zeros((len(samples), self.blocks * COUNTERS, 4), np.uint32)
        counters[..., 0] = np.arange(self.blocks * COUNTERS)
        counters[..., 1] = np.asarray(samples)[:, None]
        counters[..., 2], counters[..., 3] = step, PURPOSE
        words = philox.philox(counters, self.key).reshape(len(samples), self.blocks, COUNTERS, 2, 2)
        return words.swapaxes(2, 3).reshape(len(samples), -1)

    def matrix(self, words: np.ndarray, classes: np.ndarray | None = None) -> Matrix:
        """M in fixed point, (B,) int64 each, by the first four words of streams."""
        turn, *rest = words[:, :4].T.astype(np.int64)
        limit = self.limit_of(classes, len(words))
        cosine, sine = self.turns[limit, turn >> 24].T.astype(np.int64)
        x, y, shear = (2 * (word >> 16) + 1 - 65536 for word in rest)  # odd: as many to either side
        scaling, most = self.ranges
        x, y = (ONE + ((number * scaling + 32768) >> 16) for number in (x, y))
        shear = (shear * most + 32768) >> 16
        half = ONE // 2
        return (
            (cosine * x + half) >> 14,
            (cosine * shear - sine * y + half) >> 14,
            (sine * x + half) >> 14,
            (sine * shear + cosine * y + half) >> 14,
        )

    def field(self, words: np.ndarray) -> tuple[Any, Any]:
        """How far each pixel is moved along x and y, in 1/256 pixel, (B, h, w) int64 each; 0 without α."""
        if not self.settings.alpha:
            return 0, 0
        rows, columns = self.noise
        noise = np.ascontiguousarray(words, "<u4").view(np.uint8)[:, HEAD : HEAD + 2 * rows * columns]
        u = ((noise | 1).astype(np.int32) - 128).reshape(-1, rows, columns, 2)
        smooth = _smoothed(_smoothed(u, self.weights, 1), self.weights, 2)
        if self.spacing == 2:
            smooth = _between(_between(smooth, 1, self.shape[0]), 2, self.shape[1])
        moved = np.rint(smooth * np.float64(self.scale)).astype(np.int64)
        return moved[..., 0], moved[..., 1]

    def places(self, matrix: Matrix, field: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel comes from, x and y in 1/256 pixel, (B, h, w) int64 each."""
        h, w = self.shape
        x, y = 2 * np.arange(w) - w + 1, (2 * np.arange(h) - h + 1)[:, None]
        xx, xy, yx, yy = (np.reshape(np.asarray(entry, np.int64), (-1, 1, 1)) for entry in matrix)
        return (
            128 * (w - 1) + ((xx * x + xy * y + 64) >> 7) + field[0],
            128 * (h - 1) + ((yx * x + yy * y + 64) >> 7) + field[1],
        )

    def to_dict(self) -> dict[str, Any]:
        """What two runs must share to deform the same; the seed is told elsewhere."""
        return {**self.settings.to_dict(), "shape": list(self.shape)}

    def __str__(self) -> str:
        return f"deformed images: {self.settings}"


def interpolated(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Images (B, h·w) at places (B, h, w) in 1/256 pixel, between their pixels, (B, h·w) uint8; 0 outside."""
    count, (h, w) = len(images), x.shape[1:]
    bordered = np.zeros((count, h + 3, w + 3), np.int32)  # pixel (0, 0) is at (1, 1)
    bordered[:, 1 : h + 1, 1 : w + 1] = images.reshape(count, h, w)
    x, y = np.clip(x, -256, 256 * w).astype(np.int32), np.clip(y, -256, 256 * h).astype(np.int32)
    fx, fy = x & 255, y & 255
    image = np.arange(count)[:, None, None] * bordered[0].size
    place = image + ((y >> 8) + 1) * (w + 3) + (x >> 8) + 1
    pixels = bordered.ravel()
    above = pixels[place] * (256 - fx) + pixels[place + 1] * fx
    place += w + 3
    below = pixels[place] * (256 - fx) + pixels[place + 1] * fx
    return ((above * (256 - fy) + below * fy + 32768) >> 16).astype(np.uint8).reshape(count, h * w)


def _weights(sigma: float, most: int, spacing: int) -> np.ndarray:
    """Whole numbers like a Gaussian, (2 reach + 1,), that sum to ``most`` or little less.

    Of Gaussians about as wide, the one whose rounded weights have the second moment that is wanted.
    """
    wanted = sigma**2 - (3 / 16 if spacing == 2 else 0)
    d = np.arange(-math.ceil(5 * sigma), math.ceil(5 * sigma) + 1)
    best, off = d, math.inf
    for width in np.linspace(0.8, 1.2, 161) * sigma:
        shape = np.exp(-(d**2) / (2 * width**2))
        for total in range(most, 0, -1):
            rounded = np.rint(total * shape / shape.sum()).astype(np.int64)
            if rounded.sum() <= most:
                break
        moment = float((rounded * d**2).sum() / rounded.sum())
        if abs(moment - wanted) < off:
            best, off = rounded, abs(moment - wanted)
    reach = int(np.flatnonzero(best)[-1]) - len(d) // 2
    return best[len(d) // 2 - reach : len(d) // 2 + reach + 1]


def _smoothed(numbers: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Sums of neighbours along an axis, each times its weight; there are fewer by those that have no neighbours."""
    size = numbers.shape[axis] - len(weights) + 1
    parts = [slice(None)] * numbers.ndim
    total: Any = 0
    for place, weight in enumerate(weights.tolist()):
        parts[axis] = slice(place, place + size)
        total = total + np.int32(weight) * numbers[tuple(parts)]
    return total


def _between(numbers: np.ndarray, axis: int, size: int) -> np.ndarray:
    """``size`` points along an axis, a quarter of a step to either side of its numbers but the first and the last."""
    near = np.arange(size) // 2 + 1
    far = near - 1 + np.arange(size) % 2 * 2
    return 3 * numbers.take(near, axis) + numbers.take(far, axis)
