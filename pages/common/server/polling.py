"""A part of a page that refreshes itself, and reruns the whole page when something has changed."""

from collections.abc import Callable
from typing import NoReturn

import streamlit as st

from pages.frame import fragments


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

    again.__qualname__ += f" of {st.session_state.get('title')}"  # an id on each page: none answers for another page
    st.fragment(again, run_every=seconds)()


def end_page() -> NoReturn:
    """End this run here, like ``st.stop()``, which alone would keep the fragments of earlier runs."""
    fragments.forget()
    st.stop()
