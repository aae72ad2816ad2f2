"""A part of a page that looks again by itself, and at news has all of the page run again."""

from collections.abc import Callable

import streamlit as st


def poll(draw: Callable[[], None], changed: Callable[[], bool], seconds: float | None) -> None:
    """Draw ``look()``, and again each ``seconds`` (None: never); if there are ``news()`` by then, the page runs again.

    It begins anew only after all has been drawn, and never in the middle of its own run: a button that was clicked,
    here or further down, would not be reached, and the click lost.
    """
    in_page = True

    def again() -> None:
        nonlocal in_page
        draw()
        if not in_page and changed():
            st.rerun()
        in_page = False

    st.fragment(again, run_every=seconds)()
