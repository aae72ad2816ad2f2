"""Read untrusted files, such as those of runs in a shared folder.

Only regular files are read, never links, pipes or devices; at most a given number of bytes; and JSON only as the types
that a dataclass declares. Every problem is an UntrustedError with a message.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from iwae.system.files import printable

LARGEST = 10**15  # absolute value of any number in such a file
# do not wait for pipes or follow links, where the system supports it
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

T = TypeVar("T")
Version = tuple[int, int, int]  # of a file; changes whenever the file is rewritten


class UntrustedError(ValueError):
    """A file that cannot be used; the message says why, but not which file it is."""


class ForbiddenError(UntrustedError):
    """A file that this user may not read."""


def version(path: Path) -> Version | None:
    """The version of a file, None if it does not exist. Raises ForbiddenError if this user may not access it."""
    try:
        about = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refusal(error) from None
    return about.st_ino, about.st_mtime_ns, about.st_size


def is_file(path: Path) -> bool:
    """Whether this is a regular file and not a link; False if this user may not access it."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises FileNotFoundError where there is no such file, and UntrustedError for everything else.
    """
    try:
        if path.is_symlink():
            raise UntrustedError("it is a link, which is not followed")
        handle = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise _refusal(error) from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise UntrustedError("it is a folder, pipe or device, not a file")
        if about.st_size > limit:
            raise UntrustedError(f"it has {about.st_size:,} bytes; at most {limit:,} are read")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError as error:
        raise _refusal(error) from None
    finally:
        os.close(handle)


def decode(content: bytes, kind: type[T], old_names: Mapping[str, str] | None = None) -> T:
    """JSON as an object of a dataclass, with every field of the type that is declared; other keys are ignored.

    ``old_names`` maps keys of older versions to the fields of today.

    Raises UntrustedError for invalid JSON, a wrong type, a missing field, numbers that are not finite or too large,
    and for values that the dataclass rejects, with its message.
    """
    try:
        values = msgspec.json.decode(content)
        _check_numbers(values)
        if old_names and isinstance(values, dict):
            values = {old_names.get(name, name): value for name, value in values.items()}
        return msgspec.convert(values, kind)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise UntrustedError(printable(error, 300)) from None
    except RecursionError:
        raise UntrustedError("it is nested too deeply") from None


def _check_numbers(values: Any) -> None:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            _check_numbers(value)
    elif isinstance(values, int | float) and not abs(values) <= LARGEST:
        raise ValueError(f"it holds {printable(values, 30)}; no number may be beyond {LARGEST:.0e}")


def _refusal(error: OSError) -> UntrustedError:
    kind = ForbiddenError if isinstance(error, PermissionError) else UntrustedError
    return kind((error.strerror or type(error).__name__).lower())
