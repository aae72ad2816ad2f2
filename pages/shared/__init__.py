"""Loads the engine, and what it stands on, out of the garbage collector's sight.

The imports leave a quarter of a million objects that live as long as the server. Streamlit collects garbage after every
script run and every beat of a fragment, with all threads held up: 0.2 s for these objects, before a person sees that
the run has ended. Frozen, they are passed over; so is, by ``freeze_imports``, what a page imports when it is first
opened. There is nothing to collect among them on the way, either: without the collector the first page comes 0.2 s
sooner.
"""

import gc
import sys
from importlib import import_module

gc.disable()
try:
    for module in ("torch", "plotly.graph_objects", "iwae.catalog", "iwae.posterior"):
        import_module(module)
finally:
    gc.enable()
gc.freeze()
_frozen = len(sys.modules)


def freeze_imports() -> None:
    """Freeze what has been imported since the last time.

    Whatever else is alive at that moment is frozen with it: that goes as ever when nothing refers to it, and only a
    cycle of it would stay. It happens a few times in the life of a server.
    """
    global _frozen
    if len(sys.modules) != _frozen:
        _frozen = len(sys.modules)
        gc.collect()
        gc.freeze()
