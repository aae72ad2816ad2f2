"""The state of a run as other processes see it, and the queue of runs.

At most ``max_running()`` runs in the background train at once; the others wait, first come, first served. Each waits in
its own process, so the queue needs neither a server nor an open page. A slot is a lock on one of ``max_running()``
files; the system releases it when its process ends. Nothing here imports torch: a waiting process takes 20 MB, not 230.
"""

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from iwae.system import cores, files, processes, untrusted
from iwae.system.untrusted import UntrustedError

LOCK_PATIENCE = 2.0  # seconds; checking whether a run is alive holds its lock for an instant
POLL_SECONDS = 0.5  # between two checks of a waiting process
STATUS_BYTES = 2**16  # of a status.json, at most
LONGEST_MESSAGE = 2000  # characters of it
NO_MESSAGE = "its process ended without a message"

_probe_lock = threading.Lock()  # two threads that check at once would each mistake the other for the run's process


class RunError(ValueError):
    """The requested operation is not possible for this run; the message says why."""


def max_running() -> int:
    """The number of background runs that may train at once: IWAE_MAX_RUNS, or one fewer than the available cores, at
    least 1.

    Raises RunError when IWAE_MAX_RUNS is no whole number of at least 1.
    """
    asked = os.environ.get("IWAE_MAX_RUNS")
    if not asked:
        return max(1, cores.count() - 1)
    if not asked.isdecimal() or int(asked) < 1:
        raise RunError(f"IWAE_MAX_RUNS is {asked!r}; it must be a whole number of at least 1")
    return int(asked)


@dataclass(frozen=True)
class RunStatus:
    """The state of a run. ``phase``: starting, waiting, running, evaluating, finished, stopped, failed or died.

    A process that has been asked to stop is ``stopping`` until it ends; one that was paused is ``suspended``.
    """

    phase: str
    message: str = ""  # why it failed
    total_steps: int = 0  # 0 while unknown

    @property
    def alive(self) -> bool:
        return self.phase in (*ALIVE, "stopping", "suspended")


ALIVE = ("starting", "waiting", "running", "evaluating")


@dataclass(frozen=True)
class StatusRecord:
    """The content of status.json: what the run's process last reported."""

    phase: Literal["starting", "waiting", "running", "evaluating", "finished", "stopped", "failed", "died"]
    message: str = ""
    total_steps: int = 0
    pid: int | None = None
    started: float | None = None  # when that process started, in seconds since 1970
    since: float | None = None  # when it entered the queue; None if it is not queued

    def __post_init__(self) -> None:
        if self.total_steps < 0:
            raise ValueError(f"total_steps must not be below 0, not {self.total_steps}")

    @property
    def ended(self) -> bool:
        return self.phase not in ALIVE


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: its last reported status, and the lock that shows whether its process is alive."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def status(self) -> RunStatus:
        """The current status; ``died`` if its process ended without reporting a final status."""
        try:
            record = self._read_status()
        except FileNotFoundError:
            return RunStatus("died", "its status.json cannot be read")
        except UntrustedError as error:
            return RunStatus("died", f"its status.json cannot be read ({error})")
        status = RunStatus(record.phase, record.message[:LONGEST_MESSAGE], record.total_steps)
        if record.ended:
            return status
        if self._process_exists(record):
            if processes.is_suspended(record.pid, record.started):
                message = f"its process is suspended; `kill -CONT {record.pid}` in a shell resumes it"
                return replace(status, phase="suspended", message=message)
            return replace(status, phase="stopping") if self.stop_requested else status
        with suppress(FileNotFoundError, UntrustedError):
            if self._read_status() != record:  # it was updated between the two reads
                return self.status()
        return replace(status, phase="died", message=NO_MESSAGE)

    @property
    def queued_since(self) -> float | None:
        """When it entered the queue; None if it is not queued."""
        with suppress(FileNotFoundError, UntrustedError):
            record = self._read_status()
            if record.since is not None and self.status().phase in ("starting", "waiting"):
                return record.since
        return None

    @property
    def stop_requested(self) -> bool:
        """Whether its process has been asked to save and stop."""
        return os.path.lexists(self.folder / "stop")

    def stop(self) -> None:
        """Ask its process to save and stop; returns at once."""
        if not self.status().alive:
            raise RunError(f"run {self.name} is not running")
        try:
            files.write(self.folder / "stop", "")
        except OSError as error:
            raise RunError(f"run {self.name} cannot be asked to stop ({error.strerror or error})") from None

    def set_status(self, phase: str, message: str = "", **more: Any) -> None:
        """Write the run's status to status.json, as reported by this process unless ``more`` names another one.

        Raises RunError if the folder no longer exists.
        """
        if not self.folder.is_dir():
            raise RunError(f"run {self.name} has been deleted")
        try:
            before = asdict(self._read_status())
        except (FileNotFoundError, UntrustedError):
            before = {}
        record = before | {"phase": phase, "message": message[:LONGEST_MESSAGE]} | processes.identity() | more
        try:
            files.write(self.folder / "status.json", json.dumps(record))
        except FileNotFoundError:
            raise RunError(f"run {self.name} has been deleted") from None

    def record_exit(self, reason: str) -> None:
        """Record why its process ended, unless the process reported it itself."""
        with suppress(RunError, OSError):  # the run has been deleted, or belongs to another user
            status = self.status()
            if (status.phase, status.message) == ("died", NO_MESSAGE):
                self.set_status("died", f"its process {reason}")

    def _read_status(self) -> StatusRecord:
        """Read status.json; raises FileNotFoundError and UntrustedError."""
        path = self.folder / "status.json"
        version = untrusted.version(path)
        record = _parse_status(path, version)
        # a final status never changes; a live one may have been rewritten within the file clock's resolution
        return record if record.ended else _parse_status.__wrapped__(path, version)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run's lock; raises RunError while another process holds it."""
        if not self.folder.exists():
            raise RunError(f"run {self.name} has been deleted")
        try:
            lock = FileLock(self.folder / "lock", timeout=LOCK_PATIENCE).acquire()
        except Timeout:
            raise RunError(f"run {self.name} is already running in another process") from None
        except OSError as error:
            raise RunError(f"run {self.name} cannot be locked here ({error.strerror or error})") from None
        with lock:
            yield

    def folder_guard(self) -> Callable[[], None]:
        """A function that raises RunError once this folder has been moved, deleted or replaced."""

        def identity() -> tuple[int, int]:
            try:
                about = self.folder.stat()
            except OSError:
                about = None
            if about is None or not stat.S_ISDIR(about.st_mode):
                raise RunError(f"run {self.name}: its folder has been moved away or deleted, so nothing can be saved")
            return about.st_dev, about.st_ino

        before = identity()

        def check() -> None:
            if identity() != before:
                raise RunError(f"run {self.name}: its folder has been replaced by another one, so nothing can be saved")

        return check

    def _process_exists(self, record: StatusRecord) -> bool:
        lock = self.folder / "lock"
        if untrusted.is_file(lock):  # FileLock would create it, and the folder
            try:
                with _probe_lock, FileLock(lock, timeout=0):
                    pass
            except Timeout:
                return True
            except OSError:  # another user's run, whose lock this user may not touch
                return processes.is_alive(record.pid, record.started)
        # nobody holds the lock: the process has not taken it yet, or has ended
        return record.phase == "starting" and processes.is_alive(record.pid, record.started)


