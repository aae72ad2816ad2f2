"""What is slow to decode is kept decoded, in the user's cache folder; deleting it costs nothing but time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from iwae.system import files, paths

Arrays = dict[str, np.ndarray]


def folder() -> Path:
    """Where decoded data sets are kept."""
    return paths.cache_dir() / "packed"


def recall(name: str, stamp: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays that `build` gives, from the disk where they were kept under this `name` and `stamp`.

    Another stamp, a damaged file or none: they are built, and kept if the cache folder can be written.
    """
    path = folder() / f"{name}.npz"
    # A damaged archive can raise nearly anything, and the way out is always to build.
    with suppress(Exception), np.load(path) as kept:
        if str(kept["stamp"]) == stamp:
            return {key: kept[key] for key in kept.files if key != "stamp"}
    arrays = build()
    with suppress(OSError), files.whole(path) as beside, beside.open("wb") as stream:
        np.savez(stream, stamp=np.array(stamp), **arrays)
    return arrays
