"""Your own images: arrays and files in, a registered data set with stratified splits out."""

import errno
import gzip
import io
import json
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iwae import checkpoints
from iwae.__main__ import main
from iwae.catalog import Entry
from iwae.data import datasets, own, readers, upload
from iwae.data.datasets import ArrayError, DataError, Dataset, Options
from iwae.data.sources import SOURCES
from iwae.runs import store
from iwae.runs.queue import RunStatus
from iwae.system import paths
from iwae.training.config import TrainConfig

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (60, 8, 6), dtype=np.uint8)
LABELS = np.repeat([0, 1, 2], [30, 20, 10])


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path / "runs"))


def save_pictures(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    for number, image in enumerate(images):
        place = folder if labels is None else folder / f"class {labels[number]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.png")


def whole(dataset: Dataset) -> np.ndarray:
    return np.concatenate([part.images.numpy() for part in (dataset.train, dataset.valid, dataset.test)])


def in_order(images: np.ndarray) -> np.ndarray:
    """Rows as one sorted list: two of them are equal where the same images are in both, in whatever order."""
    return np.sort(images.reshape(len(images), -1).view(f"S{images[0].size}").ravel())


# ---- arrays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        IMAGES,
        IMAGES[:, None],
        IMAGES[..., None],
        torch.from_numpy(IMAGES),
        IMAGES / 255,
        torch.from_numpy(IMAGES / 255).float()[:, None],
        IMAGES.reshape(60, 48),
        np.repeat(IMAGES[..., None], 3, axis=3),
        np.repeat(IMAGES[:, None], 3, axis=1),
    ],
)
def test_all_kinds_of_arrays_are_the_same_data_set(values):
    dataset = Dataset.from_arrays(values, labels=LABELS, name="a", shape=(8, 6))
    assert dataset.shape == (8, 6) and [len(dataset.train), len(dataset.valid), len(dataset.test)] == [48, 6, 6]
    assert np.array_equal(in_order(whole(dataset)), in_order(IMAGES))
    assert dataset.name == Dataset.from_arrays(IMAGES, labels=LABELS, name="a").name


def test_bool_is_black_and_white():
    assert np.array_equal(in_order(whole(Dataset.from_arrays(IMAGES > 99))), in_order((IMAGES > 99) * np.uint8(255)))


def test_splits_are_stratified_and_follow_the_seed():
    first, again, other = (Dataset.from_arrays(IMAGES, labels=LABELS, options=Options(seed=seed)) for seed in (3, 3, 4))
    for part in (first.valid, first.test):
        assert torch.bincount(part.labels).tolist() == [3, 2, 1]  # a tenth of 30, 20 and 10
    assert first.name == again.name != other.name
    assert torch.equal(first.train.images, again.train.images)
    of = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for part in (first.train, first.valid, first.test):
        assert [of[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()


def test_splits_that_are_given_stay():
    dataset = Dataset.from_arrays(
        IMAGES[:30], IMAGES[30:40], IMAGES[40:], labels=(LABELS[:30], LABELS[30:40], LABELS[40:])
    )
    assert np.array_equal(whole(dataset), IMAGES.reshape(60, -1))
    assert torch.cat([dataset.train.labels, dataset.valid.labels, dataset.test.labels]).tolist() == LABELS.tolist()
    only_test = Dataset.from_arrays(IMAGES[:40], test=IMAGES[40:])
    assert len(only_test.valid) == 4 and np.array_equal(only_test.test.images, IMAGES[40:].reshape(20, -1))


def test_labels_may_be_texts_or_any_numbers():
    texts = np.array(["cat", "ape", "dog"])[LABELS]
    assert Dataset.from_arrays(IMAGES, labels=texts).label_names == ("ape", "cat", "dog")
    assert Dataset.from_arrays(IMAGES, labels=LABELS * 7).label_names == ("0", "7", "14")
    named = Dataset.from_arrays(IMAGES, labels=LABELS, label_names=("x", "y", "z", "none"))
    assert named.label_names == ("x", "y", "z", "none") and torch.bincount(named.test.labels).tolist() == [3, 2, 1]


def test_names_of_published_data_sets_are_taken(tmp_path, capsys):
    for name in SOURCES:
        with pytest.raises(ArrayError, match=f"^{name} is the name of a published data set: choose another one"):
            Dataset.from_arrays(IMAGES, name=name)
    np.save(tmp_path / "mnist.npy", IMAGES)
    assert main(["data", "add", str(tmp_path / "mnist.npy"), "--name", "mnist"]) == 2
    assert "mnist is the name of a published data set" in capsys.readouterr().err and not (tmp_path / "data").exists()
    assert own.short_name(datasets.add_path(tmp_path / "mnist.npy")) == "mnist-images"


def test_names_of_labels_fit_a_line_and_any_file():
    names = ("a\tb\n", "\x1b[31m", "\ud800", "x" * 200)
    data = Dataset.from_arrays(IMAGES[:40], labels=np.arange(40) % 4, label_names=names)
    assert data.label_names == ("a b", "�[31m", "�", "x" * 79 + "…")
    assert datasets.load(datasets.add(data)).label_names == data.label_names


def test_a_torch_data_set_of_pairs():
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES[:, None] / 255), torch.from_numpy(LABELS))
    assert Dataset.from_arrays(pairs).name == Dataset.from_arrays(IMAGES, labels=LABELS).name


