"""Your data sets: each a folder ``own/NAME@HASH8`` below the data folder, named after what is inside it.

``images.npy`` uint8 [n, h · w] and ``labels.npy`` int64 [n] hold train, valid and test, one after the other;
``about.json`` the rest. The hash is of all of it but the name, so the same images have the same name on every machine.
"""

import hashlib
import json
import math
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data.arrays import ArrayError, Rows, Splits
from iwae.data.downloads import DataError, DataFile
from iwae.data.sources import SOURCES, Content, DatasetSource
from iwae.system import files, paths, untrusted

FOLDER = "own"
UNFINISHED = ".unfinished-"  # what folders that are being added or removed are called first
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?")
FULL_NAME = re.compile(rf"{NAME.pattern}@[0-9a-f]{{8}}")
MAX_ABOUT = 2**20  # bytes of about.json
LICENCE = "your own images"


@dataclass(frozen=True)
class About:
    """What ``about.json`` holds."""

    shape: tuple[int, int]  # rows, columns
    sizes: tuple[int, int, int]  # train, valid, test
    split_seed: int
    stochastic: bool
    label_names: tuple[str, ...]
    images: str  # SHA-256 of the array
    labels: str  # the same, or empty


class OwnFile(DataFile):
    """An array of a registered data set, proved by the SHA-256 of its values, and mapped instead of read."""

    def _verified_contents(self, path: Path) -> Any:
        values = np.load(path, mmap_mode="c", allow_pickle=False)
        with path.open("rb") as stream:  # which, unlike the mapped values, takes up no memory
            stream.seek(values.offset)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != self.sha256 or not values.flags.c_contiguous:
            raise ValueError(f"SHA-256 of its values is not {self.sha256}")
        return np.asarray(values)


def check_name(name: str) -> None:
    """Raise ArrayError for what cannot be the name of a data set: also for that of a published one."""
    if not NAME.fullmatch(name):
        raise ArrayError(
            f"the name of a data set has 1 to 40 small letters, digits, '.', '_' and '-', not {files.printable(name)!r}"
        )
    if name in SOURCES:
        raise ArrayError(f"{name} is the name of a published data set: choose another one, such as my-{name}")


def clean_name(text: str) -> str:
    """A name from that of a file or folder: ``My Pictures.zip`` → ``my-pictures``, ``mnist.npz`` → ``mnist-images``."""
    stem = re.split(r"[/\\]", text.rstrip("/\\"))[-1].lower()
    stem = re.sub(r"(\.(csv|gz|npy|npz|zip|parquet))+$", "", stem)
    name = re.sub(r"[^a-z0-9._-]+", "-", stem)[:40].strip(".-_") or "images"
    return f"{name}-images" if name in SOURCES else name


def is_full_name(name: str) -> bool:
    """Whether it is a NAME@HASH8, be it here or not."""
    return FULL_NAME.fullmatch(name) is not None


def full_name(name: str, content: Splits, stochastic: bool) -> str:
    """NAME@HASH8 of these images. Raises ArrayError for a bad name."""
    check_name(name)
    facts = [content.shape, content.sizes, content.label_names, stochastic]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for part in content.images.parts():
        digest.update(part.data)
    if content.labels is not None:
        digest.update(np.ascontiguousarray(content.labels).data)
    return f"{name}@{digest.hexdigest()[:8]}"


def names(directory: Path) -> list[str]:
    """Full names of what is registered below this data folder."""
    folder = directory / FOLDER
    return sorted(
        path.name for path in folder.glob("*@*") if is_full_name(path.name) and (path / "about.json").is_file()
    )


def short_name(name: str) -> str:
    """NAME of NAME@HASH8."""
    return name.partition("@")[0]


def title(name: str, stochastic: bool) -> str:
    """What people read: the name without the hash, and the binarization."""
    return f"{short_name(name)}, {'stochastic' if stochastic else 'fixed'} binarization"


def about_file(name: str, directory: Path) -> Path:
    """Where the description of a registered data set lies."""
    return directory / FOLDER / name / "about.json"


