"""The sections of a page as tabs, of which only the open one is computed, and a layout for what a section compares."""

from collections.abc import Callable, Mapping

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

NARROWEST = 360  # CSS pixels that a figure, a table or a row of pictures needs


def sections(drawn_by: Mapping[str, Callable[[], None]]) -> None:
    """A tab for each title, the first one open, or the one in the address; the function of the open one draws it."""
    titles = list(drawn_by)
    page = st.session_state["title"].lower().replace(" ", "_")  # with one key for all pages Back would mix them up
    for title, tab in zip(titles, st.tabs(titles, key=f"{page}_section", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                drawn_by[title]()


def beside(narrowest: int = NARROWEST, gap: str = "large") -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two places: side by side where each has at least ``narrowest`` pixels, otherwise one above the other."""
    grid = st.grid(2, min_column_width=narrowest, gap=("small", gap))
    return grid.cell(), grid.cell()