def test_options_bring_pictures_to_what_they_say():
    paper = np.full((3, 20, 10), 255, np.uint8)
    paper[:, 5:15, 2:8] = 0
    made = Dataset.from_arrays(paper, options=Options(size=(10, 10), invert=True, threshold=0.5))
    image = made.train.images[0].view(10, 10)
    assert not made.stochastic and set(image.unique().tolist()) == {0, 255}
    assert not image[:, :2].any() and not image[:, 7:].any()  # half as large, proportions kept, in the middle
    assert image[3:7, 3:6].all() and not image[:2].any() and not image[8:].any()


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        (IMAGES / 100, {}, r"values from 0 to 2.55; uint8, bool or floats in \[0, 1\]"),
        (np.full((9, 4, 4), np.nan), {}, "train: nan among the values"),
        (np.full((9, 4, 4), np.inf), {}, "train: inf among the values"),
        (np.zeros((2100, 2, 2)), {"labels": np.arange(2100)}, "2,100 different labels; at most 2,000"),
        (IMAGES, {"labels": ["a", *[None] * 59]}, "whole numbers of 64 bits or texts, not None"),
        (IMAGES, {"labels": [[1], *[[1, 2]] * 59]}, r"texts, not \[1\]"),
        (IMAGES, {"labels": [10**30] * 60}, "texts, not 10000"),
        (IMAGES.astype(np.int64), {}, "an array of int64"),
        (IMAGES.reshape(60, 48), {}, "rows of 48 values are not square"),
        (IMAGES[:2], {}, "2 images: each of train, valid and test needs one"),
        (np.zeros((9, 65, 65), np.uint8), {}, "larger than 64×64"),
        (IMAGES, {"labels": LABELS[:5]}, "60 images have 5 labels"),
        (IMAGES, {"labels": LABELS / 3}, "labels are whole numbers or texts"),
        (IMAGES, {"name": "../x"}, "the name of a data set"),
        (IMAGES, {"labels": LABELS, "label_names": ("a",)}, "labels from 0 to 2"),
        (IMAGES, {"labels": LABELS, "test": IMAGES[:9]}, "9 images have 0 labels: one each, in all splits or in none"),
        (IMAGES, {"shape": (6, 8)}, "train: images of 8×6 pixels are not 6×8"),
        (IMAGES.reshape(60, 48), {"shape": 48}, "rows and columns, whole numbers above 0, not 48"),
        ([[0, 1], [0]], {}, "train: no array of numbers"),
        (torch.zeros(9, 4, 4, dtype=torch.bfloat16), {}, "train: no array of numbers"),
        (None, {"test": IMAGES}, "train: there are no images"),
    ],
)
def test_what_cannot_be_used_is_named(values, more, message):
    with pytest.raises(ArrayError, match=message):
        Dataset.from_arrays(values, **more)


# ---- files ------------------------------------------------------------------------------------------------------


