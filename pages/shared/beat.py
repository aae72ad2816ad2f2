"""A part of a page that looks again by itself, and at news has all of the page run again."""

from collections.abc import Callable

import streamlit as st


def beat(look: Callable[[], None], news: Callable[[], bool], seconds: float | None) -> None:
    """Draw ``look()``, and again each ``seconds`` (None: never); if there are ``news()`` by then, the page runs again.

    Not while the page itself runs, though: it would begin anew before it reaches the button that it runs for, and the
    click would be lost.
    """
    in_page = True

    def again() -> None:
        nonlocal in_page
        if not in_page and news():
            st.rerun()
        in_page = False
        look()

    st.fragment(again, run_every=seconds)()