@lru_cache(maxsize=4096)
def _parse_status(path: Path, version: untrusted.Version | None) -> StatusRecord:
    return untrusted.decode(untrusted.read(path, STATUS_BYTES), StatusRecord)


def waiting_runs(folder: Path) -> list[RunFolder]:
    """The runs in ``folder`` that wait for a slot, or are about to, the next one first."""
    every = [RunFolder(path.parent) for path in folder.glob("[!.]*/status.json")]
    waiting = [(since, run.name, run) for run in every if (since := run.queued_since) is not None]
    return [run for *_, run in sorted(waiting)]


def position(run: RunFolder, names: list[str] | None = None) -> str:
    """``2nd in the queue``, or an empty string for a run that is not waiting; ``names``: the queue, if known."""
    if names is None:
        names = [other.name for other in waiting_runs(run.folder.parent)]
    if run.name not in names:
        return ""
    number = names.index(run.name) + 1
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending} in the queue"


def wait_for_slot(run: RunFolder) -> FileLock | None:
    """Wait for a free slot; returns its lock, or None if the run was asked to stop meanwhile.

    The caller must have claimed the run. Raises RunError for an invalid IWAE_MAX_RUNS, and if the folder is moved.
    """
    slots = max_running()
    check_folder = run.folder_guard()
    run.set_status("waiting")
    # Each checks only the run before its own: if all checked all, sixty waiting runs would take a core.
    predecessor = _predecessor(run)
    while True:
        check_folder()
        if predecessor is not None and predecessor.queued_since is None:
            predecessor = _predecessor(run)
        if predecessor is None and (slot := _acquire_slot(run.folder.parent, slots)):
            run.set_status("starting", since=None)
            return slot
        if run.stop_requested:
            run.set_status("stopped", since=None)
            return None
        time.sleep(POLL_SECONDS)


def _predecessor(run: RunFolder) -> RunFolder | None:
    """The run that comes before this one in the queue."""
    before = None
    for other in waiting_runs(run.folder.parent):
        if other.name == run.name:
            break
        before = other
    return before


def _acquire_slot(folder: Path, slots: int) -> FileLock | None:
    for number in range(slots):
        lock = FileLock(folder / f".slot-{number}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        return lock
    return None