def as_file(kind: str, folder: Path) -> Path:
    """IMAGES and LABELS in a file or folder of this kind."""
    path = folder / f"set.{kind}"
    if kind == "folder":
        save_pictures(path, IMAGES, LABELS)
    elif kind == "zip":
        save_pictures(folder / "set", IMAGES, LABELS)
        with zipfile.ZipFile(path, "w") as archive:
            for picture in sorted((folder / "set").rglob("*.png")):
                archive.write(picture, picture.relative_to(folder))
    elif kind == "npz":
        np.savez_compressed(path, images=IMAGES, labels=LABELS)
    elif kind in ("csv", "csv.gz"):
        lines = ["label," + ",".join(f"p{i}" for i in range(48))]
        lines += [f"{label}," + ",".join(map(str, image.ravel())) for image, label in zip(IMAGES, LABELS, strict=True)]
        content = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if kind == "csv.gz" else content)
    elif kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(table(pa), path)
    elif kind == "saved":
        pa = pytest.importorskip("pyarrow")
        path.mkdir()
        (path / "dataset_info.json").write_text("{}")
        with pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb") as file:
            made = table(pa)
            with pa.ipc.new_stream(file, made.schema) as writer:
                writer.write_table(made)
    return path


def table(pa):
    """As Hugging Face's datasets writes it."""
    cells = []
    for image in IMAGES:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    made = pa.table({"image": cells, "label": LABELS})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("kind", ["folder", "zip", "npz", "csv", "csv.gz", "parquet", "saved"])
def test_every_reader_finds_what_the_arrays_hold(kind, tmp_path):
    name = datasets.add_path(as_file(kind, tmp_path), Options(size=(8, 6)), "read")
    dataset = datasets.load(name)
    label_names = {"folder": "class {}", "zip": "class {}", "parquet": "abc", "saved": "abc"}.get(kind, "{}")
    expected = tuple("abc") if label_names == "abc" else tuple(map(label_names.format, range(3)))
    assert dataset.label_names == expected and dataset.shape == (8, 6)
    same = Dataset.from_arrays(IMAGES, labels=LABELS, label_names=expected, name="read")
    assert dataset.name == name == same.name
    for part in ("train", "valid", "test"):
        assert torch.equal(getattr(dataset, part).images, getattr(same, part).images)
        assert torch.equal(getattr(dataset, part).labels, getattr(same, part).labels)


def test_npy_and_flat_pictures_have_no_labels(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    save_pictures(tmp_path / "flat", IMAGES)
    first, second = (datasets.load(datasets.add_path(tmp_path / place, name="x")) for place in ("a.npy", "flat"))
    assert first.name == second.name == Dataset.from_arrays(IMAGES, name="x").name and first.train.labels is None


def test_the_keys_of_medmnist_and_keras(tmp_path):
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}
    medmnist = {f"{part}_images": IMAGES[rows] for part, rows in parts.items()}
    medmnist |= {f"{part}_labels": LABELS[rows, None] for part, rows in parts.items()}
    np.savez(tmp_path / "med.npz", **medmnist)
    dataset = datasets.load(datasets.add_path(tmp_path / "med.npz"))
    assert (
        np.array_equal(whole(dataset), IMAGES.reshape(60, -1)) and dataset.test.labels.tolist() == LABELS[50:].tolist()
    )
    np.savez(tmp_path / "keras.npz", x_train=IMAGES[:40], y_train=LABELS[:40], x_test=IMAGES[40:], y_test=LABELS[40:])
    dataset = datasets.load(datasets.add_path(tmp_path / "keras.npz"))
    assert np.array_equal(dataset.test.images, IMAGES[40:].reshape(20, -1)) and len(dataset.valid) == 4


def test_folders_called_train_and_test_are_splits(tmp_path):
    save_pictures(tmp_path / "all" / "train", IMAGES[:40], LABELS[:40])
    save_pictures(tmp_path / "all" / "test", IMAGES[40:], LABELS[40:])
    dataset = datasets.load(datasets.add_path(tmp_path / "all"))
    assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [36, 4, 20]
    assert dataset.label_names == ("class 0", "class 1", "class 2")


def test_colours_become_grey_and_the_transparent_becomes_0():
    colours = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    assert np.abs(readers.picture(colours) - 255 * np.array([[0.299, 0.587, 0.114]])).max() < 1
    clear = Image.fromarray(np.array([[[200, 200, 200, 255], [200, 200, 200, 0]]], np.uint8))
    assert readers.picture(clear).tolist() == [[200, 0]] and readers.picture(clear, Options(invert=True)).tolist() == [
        [55, 0]
    ]


