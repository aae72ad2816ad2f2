"""Packages that only some features use: each belongs to an extra of pyproject.toml, and is imported when needed."""

import sys
from importlib.util import find_spec

from iwae.system.paths import CHECKOUT

REQUIREMENTS = {  # by extra
    "app": "requirements.txt",
    "umap": "requirements.txt",
    "extra": "requirements-extra.txt",
    "loggers": "requirements-loggers.txt",
    "cluster": "requirements-cluster.txt",
}
# what a requirements file leaves out on this Python, where it needs other versions of other packages than those there
LEFT_OUT = {"anndata": 'anndata "pandas<3"'} if sys.version_info < (3, 12) else {}


class MissingError(RuntimeError):
    """A feature whose packages are not installed; the message says which and how to get them."""


def missing(*packages: str) -> list[str]:
    """Those of ``packages`` that cannot be imported here; none is imported by asking."""
    return [package for package in packages if find_spec(package) is None]


def require(feature: str, *packages: str, extra: str = "extra") -> None:
    """Raises MissingError unless all ``packages``, which belong to an extra, are there."""
    if absent := missing(*packages):
        install = f"-r {REQUIREMENTS[extra]}" if CHECKOUT else f'"iwae-explorer[{extra}]"'
        install = LEFT_OUT.get(absent[0], install)
        raise MissingError(f"{feature} needs {', '.join(absent)}: pip install {install}")
