"""Identify processes by process id and start time, because the system reuses ids."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

# Sent by Ctrl-C, by the system, and when a terminal closes (not on Windows)
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
CLOCK_SECONDS = 2.0  # by which the start of one process may seem to move while the system's clock is being set


def start_time(pid: Any) -> float | None:
    """When process ``pid`` started, in seconds since 1970.

    None for a process that has ended, including zombies, and for an invalid ``pid``, which may come from an untrusted
    file.
    """
    process = _find(pid)
    try:
        return None if process is None else process.create_time()
    except psutil.Error:  # it has just ended
        return None


def identity() -> dict[str, float | None]:
    """This process as ``is_alive`` recognises it: ``{"pid": …, "started": …}``."""
    return {"pid": os.getpid(), "started": start_time(os.getpid())}


def is_alive(pid: Any, started: Any) -> bool:
    """Whether the process that had the number ``pid`` and started at ``started`` still exists."""
    found = start_time(pid)
    is_time = isinstance(started, int | float) and not isinstance(started, bool)
    return found is not None and is_time and found - CLOCK_SECONDS <= started <= found + CLOCK_SECONDS


def is_suspended(pid: Any, started: Any) -> bool:
    """Whether that process exists and has been suspended, by SIGSTOP or by Ctrl-Z in its terminal."""
    if not is_alive(pid, started):
        return False
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:  # it has just ended
        return False


def oom_kill_count() -> int | None:
    """The number of processes that the kernel has killed for lack of memory, in this control group or else on the whole
    machine; None if unknown."""
    with suppress(OSError, ValueError, StopIteration):
        group = next(
            line
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )
        return _count(Path("/sys/fs/cgroup") / group.removeprefix("0::/") / "memory.events", "oom_kill")
    with suppress(OSError, ValueError, StopIteration):
        return _count(Path("/proc/vmstat"), "oom_kill")
    return None


def describe_exit(code: int, out_of_memory: bool = False) -> str:
    """Describe the exit status ``code`` of a process, as ``subprocess`` gives it: a negative one is a signal."""
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if out_of_memory:
        return f"was killed by the system ({name}): the machine, or its share of it, had run out of memory"
    if name == "SIGKILL":
        return "was killed (SIGKILL): by `kill -9`, or by a system that had run out of memory"
    return f"was ended by {name}"


def _count(file: Path, name: str) -> int:
    fields = dict(line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return int(next(value for key, value in fields.items() if key == name))


def _find(pid: Any) -> psutil.Process | None:
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (psutil.Error, OverflowError):
        return None
