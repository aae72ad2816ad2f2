"""Rows and grids of small pictures, and a model's samples and reconstructions of one digit."""

import math
from collections.abc import Sequence

import numpy as np
import streamlit as st
import torch

from iwae.catalog import Entry
from iwae.export.report import PageItem
from iwae.figures import base
from iwae.figures.base import data_uri, tile
from iwae.inference.posterior import Posterior, Reconstructions
from iwae.model import Model
from pages.common import figure_card, reading
from pages.common.download import download_button
from pages.common.reading import TERMS

WIDTH = 84  # CSS pixels of a tile: three times MNIST's own
STRIP = 5  # pictures in a row
NAMED_COLOURS = {"vae": "orange", "iwae": "blue"}  # as Streamlit calls those of figures.base


def set_shape(shape: tuple[int, int]) -> None:
    """All flat images on this page have this shape, that of both models."""
    st.session_state["shape"] = shape


def _shaped(image: np.ndarray) -> np.ndarray:
    return image.reshape(st.session_state["shape"]) if image.ndim == 1 else image


def image_row(
    images: Sequence[np.ndarray], captions: Sequence[str] | None, alts: Sequence[str], width: int = WIDTH
) -> None:
    """A row of pictures in [0, 1], wrapped where there is no room: [h, w], [h, w, 3], or flat images of the models."""
    pixels = [data_uri(tile(_shaped(image), width), width) for image in images]
    st.image(pixels, caption=captions and list(captions), alt=list(alts), width=width)


def image_strip(images: Sequence[np.ndarray] | np.ndarray, columns: int, caption: str, alt: str) -> None:
    """Pictures in [0, 1] as one, always so many in a row; it shrinks where there is no room."""
    pictures = np.stack([_shaped(image) for image in images])
    pixels = base.image_grid(pictures, columns, zoom=max(1, WIDTH // max(pictures.shape[1:])))
    st.image(base.data_uri(pixels, pixels.shape[1]), alt=alt, width=pixels.shape[1])
    st.caption(caption)  # with one of its own a picture does not shrink


def image_grid(images: np.ndarray, columns: int, key: str, alt: str, gap: int = 2) -> None:
    """Many pictures as one, with its PNG file to download."""
    pixels = base.image_grid(np.stack([_shaped(image) for image in images]), columns, gap)
    st.image(base.data_uri(pixels, pixels.shape[1]), alt=alt, width="stretch")
    name = figure_card.file_name(key)
    download_button("Download as PNG", lambda: base.png(pixels), f"{name}.png", "image/png", f"{key}.png")
    figure_card.page_items()[name] = PageItem(alt, picture=lambda: base.png(pixels))


def in_its_colour(name: str, entry: Entry) -> str:
    """``A · VAE k = 1`` as Markdown in the colour of its kind."""
    return f":{NAMED_COLOURS[entry.kind]}[{name} · {entry.short}]"


def heading(name: str, entry: Entry) -> None:
    """``A · VAE k = 1`` in the colour of its kind, and where it comes from."""
    st.subheader(in_its_colour(name, entry), anchor=False)
    trained = f"trained on {entry.dataset}" if entry.dataset else "from elsewhere"
    st.caption(f"{entry.layers}, {trained} · {reading.without_errors(entry.nll)}")


def weighted_samples(model: Model, drawn: Posterior, count: int, heaviest: bool) -> None:
    """Decoded draws from q ordered by weight, the weight under each, and what they weigh together."""
    weights = drawn.weights
    order = weights.argsort(descending=True)
    if not heaviest:
        order = order[order < count]  # the first draws: a random subset
    chosen = order[:count]
    with torch.no_grad():
        pictures = model.decode(drawn.h[0][chosen].to(model.device)).cpu()
    first, last, together = map(percent, (weights[chosen[0]], weights[chosen[-1]], weights[chosen].sum()))
    caption = f"Together they carry {together} of the weight of {drawn.samples:,} draws"
    alt = f"{len(chosen)} decoded draws, the heaviest first"
    image_strip(pictures.numpy(), STRIP, f"{caption}: the first {first}, the last {last}.", alt)


def percent(weight: float) -> str:
    """``12%``, ``0.3%``, ``0.004%``, ``<0.001%``."""
    if weight < 1e-5:
        return "<0.001%"
    digits = 0 if weight >= 0.1 else max(1, 1 - math.floor(math.log10(100 * weight)) - 1)
    return f"{weight:.{digits}%}"


def effective_samples_metric(drawn: Posterior) -> None:
    """The effective sample size."""
    st.metric(
        "ESS",
        f"{drawn.ess:,.1f}",
        f"of {drawn.samples:,} draws",
        delta_color="off",
        delta_arrow="off",
        help=TERMS["ESS"],
        width="content",
    )


def weight_concentration(drawn: Posterior) -> None:
    """How few draws carry 90% of the weight, and what that means for q."""
    count = drawn.carrying(0.9)
    draws = "draw carries" if count == 1 else "draws carry"
    st.write(f"**{count:,} of {drawn.samples:,}** {draws} 90% of the weight: {_reading(drawn)}")


def _reading(drawn: Posterior) -> str:
    share = drawn.ess / drawn.samples
    if share > 0.3:
        return "q is close to the true posterior."
    if share > 0.02:
        return "q covers the posterior loosely."
    return f"q is far from the true posterior; the heaviest draw alone has {percent(drawn.weights.max().item())}."


def reconstructions(x: np.ndarray, pictures: Reconstructions) -> None:
    """Input and the three reconstructions in one row."""
    caption = "Input; from the mean of q; plain average of all draws; weighted average."
    images = [x, pictures.from_mean, pictures.average, pictures.weighted]
    image_strip(images, len(images), caption, f"reconstructions, from the left: {caption}")
