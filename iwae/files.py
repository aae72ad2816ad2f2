"""Files that are either whole or not there: written beside, flushed to the disk, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        _flush(beside)
        beside.chmod(0o644)
        beside.replace(path)
        _flush(path.parent)  # the rename itself
    finally:
        beside.unlink(missing_ok=True)


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with whole(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
