"""Packages that only some features use: they come with ``requirements-extra.txt``, and are imported when needed."""

from importlib.util import find_spec


class MissingError(RuntimeError):
    """A feature whose packages are not installed; the message says which and how to get them."""


def missing(*packages: str) -> list[str]:
    """Those of ``packages`` that cannot be imported here; none is imported by asking."""
    return [package for package in packages if find_spec(package) is None]


def need(feature: str, *packages: str) -> None:
    """Raises MissingError unless all ``packages`` are there."""
    if absent := missing(*packages):
        raise MissingError(f"{feature} needs {', '.join(absent)}: pip install -r requirements-extra.txt")
