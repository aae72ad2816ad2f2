"""Images that are uploaded as a data set: the same as from a folder, read in a limited process, refused by name."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from iwae.data import datasets, upload
from iwae.data.arrays import ArrayError, Options, parse_size
from iwae.data.datasets import Dataset
from iwae.images import decoding
from tests.pictures import save_shapes, zipped
from tests.test_own_data import bomb, pickled, picture_bomb


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(width: int, height: int, mode: str = "L") -> bytes:
    random = np.random.default_rng(width)
    values = random.integers(0, 256, (height, width, len(mode)), dtype=np.uint8).squeeze()
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def parquet(content: list[bytes]) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [{"bytes": each, "path": None} for each in content]}), file, compression="zstd")
    return file.getvalue()


@pytest.mark.parametrize("options", [Options((16, 16)), Options((9, 12), 0.4, True, 3)])
def test_a_zip_is_the_same_data_set_as_its_folder(tmp_path, options):
    save_shapes(tmp_path / "shapes", each=20)
    (tmp_path / "shapes" / "squares" / "photo.jpg").write_bytes(photo())  # which is reduced before it is fitted
    made = upload.read([("shapes.zip", zipped(tmp_path / "shapes"))], options)
    name = datasets.add_path(tmp_path / "shapes", options)
    assert made.label_names == ("discs", "squares") and made.sizes == (33, 4, 4)
    assert Dataset.from_splits(made, options, "shapes").name == name


def photo() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 2100, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def test_several_pictures_are_the_same_data_set_as_a_flat_folder(tmp_path):
    pictures = {f"{number}.png": png(10, 7, "RGBA" if number % 2 else "L") for number in range(12)}
    (tmp_path / "flat").mkdir()
    for name, content in pictures.items():
        (tmp_path / "flat" / name).write_bytes(content)
    made = upload.read(list(reversed(pictures.items())), Options())
    assert made.labels is None and made.shape == (7, 10)
    assert Dataset.from_splits(made, Options(), "flat").name == datasets.add_path(tmp_path / "flat")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.png", b"no picture")], r"a\.png is not a picture, or its beginning is damaged: PNG, JPEG"),
        ([("a.png", png(20, 20)), ("notes.txt", b"")], r"notes\.txt: pictures \(\.png, .* come together, \.npy"),
        ([("a.png", png(20, 20)), ("b.zip", b"")], r"b\.zip: pictures"),
        ([("a.png", png(20, 20))] * 2, "two of the pictures have the same name"),
        ([("a.png", png(20, 20)), ("b.png", png(30, 20))], r"different sizes \(20×20, 20×30\): give a size"),
        ([("notes.txt", b"hello")], r"notes\.txt: a folder of pictures, or \.npy"),
        ([("a.npy", pickled())], "Python objects, which are never read"),
        ([("a.parquet", b"PAR1")], r"a\.parquet is damaged, or not what its name says"),
        ([("a.zip", zipped({"a.png": png(20, 20), "b.png": b"x"}))], r"a\.zip: b\.png is not a picture"),
        ([("big.npy", bytes(upload.MAX_BYTES + 1))], r"big\.npy: 50\.0 MB; at most 50 MB are read at once"),
        ([("a.parquet", parquet([bytes(10**6)] * 2000))], r"a\.parquet needs more memory"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(files, message):
    with pytest.raises(ArrayError, match=message) as error:
        upload.read(files, Options())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.npz", bomb())], "an array of 1,000,000,000 bytes; at most 1,000,000 are read"),
        ([("a.zip", picture_bomb())], "its pictures have 10,000,000 bytes; at most 1,000,000 are read"),
        ([("a.zip", zipped({f"{i}.png": b"" for i in range(11)}))], "11 pictures; at most 10 are read"),
        ([(f"{i}.png", b"") for i in range(11)], "11 pictures; at most 10 are read"),
        ([("a.csv", b"0,1,1,0\n" * 11)], r"a\.csv: 11 images; at most 10 are read"),
    ],
)
def test_bounds_on_bytes_and_images(files, message):
    with pytest.raises(ArrayError, match=message):
        upload.found_in(files, Options(), limit=10**6, most=10)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "x.npy cannot be read within 60 s of a processor and 900 MB of memory"),
        ('print(\'{"shape": [8, 8], "sizes": [1, 1, 1], "label_names": []}\')', "x.npy cannot be read within"),
        ("print('[]')", "x.npy cannot be read within"),
        (
            "import os, signal, sys; print('a.png', 'b.png', sep=chr(10), file=sys.stderr, flush=True); "
            "os.kill(os.getpid(), signal.SIGPROF)",
            "b.png takes more than 2 s to decode",
        ),
    ],
)
def test_a_process_that_ends_or_lies_is_a_sentence(monkeypatch, program, message):
    monkeypatch.setattr(upload.launcher, "command", lambda module: [sys.executable, "-c", program])
    with pytest.raises(ArrayError, match=message):
        upload.read([("x.npy", b"")], Options())


def test_a_picture_of_too_many_pixels():
    side = int(decoding.MAX_PIXELS**0.5) + 1
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    with pytest.raises(ArrayError, match=r"wide\.png is too large .*: at most 25,000,000 are allowed"):
        upload.read([("wide.png", file.getvalue())], Options((8, 8)))


def test_there_is_room_for_so_many_bytes():
    first, second = (Dataset.from_arrays(np.full((9, 8, 8), value, np.uint8), name="a") for value in (1, 2))
    datasets.add(first, most=1000)
    datasets.add(first, most=1000)  # it is there
    with pytest.raises(ArrayError, match="remove one first"):
        datasets.add(second, most=1000)
    assert datasets.add(second) in datasets.names()


@pytest.mark.parametrize("text", ["28", "x", "28x28x28", "2.5x3", "12345x1"])
def test_what_is_no_size(text):
    assert parse_size(" 12x7 ") == parse_size("12×7") == (12, 7)
    with pytest.raises(ArrayError, match="a size is ROWSxCOLUMNS"):
        parse_size(text)


def test_the_process_loads_no_torch():
    program = "import sys, iwae.data.upload; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_nothing_of_a_zip_lands_on_the_disk(tmp_path):
    upload.read([("a.zip", zipped({f"../{i}.png": png(9, 9) for i in range(5)}))], Options())
    assert not list(tmp_path.rglob("*"))


def test_zip_of_folders_named_as_splits():
    places = (f"{part}/{kind}/{number}.png" for part in ("train", "test") for kind in "ab" for number in range(4))
    files = {place: png(9, 9) for place in places}
    made = upload.read([("a.zip", zipped(files))], Options())
    assert made.sizes == (7, 1, 8) and made.label_names == ("a", "b")
