"""The digit in hand: chosen once, the same on every page, and carried by the address.

It is a test image of the data set, by its number, until the visitor draws, uploads or photographs one. The address
holds either ``image``, the number, or ``x``, the bits, so a copied link brings the digit along.
"""

import base64
import binascii
import re
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae.data import datasets
from iwae.images import digits
from iwae.shapes import shape_text
from pages.common.input import canvas
from pages.common.server import cache
from pages.frame import links

LONGEST = 2048  # characters of an image in a link
KEYS = ("image", "x")  # of the address
REMEMBERED = 20  # digits of the visitor's own
BINARIZED = "Binarized"
BINARIZED_BY = 0  # the seed


class LinkError(ValueError):
    """What an address holds instead of a digit."""


@dataclass(frozen=True)
class ChosenDigit:
    """One digit, as the models see it, and how it came to be."""

    x: Tensor  # [pixels] of zeros and ones
    shape: tuple[int, int]  # rows, columns
    source: str  # where it comes from, in a few words
    stages: tuple[tuple[str, np.ndarray], ...]  # name and picture of each step towards x
    explanation: str  # what the steps do, in Markdown
    note: str | None = None
    doubtful: bool = False  # is the note a warning?
    index: int | None = None  # of a test image

    @property
    def thumbnail(self) -> np.ndarray:
        """The picture before it was binarized, [h, w] in [0, 1]."""
        before = [picture for name, picture in self.stages if name != BINARIZED]
        return (before[-1] if before else self.stages[-1][1]).reshape(self.shape)

    def as_input(self, binary: bool) -> "ChosenDigit":
        """This digit as models of zeros and ones take it, or as models of grey levels do."""
        if binary:
            return self
        x = torch.from_numpy(np.round(255 * self.thumbnail.reshape(-1)) / 255).float()
        before = tuple(stage for stage in self.stages if stage[0] != BINARIZED)
        return replace(
            self, x=x, stages=before or self.stages, explanation="These models take grey levels as they are."
        )


def in_hand(dataset: str) -> ChosenDigit:
    """The visitor's own digit, if it has the shape of the data set's images, else the chosen test image, as model A
    takes it; the address then says so.

    An address that the visitor has opened, or gone back to, says first which digit it is.
    """
    asked = {key: st.query_params[key] for key in KEYS if st.query_params.get(key, "0") != "0"}
    if links.asked("digit", asked):
        if "x" in asked:
            hold(st.session_state.get("digits", {}).get(asked["x"]) or _linked(*unpack(asked["x"])))
        else:
            hold_image(int(asked.get("image", 0)))
    own = st.session_state.get("own")
    if own is None or own.shape != datasets.shape(dataset):
        own = None
    digit = (own or test_image(dataset, image_number(dataset))).as_input(st.session_state.get("binary", True))
    address = {"image": str(digit.index)} if digit.index else {}
    if digit.index is None and len(text := pack(digit.x, digit.shape)) <= LONGEST:
        address = {"x": text}
    links.wrote("digit", address, KEYS)
    if "x" in address:
        before = st.session_state.get("digits", {})  # so that Back finds how each came to be
        st.session_state["digits"] = dict(list({**before, address["x"]: st.session_state["own"]}.items())[-REMEMBERED:])
    return digit


def image_number(dataset: str) -> int:
    """The number of the chosen test image, or 0 where the data set has none of that number."""
    number = st.session_state.get("image", 0)
    return number if number < cache.count_images(dataset) else 0


def hold_image(number: int) -> None:
    """Take a test image in hand."""
    st.session_state["image"] = number
    remove()


def hold(digit: ChosenDigit) -> None:
    """Take a digit of the visitor's in hand."""
    remove()
    st.session_state["own"] = digit


def hold_drawing(digit: ChosenDigit | None, paper: str) -> None:
    """Take what was drawn on the surface ``paper`` in hand; None, where all strokes are undone: what lay under them."""
    under = st.session_state.get("under", st.session_state.get("own"))
    remove(paper)
    st.session_state["own"] = digit or under
    if digit is not None:
        st.session_state["under"] = under


