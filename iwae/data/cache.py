"""What is slow to decode is kept decoded, in the user's cache folder; deleting it costs nothing but time."""

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
    """The arrays that `build` gives, from the disk where they were kept under this `name` and `stamp`.

    Another stamp, a damaged file or none: they are built, and kept if the cache folder can be written.
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
