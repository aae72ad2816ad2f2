"""Where the project keeps its files: a function for each folder, and the environment variable that moves it."""

import os
import tempfile
from pathlib import Path

import platformdirs

from iwae.system.files import reason

PROJECT = Path(__file__).parents[2]
DATA, RUNS, MODELS, MAPS = "IWAE_DATA_DIR", "IWAE_RUNS_DIR", "IWAE_MODELS_DIR", "IWAE_MAPS_DIR"


class FolderError(OSError):
    """A folder cannot be used; the message names it, the reason, and the variable that names another."""


def data_dir() -> Path:
    """Published data files: ``IWAE_DATA_DIR``, or the user's cache folder."""
    return _named(DATA) or cache_dir()


def runs_dir() -> Path:
    """Training runs: ``IWAE_RUNS_DIR``, or ``runs`` in the project."""
    return _named(RUNS) or PROJECT / "runs"


def models_dir() -> Path:
    """Models that users add: ``IWAE_MODELS_DIR``, or ``models`` in the project."""
    return _named(MODELS) or PROJECT / "models"


def maps_dir() -> Path:
    """UMAP maps: ``IWAE_MAPS_DIR``, or ``maps`` in the user's cache folder."""
    return _named(MAPS) or cache_dir() / "maps"


def sweeps_dir() -> Path:
    """Sweeps whose command does not say where: ``sweeps`` in the project."""
    return PROJECT / "sweeps"


def cache_dir() -> Path:
    """What can be made again: the user's cache folder, or ``cache`` in the project for a user without a home folder."""
    try:
        return platformdirs.user_cache_path("iwae")
    except RuntimeError:  # a user id without an account, and no HOME, as in some containers
        return PROJECT / "cache"


def check() -> None:
    """Raise FolderError where an environment variable names no folder: a ``~`` without a home folder."""
    for variable in (DATA, RUNS, MODELS, MAPS):
        _named(variable)


def make_writable(folder: Path, variable: str) -> Path:
    """Make sure that files can be written into ``folder``, which is created if need be; returns it.

    Raises FolderError, which names ``variable`` as the way to another folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be written ({reason(error)}): set {variable} to a folder where this user may write"
        ) from error


def _named(variable: str) -> Path | None:
    """The folder in a variable of the environment, with its ``~`` replaced; None where it is unset or empty."""
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise FolderError(
            f"{variable} is {value!r}, and no such home folder is known: set it to a full path, without ~"
        ) from None
