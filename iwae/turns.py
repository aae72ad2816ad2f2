"""A run as other processes see it, and its turn among them.

At most ``limit()`` runs in the background train at once; the others wait, first come first served. Each waits in its
own process, so that the queue needs no server and no open page. A place is a lock on one of ``limit()`` files, which
ends with its process, whatever ends that. Nothing here imports torch: a process takes 20 MB while it waits, not 230.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from iwae import cores, files

LOCK_PATIENCE = 2.0  # seconds; whoever looks whether a run is alive holds its lock for an instant
LOOK_SECONDS = 0.5  # between two looks of a waiting process

_looking = threading.Lock()  # two threads that look at once would each take the other for the run's process


class RunError(ValueError):
    """A run that cannot do what was asked of it; the message says why."""


def limit() -> int:
    """How many runs in the background train at once: IWAE_MAX_RUNS, or one fewer than the cores that it may use,
    at least 1.

    Raises RunError when IWAE_MAX_RUNS is no whole number of at least 1.
    """
    asked = os.environ.get("IWAE_MAX_RUNS")
    if not asked:
        return max(1, cores.count() - 1)
    if not asked.isdecimal() or int(asked) < 1:
        raise RunError(f"IWAE_MAX_RUNS is {asked!r}; it must be a whole number of at least 1")
    return int(asked)


@dataclass(frozen=True)
class Status:
    """How a run stands. ``phase``: starting, waiting, running, evaluating, finished, stopped, failed or died."""

    phase: str
    message: str = ""  # why it failed
    total_steps: int = 0  # 0 while unknown

    @property
    def alive(self) -> bool:
        return self.phase in ("starting", "waiting", "running", "evaluating")


@dataclass(frozen=True)
class Folder:
    """The folder of a run: what its process last said, and the lock that tells whether there is one."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def status(self) -> Status:
        """How it stands now; ``died`` when its process is gone without a last word."""
        said = self._said()
        if "phase" not in said:
            return Status("died", "its status.json cannot be read")
        status = Status(said["phase"], said.get("message", ""), said.get("total_steps", 0))
        if not status.alive or self._locked() or (status.phase == "starting" and _exists(said.get("pid"))):
            return status
        if self._said() != said:  # it spoke between the two looks
            return self.status()
        return dataclasses.replace(status, phase="died", message="its process ended without a word")

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody waits for its process to save and stop."""
        return (self.folder / "stop").exists()

    def stop(self) -> None:
        """Ask its process to save and stop; returns at once."""
        if not self.status().alive:
            raise RunError(f"run {self.name} is not running")
        files.write(self.folder / "stop", "")

    def say(self, phase: str, message: str = "", **more: Any) -> None:
        said = self._said() | {"phase": phase, "message": message, "pid": os.getpid()} | more
        files.write(self.folder / "status.json", json.dumps(said))

    def _said(self) -> dict[str, Any]:
        """The last word of its process, empty if there is none that can be read."""
        try:
            said = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Work on the run alone; raises RunError while another process does."""
        if not self.folder.exists():
            raise RunError(f"run {self.name} has been deleted")
        try:
            lock = FileLock(self.folder / "lock", timeout=LOCK_PATIENCE).acquire()
        except Timeout:
            raise RunError(f"run {self.name} is already running in another process") from None
        with lock:
            yield

    def _locked(self) -> bool:
        lock = self.folder / "lock"
        if not lock.exists():  # FileLock would make it, and the folder
            return False
        try:
            with _looking, FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True


def queue(folder: Path) -> list[Folder]:
    """The runs in ``folder`` that wait for a place, or are about to, the next one first."""
    waiting = []
    for path in folder.glob("[!.]*/status.json"):
        run = Folder(path.parent)
        if (since := run._said().get("since")) and run.status().phase in ("starting", "waiting"):
            waiting.append((since, run.name, run))
    return [run for *_, run in sorted(waiting)]


def position(run: Folder) -> str:
    """``2nd in the queue``, or nothing for a run that does not wait."""
    names = [other.name for other in queue(run.folder.parent)]
    if run.name not in names:
        return ""
    number = names.index(run.name) + 1
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending} in the queue"


def wait(run: Folder) -> FileLock | None:
    """Wait for a place; returns it, to be released or to end with this process, or None when asked to stop.

    The caller has claimed the run. Raises RunError for a wrong IWAE_MAX_RUNS.
    """
    places = limit()
    run.say("waiting")
    while True:
        if [other.name for other in queue(run.folder.parent)[:1]] == [run.name] and (
            place := _free_place(run.folder.parent, places)
        ):
            run.say("starting", since=None)
            return place
        if run.asked_to_stop:
            run.say("stopped", since=None)
            return None
        time.sleep(LOOK_SECONDS)


def _free_place(folder: Path, places: int) -> FileLock | None:
    for number in range(places):
        lock = FileLock(folder / f".place-{number}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        return lock
    return None


def _exists(pid: int | None) -> bool:
    """Whether a process of one's own has this number."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