def bomb() -> bytes:
    """A .npz of a few kB whose array has 1 GB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000)})
        archive.writestr("images.npy", header.getvalue() + bytes(10**6))
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npy_of(shape: tuple[int, ...], kind: object = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(100)


def picture_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**7))
    return buffer.getvalue()


def encrypted() -> bytes:
    """A ZIP whose headers say that its picture needs a password."""
    content = bytearray(picture_bomb())
    for header, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + place] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", bomb(), "an array of 1,000,000,000 bytes; at most 1,000,000"),
        ("a.npy", pickled(), "Python objects, which are never read"),
        ("a.zip", picture_bomb(), "its pictures have 10,000,000 bytes; at most 1,000,000"),
        ("a.zip", encrypted(), "its pictures are encrypted: unpack it with its password"),
        ("a.zip", b"PK no", "is damaged, or not what its name says"),
        ("a.npy", npy_of((-1, 4, 4)), r"is damaged, or not what its name says \(the shape \(-1, 4, 4\)"),
        ("a.npy", npy_of((True, 4)), r"\(the shape \(True, 4\)"),
        ("a.csv", b"7,7,7,x\n7,7,7,7\n", "could not convert string 'x'"),
        ("a.npy", b"\x93NUMPY", "is damaged, or not what its name says"),
        ("a.csv", b"1,2,3,4\nx,y,z,w\n", "could not convert string 'x'"),
        ("a.csv", b"1,2,3,4\n1,2,3\n", r"^a\.csv: the number of columns changed from 4 to 3 at row 2$"),
        ("a.csv", b"1;0;1;0\n0;1;0;1\n", "there is no comma in 0;1;0;1, and commas separate the pixels"),
        ("a.npy", npy_of((2, 4, 4), [("x", "|u1"), ("y", "|u1")]), "records of several fields, which are never read"),
        ("a.csv", b"1,2,3\n", "3 columns do not make a square picture"),
        ("a.exe", b"MZ", "a folder of pictures, or .npy"),
    ],
)
def test_hostile_and_damaged_files_are_refused(name, content, message):
    with pytest.raises(ArrayError, match=message):
        readers.read_file(name, io.BytesIO(content), Options(), limit=10**6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(LABELS[:5], "60 images have 5 labels"), (LABELS / 3, "labels are whole numbers or texts, not float64")],
)
def test_a_refusal_of_labels_names_the_file(tmp_path, labels, message):
    np.savez(tmp_path / "set.npz", x_train=IMAGES, y_train=labels)
    with pytest.raises(ArrayError, match=rf"^set\.npz: {message}"):
        datasets.add_path(tmp_path / "set.npz")
    with pytest.raises(ArrayError, match=rf"^set\.npz: {message}"):
        upload.read([("set.npz", (tmp_path / "set.npz").read_bytes())], Options())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_is_not_waited_for_and_a_broken_link_not_passed_over(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(ArrayError, match=r"a\.npy is neither a file nor a folder"):
        datasets.add_path(tmp_path / "a.npy")
    save_pictures(tmp_path / "set", IMAGES)
    for make in (os.mkfifo, lambda path: os.symlink(tmp_path / "nowhere", path)):
        make(tmp_path / "set" / "odd.png")
        with pytest.raises(ArrayError, match=r"set: odd\.png is not a file, or is a broken link"):
            datasets.add_path(tmp_path / "set")
        (tmp_path / "set" / "odd.png").unlink()


def test_whatever_a_decompressor_raises_is_a_sentence():
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # zlib.error, OSError, LZMAError
        content = bytearray(packed({"a.png": picture_bytes() * 9}, method))
        content[45:70] = b"\xff" * 25
        with pytest.raises(ArrayError, match=r"^a\.zip is damaged, or not what its name says"):
            readers.read_file("a.zip", io.BytesIO(bytes(content)), Options())


def packed(members, method=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def picture_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("c{}\\{}.png", ("c0", "c1")),
        ("../../c{}/{}.png", ("c0", "c1")),
        ("/c{}/{}.png", ("c0", "c1")),
        ("../{1}.png", ()),
    ],
)
def test_classes_of_odd_names_in_a_zip(name, classes):
    content = packed({name.format(number % 2, number): picture_bytes() for number in range(6)})
    assert readers.read_file("a.zip", io.BytesIO(content), Options()).label_names == classes


def test_no_picture_of_a_zip_is_lost():
    content = packed([("c/1.png", picture_bytes()), ("c\\1.png", picture_bytes())])
    with pytest.raises(ArrayError, match=r"two pictures in it are called c/1\.png"):
        readers.read_file("a.zip", io.BytesIO(content), Options())


def test_pictures_wait_in_the_size_that_they_will_have():
    large = io.BytesIO()
    Image.new("L", (600, 600)).save(large, "PNG")
    files = packed({f"{number}.png": large.getvalue() for number in range(4)})
    found = readers.read_file("a.zip", io.BytesIO(files), Options(size=(9, 7)))
    assert {image.shape for image in found.parts["train"].images} == {(9, 7)}
    first = []

    def decode(content: bytes, name: str) -> Image.Image:
        first.append(name)
        return Image.open(io.BytesIO(content))

    with pytest.raises(ArrayError, match=r"larger than 64×64 \(600×600\): give a size"):
        readers.read_file("a.zip", io.BytesIO(files), Options(), decode=decode)
    assert first == ["0.png"]


LINE = ",".join(["7"] * 16)


@pytest.mark.parametrize(
    ("lines", "count", "names"),
    [
        (["label," + ",".join(map(str, range(16))), "0," + LINE, "1," + LINE], 2, ("0", "1")),  # DataFrame.to_csv
        (["," + ",".join(map(str, range(16))), "0," + LINE, "1," + LINE], 2, ()),  # with its index
        ([",".join(map(str, range(400))), ",".join(["7"] * 400)], 1, ()),
        ([",".join(map(str, range(16))), LINE], 2, ()),  # a picture
        (["cat," + ",".join(map(str, range(16))), "dog," + LINE], 2, ("cat", "dog")),
        (['"7"' + ',"7"' * 15, LINE], 2, ()),
        (['"a,b",' + LINE, '"say ""c""",' + LINE], 2, ("a,b", 'say "c"')),
        (["#1," + LINE, "²," + LINE], 2, ("#1", "²")),
    ],
)
def test_lines_of_a_csv(lines, count, names):
    part = readers.read_file("a.csv", io.BytesIO("\r\n".join(lines).encode("utf-8-sig")), Options()).parts["train"]
    assert len(part.images) == count and (part.images[-1] == 7).all()
    assert tuple(map(str, part.labels or ())) == names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [[{"bytes": b"x"}]]}, "none of the columns image holds pictures"),
        ({"image": [{"bytes": "text"}]}, "none of the columns image holds pictures"),
        ({"image": [{"x": {"bytes": b"x"}}]}, "none of the columns image holds pictures"),
        ({"image": [{"bytes": b"x", "path": 5}]}, "5 is not a picture"),
        ({"image": [{"bytes": b"x"}, None]}, "names its pictures only"),
    ],
)
def test_nested_columns_of_parquet(columns, message):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    with pytest.raises(ArrayError, match=message):
        readers.read_file("a.parquet", io.BytesIO(buffer.getvalue()), Options())


