"""The data sets: the register of sources, and every way in which fetching a file can go wrong."""

import errno
import hashlib
import http.server
import importlib
import os
import re
import shutil
import threading
import warnings
from pathlib import Path

import pytest

import lib.data
from lib import catalogue
from lib.data import DamagedFile, DataUnavailable, _download, sets

CONTENT = bytes(range(256)) * 4096  # 1 MiB: four chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /good/x.bin; /plain/ does not know ranges; /bad/ has other bytes; /flaky/ hangs up each time.

    Attributes:
        asked: (folder, Range header) of each request.
        drop: bytes after which /flaky/ ends the connection.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.drop = [], 300_000
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Clients that hang up, as those without space do, are no error."""

    def url(self, folder):
        return f"http://127.0.0.1:{self.server_port}/{folder}/x.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        folder = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.asked.append((folder, wanted))
        if folder == "gone":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and folder != "plain" else 0
        body = (CONTENT if folder != "bad" else CONTENT[::-1])[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if folder == "flaky":
            body = body[: self.server.drop]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def _server():
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def server(_server):
    _server.asked.clear()
    _server.drop = 300_000
    return _server


@pytest.fixture
def file(monkeypatch, tmp_path, server):
    """A file of a set that /good/ serves, with an empty mirror and an empty cache."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))

    def make(*folders, **changes):
        fields = {"hashes": {"sha256": SHA256}, "bytes": len(CONTENT), "urls": tuple(map(server.url, folders))}
        return sets.DataFile("x.bin", "toy/raw", **{**fields, **changes})

    return make


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def left(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def test_fetched_once_then_found(file, server, tmp_path):
    path = file("good").get()
    assert path == tmp_path / "cache/toy/raw/x.bin"
    assert path.read_bytes() == CONTENT
    assert file("good").get() == path
    assert len(server.asked) == 1
    assert left(tmp_path) == ["x.bin"]


def test_size_and_sha256_unknown(file):
    other = file("good", bytes=None, hashes={"md5": hashlib.md5(CONTENT).hexdigest()})
    assert other.get().read_bytes() == CONTENT


def test_mirror_comes_first(file, server, tmp_path):
    place = put(tmp_path / "mirror/toy/raw/x.bin", CONTENT)
    assert file("good").get() == place
    assert not server.asked


def test_damaged_file_in_the_mirror_is_named_and_passed_over(file, tmp_path):
    place = put(tmp_path / "mirror/toy/raw/x.bin", CONTENT[:-1])
    with pytest.warns(UserWarning, match=r"mirror/toy/raw/x\.bin is damaged: sha256 .* of 1,048,575 bytes.*not used"):
        path = file("good").get()
    assert path == tmp_path / "cache/toy/raw/x.bin"
    assert path.read_bytes() == CONTENT
    assert place.read_bytes() == CONTENT[:-1]
    with pytest.warns(UserWarning, match="not used"):  # the next time: from the cache
        assert file().get() == path


def test_unreadable_file_in_the_mirror_is_passed_over(file, tmp_path):
    (tmp_path / "mirror/toy/raw/x.bin").mkdir(parents=True)  # reading a folder fails for root too
    with pytest.warns(UserWarning, match="cannot be read"):
        assert file("good").get().read_bytes() == CONTENT


def test_damaged_file_in_the_cache_is_replaced(file, tmp_path):
    put(tmp_path / "cache/toy/raw/x.bin", b"half")
    with pytest.warns(UserWarning, match="is damaged"):
        assert file("good").get().read_bytes() == CONTENT


def test_no_network(file, tmp_path):
    nobody = file(urls=("http://127.0.0.1:9/x.bin",))
    with pytest.raises(
        DataUnavailable, match=r"refused.*Without a network, put x\.bin into .*cache/toy/raw.*COMP"
    ) as caught:
        nobody.get()
    assert not isinstance(caught.value, _download.NoRoom)
    assert not left(tmp_path)


def test_no_address(file):
    with pytest.raises(DataUnavailable, match=r"x\.bin has no address .*COMPANION_DATA.*toy/raw/"):
        file(urls=()).get()


def test_next_address_is_tried(file, server):
    assert file("gone", "good").get().read_bytes() == CONTENT
    assert [folder for folder, _ in server.asked] == ["gone", "good"]


def test_not_at_the_address(file):
    with pytest.raises(DataUnavailable, match="404"):
        file("gone").get()


def test_broken_connection_goes_on_by_itself_while_something_arrives(file, server):
    server.drop = 400_000
    assert file("flaky").get().read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=400000-", "bytes=800000-"]


@pytest.mark.parametrize(("then", "ranges"), [("good", "bytes=900000-"), ("plain", "bytes=900000-")])
def test_half_a_download_is_resumed_by_the_next_call(file, server, tmp_path, then, ranges):
    """From where it stopped; from the start where the server knows no ranges."""
    with pytest.raises(DataUnavailable, match=r"ended after 900,000 of 1,048,576 bytes; 900,000 bytes are kept, call"):
        file("flaky").get()
    assert left(tmp_path) == ["x.bin.part"]
    server.asked.clear()
    assert file(then).get().read_bytes() == CONTENT
    assert server.asked == [(then, ranges)]
    assert left(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("size", [7, len(CONTENT), len(CONTENT) + 5])
def test_half_a_download_of_something_else_is_started_again(file, tmp_path, size):
    put(tmp_path / "cache/toy/raw/x.bin.part", (b"other" * len(CONTENT))[:size])
    assert file("good").get().read_bytes() == CONTENT


def test_wrong_hash(file, server, tmp_path):
    with pytest.raises(DamagedFile, match=r"/bad/x\.bin: the file there is damaged: sha256 .* expected .*not kept"):
        file("bad").get()
    assert not left(tmp_path)
    assert file("bad", "good").get().read_bytes() == CONTENT


def test_no_space_known_beforehand(file, server, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
    with pytest.raises(
        _download.NoRoom, match=r"no space left in .*1,048,576 bytes needed, 10,000 free.*COMPANION_CACHE"
    ):
        file("good").get()
    assert not left(tmp_path)


class Full:
    """A file whose device is full after some bytes."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.stream.write(data)


def test_no_space_on_the_way(file, server, monkeypatch, tmp_path):
    append = _download._append
    monkeypatch.setattr(_download, "_append", lambda url, stream, *rest: append(url, Full(stream, 600_000), *rest))
    with pytest.raises(_download.NoRoom, match=r"no space left .*No space left on device.*free some.*COMPANION_CACHE"):
        file("good").get()
    assert left(tmp_path) == ["x.bin.part"]
    monkeypatch.undo()
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    assert file("good").get().read_bytes() == CONTENT
    assert server.asked[-1] == ("good", "bytes=524288-")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_no_permission(file, server, monkeypatch, tmp_path, call, number):
    def refuse(self, *arguments, **options):
        if "cache" in self.parts:
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *arguments, **options)

    original = getattr(Path, call)
    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(_download.NoRoom, match=r"no permission to write in .*cache/toy/raw.*COMPANION_CACHE"):
        file("good").get()
    assert not server.asked
    assert not left(tmp_path)


def test_the_folder_is_a_file(file, tmp_path):
    put(tmp_path / "cache/toy", b"")
    with pytest.raises(_download.NoRoom, match="cannot write in"):
        file("good").get()


def test_two_at_once_fetch_once(file, server, tmp_path):
    paths = []
    workers = [threading.Thread(target=lambda: paths.append(file("good").get())) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert left(tmp_path) == ["x.bin"]


# --- the register -----------------------------------------------------------------------------------------------

ROW = f"""\
toy:
  title: A toy
  about: Nothing much.
  citation: nobody
  licence: MIT
  source: https://example.org/
  folder: toy/raw
  urls: [https://example.org/files/]
  loaders: [toy]
  files:
    x.bin:
      bytes: 3
      sha256: {SHA256}
    y.bin:
      bytes: 9
      sha256: {SHA256}
      same_as: x.bin
"""


def register(tmp_path, text):
    path = tmp_path / "sources.yaml"
    path.write_text(text)
    sets._read.cache_clear()
    return sets._read(path)


def test_register(tmp_path):
    toy = register(tmp_path, ROW)["toy"]
    assert toy.bytes == 9
    assert [[file.name for file in group] for group in toy.needed()] == [["x.bin", "y.bin"]]
    assert toy.files["x.bin"].urls == ("https://example.org/files/x.bin",)
    assert toy.files["y.bin"].urls == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  licence: MIT\n", "", r"1: field toy: 'licence' is a required property"),
        ("  licence: MIT", "  license: MIT", r"5: field toy\.license: Additional"),
        (
            f"sha256: {SHA256}\n    y",
            "sha256: abc\n    y",
            r"13: field toy\.files\.x\.bin\.sha256: 'abc' does",
        ),
        ("bytes: 3", "bytes: 0", r"12: field toy\.files\.x\.bin\.bytes: 0 is less"),
        ("bytes: 3\n      ", "", r"11: field toy\.files\.x\.bin: either `sha256` and `bytes`, or `md5`"),
        ("  folder: toy/raw\n", "", r"1: field toy: either `bundled` alone"),
        ("  title: A toy", "  title: A toy\n  bundled: numpy", r"1: field toy: either `bundled` alone"),
        ("toy/raw", "../raw", r"7: field toy\.folder: "),
        ("files/]", "files]", r"8: field toy\.urls\.0: "),
        ("same_as: x.bin", "same_as: z.bin", r"17: field toy\.files\.y\.bin\.same_as: 'z.bin' is no file of its own"),
        ("title: A toy", "title: [A", r"\d+: not valid YAML"),
    ],
)
def test_faults_of_the_register_have_file_line_and_field(tmp_path, old, new, message):
    assert old in ROW
    with pytest.raises(sets.SourcesError, match=r"sources\.yaml:" + message):
        register(tmp_path, ROW.replace(old, new, 1))


def test_stand_in_is_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    toy = register(tmp_path, ROW)["toy"]
    put(tmp_path / "toy/raw/y.bin", CONTENT)
    assert toy.get() == [tmp_path / "toy/raw/y.bin"]


def test_unknown_names():
    with pytest.raises(sets.SourcesError, match=r"no data set 'imagenet': digits, "):
        sets.find_set("imagenet")
    with pytest.raises(sets.SourcesError, match=r"mnist has no file 'x': train-images"):
        sets.find_file("mnist", "x")


def test_find_file_without_downloading(monkeypatch, tmp_path):
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"mnist: t10k-labels.* is in none of .*MNIST/raw"):
        sets.find_file("mnist", "t10k-labels-idx1-ubyte.gz", download=False)


def test_every_loader_exists():
    for entry in sets.data_sets().values():
        for loader in entry.loaders:
            try:
                origin = importlib.import_module(f"lib.data.{loader}")  # a name that is a module's too
            except ModuleNotFoundError:
                origin = lib.data
            assert callable(getattr(origin, loader)), f"{entry.name}: {loader}"


def test_every_file_that_a_loader_asks_for_is_registered():
    asked = []
    for path in (catalogue.root() / "lib" / "data").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        asked += re.findall(r'find_file\("([^"]+)", "([^"]+)"', text)
        if path.stem != "sets":
            assert "COMPANION_DATA" not in text, f"{path.name} looks for files by itself"
    assert {"ag-news", "blood-cells", "membranes"} <= {name for name, _ in asked}
    for name, file in asked:
        assert file in sets.find_set(name).files


def test_no_loader_unpickles():
    for path in (catalogue.root() / "lib" / "data").glob("*.py"):
        assert not re.search(
            r"allow_pickle=True|import pickle|torch\.load\(|joblib", path.read_text(encoding="utf-8")
        ), path


@pytest.mark.data
@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="COMPANION_DATA is not set")
@pytest.mark.parametrize("name", [name for name, entry in sets.data_sets().items() if entry.files])
def test_files_of_the_mirror_are_the_registered_ones(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged file warns
        for file in sets.find_set(name).files.values():
            path = file.find()
            if path is not None and file.bytes is not None:
                assert path.stat().st_size == file.bytes
