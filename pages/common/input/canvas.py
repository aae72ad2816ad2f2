"""A drawing surface for one digit: 28×28 grey levels by mouse, pen, touch or keyboard.

The record of a drawing lives in `st.session_state[f"{key}.drawing"]`, a plain entry, so it outlasts the widget
when the user visits another page:

    revision  counts the changes made by Python; the browser replaces its drawing only when this changes
    base      the picture under the strokes, 784 values, or None
    history   the strokes, as canvas.js keeps them
    pixels    the picture as drawn, 784 values, or None on blank paper
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

PIXELS = 28 * 28


def source(*names: str) -> str:
    """Files of the folder pages, one after the other."""
    return "\n".join((Path(__file__).parents[2] / name).read_text(encoding="utf-8") for name in names)


_canvas = st.components.v2.component(
    "digit_canvas",
    html=source("common/input/canvas.html"),
    css=source("common/input/canvas.css", "common/input/live.css"),
    js=source(
        "common/input/forward.js",
        "common/input/pictures.js",
        "common/input/prepare.js",
        "common/input/live.js",
        "common/input/canvas.js",
    ),
)


def draw_digit(
    key: str,
    *,
    size: int = 280,
    initial: list[int] | None = None,
    live: dict[str, Any] | None = None,
    on_drawing: Callable[[list[int] | None], None] | None = None,
) -> list[int] | None:
    """Show the drawing surface and return what is on it.

    key         names the widget and its record; one surface per key and page
    size        width of the surface in CSS pixels; it shrinks where there is less room
    initial     the picture on the paper when the session first meets this key
    live        from pages.common.input.live: pictures beside the surface that follow the strokes
    on_drawing  called with what is returned, before the page runs again, when the visitor has drawn or erased

    Returns 784 grey levels, row by row, 0 (paper) to 255 (ink), or None while the paper is blank.
    Raises ValueError for a size below 28 and for pixels that are not 784 integers from 0 to 255.
    """
    if size < 28:
        raise ValueError(f"size is {size}; it must be at least 28 CSS pixels")
    name = _record_name(key)
    record = st.session_state.setdefault(name, _record(initial))
    _canvas(
        key=key,
        data={"size": size, "live": live} | {field: record[field] for field in ("revision", "base", "history")},
        on_drawing_change=partial(_changed, key, on_drawing),
    )
    _adopt(key)  # again after a lost session: the browser re-sends its drawing and no callback runs
    pixels = st.session_state[name]["pixels"]
    return list(pixels) if pixels else None


def lay_under(key: str, pixels: list[int]) -> None:
    """Put a picture on the paper, unless somebody has drawn there. Call it before `draw_digit`."""
    record = st.session_state.get(_record_name(key))
    if record is None or (not record["history"] and record["base"] != pixels):
        st.session_state[_record_name(key)] = _record(pixels, record["revision"] + 1 if record else 0)


def drawn(key: str) -> list[int] | None:
    """What is on the paper: 784 grey levels, or None while it is blank. Call it after `lay_under`."""
    return st.session_state[_record_name(key)]["pixels"]


def strokes(key: str) -> bool:
    """Whether somebody has changed the paper by hand. Call it after `lay_under`."""
    return bool(st.session_state[_record_name(key)]["history"])


def is_blank(key: str) -> bool:
    """Whether somebody has made the paper blank by hand."""
    record = st.session_state.get(_record_name(key), {})
    return bool(record.get("history")) and record["pixels"] is None


def clear_digit(key: str) -> None:
    """Make the paper blank. Call it in a callback, before `draw_digit`, or followed by `st.rerun()`."""
    name = _record_name(key)
    revision = st.session_state[name]["revision"] + 1 if name in st.session_state else 1
    st.session_state[name] = _record(None, revision)


def _record_name(key: str) -> str:
    return f"{key}.drawing"


def _record(pixels: list[int] | None, revision: int = 0) -> dict[str, Any]:
    base = None if pixels is None else _checked(pixels)
    return {"revision": revision, "base": base, "history": [], "pixels": base}


def _changed(key: str, on_drawing: Callable[[list[int] | None], None] | None) -> None:
    _adopt(key)
    if on_drawing:
        on_drawing(st.session_state[_record_name(key)]["pixels"])


def _adopt(key: str) -> None:
    """Take over the browser's drawing, unless Python has changed the paper since it was made."""
    name = _record_name(key)
    drawing = (st.session_state.get(key) or {}).get("drawing")
    record = st.session_state.get(name)
    if drawing and record and drawing["revision"] == record["revision"]:
        pixels = _checked(drawing["pixels"])
        st.session_state[name] = record | {"history": drawing["history"], "pixels": pixels}


def _checked(pixels: list[int]) -> list[int] | None:
    """The same pixels, or None if none is inked."""
    if len(pixels) != PIXELS:
        raise ValueError(f"a drawing has {PIXELS} pixels, not {len(pixels)}")
    for value in pixels:
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise ValueError(f"pixel value {value!r}; allowed are integers from 0 to 255")
    return list(pixels) if any(pixels) else None
