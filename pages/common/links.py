"""Links between pages that bring along what every page shares, so that one click is one step of the browser's history.

A page that had to write it into its own address would take another step, and Back would lead to the bare address, which
is written to at once: nowhere.
"""

import streamlit as st

KEPT = ("a", "b", "image", "x", "simple")  # the models, the digit in hand, how much is explained


def kept() -> dict[str, str]:
    """What a link to another page says of the models and the digit. Call it below the sidebar's choices."""
    return {key: st.query_params[key] for key in KEPT if key in st.query_params}


def page_link(file: str, label: str, icon: str) -> None:
    """A link to a page; ``icon`` is the name of a Material icon."""
    st.page_link(file, label=label, icon=f":material/{icon}:", query_params=kept())
