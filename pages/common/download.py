"""The button behind which every file lies."""

from collections.abc import Callable

import streamlit as st


def download_button(label: str, content: Callable[[], str | bytes], name: str, mime: str, key: str, **looks) -> None:
    """A file that is made when it is asked for.

    The page does not run again, as it would by default: Streamlit drops the files of the run before, this one too where
    the browser has not fetched it yet.
    """
    st.download_button(label, content, name, mime, key=key, on_click="ignore", **looks)
