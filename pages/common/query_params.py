"""Validation of the page's query parameters, before any widget reads them.

A widget with ``bind="query-params"`` takes its value from the address and puts others back into its range, but
Streamlit raises for numbers that are not finite, and a choice that is required becomes None where it is empty.
"""

import math

import streamlit as st
from streamlit.errors import StreamlitAPIException

from pages.common.figure_card import escape_markdown
from pages.common.input import digit

NAMES = ("a", "b", "data", "run", "runs", "class")  # whose values are names: "inf" may be one
_WARNINGS = "address warnings"  # in the session
LONGEST = 200  # characters of a value


def check(page: str) -> None:
    """Remove query parameters that no widget can hold, and show a warning once. ``page`` is the file of the page.

    Call it before the first widget: if something is removed, the page is rerun.
    """
    wrong = {key: reason for key in st.query_params if (reason := _reason(key, st.query_params.get_all(key)))}
    if wrong:
        st.session_state[_WARNINGS] = [
            f"{key} = {st.query_params[key][:40]!r}, which {why}" for key, why in wrong.items()
        ]
        try:
            for key in wrong:
                del st.query_params[key]
        except StreamlitAPIException:  # the browser has gone back to it, and a widget holds it by now
            st.switch_page(page, query_params={})
        st.rerun()
    for warning in st.session_state.pop(_WARNINGS, []):
        st.warning(escape_markdown(f"The address asks for {warning}. The default is used instead."))


def _reason(key: str, values: list[str]) -> str:
    """Why no widget can hold these values; empty if one can."""
    if not all(values):
        return "is empty"
    if max(map(len, values)) > LONGEST and key not in NAMES:
        return f"has more than {LONGEST} characters"
    for value in values:
        try:
            if key == "x":
                digit.unpack(value)
            elif key == "image" and not value.isdecimal():
                return "is not the number of a test image"
            elif key not in NAMES and not math.isfinite(float(value)):
                return "is not a finite number"
        except digit.LinkError as error:
            return str(error)
        except ValueError:  # no number at all: its widget knows what it may be
            pass
    return ""
