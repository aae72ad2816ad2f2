"""Sections of the page of samples: images from the prior, the plane, and the way from one digit to another."""

from collections.abc import Sequence

import streamlit as st
import torch

from iwae.analysis import generation
from iwae.catalog import Entry
from iwae.model import Model
from pages.common import image_rows, reading
from pages.common.number_field import keep_below, whole_number
from pages.common.sections import beside
from pages.common.server import cache
from pages.common.sidebar import View
from pages.samples.neighbours import MOST, REFERENCE, neighbours, plane_grid

Models = Sequence[tuple[str, Entry, Model]]


def from_prior(view: View, models: Models) -> None:
    """Images drawn from the prior of both models, and what the training images nearest to one of them are."""
    st.write("Draw a latent code at random, decode it, and see whether it is a digit.")
    left, right, _ = st.columns([1, 1, 2])
    count = left.slider("Images", 10, MOST, 50, 10, key="count", bind="query-params")
    seed = whole_number("Seed", 0, 10**6, 0, key="seed", help="The same for both models.", place=right)
    drawn = []
    for column, (name, entry, model) in zip(st.columns(2, gap="large"), models, strict=True):
        with column, cache.stop_on_model_error(entry):
            image_rows.heading(name, entry)
            drawn.append(generation.sample_images(model, count, seed))
            alt = f"{count} images drawn from the prior of model {name}, ten in a row"
            image_rows.image_grid(drawn[-1], 10, f"samples.prior.{name}", alt)
    st.subheader("Nearest training images", anchor=False)
    st.write("A sample that sits much nearer to a training image than new images do would be memorized, not generated.")
    keep_below("sample", count, 1)
    number = st.slider("Sample, counted row by row", 1, count, 1, key="sample", bind="query-params")
    for column, (name, entry, _), samples in zip(beside(), models, drawn, strict=True):
        with column:
            neighbours(name, entry, samples[number - 1], view.device)
    reading.formulas(
        "The formulas",
        (
            r"h_L \sim \mathcal N(0, I),\quad h_l \sim p(h_l\,|\,h_{l+1})\ \ (l = L-1, \dots, 1),\quad "
            r"x \sim p(x\,|\,h_1),\qquad d(x, y) = \Big(\sum_i (x_i - y_i)^2\Big)^{1/2}"
        ),
        text=(
            "Every layer is drawn, from the top down. What is shown is the probability of each pixel, E[x|h₁]. The "
            "distance is Euclidean, between these probabilities and the grey levels, from 0 to 1, of the training "
            "image; one pixel that is wholly different counts 1. Decoded pictures are smooth, which alone brings them "
            f"near to others. The fair comparison is with pictures that are as smooth: {REFERENCE} test images, which "
            "no model was trained on, reconstructed by the same model."
        ),
    )


def plane(models: Models) -> None:
    """The plane of each model whose top layer has two units."""
    st.write("Each picture is what the model decodes at that place of its plane; every cell holds the same prior mass.")
    side = st.slider("Pictures in each direction", 5, 30, 20, key="side", bind="query-params")
    for column, (name, entry, model) in zip(st.columns(2, gap="large"), models, strict=True):
        with column, cache.stop_on_model_error(entry):
            plane_grid(name, entry, model, side)
    reading.formulas(
        "The grid",
        r"h = \Phi^{-1}\!\Big(\frac{i - 1/2}{n}\Big),\quad i = 1, \dots, n\ \text{ in each unit}",
        text=(
            "Φ is the distribution function of the standard normal: Kingma & Welling (2014), figure 4. Right: more of "
            "the first unit; up: more of the second. Layers below the plane are set to their means."
        ),
    )


def interpolation(view: View, models: Models) -> None:
    """The straight line between the codes of two digits, decoded."""
    st.write("The straight line in h₁ from the mean of q(h₁|x) of the digit in hand to that of a test image, decoded.")
    if not view.fits:
        st.info(view.misfit)
        return
    images = cache.test_images(view.dataset, view.binary)
    left, right, _ = st.columns([1, 1, 2])
    other = whole_number("To test image", 0, len(images) - 1, 1, key="to", place=left)
    steps = right.slider("Steps", 3, 20, 10, key="steps", bind="query-params")
    ends = torch.stack([view.digit.x, images[other]])
    image_rows.image_row(ends.numpy(), ["from", "to"], ["the digit at the start", "the digit at the end"])
    for name, entry, model in models:
        image_rows.heading(name, entry)
        with cache.stop_on_model_error(entry):
            way = generation.interpolate(model, ends, steps)
        captions = [f"{share:.0%}" for share in torch.linspace(0, 1, steps).tolist()]
        image_rows.image_row(way.numpy(), captions, [f"{caption} of the way" for caption in captions])
