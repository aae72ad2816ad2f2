"""Loads the engine, and what it stands on, out of the garbage collector's sight.

The imports leave a quarter of a million objects that live as long as the server. Streamlit collects garbage after every
script run and every beat of a fragment, with all threads held up: 0.2 s for these objects, before a person sees that
the run has ended. Frozen, they are passed over. There is nothing to collect among them on the way, either: without the
collector the first page comes 0.2 s sooner.
"""

import gc
from importlib import import_module

gc.disable()
try:
    for module in ("torch", "plotly.graph_objects", "iwae.catalog", "iwae.posterior"):
        import_module(module)
finally:
    gc.enable()
gc.freeze()
