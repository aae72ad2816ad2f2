"""Work in the background leaves the processor to whoever looks at a page."""

import os
import threading
from contextlib import suppress
from pathlib import Path

TRAINING, MAP = 10, 5  # steps of niceness: somebody waits for a map, but a page comes first


def lower_priority(steps: int) -> None:
    """Make this process, a session of its own, so much nicer. Nothing happens on systems without niceness."""
    if hasattr(os, "nice"):
        os.nice(steps)
        with suppress(OSError):  # Linux may weigh whole sessions
            Path("/proc/self/autogroup").write_text(str(steps), encoding="ascii")


def lower_thread_priority(steps: int) -> None:
    """Make the calling thread alone so much nicer, where threads have a priority of their own (Linux)."""
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), steps)
