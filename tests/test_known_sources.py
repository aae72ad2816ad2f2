"""EMNIST and USPS in the format of their official files, made here."""

import bz2
import gzip
import hashlib
import io
import string
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from iwae.data import datasets, formats
from iwae.data.sources import SOURCES

RANDOM = np.random.RandomState(0)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def install(monkeypatch, folder, name, contents: list[bytes], sizes) -> None:
    """These contents as the files of a data set, under their own checksums."""
    files = []
    for file, content in zip(SOURCES[name].files, contents, strict=True):
        files.append(replace(file, md5=hashlib.md5(content).hexdigest()))
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(content)
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], files=tuple(files), sizes=sizes))


@pytest.mark.parametrize(("name", "first"), [("letters", 1), ("balanced", 0)])
def test_emnist_is_upright_and_its_labels_count_from_0(name, first, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = RANDOM.randint(0, 256, (9, 28, 28), dtype=np.uint8)
    labels = np.arange(9, dtype=np.uint8) + first
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for split in ("letters", "balanced"):
            for part, rows in (("train", slice(0, 6)), ("test", slice(6, 9))):
                place = f"gzip/emnist-{split}-{part}"
                lying = np.ascontiguousarray(images[rows].transpose(0, 2, 1))
                archive.writestr(f"{place}-images-idx3-ubyte.gz", gzip.compress(idx(lying)))
                archive.writestr(f"{place}-labels-idx1-ubyte.gz", gzip.compress(idx(labels[rows])))
    install(monkeypatch, tmp_path, f"emnist-{name}", [buffer.getvalue()], (4, 2, 3))
    data = datasets.load(f"emnist-{name}", directory=tmp_path)
    assert np.array_equal(data.test.images, images[6:].reshape(3, -1)) and data.test.labels.tolist() == [6, 7, 8]
    assert data.label_names[:3] == (("a", "b", "c") if name == "letters" else ("0", "1", "2"))


def test_usps_in_the_format_of_libsvm(tmp_path, monkeypatch):
    grey = RANDOM.randint(0, 256, (7, 256))
    lines = [
        " ".join([str(number + 1), *(f"{i + 1}:{2 * value / 255 - 1:.6f}" for i, value in enumerate(row))])
        for number, row in enumerate(grey)
    ]
    parts = [bz2.compress("\n".join(each).encode()) for each in (lines[:5], lines[5:])]
    install(monkeypatch, tmp_path, "usps", parts, (4, 1, 2))
    data = datasets.load("usps", directory=tmp_path)
    assert (
        data.shape == (16, 16) and np.array_equal(data.train.images, grey[:4]) and data.test.labels.tolist() == [5, 6]
    )
    with pytest.raises(ValueError, match="not a bz2 text"):
        formats.usps(b"no")


def test_the_classes_of_emnist():
    """Balanced has 47, as upper and lower case of 15 letters look alike."""
    assert len(set("abdefghnqrt")) + len(string.ascii_uppercase) + 10 == 47
