"""A part of a page that refreshes itself, and reruns the whole page when something has changed."""

from collections.abc import Callable
from typing import NoReturn

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx


def set_in_dialog(is_open: bool) -> None:
    """Called by every dialog with True, and by every run of a page, which closes it, with False."""
    st.session_state["in dialog"] = is_open


def poll(draw: Callable[[], None], changed: Callable[[], bool], seconds: float | None) -> None:
    """Call ``draw()`` now and every ``seconds`` (None: only now); if ``changed()`` by then, rerun the page.

    The rerun comes only after everything has been drawn, and never during the page's own run: otherwise a button that
    was clicked, here or further down, would not be reached, and the click would be lost. Nor does it come while a
    dialog is open, which it would close; that reruns the page when it is closed.
    """
    in_page = True

    def again() -> None:
        nonlocal in_page
        draw()
        if not in_page and not st.session_state.get("in dialog") and changed():
            st.rerun()
        in_page = False

    st.fragment(again, run_every=seconds)()


def end_page() -> NoReturn:
    """End this run here, like ``st.stop()``, and with it what earlier runs have left refreshing itself.

    ``st.stop()`` alone keeps those parts: the browser may just have asked for one, which would be drawn where nothing
    is any more, and Streamlit answers that with an empty window.
    """
    run = get_script_run_ctx()
    if run and not run.fragment_ids_this_run:  # of the whole page
        run.fragment_storage.clear(run.shared.new_fragment_ids.snapshot())
    st.stop()
