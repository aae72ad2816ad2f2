"""Memory of the server: imports are frozen for the garbage collector, which runs on a schedule.

The imports leave a quarter of a million objects that live as long as the server; frozen, they are passed over, and so
is what a page imports when it is first opened. There is nothing to collect among them on the way, either: without the
collector the first page comes 0.2 s sooner.

Streamlit would collect after every run of a page or fragment, which blocks all threads: with thirty users, 40% of the
server's time. A thread does so every few seconds, also when all have left; Python by itself
when much is new.

The threads that run pages share two heaps (``malloc.limit_heaps``), and what is free in them goes back to the system.
When all have gone, the caches are dropped and the sessions forgotten.

Streamlit compares the origin of a WebSocket that is not the page's own with the addresses of this machine, and asks a
host on the network for the external one, with the whole server waiting, again for each connection where no answer
comes. Both addresses are given here, as the loopback's, which is allowed anyway: a page of another site is refused at
once. A visitor at another address of this machine is of the same origin as the server, and needs neither.
"""

import gc
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module

import streamlit as st
from streamlit import net_util
from streamlit.runtime import Runtime, RuntimeState
from streamlit.runtime.session_manager import SessionManager

from iwae.system import malloc

net_util._external_ip = net_util._internal_ip = "127.0.0.1"
gc.disable()
try:
    # pandas for Plotly, which looks for it in each value: it fails where another thread has it half imported
    for module in ("torch", "pandas", "plotly.graph_objects", "iwae.catalog", "iwae.inference.posterior"):
        import_module(module)
finally:
    gc.enable()
gc.freeze()
INTERVAL_SECONDS = 20.0
IDLE_ROUNDS = 2  # times in a row that nobody is found there, and then all is dropped
LAST_ROUND = 10  # times until which it is dropped again: work may end late, and Streamlit keeps a session for 120 s


def collect_garbage(modules: int) -> int:
    """Collect garbage, give memory back, and freeze what has been imported since there were so many modules; returns
    how many there are now.

    Streamlit keeps the sessions of those who left for two minutes, and longer until somebody comes; not so here.

    Other objects that are alive when imports are frozen are frozen too: they are freed by reference counting as usual,
    but cycles among them stay until ``release_all``.
    """
    if Runtime.exists():
        forget_sessions(getattr(Runtime.instance(), "_session_mgr", None))
    gc.collect()
    if len(sys.modules) != modules:
        gc.freeze()
    malloc.release()
    return len(sys.modules)


def forget_sessions(manager: SessionManager | None) -> None:
    """Let go of the sessions whose time to come back is over: Streamlit's store does so only when it is used."""
    with suppress(AttributeError), manager._storage_lock:  # another version may store them in another way
        manager._session_storage._cache.expire()


def release_all() -> int:
    """Drop all caches (models, data, draws: the next visitor's pages rebuild them within a second or two), and what
    was frozen with imports though it is nobody's. Then as ``collect_garbage``, with all imports frozen again."""
    st.cache_resource.clear()
    st.cache_data.clear()
    gc.unfreeze()
    return collect_garbage(0)


def _maintain() -> None:
    modules, idle = len(sys.modules), 0
    while True:
        time.sleep(INTERVAL_SECONDS)
        if not Runtime.exists():  # no server, but a test of a page
            continue
        nobody = Runtime.instance().state == RuntimeState.NO_SESSIONS_CONNECTED
        idle = idle + 1 if nobody else 0
        modules = release_all() if IDLE_ROUNDS <= idle <= LAST_ROUND else collect_garbage(modules)


malloc.limit_heaps()
threading.Thread(target=_maintain, name="tidy", daemon=True).start()