def test_pictures_of_different_sizes_need_a_size(tmp_path):
    save_pictures(tmp_path / "a", IMAGES)
    Image.fromarray(IMAGES[0][:5]).save(tmp_path / "a" / "odd.png")
    with pytest.raises(ArrayError, match=r"of different sizes \(5×6, 8×6\): give a size"):
        datasets.add_path(tmp_path / "a")
    assert datasets.shape(datasets.add_path(tmp_path / "a", Options(size=(9, 7)))) == (9, 7)
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ArrayError, match=r"broken\.png is not a picture"):
        datasets.add_path(tmp_path / "a", Options(size=(9, 7)))


# ---- what is kept -----------------------------------------------------------------------------------------------


def test_a_data_set_that_was_added_is_one_like_any_other(tmp_path):
    made = Dataset.from_arrays(IMAGES, labels=LABELS, label_names="abc", name="mine", options=Options(seed=5))
    name = datasets.add(made)
    assert datasets.add(made) == name and datasets.names()[-1] == name
    for word in (name, "mine"):
        loaded = datasets.load(word)
        assert loaded.identity == made.identity and loaded.label_names == made.label_names
    assert made.identity["split_seed"] == 5 and made.identity["name"] == name
    assert datasets.available(name) and datasets.shape(name) == (8, 6) and datasets.is_stochastic(name)
    assert datasets.part_of(name) == () and datasets.family(name) == name
    assert datasets.load(name, only_test=True).test.labels.tolist() == made.test.labels.tolist()
    assert {file.state for file in datasets.verify("mine").files} == {"good"}
    assert datasets.status()[-1].available
    about = (tmp_path / "data/own" / name / "about.json").read_text()
    assert str(tmp_path) not in about
    assert TrainConfig(dataset="mine").dataset == name and TrainConfig(dataset=name).model_config.shape == (8, 6)
    assert datasets.label(name) == "mine" and datasets.title(name) == "mine, stochastic binarization"
    other = datasets.add(Dataset.from_arrays(255 - IMAGES, name="mine"))
    assert datasets.label(name) == name and datasets.label("digits") == "digits"
    datasets.remove(other)
    datasets.remove("mine")
    assert name not in datasets.names() and not datasets.available(name)
    with pytest.raises(
        DataError, match=f"{name} is not on this machine; add its images again by `python -m iwae data add"
    ):
        datasets.load(name)


