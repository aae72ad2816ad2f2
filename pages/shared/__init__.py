"""Loads the engine, and what it stands on, out of the garbage collector's sight, and decides when that looks.

The imports leave a quarter of a million objects that live as long as the server; frozen, they are passed over, and so
is what a page imports when it is first opened. There is nothing to collect among them on the way, either: without the
collector the first page comes 0.2 s sooner.

Streamlit would collect after every run of every page and every beat of a fragment, with all threads held up: with
thirty users, 40% of the server's time. ``tidy`` does so every few seconds, and Python by itself when much is new.
"""

import ctypes
import gc
import sys
import time
from contextlib import suppress
from importlib import import_module

gc.disable()
try:
    for module in ("torch", "plotly.graph_objects", "iwae.catalog", "iwae.posterior"):
        import_module(module)
finally:
    gc.enable()
gc.freeze()
COLLECT_SECONDS = 20.0  # between two collections of garbage
_frozen, _collected = len(sys.modules), time.monotonic()


def tidy() -> None:
    """Freeze what has been imported since the last time, and now and then collect garbage and give memory back.

    Whatever else is alive when imports are frozen is frozen with them: that goes as ever when nothing refers to it, and
    only a cycle of it would stay. It happens a few times in the life of a server.
    """
    global _frozen, _collected
    new = len(sys.modules) != _frozen
    if new or time.monotonic() - _collected > COLLECT_SECONDS:
        _frozen, _collected = len(sys.modules), time.monotonic()
        gc.collect()
        if new:
            gc.freeze()
        if sys.platform == "linux":
            with suppress(OSError, AttributeError):  # another C library than GNU's keeps no such heaps
                ctypes.CDLL("libc.so.6").malloc_trim(0)
