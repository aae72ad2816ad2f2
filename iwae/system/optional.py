"""Packages that only some features use: each belongs to an extra of pyproject.toml, and is imported when needed."""

from importlib.util import find_spec

from iwae.system.paths import CHECKOUT

REQUIREMENTS = {  # by extra
    "app": "requirements.txt",
    "umap": "requirements.txt",
    "extra": "requirements-extra.txt",
    "loggers": "requirements-loggers.txt",
    "cluster": "requirements-cluster.txt",
}


class MissingError(RuntimeError):
    """A feature whose packages are not installed; the message says which and how to get them."""


def missing(*packages: str) -> list[str]:
    """Those of ``packages`` that cannot be imported here; none is imported by asking."""
    return [package for package in packages if find_spec(package) is None]


def require(feature: str, *packages: str, extra: str = "extra") -> None:
    """Raises MissingError unless all ``packages``, which belong to an extra, are there."""
    if absent := missing(*packages):
        install = f"-r {REQUIREMENTS[extra]}" if CHECKOUT else f'"iwae-explorer[{extra}]"'
        raise MissingError(f"{feature} needs {', '.join(absent)}: pip install {install}")