def remove(paper: str = "") -> None:
    """Put the visitor's own digit away, also from all drawing surfaces but one; the test image chosen last takes its
    place."""
    for key in ("own", "under"):
        st.session_state.pop(key, None)
    links.changed("digit")
    for other in {"canvas", "dialog.canvas"} - {paper}:
        canvas.clear_digit(other)


def test_image(dataset: str, number: int) -> ChosenDigit:
    """A test image of a data set, in its fixed binarization."""
    data, x = cache.dataset(dataset), cache.test_images(dataset, binary=True)[number]
    labels = data.test.labels
    label = f", label {data.label_names[int(labels[number])]}" if labels is not None else ""
    grey = data.test.images[number].numpy() / 255
    return ChosenDigit(
        x,
        data.shape,
        f"Test image {number:,} of {data.title}{label}",
        ((f"Test image{label}", grey), (BINARIZED, x.numpy())),
        "The test images are binarized once, from a fixed seed: each pixel is on with its grey level as probability.",
        index=number,
    )


def prepared(digit: digits.Digit, source: str) -> ChosenDigit:
    """A picture of the visitor's, binarized as the models' training data were: one Bernoulli draw of its pixels."""
    grey = torch.from_numpy((255 * digit.image).round().astype(np.uint8)).reshape(-1)
    x = _binarized(grey)
    explanation = "\n".join(f"1. **{stage.name}**: {stage.caption}" for stage in digit.stages)
    explanation += "\n1. **Binarized**: each pixel is on with its grey level as probability, as in the training data."
    stages = [(stage.name, stage.image) for stage in digit.stages]
    return ChosenDigit(
        x, digit.image.shape, source, (*stages, (BINARIZED, x.numpy())), explanation, digit.note, digit.doubtful
    )


def _binarized(grey: Tensor) -> Tensor:
    """One Bernoulli draw of the pixels of a uint8 image."""
    return datasets.binarize(grey, torch.Generator().manual_seed(BINARIZED_BY))


def _linked(x: Tensor, shape: tuple[int, int]) -> ChosenDigit:
    explanation = "The link holds the digit as the models saw it."
    if _is_binary(x):
        return ChosenDigit(x, shape, "From a link", ((BINARIZED, x.numpy()),), explanation)
    binary = _binarized((255 * x).round().byte())
    return ChosenDigit(binary, shape, "From a link", (("Grey", x.numpy()), (BINARIZED, binary.numpy())), explanation)


def pack(x: Tensor, shape: tuple[int, int]) -> str:
    """The image x [pixels] as text for an address: rows, columns and its bits in base64, ``28x28.`` and 131 characters;
    of grey levels its bytes, ``28x28g.`` and 1,046 characters."""
    kind, content = ("", np.packbits(x.bool().numpy()).tobytes()) if _is_binary(x) else ("g", cache.image_key(x))
    return f"{shape[0]}x{shape[1]}{kind}.{base64.urlsafe_b64encode(content).decode().rstrip('=')}"


def unpack(text: str) -> tuple[Tensor, tuple[int, int]]:
    """The image [pixels] that ``pack`` made a text of, and its shape. Raises LinkError for any other text."""
    head, _, code = text.partition(".")
    found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)(g?)", head, re.ASCII)
    if not found or len(text) > LONGEST or max(shape := (int(found[1]), int(found[2]))) > datasets.MAX_SIDE:
        most = shape_text((datasets.MAX_SIDE, datasets.MAX_SIDE))
        raise LinkError(
            f"is of shape “{head[:20]}”; an image in a link has at most {most} pixels and {LONGEST} characters"
        )
    pixels = shape[0] * shape[1]
    size = pixels if found[3] else -(-pixels // 8)
    try:
        content = base64.b64decode(code + "=" * (-len(code) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != size:
        raise LinkError(f"is damaged: an image of {shape_text(shape)} pixels has {size:,} bytes in base64")
    if found[3]:
        return cache.image_of(content), shape
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=pixels)
    return torch.from_numpy(bits.astype(np.float32)), shape


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())
