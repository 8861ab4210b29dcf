"""MNIST and Fashion-MNIST: found in a folder of the user's, or else downloaded once into the user's cache.

MNIST: Yann LeCun and Corinna Cortes, CC BY-SA 3.0. Fashion-MNIST: Han Xiao, Kashif Rasul and Roland
Vollgraf, Zalando Research, MIT licence, arXiv:1708.07747.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpubp.data.dataset import Dataset, check_split
from gpubp.data.download import download
from gpubp.data.idx import file_bytes, one_of, parse_idx, unpack
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.support.files import user_cache, user_path


@dataclass(frozen=True)
class Member:
    """One published file: its name less .gz, the array's shape, and the sha256 of its content, however packed."""

    name: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Collection:
    """Four files that make a data set, and the URLs they can be fetched under, best first.

    members: images and labels to train on, then images and labels to test on.
    """

    mirrors: tuple[str, ...]
    members: tuple[Member, ...]
    class_names: tuple[str, ...]
    source: str


_CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}


def _members(*sums: str) -> tuple[Member, ...]:
    return tuple(Member(*file, known) for file, known in zip(_FILES.items(), sums, strict=True))


COLLECTIONS = {
    "mnist": Collection(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        members=_members(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        class_names=tuple("0123456789"),
        source="MNIST, Yann LeCun and Corinna Cortes, CC BY-SA 3.0",
    ),
    "fashion-mnist": Collection(
        # Plain http, as this host serves nothing else; the checksums vouch for the files.
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        # Published are the sums of the .gz files. These are of what Debian's dataset-fashion-mnist holds, whose files
        # have the published sums once packed with their names and times in gzip's header.
        members=_members(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        class_names=_CLOTHES,
        source="Fashion-MNIST, Han Xiao, Kashif Rasul and Roland Vollgraf (Zalando Research), MIT licence",
    ),
}


def load_idx_collection(
    name: str, data_dir: str | os.PathLike[str] | None = None, quiet: bool = False
) -> Dataset:
    """MNIST or Fashion-MNIST: 60,000 training and 10,000 test images, uint8 (N, 784), labels 0 to 9.

    Looked for in `data_dir`, else in $GPUBP_DATA_DIR, else in the user's cache ($GPUBP_CACHE_DIR or the
    platform's own), where it is downloaded to when absent. A folder may hold the four files itself or in a
    sub-folder named after the set, gzipped or plain, as train-images-idx3-ubyte or train-images.idx3-ubyte.

    Every file is checked on every load: format, size, label range, and the sha256 of its content.

    quiet: no progress bar (there is none either when stderr is not a terminal).
    Raises UsageError for another name; DataError when `data_dir` lacks a file, when a file in a user's folder
    is wrong (it is left alone), and when nothing can be downloaded.
    """
    collection, lacking, paths = _collection(name), "", None
    if data_dir is not None:
        paths = _locate(user_path(data_dir), name)
    elif named := os.environ.get("GPUBP_DATA_DIR"):
        try:
            paths = _locate(user_path(named), name)
        except DataError as error:
            lacking = f"\n$GPUBP_DATA_DIR did not help: {error}"
    if paths is not None:
        classes = len(collection.class_names)
        with ThreadPoolExecutor() as pool:  # what unpacks and hashes gives the interpreter's lock free
            arrays = list(
                pool.map(lambda at, of: _verified(file_bytes(at), at, of, classes), paths, collection.members)
            )
        return _dataset(name, collection, arrays)
    try:
        return _dataset(name, collection, _cached(name, quiet))
    except DataError as error:
        raise DataError(f"{error}{lacking}") from error


def fetch(name: str, *, quiet: bool = False) -> Path:
    """Download a collection into the user's cache, unless it is there and sound; the folder it is in.

    Raises UsageError for a set that is not downloaded, DataError as `load_idx_collection`.
    """
    _cached(name, quiet)
    return _cache(name)


def _collection(name: str) -> Collection:
    if name not in COLLECTIONS:
        raise UsageError(f"{name!r} is not a set to download; those are {', '.join(COLLECTIONS)}")
    return COLLECTIONS[name]


def _dataset(name: str, collection: Collection, arrays: list[np.ndarray]) -> Dataset:
    classes = len(collection.class_names)
    height, width = collection.members[0].shape[1:]
    train = check_split(*arrays[:2], classes=classes, name=f"{name}, training part")
    test = check_split(*arrays[2:], classes=classes, name=f"{name}, test part")
    return Dataset(name, train, test, classes, (height, width), collection.class_names, collection.source)


def _verified(raw: bytes, where: object, member: Member, classes: int) -> np.ndarray:
    """The array in a member's bytes once all that is known of it holds; structure first, it explains more."""
    content = unpack(raw, where)
    array = parse_idx(content, where)
    if array.dtype != np.uint8 or array.shape != member.shape:
        raise DataError(f"{where}: {array.dtype} {array.shape}, expected uint8 {member.shape}")
    if array.ndim == 1 and array.max() >= classes:
        at = int((array >= classes).argmax())
        raise DataError(f"{where}: the label at index {at} is {array[at]}, expected 0 to {classes - 1}")
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise DataError(
            f"{where}: the sha256 of the content is {found}, expected {member.sha256}; not the original"
        )
    return array


def _locate(root: Path, name: str) -> list[Path]:
    """The four files in a user's folder, or a DataError that tells what was missing where."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder to look for {name} in")
    complaints = []
    for folder in filter(Path.is_dir, (root / name, root)):
        found = {member.name: _spelt(folder, member.name) for member in _collection(name).members}
        paths = [path for path in found.values() if path is not None]
        if len(paths) < len(found):
            lacks = ", ".join(member for member, path in found.items() if path is None)
            complaints.append(f"{folder} lacks {lacks}")
        elif (other := _owner(paths[-1], name)) is not None:
            complaints.append(f"{folder} holds {other}")
        else:
            return paths
    raise DataError(f"{name} is neither in {root} nor in a sub-folder {name}: {'; '.join(complaints)}")


def _spelt(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    tries = (folder / spelling for spelling in (f"{name}.gz", name, f"{dotted}.gz", dotted))
    found = [path for path in tries if path.is_file()]
    return one_of(found) if found else None


def _owner(path: Path, name: str) -> str | None:
    """The other collection that a file is from: they all use the same file names."""
    with suppress(DataError):  # damage is for _verified to explain
        found = hashlib.sha256(unpack(file_bytes(path), path)).hexdigest()
        for other, collection in COLLECTIONS.items():
            if other != name and any(member.sha256 == found for member in collection.members):
                return other
    return None


def _cache(name: str) -> Path:
    return user_cache() / name


def _cached(name: str, quiet: bool) -> list[np.ndarray]:
    collection, folder = _collection(name), _cache(name)
    try:
        return [_cached_member(collection, member, folder, quiet) for member in collection.members]
    except GpubpError as error:
        raise DataError(
            f"{name} is not available: {error}\n"
            f"If you have its four files, name their folder with --data-dir or $GPUBP_DATA_DIR; "
            f"if online, run: gpubp fetch {name}"
        ) from error


def _cached_member(collection: Collection, member: Member, folder: Path, quiet: bool) -> np.ndarray:
    def check(raw: bytes, where: object) -> np.ndarray:
        return _verified(raw, where, member, len(collection.class_names))

    path = folder / f"{member.name}.gz"
    if path.is_file():
        with suppress(DataError):
            return check(file_bytes(path), path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path}: damaged, and cannot be deleted: {error.strerror}") from error
    return download([f"{mirror}{path.name}" for mirror in collection.mirrors], path, check, quiet=quiet)
