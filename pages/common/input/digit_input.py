"""Choose the digit in hand: pick a test image, upload or photograph one, or draw; and its card in the sidebar."""

from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from iwae.data import datasets
from iwae.images import digits, plain
from iwae.images.decoding import FORMATS, MAX_BYTES
from iwae.images.edits import Edit
from iwae.shapes import shape_text
from iwae.system import optional
from pages.common import image_rows
from pages.common.figure_card import escape_markdown
from pages.common.input import canvas
from pages.common.input.digit import (
    ChosenDigit,
    hold,
    hold_drawing,
    hold_image,
    image_number,
    in_hand,
    prepared,
    remove,
)
from pages.common.input.picture_editor import edit_picture
from pages.common.number_field import whole_number
from pages.common.server import cache
from pages.common.server.polling import set_in_dialog

KINDS = (*FORMATS, *(() if optional.missing("pillow_heif") else ("HEIC",)))
ACCEPTED = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}, up to {MAX_BYTES // 2**20} MB"
THUMBNAIL = 72  # CSS pixels
BLANK = "Draw one digit with the mouse, a pen or a finger."


def card(dataset: str) -> ChosenDigit:
    """The digit in hand, in the sidebar of every page, and the buttons that change it."""
    digit = in_hand(dataset)
    picture, words = st.columns([1, 2], vertical_alignment="center")
    with picture:
        image_rows.image_row([digit.thumbnail], None, [digit.source], THUMBNAIL)
    words.markdown(f"**The digit in hand**  \n{escape_markdown(digit.source)}")
    asked, count = st.session_state.get("image", 0), cache.count_images(dataset)
    own = st.session_state.get("own")
    if own and own.shape != digit.shape:
        sizes = f"{shape_text(own.shape)} pixels, and these models take {shape_text(digit.shape)}"
        st.caption(f"Your own picture has {sizes}. It comes back with models of its size.")
    elif digit.index is None and "x" not in st.query_params:
        st.caption("Your picture has too many grey levels for a link: it is not in the page's address.")
    if digit.index is not None and asked >= count:
        st.warning(f"There is no test image {asked:,} here: their numbers are 0 to {count - 1:,}.")
    with st.container(horizontal=True):
        change_button(dataset, "digit.", "Change")
        if digit.index is None:
            st.button("Remove", key="digit.remove", on_click=_put_away)
        else:
            random_button(dataset, "digit.", icon=None)
    return digit


def change_button(dataset: str, place: str, label: str) -> None:
    """A button that opens all ways to another digit."""
    if st.button(label, key=f"{place}change", help="Pick, upload, photograph or draw"):
        _dialog(dataset)


@st.dialog("Choose a digit", width="medium", on_dismiss="rerun")
def _dialog(dataset: str) -> None:
    set_in_dialog(True)
    choose_digit(dataset, "dialog.")
    digit = in_hand(dataset)
    alts = [digit.source, f"{digit.source}, as the models see it"]
    image_rows.image_row([digit.thumbnail, digit.x.view(digit.shape).numpy()], None, alts)
    st.caption(escape_markdown(digit.source))
    if digit.note:
        (st.warning if digit.doubtful else st.caption)(digit.note)
    if st.button("Use this digit", type="primary", key="dialog.done"):
        st.rerun()


def choose_digit(dataset: str, place: str = "") -> None:
    """Three equal ways to a digit, which is then in hand; ``place`` tells the fields of one spot from another's."""
    ways = {"Pick": _pick, "Upload": _upload, "Draw": _draw}
    bound = {} if place else {"bind": "query-params"}
    way = st.segmented_control("The digit", list(ways), default="Pick", required=True, key=f"{place}digit", **bound)
    ways[way](dataset, place)


def _pick(dataset: str, place: str) -> None:
    count, key = cache.count_images(dataset), f"{place}number"
    label = f"Test image of {cache.dataset(dataset).title}, 0 to {count - 1:,}"
    with st.container(horizontal=True, vertical_alignment="bottom"):  # it keeps the button as wide as its label
        whole_number(label, 0, count - 1, 0, key=key, held=image_number(dataset), on_change=hold_image)
        if st.session_state.get("own"):  # the field holds this number already, and would not change
            use = f"{place}use"
            st.button("Use this test image", key=use, on_click=lambda: hold_image(image_number(dataset)))
        random_button(dataset, place)


def random_button(dataset: str, place: str, icon: str | None = ":material/casino:") -> None:
    """A button that takes a test image at random in hand."""
    count = cache.count_images(dataset)
    st.button("Random image", icon=icon, key=f"{place}random", on_click=partial(_random, count))


def _random(count: int) -> None:
    hold_image(int(np.random.default_rng().integers(count)))


def _upload(dataset: str, place: str) -> None:
    number = st.session_state.setdefault("upload.number", 0)  # another one makes an empty field
    key = f"{place}upload-{number}"
    # Every type is let in: the field would refuse a file by its name in a tooltip, and keep the former digit.
    st.file_uploader(
        "A picture of one handwritten digit" if datasets.like_mnist(dataset) else "A picture",
        key=key, on_change=_take_upload, args=(key, dataset),
        help=f"{ACCEPTED}: a photo will do, dark on light or light on dark.",
    )  # fmt: skip
    if "upload" not in st.session_state:
        st.caption(f"{ACCEPTED}: a photo will do, dark on light or light on dark.")
    if st.toggle("Use the camera", key=f"{place}camera"):  # which asks for permission as soon as it is on the page
        photo = f"{place}photo"
        st.camera_input("A photo of one digit", key=photo, on_change=_take_upload, args=(photo, dataset))
    if "upload" in st.session_state:
        name, content = st.session_state["upload"]
        st.markdown(f"**{escape_markdown(name)}** · {len(content) / 1000:,.0f} kB")
        edit = st.session_state.setdefault("upload.edit", Edit())
        read = partial(_read_upload, dataset)
        edit_picture(f"{place}editor-{number}", content, name, edit, dataset, read)
    if error := st.session_state.get("upload.error"):
        st.error(f"{escape_markdown(error)} The digit in hand stays as it was.")


def _take_upload(key: str, dataset: str) -> None:
    """Keep what was uploaded, because the field forgets it when the page is left; its ✕ removes it."""
    file = st.session_state[key]
    if file is None:
        _forget_upload()
        remove()
    else:
        st.session_state["upload"] = file.name, file.getvalue()
        _read_upload(dataset, Edit())


def _read_upload(dataset: str, edit: Edit) -> None:
    """Take the uploaded picture in hand, as the edit reads it, or say why not."""
    if "upload" not in st.session_state:
        return
    name, content = st.session_state["upload"]
    st.session_state["upload.edit"] = edit
    st.session_state.pop("upload.error", None)
    try:
        hold(prepared(cache.digit(content, name, edit, dataset), name))
    except digits.PictureError as error:
        st.session_state["upload.error"] = str(error)


def _forget_upload() -> None:
    for key in ("upload", "upload.edit", "upload.error"):
        st.session_state.pop(key, None)
    st.session_state["upload.number"] = st.session_state.get("upload.number", 0) + 1


def _draw(dataset: str, place: str) -> None:
    if draw(in_hand(dataset), dataset, place) is None:
        st.info(BLANK)


def draw(digit: ChosenDigit, dataset: str, place: str = "", live: dict[str, Any] | None = None) -> list[int] | None:
    """The drawing surface, with the digit in hand on it until somebody draws there; returns what ``draw_digit`` does.

    ``live`` is its argument, too.
    """
    key = f"{place}canvas"
    canvas.lay_under(key, (255 * digit.thumbnail).round().astype(int).ravel().tolist(), digit.shape)
    before = canvas.drawn(key)
    pixels = canvas.draw_digit(key, live=live, on_drawing=partial(_take_drawing, dataset, place))
    if pixels != before:  # the browser had a drawing that this session did not know
        _take_drawing(dataset, place, pixels)
        st.rerun()
    return pixels


def is_blank() -> bool:
    """Whether somebody has cleared the drawing surface of the page, and not drawn since."""
    return canvas.is_blank("canvas")


def _take_drawing(dataset: str, place: str, pixels: list[int] | None) -> None:
    """Take what is on the paper in hand; blank paper leaves the former digit."""
    paper = f"{place}canvas"
    if not canvas.strokes(paper):
        hold_drawing(None, paper)
    elif pixels is not None:
        drawn = (
            digits.from_canvas(pixels) if datasets.like_mnist(dataset) else plain.drawn(pixels, datasets.shape(dataset))
        )
        hold_drawing(prepared(drawn, "Your drawing"), paper)


def _put_away() -> None:
    """Remove the visitor's own digit, wherever it came from."""
    remove()
    _forget_upload()
