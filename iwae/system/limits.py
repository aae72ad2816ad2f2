"""Limits of this process, for one that reads what somebody else has sent."""

import signal
from pathlib import Path


def limit_memory(megabytes: float) -> None:
    """So much more than it has now; on Linux alone."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[5])  # data and stack
    except (ImportError, OSError):  # not Linux: only the limit on time holds
        return
    most = pages * resource.getpagesize() + int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def limit_time(seconds: float) -> None:
    """Of the processor, from now; the process is ended by SIGPROF. 0: no limit. Not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
