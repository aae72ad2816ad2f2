"""Data files: checksums, and downloads from a real HTTP server on 127.0.0.1; the data set is a small Fashion-MNIST."""

import gzip
import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from iwae.data import cache, datasets, downloads, formats
from iwae.data.datasets import DataError
from iwae.data.downloads import DataFile
from iwae.data.sources import SOURCES


def idx_bytes(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


@pytest.fixture
def server():
    """Serves `site`: path → bytes, or a function of the handler. A real HTTP server on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = self.server.site.get(self.path)
            if callable(answer):
                answer(self)
            elif answer is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(downloads, "TIMEOUT", (2.0, 0.5))
        http.site = {}
        http.released = threading.Event()
        http.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield http
        http.released.set()
        http.shutdown()


def dropped(handler: BaseHTTPRequestHandler) -> None:
    """Promises 1,000 bytes and hangs up after 10."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"0123456789")


def cut(content: bytes):
    """Half of the content, of unannounced length, so that only the checksum can tell."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Sends on and on, until the other side hangs up."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(2**16))
    except OSError:
        pass


def circling(handler: BaseHTTPRequestHandler) -> None:
    """Sends on to itself."""
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Never answers."""
    handler.server.released.wait(10)


@pytest.fixture
def fashion(monkeypatch, server):
    """The four gzip files of a small Fashion-MNIST (40 / 10 / 20) with their MD5; mirrors `/a/` and `/b/`."""
    random = np.random.default_rng(7)
    arrays = [random.integers(0, 256, (50, 28, 28)), random.integers(0, 10, 50)]
    arrays += [random.integers(0, 256, (20, 28, 28)), random.integers(0, 10, 20)]
    arrays = [array.astype(np.uint8) for array in arrays]
    source, files, contents = SOURCES["fashion-mnist"], [], {}
    for file, array in zip(source.files, arrays, strict=True):
        content = contents[file.path] = gzip.compress(idx_bytes(array), mtime=0)
        mirrors = tuple(f"{server.url}/{mirror}/{Path(file.path).name}" for mirror in "ab")
        md5 = hashlib.md5(content).hexdigest()
        files.append(replace(file, mirrors=mirrors, md5=md5, limit=50_000))
        for mirror in "ab":
            server.site[f"/{mirror}/{Path(file.path).name}"] = content
    monkeypatch.setitem(SOURCES, "fashion-mnist", replace(source, files=tuple(files), sizes=(40, 10, 20)))
    return arrays, contents


FIRST = "train-images-idx3-ubyte.gz"


def contents_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_load_downloads_what_is_missing(fashion, tmp_path, capsys):
    arrays, contents = fashion
    assert not datasets.available("fashion-mnist", directory=tmp_path)
    dataset = datasets.load("fashion-mnist", directory=tmp_path)
    assert contents_below(tmp_path) == contents
    assert FIRST in capsys.readouterr().err  # a bar for every file
    assert np.array_equal(torch.cat([dataset.train.images, dataset.valid.images]), arrays[0].reshape(50, 784))
    assert np.array_equal(dataset.train.labels, arrays[1][:40]) and np.array_equal(dataset.test.labels, arrays[3])
    assert dataset.label_names[9] == "Ankle boot" and dataset.stochastic
    assert datasets.available("fashion-mnist", directory=tmp_path)


def test_files_that_are_there_are_used(fashion, tmp_path, server):
    _, contents = fashion
    server.site.clear()
    (tmp_path / "fashion-mnist").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert len(datasets.load("fashion-mnist", directory=tmp_path).test) == 20


def test_progress_is_told_to_a_function(fashion, tmp_path, capsys):
    _, contents = fashion
    told = {}
    datasets.load(
        "fashion-mnist", directory=tmp_path, progress=lambda name, done, total: told.update({name: (done, total)})
    )
    assert told == {name: (len(content), len(content)) for name, content in contents.items()}
    datasets.load("fashion-mnist", directory=tmp_path / "silent", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, "the server answered with status 404;"),
        (b"<html>Sign in to this network</html>", "MD5 of the file is not"),
        (dropped, "IncompleteRead|Connection broken|the server was not reached"),
        (cut, "MD5 of the file is not|ended before"),
        (endless, "larger than the 50,000 bytes"),
        (circling, "redirects"),
        (silent, "the server did not answer in time"),
    ],
    ids=["not found", "wrong bytes", "dropped", "cut", "endless", "circling", "silent"],
)
def test_a_faulty_mirror_is_passed_over_and_leaves_nothing(fashion, tmp_path, server, fault, reason):
    _, contents = fashion
    content = contents[f"fashion-mnist/{FIRST}"]
    server.site[f"/a/{FIRST}"] = cut(content) if fault is cut else fault
    status = datasets.download("fashion-mnist", directory=tmp_path, progress=False)
    assert contents_below(tmp_path) == contents and status.available
    assert {file.state for file in status.files} == {"good"}

    other = tmp_path / "other"
    server.site[f"/b/{FIRST}"] = None
    with pytest.raises(DataError) as error:
        datasets.load("fashion-mnist", directory=other, progress=False)
    assert contents_below(other) == {}
    message = str(error.value)
    assert len(message.splitlines()) == 1 and f"{server.url}/a/{FIRST}: " in message and f"{server.url}/b/" in message
    assert any(part in message for part in reason.split("|"))
    assert str(other / "fashion-mnist" / FIRST) in message and "python -m iwae data download fashion-mnist" in message


