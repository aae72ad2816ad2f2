"""Files that are either whole or not there: written beside, flushed to the disk, then renamed."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_OVER = 24 * 3600.0  # seconds after which nobody is still writing a temporary file


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent, LEFT_OVER)
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


def clear(folder: Path, older: float = 0.0) -> None:
    """Remove the temporary files that killed processes left in a folder, where they are ``older`` (in seconds)."""
    for left in (*folder.glob(".*.tmp"), *folder.glob(".tmp??????")):  # ours, and those of safetensors
        with suppress(OSError):  # another process was faster, or it is somebody else's
            if left.lstat().st_mtime <= time.time() - older:
                left.unlink()


def inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to a place in the folder, once all symbolic links in it are followed."""
    return path.resolve().is_relative_to(folder.resolve())


def shown(text: object, length: int = 80) -> str:
    """Somebody else's text for a message on one line: characters that do not print become �, and the end is cut."""
    text = "".join(c if c.isprintable() else "�" for c in str(text)[: length + 1])
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
