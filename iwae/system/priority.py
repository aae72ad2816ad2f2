"""Lower the priority of background work, so that pages stay responsive."""

import os
import threading
from contextlib import suppress
from pathlib import Path

TRAINING, MAP = 10, 5  # niceness: a user waits for a map, but pages come first


def lower_priority(steps: int) -> None:
    """Raise the niceness of this process and of its session by ``steps``; no effect on systems without niceness."""
    if hasattr(os, "nice"):
        os.nice(steps)
        with suppress(OSError):  # Linux may schedule whole sessions
            Path("/proc/self/autogroup").write_text(str(steps), encoding="ascii")


def lower_thread_priority(steps: int) -> None:
    """Set the niceness of the calling thread alone, on systems where threads have one (Linux)."""
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), steps)
