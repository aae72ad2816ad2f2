"""What a browser sends by itself, checked in one place: values of our own components, and selections on figures.

Streamlit hands on whatever JSON has come. What our scripts would not send changes nothing, and the page says so.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from pages.common.figure_card import escape_markdown

T = TypeVar("T")


def received(key: str, field: str, parse: Callable[[Any], T]) -> T | None:
    """``parse`` of what the browser has sent as ``field`` of the component ``key``; None where it has sent nothing.

    ``parse`` raises ValueError for what is malformed: then the result is None, and ``show_refusal`` says why.
    """
    sent = (st.session_state.get(key) or {}).get(field)
    if sent is None:
        return None
    try:
        return parse(sent)
    except ValueError as error:
        st.session_state[f"{key}.refused"] = str(error)
        return None


def show_refusal(key: str) -> None:
    """Say once what ``received`` has refused of this component."""
    if error := st.session_state.pop(f"{key}.refused", None):
        st.error(f"The browser sent something that cannot be used: {escape_markdown(error)}. Nothing has changed.")


def number(value: Any, most: float) -> float:
    """The same value, an int or a float of at most this size; raises ValueError for anything else."""
    if type(value) not in (int, float) or not abs(value) <= most:
        raise ValueError(f"{value!r:.40} is not a number from −{most:g} to {most:g}")
    return value