def add(
    name: str, content: Splits, stochastic: bool, split_seed: int, directory: Path, most: int | None = None
) -> None:
    """Write a data set under its full name, whole or not at all; one that is there already stays. Raises ArrayError
    where all together would have more than ``most`` bytes."""
    paths.check_changeable()
    target = directory / FOLDER / name
    if (target / "about.json").is_file():
        return
    paths.make_writable(target.parent, paths.DATA)
    if most is not None:
        kept = sum(file.stat().st_size for file in target.parent.glob("*@*/*.npy"))
        size = len(content.images) * math.prod(content.shape)
        if kept + size > most:
            raise ArrayError(
                f"the data sets that were added have {kept / 2**20:,.0f} MB, and {name} has "
                f"{size / 2**20:,.0f} MB; at most {most / 2**20:,.0f} MB are kept: remove one first"
            )
    _clear(target.parent, files.STALE_SECONDS)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=UNFINISHED) as temporary:
        made = Path(temporary) / name
        made.mkdir()
        labels = ""
        try:
            images = _save(made / "images.npy", content.images, math.prod(content.shape))
            if content.labels is not None:
                np.save(made / "labels.npy", content.labels)
                labels = hashlib.sha256(np.ascontiguousarray(content.labels).data).hexdigest()
        except OSError as error:  # NumPy's own has no path in it
            raise files.TargetError(f"{target} cannot be written ({files.error_text(error)})") from None
        about = About(content.shape, content.sizes, split_seed, stochastic, content.label_names, images, labels)
        files.write(made / "about.json", json.dumps(asdict(about), indent=1, ensure_ascii=False))
        try:
            made.replace(target)
        except OSError:  # another process was faster
            if not (target / "about.json").is_file():
                raise


def remove(name: str, directory: Path) -> None:
    """Delete a registered data set, whole or not at all. Raises DataError where there is none of this name."""
    paths.check_changeable()
    if name not in names(directory):
        raise DataError(f"{name} is not among the data sets that were added to {directory / FOLDER}")
    paths.make_writable(directory / FOLDER, paths.DATA)
    with tempfile.TemporaryDirectory(dir=directory / FOLDER, prefix=UNFINISHED) as temporary:
        (directory / FOLDER / name).replace(Path(temporary) / name)


def source(name: str, directory: Path) -> DatasetSource | None:
    """A registered data set before it is loaded; None where it is not here. Raises DataError for a damaged one."""
    path = about_file(name, directory)
    if not is_full_name(name) or (version := untrusted.version(path)) is None:
        return None
    about = _about(path, version)
    places = {"images": about.images, "labels": about.labels}
    found = tuple(
        OwnFile(f"{FOLDER}/{name}/{part}.npy", (), 2**40, lambda contents: contents, sha256=digest)
        for part, digest in places.items() if digest
    )  # fmt: skip

    def read(files: tuple[DataFile, ...], directory: Path) -> Content:
        images, *labels = (file.read(directory) for file in files)
        return Content(images, labels[0] if labels else None, about.label_names)

    return DatasetSource(
        title(name, about.stochastic), about.sizes, read, LICENCE, found, about.stochastic, shape=about.shape,
        split_seed=about.split_seed, handwriting=False,
    )  # fmt: skip


def how_to_add(name: str) -> str:
    """What to do where a data set is absent or damaged."""
    return (
        f"add its images again by `python -m iwae data add PATH --name {short_name(name)}` or by “Add "
        "images …” in the explorer, with the name and options of the first time"
    )


def _clear(folder: Path, age: float) -> None:
    """Remove what killed processes left, where it is older than ``age`` seconds."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # another process was faster
            if left.lstat().st_mtime <= time.time() - age:
                shutil.rmtree(left)


@lru_cache(maxsize=1000)
def _about(path: Path, version: untrusted.Version) -> About:
    try:
        return untrusted.decode(untrusted.read(path, MAX_ABOUT), About)
    except (untrusted.UntrustedError, OSError) as error:
        name = path.parent.name
        remedy = f"remove it by `python -m iwae data remove {name}`, then {how_to_add(name)}"
        raise DataError(f"{path} is damaged ({files.printable(error, 200)}); {remedy}") from None


def _save(path: Path, rows: Rows, pixels: int) -> str:
    """Write images [n, pixels] as ``np.save`` does, part by part; returns the SHA-256 of their values."""
    digest, header = hashlib.sha256(), {"descr": "|u1", "fortran_order": False, "shape": (len(rows), pixels)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in rows.parts():
            stream.write(part.data)
            digest.update(part.data)
    return digest.hexdigest()
