"""A drawing surface for one image: grey levels by mouse, pen, touch or keyboard.

The record of a drawing lives in `st.session_state[f"{key}.drawing"]`, a plain entry, so it outlasts the widget
when the user visits another page:

    revision  counts the changes made by Python; the browser replaces its drawing only when this changes
    shape     rows and columns of the picture
    base      the picture under the strokes, a value for each pixel, or None
    history   the strokes, as canvas.js keeps them
    pixels    the picture as drawn, or None on blank paper
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from pages.common.input.received import number, received, show_refusal

FARTHEST = 10_000.0  # pixels of the picture: a stroke may leave the paper
MOST_NUMBERS = 200_000  # in all strokes of a drawing


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
    shape: tuple[int, int] = (28, 28),
    initial: list[int] | None = None,
    live: dict[str, Any] | None = None,
    on_drawing: Callable[[list[int] | None], None] | None = None,
) -> list[int] | None:
    """Show the drawing surface and return what is on it.

    key         names the widget and its record; one surface per key and page
    size        of the longer side of the surface in CSS pixels; it shrinks where there is less room
    shape       rows and columns of the picture where the session first meets this key
    initial     the picture on the paper when the session first meets this key
    live        from pages.common.input.live: pictures beside the surface that follow the strokes
    on_drawing  called with what is returned, before the page runs again, when the visitor has drawn or erased

    Returns grey levels, row by row, 0 (paper) to 255 (ink), or None while the paper is blank.
    Raises ValueError for a size below the number of rows or columns, and for pixels that are not as many integers from
    0 to 255.
    """
    name = _record_name(key)
    record = st.session_state.setdefault(name, _record(initial, shape))
    if size < max(record["shape"]):
        raise ValueError(f"size is {size}; it must be at least {max(record['shape'])} CSS pixels")
    _canvas(
        key=key,
        data={"size": size, "live": live}
        | {field: record[field] for field in ("revision", "shape", "base", "history")},
        on_drawing_change=partial(_changed, key, on_drawing),
    )
    _adopt(key)  # again after a lost session: the browser re-sends its drawing and no callback runs
    show_refusal(key)
    pixels = st.session_state[name]["pixels"]
    return list(pixels) if pixels else None


def lay_under(key: str, pixels: list[int], shape: tuple[int, int]) -> None:
    """Put a picture on the paper, unless somebody has drawn one of this shape there. Call it before `draw_digit`."""
    record = st.session_state.get(_record_name(key))
    if record is None or record["shape"] != shape or (not record["history"] and record["base"] != pixels):
        st.session_state[_record_name(key)] = _record(pixels, shape, record["revision"] + 1 if record else 0)


def drawn(key: str) -> list[int] | None:
    """What is on the paper: grey levels, or None while it is blank. Call it after `lay_under`."""
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
    record = st.session_state.get(name) or _record(None, (28, 28))
    st.session_state[name] = _record(None, record["shape"], record["revision"] + 1)


def _record_name(key: str) -> str:
    return f"{key}.drawing"


def _record(pixels: list[int] | None, shape: tuple[int, int], revision: int = 0) -> dict[str, Any]:
    base = None if pixels is None else _checked(pixels, shape)
    return {"revision": revision, "shape": shape, "base": base, "history": [], "pixels": base}


def _changed(key: str, on_drawing: Callable[[list[int] | None], None] | None) -> None:
    if _adopt(key) and on_drawing:
        on_drawing(st.session_state[_record_name(key)]["pixels"])


def _adopt(key: str) -> bool:
    """Take over the browser's drawing, unless Python has changed the paper since it was made; whether it was taken."""
    name = _record_name(key)
    record = st.session_state.get(name)
    drawing = record and received(key, "drawing", partial(_drawing, record))
    if drawing:
        st.session_state[name] = record | drawing
    return bool(drawing)


def _drawing(record: dict[str, Any], sent: Any) -> dict[str, Any]:
    """The history and pixels of a drawing by canvas.js; empty if it was made on other paper than the record's. Raises
    ValueError for anything else."""
    match sent:
        case {"revision": revision, "history": list(history), "pixels": list(pixels)}:
            if revision != record["revision"]:
                return {}
        case _:
            raise ValueError("a drawing has a revision, a history and pixels")
    left = MOST_NUMBERS
    for stroke in history:
        if stroke is None:  # cleared here
            continue
        if not isinstance(stroke, list) or not stroke or len(stroke) % 2:
            raise ValueError(f"a stroke is a list of x, y, x, y, …, not {stroke!r:.40}")
        left -= len(stroke)
        if left < 0:
            raise ValueError(f"the strokes of a drawing have at most {MOST_NUMBERS // 2:,} points; clear the paper")
        for value in stroke:
            number(value, FARTHEST)
    return {"history": history, "pixels": _checked(pixels, record["shape"])}


def _checked(pixels: list[int], shape: tuple[int, int]) -> list[int] | None:
    """The same pixels, or None if none is inked."""
    if len(pixels) != shape[0] * shape[1]:
        raise ValueError(f"a drawing has {shape[0] * shape[1]} pixels, not {len(pixels)}")
    for value in pixels:
        if type(value) is not int or not 0 <= value <= 255:
            raise ValueError(f"pixel value {value!r:.40}; allowed are integers from 0 to 255")
    return list(pixels) if any(pixels) else None
