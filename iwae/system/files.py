"""Atomic writes: a temporary file is written beside the target, flushed to the disk, then renamed."""

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_SECONDS = 24 * 3600.0  # age at which a temporary file is no longer being written
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # of writing, and of a disk that is full
REPLACE_SECONDS = 2.0  # for which Windows may refuse to replace a file that another process is reading


class TargetError(OSError):
    """A file cannot be written; the message names the path and the reason."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces ``path`` when the block succeeds, and is deleted otherwise.

    Raises TargetError if ``path`` exists and is not a regular file: a link, folder, pipe or device.
    """
    _check_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(path.parent, STALE_SECONDS)
    temporary = _temporary(path.parent, path)
    try:
        try:
            yield temporary
        except OSError as error:
            if isinstance(error, TargetError) or error.errno not in FULL:
                raise
            failure = TargetError(f"{path} cannot be written ({error_text(error)})")
            failure.errno = error.errno
            raise failure from None
        _flush(temporary)
        temporary.chmod(0o644)
        _replace(temporary, path)
        _flush_folder(path.parent)  # the rename itself
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_target(path: Path) -> None:
    """Raise TargetError unless ``write(path, …)`` should succeed: to be called before hours of work, not after.

    ``path`` must be new or a regular file, and its folder, or the nearest one above it that exists, must take files.
    """
    try:
        _check_regular(path)
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        _temporary(folder, path).unlink()
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"{path} cannot be written ({error_text(error)})") from None


def write_or_rescue(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(path)``; if it fails, write the same file elsewhere, so that the result is not lost.

    The fallback is a new folder in the system's temporary folder, else in the current folder. Raises TargetError that
    names the fallback.
    """
    try:
        write(path)
        return
    except OSError as error:
        failure = error
    problem = failure if isinstance(failure, TargetError) else f"{path} cannot be written ({error_text(failure)})"
    for folder in (None, "."):
        try:
            kept = Path(tempfile.mkdtemp(prefix="iwae-", dir=folder)).absolute() / path.name
            write(kept)
        except OSError:
            continue
        raise TargetError(f"{problem}; the result is in {kept} instead") from failure
    raise failure


def error_text(error: OSError) -> str:
    """The system's message for an error, without its number and path."""
    return error.strerror or str(error)


def remove_temporary_files(folder: Path, age: float = 0.0) -> None:
    """Remove the temporary files that killed processes left in a folder, where they are ``older`` (in seconds)."""
    for left in (*folder.glob(".*.tmp"), *folder.glob(".tmp??????")):  # ours, and those of safetensors
        with suppress(OSError):  # another process was faster, or it belongs to another user
            if left.lstat().st_mtime <= time.time() - age:
                left.unlink()


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in the folder after all symbolic links are resolved."""
    if path.parent == folder and path.name != ".." and not path.is_symlink():
        return True  # wherever the folder itself is; resolving both takes ten times as long
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself, which Python 3.13 and later resolve
        return False


def printable(text: object, length: int = 80) -> str:
    """Untrusted text for a one-line message: unprintable characters become �, and text over ``length`` is cut."""
    text = "".join(c if c.isprintable() else "�" for c in str(text)[: length + 1])
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _check_regular(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise TargetError(f"{path} is {kind}; only a new or a regular file can be written")


def _temporary(folder: Path, path: Path) -> Path:
    """A new, empty file in the folder, named after the one that it is to become."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:100]}.", suffix=".tmp")
    os.close(handle)
    return Path(name)


def _replace(temporary: Path, path: Path) -> None:
    """Rename, with retries on Windows, where a file that is being read cannot be replaced."""
    end = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)  # Windows cannot flush a file that is open for reading only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    """Flush the names in a folder, where the system lets folders be opened (not Windows) and flushed (not every file
    system of a network)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
