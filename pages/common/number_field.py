"""Fields for numbers that use what was typed or say what is allowed. Of a whole number st.number_input turns "1e3" into
1 and 2.7 into 2, and it keeps the last valid number while the field shows another one."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import streamlit as st

from pages.common.figure_card import escape_markdown


def parse(text: str, low: float, high: float, whole: bool = False) -> float:
    """The number that ``text`` is, from ``low`` to ``high``. Raises ValueError that says what is wrong with it."""
    kind = "a whole number" if whole else "a number"
    allowed = f"choose {kind} from {low:,} to {high:,}"
    try:
        words = text.strip().replace("−", "-")
        value = float(words)
        if whole and low <= value <= high:
            value = int(words) if value != int(value) or abs(value) >= 2**53 else int(value)
    except ValueError:
        raise ValueError(f"“{text}” is not {kind}: {allowed}") from None
    if not low <= value <= high:
        raise ValueError(f"{text.strip()} is out of range: {allowed}")
    return value


def whole_number(
    label: str, low: int, high: int, default: int, step: int = 1, *, key: str, help: str | None = None, place=st,
    held: int | None = None, on_change: Callable[[int], None] | None = None,
) -> int:  # fmt: skip
    """A field with buttons for a whole number from ``low`` to ``high``, which stands in the address.

    Where it holds no such number a sentence below it says so, and the page uses the last one that it held. What
    it held becomes ``default`` where the range has shrunk. ``place`` is a column or container. A number that is
    ``held`` elsewhere does not stand in the address; ``on_change`` gets what was typed before the page runs again.
    """
    used = f"{key} in use"
    if held is not None and held != st.session_state.get(used, default):
        st.session_state[used], st.session_state[key] = held, float(held)
    before = st.session_state.get(used, default)
    if not low <= before <= high:
        if st.session_state.get(key) == before:
            st.session_state[key] = float(default)
        before = default
    allowed = f"From {low:,} to {high:,}."
    # Of a float, and without limits of its own, the widget returns whatever was typed.
    typed = place.number_input(
        label, value=float(default), step=float(step), format="%g", key=key,
        bind="query-params" if held is None else None, help=f"{help} {allowed}" if help else allowed,
        on_change=partial(_pass_on, key, low, high, on_change) if on_change else None,
    )  # fmt: skip
    try:
        value = parse(f"{typed:.15g}", low, high, whole=True)
    except ValueError as error:
        place.error(escape_markdown(f"{error}. In use: {before:,}."))
        value = before
    st.session_state[used] = value
    return value


def in_use(key: str, default: int) -> int:
    """The number that the field of this key gave last, on whichever page; ``default`` where it was not shown yet."""
    return st.session_state.get(f"{key} in use", default)


def _pass_on(key: str, low: int, high: int, to: Callable[[int], None]) -> None:
    with suppress(ValueError):  # the field will say what is wrong
        to(int(parse(f"{st.session_state[key]:.15g}", low, high, whole=True)))


def keep_below(key: str, highest: int, otherwise: int) -> None:
    """Before a slider whose range may have shrunk: what it held beyond that becomes ``otherwise``."""
    if st.session_state.get(key, otherwise) > highest:
        st.session_state[key] = otherwise


def number(
    label: str, low: float, high: float, default: float, *, key: str, whole: bool = False, help: str | None = None
) -> float | None:
    """A field for a number from ``low`` to ``high``; None, and a sentence below the field, where it holds no such."""
    text = st.text_input(label, f"{default:.15g}", key=key, help=help)
    try:
        return parse(text, low, high, whole)
    except ValueError as error:
        st.error(escape_markdown(error))
        return None