def test_a_name_that_two_have_needs_its_hash():
    names = [datasets.add(Dataset.from_arrays(images, name="twin")) for images in (IMAGES, 255 - IMAGES)]
    with pytest.raises(ValueError, match=f"several data sets are called twin: give one of {', '.join(sorted(names))}"):
        datasets.load("twin")
    assert datasets.load(names[0]).name == names[0]


@pytest.mark.parametrize(
    ("file", "content"), [("images.npy", b"x"), ("about.json", b"{"), ("about.json", b'{"shape": 3}')]
)
def test_damage_is_found_and_says_what_to_do(file, content, tmp_path):
    name = datasets.add(Dataset.from_arrays(IMAGES, name="hurt"))
    (tmp_path / "data/own" / name / file).write_bytes(content)
    with pytest.raises(DataError, match=f"remove .*`python -m iwae data remove {name}`, then add its images again"):
        datasets.load(name)
    assert "damaged" in {each.state for each in datasets.verify(name).files}
    assert datasets.status()[-1].name == name


def test_another_pixel_is_damage(tmp_path):
    name = datasets.add(Dataset.from_arrays(IMAGES, name="hurt"))
    path = tmp_path / "data/own" / name / "images.npy"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises(DataError, match="SHA-256 of its values is not"):
        datasets.load(name)


def test_added_files_are_read_once(tmp_path, monkeypatch):
    path = as_file("folder", tmp_path)
    name = datasets.add_path(path)
    monkeypatch.setattr(readers, "read", lambda *_: pytest.fail("read again"))
    assert datasets.add_path(path) == name


def test_what_killed_processes_leave_is_never_a_data_set_and_goes(tmp_path):
    name = datasets.add(Dataset.from_arrays(IMAGES))
    kept = tmp_path / "data" / own.FOLDER
    left = kept / f"{own.UNFINISHED}x" / "images@00000000"
    left.parent.mkdir()
    (kept / name).replace(left)  # a removal that was killed
    assert datasets.names()[-1:] != (name,)
    os.utime(left.parent, (0, 0))
    assert datasets.add(Dataset.from_arrays(IMAGES)) == name
    assert [path.name for path in kept.iterdir()] == [name]
    datasets.remove(name)
    assert not list(kept.iterdir())


def test_what_a_run_trains_on_is_not_removed(monkeypatch, capsys):
    name = datasets.add(Dataset.from_arrays(IMAGES))
    run = store.create(TrainConfig(name, "8:2", k=1, epochs=1))
    monkeypatch.setattr(store.Run, "status", lambda run: RunStatus("running"))
    assert main(["data", "remove", name]) == 2 and name in datasets.names()
    assert capsys.readouterr().err == f"error: {run.name} is training on {name}: stop it first\n"
    monkeypatch.setattr(store.Run, "status", lambda run: RunStatus("finished"))
    assert main(["data", "remove", name]) == 0 and name not in datasets.names()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    name = datasets.add(Dataset.from_arrays(IMAGES))

    def refuse(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(options["dir"]))

    monkeypatch.setattr(paths.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"own cannot be written \(Read-only file system\): set IWAE_DATA_DIR to"):
        datasets.remove(name)
    assert name in datasets.names()


