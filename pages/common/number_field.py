"""A field for a number that holds what was typed: st.number_input turns "1e3" into 1 and 2.7 into 2 without a word, and
keeps the last number that was in range while the field shows another one."""

import math

import streamlit as st

from pages.common.figure_card import plain


def parse(text: str, low: float, high: float, whole: bool = False) -> float:
    """The number that ``text`` is, from ``low`` to ``high``. Raises ValueError that says what is wrong with it."""
    kind = "a whole number" if whole else "a number"
    allowed = f"choose {kind} from {low:,} to {high:,}"
    try:
        words = text.strip().replace("−", "-")
        value = float(words)
        if whole and math.isfinite(value):
            value = int(words) if value != int(value) or abs(value) >= 2**53 else int(value)
    except ValueError:
        raise ValueError(f"“{text}” is not {kind}: {allowed}") from None
    if not low <= value <= high:
        raise ValueError(f"{text.strip()} is out of range: {allowed}")
    return value


def number(
    label: str, low: float, high: float, default: float, *, key: str, whole: bool = False, help: str | None = None
) -> float | None:
    """A field for a number from ``low`` to ``high``; None, and a sentence below the field, where it holds no such."""
    text = st.text_input(label, f"{default:.15g}", key=key, help=help)
    try:
        return parse(text, low, high, whole)
    except ValueError as error:
        st.error(plain(error))
        return None
