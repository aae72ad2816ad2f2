"""The editor of an uploaded picture: what was found in it, and a person's corrections to how it is read."""

import base64
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from iwae.data import datasets
from iwae.images.decoding import PictureError
from iwae.images.edits import BRUSH, Edit
from iwae.images.uploads import to_float
from pages.common.input.canvas import source
from pages.common.input.received import received, show_refusal
from pages.common.server import cache

QUALITY = 80  # of the JPEG that the browser shows: at most 640×640 pixels, about 100 kB

_editor = st.components.v2.component(
    "picture_editor",
    html=source("common/input/picture_editor.html"),
    css=source("common/input/canvas.css", "common/input/picture_editor.css"),
    js=source("common/input/pictures.js", "common/input/picture_editor.js"),
)


def edit_picture(
    key: str, content: bytes, name: str, edit: Edit, dataset: str, on_edit: Callable[[Edit], None]
) -> None:
    """Show the picture in a file with what is read of it by ``edit`` for models of a data set; ``on_edit`` is called
    with another edit before the page runs again. A file that cannot be decoded shows nothing."""
    show_refusal(key)
    with suppress(PictureError):
        picture = _picture(content, name)
        found = _read(content, name, edit, dataset)
        whole = found if edit.box is None else _read(content, name, replace(edit, box=None), dataset)
        _editor(
            key=key,
            data=picture | {
                "edit": asdict(edit), "boxes": [list(box) for box in whole.boxes] if whole else [],
                "shape": datasets.shape(dataset),
                "seen": (255 * found.image).round().astype(int).ravel().tolist() if found else None,
                "dark_ink": found.inverted if found else bool(edit.dark_ink),
            },
            on_edit_change=lambda: _changed(key, on_edit),
        )  # fmt: skip


def _changed(key: str, on_edit: Callable[[Edit], None]) -> None:
    if edit := received(key, "edit", Edit.from_browser):
        on_edit(edit)


def _read(content: bytes, name: str, edit: Edit, dataset: str):
    """The digit, or None where no ink is found."""
    with suppress(PictureError):
        return cache.digit(content, name, edit, dataset)


@st.cache_resource(max_entries=8, show_spinner=False)
def _picture(content: bytes, name: str) -> dict[str, Any]:
    """What the browser shows of it; raises PictureError."""
    pixels = (255 * to_float(cache.picture(content, name))).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    height, width = pixels.shape[:2]
    red, green, blue = np.broadcast_to(np.median(pixels.reshape(height * width, -1), axis=0), 3)
    return {
        "picture": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}",
        "size": [width, height], "brush": BRUSH * max(width, height), "paper": f"rgb({red:.0f} {green:.0f} {blue:.0f})",
    }  # fmt: skip
