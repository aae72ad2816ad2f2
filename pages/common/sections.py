"""The sections of a page as tabs, of which only the open one is computed; the address says which one that is."""

from collections.abc import Callable, Mapping

import streamlit as st


def sections(drawn_by: Mapping[str, Callable[[], None]]) -> None:
    """A tab for each title, the first one open; the function of the open one draws it."""
    titles = list(drawn_by)
    page = st.session_state["title"].lower().replace(" ", "_")  # with one key for all pages Back would mix them up
    for title, tab in zip(titles, st.tabs(titles, key=f"{page}_section", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                drawn_by[title]()
