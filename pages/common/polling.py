"""A part of a page that refreshes itself, and reruns the whole page when something has changed."""

from collections.abc import Callable

import streamlit as st


def poll(draw: Callable[[], None], changed: Callable[[], bool], seconds: float | None) -> None:
    """Call ``draw()`` now and every ``seconds`` (None: only now); if ``changed()`` by then, rerun the page.

    The rerun comes only after everything has been drawn, and never during the page's own run: otherwise a button that
    was clicked, here or further down, would not be reached, and the click would be lost.
    """
    in_page = True

    def again() -> None:
        nonlocal in_page
        draw()
        if not in_page and changed():
            st.rerun()
        in_page = False

    st.fragment(again, run_every=seconds)()
