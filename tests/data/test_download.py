"""The four-file collections: from a folder, from the cache, and over HTTP from mirrors good and bad."""

import gzip
import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpubp.data import load, mnist
from gpubp.data.idx import read_idx, write_idx
from gpubp.data.mnist import COLLECTIONS, Collection, Member, fetch, load_idx_collection
from gpubp.errors import DataError, UsageError
from tests.idx import idx

DEBIANS = Path("/usr/share/datasets/fashion-mnist")
NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = (6, 4, 3), (6,), (4, 4, 3), (4,)
    return [rng.integers(0, 256 if len(shape) > 1 else 3, shape, np.uint8) for shape in shapes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server:
    """Answers GET with `routes[mirror](handler, file name)`; counts what was asked for."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler, str], None]] = {}
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                _, mirror, name = handler.path.split("/")
                self.asked.append(f"{mirror}/{name}")
                self.routes[mirror](handler, name)

            def log_message(handler, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, mirror: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{mirror}/"


def answer(handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None, **headers: str) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for key, value in headers.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> SimpleNamespace:
    """Two small sets as distributed: one known by its content, one by its archives, as the real ones are."""
    sets = {}
    for seed, name in enumerate(("mnist", "fashion-mnist")):
        folder = tmp_path_factory.mktemp(name)
        for file, array in zip(NAMES, arrays(seed), strict=True):
            write_idx(folder / f"{file}.gz", array)
        sets[name.replace("-", "_")] = folder
    return SimpleNamespace(**sets)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch, published, server) -> Path:
    """An empty cache, the small sets in place of the real, and one mirror, "good", which has them."""

    def collection(folder: Path) -> Collection:
        def member(name: str) -> Member:
            path = folder / f"{name}.gz"
            return Member(name, read_idx(path).shape, sha256(gzip.decompress(path.read_bytes())))

        members = [member(name) for name in NAMES]
        return Collection((server.url("good"),), tuple(members), ("a", "b", "c"), "made up")

    monkeypatch.setitem(COLLECTIONS, "mnist", collection(published.mnist))
    fashion = replace(collection(published.fashion_mnist), mirrors=(server.url("fashion"),))
    monkeypatch.setitem(COLLECTIONS, "fashion-mnist", fashion)
    server.routes["good"] = lambda handler, name: serve(handler, published.mnist / name)
    server.routes["fashion"] = lambda handler, name: serve(handler, published.fashion_mnist / name)
    for variable in ("GPUBP_DATA_DIR", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def serve(handler: BaseHTTPRequestHandler, path: Path) -> None:
    body = path.read_bytes()
    answer(handler, body, len(body))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def use_mirrors(monkeypatch, *urls: str) -> None:
    monkeypatch.setitem(COLLECTIONS, "mnist", replace(COLLECTIONS["mnist"], mirrors=urls))


def assert_is(data, seed: int) -> None:
    parts = data.train.inputs, data.train.targets, data.test.inputs, data.test.targets
    for part, array in zip(parts, arrays(seed), strict=True):
        np.testing.assert_array_equal(part, array.reshape(part.shape))


def test_a_good_mirror_fills_the_cache_once(cache, server):
    data = load("mnist", quiet=True)
    assert_is(data, 0)
    assert (data.classes, data.image_shape, data.class_names) == (3, (4, 3), ("a", "b", "c"))
    assert files(cache) == sorted(f"mnist/{name}.gz" for name in NAMES)
    assert_is(load("mnist"), 0)
    assert len(server.asked) == 4


def test_fetch_returns_the_folder_and_other_sets_have_none(cache, server):
    assert fetch("fashion-mnist", quiet=True) == cache / "fashion-mnist"
    assert fetch("fashion-mnist") == cache / "fashion-mnist"
    assert len(server.asked) == 4
    with pytest.raises(UsageError, match="'iris' is not a set to download; those are mnist, fashion-mnist"):
        fetch("iris")


def wrong(*shape: int) -> bytes:
    return gzip.compress(idx(np.zeros(shape, np.uint8)))


BAD = {
    "404": (lambda h, body: h.send_error(404), "404 Client Error"),
    "500": (lambda h, body: h.send_error(500), "500 Server Error"),
    "closed": (lambda h, body: h.connection.close(), "Connection aborted"),
    "cut short": (lambda h, body: answer(h, body[: len(body) // 2], len(body)), "IncompleteRead"),
    "cut short, length untold": (lambda h, body: answer(h, body[: len(body) // 2]), "incomplete gzip"),
    "nothing": (lambda h, body: answer(h, b"", 0), "empty"),
    "a web page": (lambda h, body: answer(h, b"<html>Sign in</html>", 20), "not an IDX file"),
    "other numbers": (lambda h, body: answer(h, wrong(6, 4, 3)), "sha256 of the content is"),
    "other shape": (lambda h, body: answer(h, wrong(6, 4, 4)), r"expected uint8 \(6, 4, 3\)"),
    "nonsense length": (lambda h, body: answer(h, body, Content_Length="many"), "many"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_mirrors_leave_nothing_and_are_named_and_a_good_one_helps(
    cache, server, monkeypatch, published, bad
):
    behave, reason = BAD[bad]
    server.routes["bad"] = lambda handler, name: behave(handler, (published.mnist / name).read_bytes())
    closed = "http://127.0.0.1:1/"
    use_mirrors(monkeypatch, server.url("bad"), closed)
    with pytest.raises(DataError, match=reason) as caught:
        load("mnist")
    message, tried = str(caught.value), (server.url("bad") + NAMES[0], closed + NAMES[0])
    assert message.count("\n") == 3  # what failed, a line for each mirror, and the ways out
    for told in (*tried, "--data-dir", "$GPUBP_DATA_DIR", "gpubp fetch mnist"):
        assert told in message
    assert files(cache) == []
    use_mirrors(monkeypatch, server.url("bad"), server.url("good"))
    assert_is(load("mnist"), 0)
    assert files(cache) == sorted(f"mnist/{name}.gz" for name in NAMES)
    assert {f"bad/{NAMES[0]}.gz", f"good/{NAMES[0]}.gz"} <= set(server.asked)


def test_what_was_got_before_a_failure_is_kept(cache, server, published):
    def only_images(handler, name):
        if "images" in name:
            serve(handler, published.mnist / name)
        else:
            handler.send_error(503)

    server.routes["good"] = only_images
    with pytest.raises(DataError, match=NAMES[1]):
        fetch("mnist")
    assert files(cache) == [f"mnist/{NAMES[0]}.gz"]


def test_an_archive_labelled_as_an_encoding_is_stored_as_it_is(cache, server, published):
    def labelled(handler, name):
        body = (published.fashion_mnist / name).read_bytes()
        answer(handler, body, len(body), Content_Encoding="gzip")

    server.routes["fashion"] = labelled
    assert_is(load("fashion-mnist"), 1)
    assert (cache / "fashion-mnist" / f"{NAMES[0]}.gz").read_bytes().startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    "damage", [lambda raw: b"", lambda raw: raw[:-3], lambda raw: raw + b"x", lambda raw: b"?" * 99]
)
def test_a_damaged_file_in_the_cache_goes_and_is_replaced(cache, server, published, damage):
    path = fetch("mnist") / f"{NAMES[2]}.gz"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    good = server.routes["good"]
    server.routes["good"] = lambda handler, name: handler.send_error(404)
    with pytest.raises(DataError, match="404"):
        load("mnist")
    assert not path.exists()
    server.routes["good"] = good
    assert_is(load("mnist"), 0)
    assert path.read_bytes() == whole
    assert server.asked[4:] == [f"good/{path.name}"] * 2


def test_the_cache_may_be_where_nothing_can_be_written(cache):
    cache.write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"mnist is not available: cannot write .*train-images"):
        fetch("mnist")
    assert cache.read_text() == "a file, not a folder"


def test_several_at_once_do_not_disturb_each_other(cache):
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: load("mnist"), range(8)):
            assert_is(data, 0)
    assert files(cache) == sorted(f"mnist/{name}.gz" for name in NAMES)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_unless_quiet(cache, monkeypatch):
    for quiet in (True, False):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        fetch("mnist", quiet=quiet)
        assert (NAMES[3] in terminal.getvalue()) is not quiet
        for name in files(cache):
            (cache / name).unlink()
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    fetch("mnist")
    assert pipe.getvalue() == ""


@pytest.mark.parametrize("spelling", ["{}.gz", "{}", "dotted.gz", "dotted"])
@pytest.mark.parametrize("sub", ["", "mnist"])
def test_a_folder_of_the_users(cache, server, tmp_path, spelling, sub):
    folder = tmp_path / "own" / sub
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, arrays(0), strict=True):
        dotted = spelling.replace("dotted", name.replace("-idx", ".idx"))
        write_idx(folder / dotted.format(name), array)
    assert_is(load("mnist", data_dir=tmp_path / "own"), 0)
    assert server.asked == []
    assert not cache.exists()


def test_the_folder_may_be_named_by_the_environment(cache, server, published, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUBP_DATA_DIR", str(published.mnist))
    assert_is(load("mnist"), 0)
    assert server.asked == []
    # The files of the two sets have the same names: the folder of one does not hold the other.
    assert_is(load("fashion-mnist"), 1)
    assert len(server.asked) == 4
    monkeypatch.setenv("GPUBP_DATA_DIR", str(tmp_path))
    assert_is(load("mnist", data_dir=published.mnist), 0)
    assert len(server.asked) == 4
    assert_is(load("mnist"), 0)
    assert len(server.asked) == 8


def test_a_useless_folder_in_the_environment_is_told_of(cache, server, monkeypatch):
    monkeypatch.setenv("GPUBP_DATA_DIR", "/nowhere")
    server.routes["good"] = lambda handler, name: handler.send_error(404)
    with pytest.raises(DataError, match=r"404(?s:.*)GPUBP_DATA_DIR did not help: /nowhere"):
        load("mnist")


def test_missing_files_are_listed(cache, server, tmp_path):
    (tmp_path / "own").mkdir()
    write_idx(tmp_path / "own" / NAMES[0], arrays(0)[0])
    with pytest.raises(DataError, match="own lacks " + ", ".join(NAMES[1:])):
        load("mnist", data_dir=tmp_path / "own")
    with pytest.raises(DataError, match="absent: no such folder"):
        load("mnist", data_dir=tmp_path / "absent")
    assert server.asked == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("there", "other", "wanted"), [(0, "mnist", "fashion-mnist"), (1, "fashion-mnist", "mnist")]
)
def test_one_set_is_not_taken_for_the_other(cache, tmp_path, there, other, wanted, packed):
    for name, array in zip(NAMES, arrays(there), strict=True):
        write_idx(tmp_path / (f"{name}.gz" if packed else name), array)
    with pytest.raises(DataError, match=f"holds {other}"):
        load(wanted, data_dir=tmp_path)


@pytest.mark.parametrize("victim", NAMES)
@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_file_in_a_users_folder_is_named_and_left_alone(cache, server, tmp_path, victim, how):
    for name, array in zip(NAMES, arrays(0), strict=True):
        write_idx(tmp_path / f"{name}.gz", (2 - array) % 3 if name == victim and how == "altered" else array)
    path = tmp_path / f"{victim}.gz"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    with pytest.raises(DataError, match=str(path)):
        load("mnist", data_dir=tmp_path)
    assert path.read_bytes() == before
    assert server.asked == []


def test_decompressed_files_are_held_to_structure_labels_and_sum(cache, tmp_path):
    for name, array in zip(NAMES, arrays(1), strict=True):
        write_idx(tmp_path / name, array)
    assert_is(load("fashion-mnist", data_dir=tmp_path), 1)
    others = (arrays(1)[3] + 1) % 3
    write_idx(tmp_path / NAMES[3], others)
    with pytest.raises(DataError, match=f"{NAMES[3]}: the sha256 of the content"):
        load("fashion-mnist", data_dir=tmp_path)
    write_idx(tmp_path / NAMES[3], np.array([0, 1, 3, 0], np.uint8))
    with pytest.raises(DataError, match=f"{NAMES[3]}: the label at index 2 is 3, expected 0 to 2"):
        load("fashion-mnist", data_dir=tmp_path)
    write_idx(tmp_path / NAMES[3], np.zeros(5, np.uint8))
    with pytest.raises(DataError, match=f"{NAMES[3]}: .*expected uint8"):
        load("fashion-mnist", data_dir=tmp_path)


def test_the_tables_are_complete():
    for collection in mnist.COLLECTIONS.values():
        assert [member.name for member in collection.members] == NAMES
        assert [len(member.sha256) for member in collection.members] == [64] * 4
        assert len(collection.class_names) == 10
        assert all(url.endswith("/") for url in collection.mirrors)


@pytest.mark.skipif(not os.environ.get("GPUBP_DATA_DIR"), reason="$GPUBP_DATA_DIR names no folder with MNIST")
def test_the_real_mnist():
    data = load_idx_collection("mnist", os.environ["GPUBP_DATA_DIR"])
    assert data.train.inputs.shape == (60000, 784)
    assert data.test.inputs.shape == (10000, 784)
    assert np.bincount(data.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.skipif(not DEBIANS.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_fashion_mnist_of_debian():
    data = load_idx_collection("fashion-mnist", DEBIANS)
    assert data.train.inputs.shape == (60000, 784)
    assert np.bincount(data.test.targets).tolist() == [1000] * 10