def test_a_mirror_may_send_on_to_the_right_file_and_what_comes_is_proved(fashion, tmp_path, server):
    _, contents = fashion

    def moved(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(301)
        handler.send_header("Location", f"/b/{FIRST}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.site[f"/a/{FIRST}"] = moved
    assert datasets.download("fashion-mnist", directory=tmp_path / "right", progress=False).available
    assert contents_below(tmp_path / "right") == contents
    server.site[f"/b/{FIRST}"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="MD5 of the file is not"):
        datasets.download("fashion-mnist", directory=tmp_path / "wrong", progress=False)
    assert contents_below(tmp_path / "wrong") == {}


def test_an_interrupted_download_leaves_nothing(fashion, tmp_path):
    def interrupt(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.download("fashion-mnist", directory=tmp_path, progress=interrupt)
    assert contents_below(tmp_path) == {} and not datasets.available("fashion-mnist", directory=tmp_path)


def test_damaged_files_are_named_and_fetched_anew_on_demand(fashion, tmp_path):
    _, contents = fashion
    datasets.download("fashion-mnist", directory=tmp_path, progress=False)
    labels = tmp_path / "fashion-mnist/t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(b"\0" + labels.read_bytes())
    with pytest.raises(DataError, match=f"{labels} is not the published .*data download fashion-mnist"):
        datasets.load("fashion-mnist", directory=tmp_path)
    checked = datasets.verify("fashion-mnist", directory=tmp_path)
    assert [file.state for file in checked.files] == ["good"] * 3 + ["damaged"] and not checked.available
    assert str(labels) in checked.files[3].problem
    assert datasets.download("fashion-mnist", directory=tmp_path, progress=False).available
    assert contents_below(tmp_path) == contents


def test_without_download_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    embedded = ("mnist-5k", "digits")
    for name in [name for name in SOURCES if name not in embedded]:
        with pytest.raises(
            DataError, match=f"is missing from {tmp_path}; put .* `python -m iwae data download {name}`"
        ):
            datasets.load(name, download=False)
    states = {status.name: {file.state for file in status.files} for status in datasets.status()}
    assert states == {"mnist-5k": {"present"}, "digits": set()} | {
        name: {"missing"} for name in SOURCES if name not in embedded
    }


def test_a_folder_that_cannot_be_written_is_named(fashion, tmp_path):
    (tmp_path / "fashion-mnist").touch()  # a file where the folder should be
    with pytest.raises(DataError, match=f"{tmp_path}/fashion-mnist/{FIRST} cannot be written"):
        datasets.load("fashion-mnist", directory=tmp_path)


def test_contents_count_whatever_the_compression(tmp_path):
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))
    file = DataFile("values.gz", (), 1_000, formats.idx, sha256=hashlib.sha256(content).hexdigest())
    for name, wrapped in (("values", content), ("values.gz", gzip.compress(content, 1)), ("values.gz", content)):
        (tmp_path / name).write_bytes(wrapped)
        assert file.read(tmp_path).tolist() == [[0, 1, 2], [3, 4, 5]]
        (tmp_path / name).unlink()
    for wrong in (gzip.compress(content)[:-9], gzip.compress(content + bytes(10**6)), content[:-1], b""):
        (tmp_path / "values.gz").write_bytes(wrong)
        with pytest.raises(DataError, match=r"not the published values\.gz"):
            file.read(tmp_path)


def test_data_dir_is_the_environments_or_the_users_cache(monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", "~/pictures")
    assert datasets.data_dir() == Path.home() / "pictures"
    monkeypatch.delenv("IWAE_DATA_DIR")
    assert datasets.data_dir() == cache.cache_folder().parent


def test_git_blob_id(tmp_path):
    """The id that `git hash-object` prints for a file that says hello."""
    (tmp_path / "hello").write_bytes(b"hello\n")
    file = DataFile("hello", (), 100, bytes, git_blob="ce013625030ba8dba906f756967f9e9ca394464a")
    assert file.read(tmp_path) == b"hello\n"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("MNIST/raw", "{part}-{kind}"),  # torchvision
        ("MNIST", "{part}-{kind}"),
        ("", "{part}.{kind}"),  # Kaggle, unpacked into the data folder
        ("mnist", "{part}.{kind}"),
        ("", "{part}-{kind}/{part}-{kind}"),  # Kaggle, as in its archive
        ("", "{part}-{kind}"),  # IWAE_DATA_DIR is the folder of the files
        ("raw", "{part}-{kind}"),  # IWAE_DATA_DIR is torchvision's own folder
    ],
)
@pytest.mark.parametrize("gzipped", [True, False])
def test_mnist_is_found_where_other_programs_put_it(folder, name, gzipped, data_dir, tmp_path):
    for part in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        kind = "idx3-ubyte" if part.endswith("images") else "idx1-ubyte"
        path = tmp_path / folder / (name.format(part=part, kind=kind) + ".gz" * gzipped)
        path.parent.mkdir(parents=True, exist_ok=True)
        published = data_dir / "mnist" / f"{part}-{kind}.gz"
        if gzipped:
            path.symlink_to(published)
        elif part.startswith("t10k") or folder in ("", "raw"):  # these are proved by what is inside
            path.write_bytes(gzip.decompress(published.read_bytes()))
        else:
            path.write_bytes(b"")
    assert datasets.available("mnist", directory=tmp_path)
    assert not datasets.available("fashion-mnist", directory=tmp_path)
    found = datasets.load("mnist", directory=tmp_path, download=False, only_test=True)
    assert len(found.test) == 10_000 and found.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_flat_file_belongs_to_the_data_set_that_its_checksum_says(fashion, tmp_path):
    _, contents = fashion
    for name, content in contents.items():
        (tmp_path / Path(name).name).write_bytes(content)
    assert datasets.available("fashion-mnist", directory=tmp_path)
    assert not datasets.available("mnist", directory=tmp_path)
    (tmp_path / FIRST).write_bytes(b"something else")
    assert not datasets.available("fashion-mnist", directory=tmp_path)