def test_nothing_is_added_to_a_public_demo(monkeypatch):
    monkeypatch.setenv("IWAE_READ_ONLY", "1")
    with pytest.raises(OSError, match="nothing can be trained, added"):
        datasets.add(Dataset.from_arrays(IMAGES))


# ---- commands ---------------------------------------------------------------------------------------------------


def test_from_a_folder_to_a_measured_model(tmp_path, capsys):
    pictures = np.zeros((200, 16, 16), np.uint8)
    pictures[:100, 4:12, 4:12] = 255
    pictures[100:, 7:9] = 255
    pictures[np.arange(200), np.arange(200) % 16, np.arange(200) // 16] ^= 255
    save_pictures(tmp_path / "shapes", pictures, np.repeat([0, 1], 100))
    words = ["train", "--dataset", f"path:{tmp_path / 'shapes'}", "--k", "2", "--epochs", "2", "--model", "8:4"]
    assert main([*words, "--out", str(tmp_path / "model.safetensors")]) == 0
    card = checkpoints.read_card(tmp_path / "model.safetensors")
    (name,) = datasets.names()[-1:]
    assert card.training["dataset"] == name and name.startswith("shapes@") and card.model.shape == (16, 16)
    data = card.progress["data"]
    assert (data["name"], data["shape"], data["split_seed"]) == (name, [16, 16], 0)
    assert data["sha256"] == datasets.load(name).identity["sha256"]
    assert main(["evaluate", str(tmp_path / "model.safetensors"), "--samples", "10"]) == 0
    assert f"20 test images of {name}" in capsys.readouterr().out
    saving = ["--samples", "10", "--dataset", "shapes", "--save"]  # NAME for NAME@HASH8
    assert main(["evaluate", str(tmp_path / "model.safetensors"), *saving]) == 0
    assert checkpoints.read_card(tmp_path / "model.safetensors").metrics["samples"] == 10
    capsys.readouterr()
    assert main(["table", "--dataset", "shapes", "--wide"]) == 0
    assert f"{name}-iwae-k2-s0" in capsys.readouterr().out
    assert main(["card", str(tmp_path / "model.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert f"shapes, stochastic binarization (`{name}`), 160 training images" in shown and own.LICENCE in shown
    assert main(["data", "list"]) == 0
    assert f"{name} here" in capsys.readouterr().out
    assert main(["data", "remove", name]) == 0
    assert main(["evaluate", str(tmp_path / "model.safetensors")]) == 1
    assert f"{name} is not on this machine; add its images again" in capsys.readouterr().err
    assert main(["card", str(tmp_path / "model.safetensors")]) == 0
    assert capsys.readouterr().out == shown  # the card needs no images
    entry = Entry("model", tmp_path / "model.safetensors", card)
    assert name in entry.label  # the card of a model whose data are not here can be read


def test_the_add_command_has_the_options(tmp_path, capsys):
    path = as_file("folder", tmp_path)
    options = ["--name", "x", "--size", "10x12", "--threshold", "0.5", "--invert", "--seed", "3"]
    assert main(["data", "add", str(path), *options]) == 0
    name = capsys.readouterr().out.partition(":")[0]
    dataset = datasets.load(name)
    assert dataset.shape == (10, 12) and not dataset.stochastic and dataset.split_seed == 3
    for words, message in (
        (["--size", "10"], "a size is ROWSxCOLUMNS, such as 28x28, not 10"),
        (["--size", "65x1"], "at most 64×64"),
        (["--threshold", "2"], "the threshold must be above 0 and at most 1, not 2.0"),
        (["--name", "A b"], "the name of a data set has"),
    ):
        assert main(["data", "add", str(path), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--dataset", "path:/nowhere/at/all"]) == 2
    assert "there is no file or folder /nowhere/at/all" in capsys.readouterr().err
    assert main(["data", "remove", "digits"]) == 2
    assert "digits is a published data set" in capsys.readouterr().err
