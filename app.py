"""The explorer's server: `streamlit run app.py`. It imports what the pages need while the browser is still loading."""

import atexit
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import streamlit as st

atexit.register(gc.freeze)  # Ctrl-C ends the server at once, not after a last look for garbage in all that is imported
SLOW = ("pages.common.evidence", "pages.home.claims")  # which bring the sidebar, torch and all the rest


@asynccontextmanager
async def ahead(_: st.App) -> AsyncIterator[None]:
    """Starts the imports with the server instead of with the first visitor, who waits for them no longer than before:
    pages import the same modules, and Python lets one thread import each."""
    threading.Thread(target=lambda: [import_module(name) for name in SLOW], name="imports", daemon=True).start()
    yield


app = st.App("home.py", lifespan=ahead)
