"""Where the project keeps its files: a function for each folder, and the environment variable that moves it.

With ``IWAE_READ_ONLY=1``, for a public demo, nothing is trained, added, renamed or removed.

In a checkout everything lies in the checkout. In an installed package, the explorer and the models that ship lie inside
the package, in a folder that only a wheel has (pyproject.toml), and what the user makes lies in the user's data folder.
"""

import os
import tempfile
from pathlib import Path

import platformdirs

from iwae.system.files import error_text

PACKAGE = Path(__file__).parents[1]
IMPORT_ROOT = PACKAGE.parent  # the folder that Python must search to find the package
CHECKOUT = None if (PACKAGE / "explorer").is_dir() else IMPORT_ROOT
EXPLORER = CHECKOUT or PACKAGE / "explorer"
APP = EXPLORER / "app.py"  # pages/ and .streamlit/ lie beside it
SHIPPED = EXPLORER / "checkpoints"
DATA, RUNS, MODELS, MAPS = "IWAE_DATA_DIR", "IWAE_RUNS_DIR", "IWAE_MODELS_DIR", "IWAE_MAPS_DIR"
READ_ONLY = "IWAE_READ_ONLY"


NO_HOME = "this user has no home folder for data and caches: set HOME to a folder where this user may write"


class FolderError(OSError):
    """A folder cannot be used; the message names it, the reason, and the variable that names another."""


def data_dir() -> Path:
    """Published data files: ``IWAE_DATA_DIR``, or the user's cache folder."""
    return _named(DATA) or cache_dir()


def runs_dir() -> Path:
    """Training runs: ``IWAE_RUNS_DIR``, or ``runs`` in the checkout or the user's data folder."""
    return _named(RUNS) or _data_folder() / "runs"


def models_dir() -> Path:
    """Models that users add: ``IWAE_MODELS_DIR``, or ``models`` in the checkout or the user's data folder."""
    return _named(MODELS) or _data_folder() / "models"


def maps_dir() -> Path:
    """UMAP maps: ``IWAE_MAPS_DIR``, or ``maps`` in the user's cache folder."""
    return _named(MAPS) or cache_dir() / "maps"


def sweeps_dir() -> Path:
    """Sweeps whose command does not say where: ``sweeps`` in the checkout or the user's data folder."""
    return _data_folder() / "sweeps"


def cache_dir() -> Path:
    """What can be made again: the user's cache folder. Without a home folder, ``cache`` in the checkout."""
    try:
        return platformdirs.user_cache_path("iwae")
    except RuntimeError as error:  # a user id without an account, and no HOME, as in some containers
        if CHECKOUT is None:
            raise FolderError(NO_HOME) from error
        return CHECKOUT / "cache"


def check() -> None:
    """Raise FolderError where an environment variable names no folder, a ``~`` without a home folder, or where
    ``IWAE_READ_ONLY`` is neither 0 nor 1."""
    for variable in (DATA, RUNS, MODELS, MAPS):
        _named(variable)
    read_only()


def read_only() -> bool:
    """Whether ``IWAE_READ_ONLY`` is 1; raises FolderError for any other value than 0 or none."""
    value = os.environ.get(READ_ONLY, "")
    if value not in ("", "0", "1"):
        raise FolderError(f"{READ_ONLY} is {value!r}: set it to 1, so that nothing can be trained or added, or to 0")
    return value == "1"


def check_changeable() -> None:
    """Raise FolderError where the user's runs, models and data may not be changed. Before each change of them."""
    if read_only():
        raise FolderError(f"nothing can be trained, added, renamed or removed here ({READ_ONLY}=1)")


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
            f"{folder} cannot be written ({error_text(error)}): set {variable} to a folder where this user may write"
        ) from error


def _data_folder() -> Path:
    """The checkout, or the user's data folder: never the folder of installed packages."""
    if CHECKOUT is not None:
        return CHECKOUT
    try:
        return platformdirs.user_data_path("iwae")
    except RuntimeError as error:
        raise FolderError(NO_HOME) from error


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
