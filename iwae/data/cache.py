"""A cache of decoded data sets in the user's cache folder; it can be deleted at any time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from iwae.system import files, paths

Arrays = dict[str, Any]  # np.ndarray, by name


def cache_folder() -> Path:
    """Where decoded data sets are kept."""
    return paths.cache_dir() / "packed"


def load_or_build(name: str, stamp: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays that `build` returns, from the cache if it has them under this `name` and `stamp`.

    Otherwise they are built, and cached if the folder can be written.
    """
    path = cache_folder() / f"{name}.npz"
    # A damaged archive can raise nearly anything, and the way out is always to build.
    with suppress(Exception), np.load(path) as cached:
        if str(cached["stamp"]) == stamp:
            return {key: cached[key] for key in cached.files if key != "stamp"}
    arrays = build()
    with suppress(OSError), files.atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, stamp=np.array(stamp), **arrays)
    return arrays
