"""Choose a digit: pick one of the test set, upload a picture, or draw."""

from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae.data import datasets
from iwae.images import digits
from iwae.images.decoding import FORMATS, MAX_BYTES
from pages.common import cache, canvas
from pages.common.figure_card import escape_markdown
from pages.common.number_field import whole_number

_FORMATS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
BINARIZED_BY = 0  # the seed
POLARITY = {"decide for me": None, "dark ink on light": True, "light ink on dark": False}


@dataclass(frozen=True)
class DigitInput:
    """One digit, as the models see it, and how it came to be."""

    x: Tensor  # [784] of zeros and ones
    stages: tuple[tuple[str, np.ndarray], ...]  # name and picture of each step towards x
    explanation: str  # what the steps do, in Markdown
    note: str | None = None
    doubtful: bool = False  # is the note a warning?


def choose_digit(dataset: str) -> DigitInput | None:
    """Three equal ways to a digit; None, with advice on the page, while there is none."""
    ways = {"Pick": _pick, "Upload": _upload, "Draw": _draw}
    way = st.segmented_control("The digit", list(ways), default="Pick", required=True, key="digit", bind="query-params")
    try:
        return ways[way](dataset)
    except digits.PictureError as error:
        st.error(escape_markdown(error))
        return None


def _pick(dataset: str) -> DigitInput:
    return _test_image(dataset, pick_image(dataset))


def _test_image(dataset: str, index: int) -> DigitInput:
    data = cache.dataset(dataset)
    x = cache.test_images(dataset)[index]
    label = data.test.labels
    kind = f"label {data.label_names[int(label[index])]}" if label is not None else "test image"
    grey = data.test.images[index].float() / 255
    told = "The test images are binarized once, from a fixed seed: each pixel is on with its grey level as probability."
    return DigitInput(x, ((kind, grey.numpy()), ("Binarized", x.numpy())), told)


def pick_image(dataset: str) -> int:
    """A field for the number of a test image, the same on every page and in the address, and a button for another."""
    data, count = cache.dataset(dataset), len(cache.test_images(dataset))
    with st.container(horizontal=True, vertical_alignment="bottom"):  # it keeps the button as wide as its label
        label = f"Test image of {data.title}, 0 to {count - 1:,}"
        index = whole_number(label, 0, count - 1, 0, key="image")
        st.button("Another", icon=":material/casino:", on_click=_pick_at_random, args=(count,))
    return index


def picked_image(count: int) -> int:
    """The number of the picked test image, or 0 where the data set, of ``count`` images, has none of that number."""
    index = st.session_state.get("image", 0)
    return int(index) if index in range(count) else 0


def on_paper(dataset: str) -> DigitInput | None:
    """What is on the drawing surface "canvas", which a page shows afterwards: the picked test image until somebody
    draws there, then the drawing; None while it is blank."""
    index = picked_image(len(cache.test_images(dataset)))
    canvas.lay_under("canvas", cache.dataset(dataset).test.images[index].tolist())
    if not canvas.strokes("canvas"):
        return _test_image(dataset, index)
    st.session_state["digit"] = "Draw"  # on the pages that choose
    pixels = canvas.drawn("canvas")
    return None if pixels is None else prepared(digits.from_canvas(pixels))


def random_image(dataset: str) -> None:
    """A button that puts another test image on the drawing surface "canvas"."""
    st.button("Random image", icon=":material/casino:", on_click=_replace, args=(len(cache.test_images(dataset)),))


def _replace(count: int) -> None:
    canvas.clear_digit("canvas")
    st.session_state["digit"] = "Pick"
    _pick_at_random(count)


def _pick_at_random(count: int) -> None:
    st.session_state["image"] = int(np.random.default_rng().integers(count))


def _upload(dataset: str) -> DigitInput | None:
    number = st.session_state.setdefault("upload-number", 0)  # another one makes an empty field
    # Every type is let in: the field would refuse a file by its name in a tooltip, and keep the former digit.
    st.file_uploader(
        "A picture of one handwritten digit",
        key=f"upload-{number}",
        on_change=_keep_upload,
        args=(f"upload-{number}",),
        help=f"{_FORMATS}, up to {MAX_BYTES // 2**20} MB: a photo will do, dark on light or light on dark.",
    )
    if "upload" not in st.session_state:
        st.info(f"{_FORMATS}, up to {MAX_BYTES // 2**20} MB: a photo will do, dark on light or light on dark.")
        return None
    name, content = st.session_state["upload"]
    polarity = st.segmented_control(
        "Ink", list(POLARITY), default="decide for me", required=True, key="ink", persist_state="session"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{escape_markdown(name)}** · {len(content) / 1000:,.0f} kB", width="content")
        st.button("Remove", icon=":material/close:", on_click=_remove_upload)
    return prepared(cache.digit(content, name, POLARITY[polarity]))


def _keep_upload(key: str) -> None:
    """Keep what was uploaded, because the field forgets it when the page is left; its ✕ removes it."""
    file = st.session_state[key]
    if file is None:
        st.session_state.pop("upload", None)
    else:
        st.session_state["upload"] = file.name, file.getvalue()


def _remove_upload() -> None:
    st.session_state.pop("upload", None)
    st.session_state["upload-number"] += 1


def _draw(dataset: str) -> DigitInput | None:
    pixels = canvas.draw_digit("canvas")
    if pixels is None:
        st.info("Draw one digit with the mouse, a pen or a finger.")
        return None
    return prepared(digits.from_canvas(pixels))


def prepared(digit: digits.Digit) -> DigitInput:
    """The grey digit binarized as the models' training data were: one Bernoulli draw of its pixels."""
    grey = torch.from_numpy((255 * digit.image).round().astype(np.uint8)).reshape(-1)
    x = datasets.binarize(grey, torch.Generator().manual_seed(BINARIZED_BY))
    stages = [(stage.name, stage.image) for stage in digit.stages]
    told = "\n".join(f"1. **{stage.name}**: {stage.caption}" for stage in digit.stages)
    told += "\n1. **Binarized**: each pixel is on with its grey level as probability, as in the training data."
    return DigitInput(x, (*stages, ("Binarized", x.numpy())), told, digit.note, digit.doubtful)
