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
_WARNINGS = "address warnings"  # in the session: the page, and what was wrong with its address
OLD_NAMES = {  # of the parameters of bounds, which once had a name each
    "p": "power-mean.p", "kl_weight": "l-alpha.alpha", "alpha": "renyi.alpha", "beta": "ciwae.beta",
}  # fmt: skip
LONGEST = 200  # characters of a value


def check(page: str) -> None:
    """Give old names their new ones, remove query parameters that no widget can hold, and warn of them until the
    visitor leaves the page. ``page`` is its file.

    Call it before the first widget: if something changes, the page is rerun.
    """
    if any(key in st.query_params for key in OLD_NAMES):
        kept = {OLD_NAMES.get(key, key): st.query_params.get_all(key) for key in st.query_params}
        st.query_params.from_dict(kept)
        st.rerun()
    wrong = {key: reason for key in st.query_params if (reason := _reason(key, st.query_params.get_all(key)))}
    if wrong:
        said = [f"{key} = {st.query_params[key][:40]!r}, which {why}" for key, why in wrong.items()]
        st.session_state[_WARNINGS] = page, said
        try:
            for key in wrong:
                del st.query_params[key]
        except StreamlitAPIException:  # the browser has gone back to it, and a widget holds it by now
            st.switch_page(page, query_params={})
        st.rerun()
    warned, said = st.session_state.get(_WARNINGS, (page, []))
    if warned != page:
        del st.session_state[_WARNINGS]
        return
    for warning in said:
        st.warning(escape_markdown(f"The address asks for {warning}. The default is used instead."))


def _reason(key: str, values: list[str]) -> str:
    """Why no widget can hold these values; empty if one can."""
    if not all(values):
        return "is empty"
    if max(map(len, values)) > LONGEST and key not in (*NAMES, "x"):
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
