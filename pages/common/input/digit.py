"""The digit in hand: chosen once, the same on every page, and carried by the address.

It is a test image of the data set, by its number, until the visitor draws, uploads or photographs one. The address
holds either ``image``, the number, or ``x``, the 784 bits, so a copied link brings the digit along.
"""

import base64
import binascii
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae.data import datasets
from iwae.images import digits
from pages.common import links
from pages.common.input import canvas
from pages.common.server import cache

SIDE = 28
KEYS = ("image", "x")  # of the address
REMEMBERED = 20  # digits of the visitor's own
BINARIZED = "Binarized"
BINARIZED_BY = 0  # the seed


class LinkError(ValueError):
    """What an address holds instead of a digit."""


@dataclass(frozen=True)
class ChosenDigit:
    """One digit, as the models see it, and how it came to be."""

    x: Tensor  # [784] of zeros and ones
    source: str  # where it comes from, in a few words
    stages: tuple[tuple[str, np.ndarray], ...]  # name and picture of each step towards x
    explanation: str  # what the steps do, in Markdown
    note: str | None = None
    doubtful: bool = False  # is the note a warning?
    index: int | None = None  # of a test image

    @property
    def thumbnail(self) -> np.ndarray:
        """The picture before it was binarized, [28, 28] or [784] in [0, 1]."""
        before = [picture for name, picture in self.stages if name != BINARIZED]
        return before[-1] if before else self.stages[-1][1]

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
    """The visitor's own digit, else the chosen test image, as model A takes it; the address then says so.

    An address that the visitor has opened, or gone back to, says first which digit it is.
    """
    asked = {key: st.query_params[key] for key in KEYS if st.query_params.get(key, "0") != "0"}
    if links.asked("digit", asked):
        if "x" in asked:
            hold(st.session_state.get("digits", {}).get(asked["x"]) or _linked(unpack(asked["x"])))
        else:
            hold_image(int(asked.get("image", 0)))
    digit = (st.session_state.get("own") or test_image(dataset, image_number(dataset))).as_input(
        st.session_state.get("binary", True)
    )
    address = {"x": pack(digit.x)} if digit.index is None else {"image": str(digit.index)} if digit.index else {}
    links.wrote("digit", address, KEYS)
    if digit.index is None:
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
    return ChosenDigit(x, source, (*stages, (BINARIZED, x.numpy())), explanation, digit.note, digit.doubtful)


def _binarized(grey: Tensor) -> Tensor:
    """One Bernoulli draw of the pixels of a uint8 image."""
    return datasets.binarize(grey, torch.Generator().manual_seed(BINARIZED_BY))


def _linked(x: Tensor) -> ChosenDigit:
    explanation = "The link holds the digit as the models saw it."
    if _is_binary(x):
        return ChosenDigit(x, "From a link", ((BINARIZED, x.numpy()),), explanation)
    binary = _binarized((255 * x).round().byte())
    return ChosenDigit(binary, "From a link", (("Grey", x.numpy()), (BINARIZED, binary.numpy())), explanation)


def pack(x: Tensor) -> str:
    """The image x [784] as text for an address: ``28x28.`` and its bits in base64, 137 characters; of grey levels
    ``28x28g.`` and its bytes, 1,053 characters."""
    if _is_binary(x):
        shape, content = f"{SIDE}x{SIDE}", np.packbits(x.bool().numpy()).tobytes()
    else:
        shape, content = f"{SIDE}x{SIDE}g", cache.image_key(x)
    return f"{shape}.{base64.urlsafe_b64encode(content).decode().rstrip('=')}"


def unpack(text: str) -> Tensor:
    """The image [784] that ``pack`` made a text of. Raises LinkError for any other text."""
    shape, _, code = text.partition(".")
    sizes = {f"{SIDE}x{SIDE}": SIDE * SIDE // 8, f"{SIDE}x{SIDE}g": SIDE * SIDE}  # bytes
    if shape not in sizes:
        raise LinkError(f"is of shape “{shape[:20]}”; {SIDE}x{SIDE} is what the models take")
    try:
        content = base64.b64decode(code + "=" * (-len(code) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != sizes[shape]:
        raise LinkError(f"is damaged: a digit has {8 * sizes[shape]:,} bits in base64")
    if shape.endswith("g"):
        return cache.image_of(content)
    return torch.from_numpy(np.unpackbits(np.frombuffer(content, np.uint8)).astype(np.float32))


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())
