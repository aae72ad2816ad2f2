"""What the two models make up: images from the prior, their nearest training images, the plane, and interpolation."""

import streamlit as st
import torch

from iwae.analysis import generation
from pages.common import cache, image_rows
from pages.common.number_field import keep_below, whole_number
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar
from pages.samples.neighbours import MOST, REFERENCE, both, neighbours, plane_grid

view = sidebar("Samples")
models = both(view)
st.title("Samples", anchor=False)
st.write("What each model generates, and how its latent space connects one digit to another.")

st.header("From the prior", anchor=False)
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
with st.expander("The formula"):
    st.latex(
        r"h_L \sim \mathcal N(0, I),\quad h_l \sim p(h_l\,|\,h_{l+1})\ \ (l = L-1, \dots, 1),\quad x \sim p(x\,|\,h_1)"
    )
    st.write("Every layer is drawn, from the top down. What is shown is the probability of each pixel, E[x|h₁].")

st.header("Nearest training images", anchor=False)
st.write("A sample that sits much nearer to a training image than new images do would be memorized, not generated.")
keep_below("sample", count, 1)
number = st.slider("Sample, counted row by row", 1, count, 1, key="sample", bind="query-params")
for column, (name, entry, _), samples in zip(st.columns(2, gap="large"), models, drawn, strict=True):
    with column:
        neighbours(name, entry, samples[number - 1], view.device)
with st.expander("The distance"):
    st.latex(r"d(x, y) = \Big(\sum_{i=1}^{784} (x_i - y_i)^2\Big)^{1/2}")
    st.write(
        "Euclidean, between the pixel probabilities of the sample and the grey levels, from 0 to 1, of the image; one "
        "pixel that is wholly different counts 1. Decoded pictures are smooth, which alone brings them near to others. "
        f"The fair comparison is with pictures that are as smooth: {REFERENCE} test images, which no model was "
        "trained on, reconstructed by the same model."
    )

st.header("The plane of a latent space of two units", anchor=False)
st.write("Each picture is what the model decodes at that place of its plane; every cell holds the same prior mass.")
side = st.slider("Pictures in each direction", 5, 30, 20, key="side", bind="query-params")
for column, (name, entry, model) in zip(st.columns(2, gap="large"), models, strict=True):
    with column, cache.stop_on_model_error(entry):
        plane_grid(name, entry, model, side)
with st.expander("The grid"):
    st.latex(r"h = \Phi^{-1}\!\Big(\frac{i - 1/2}{n}\Big),\quad i = 1, \dots, n\ \text{ in each unit}")
    st.write("Φ is the distribution function of the standard normal: Kingma & Welling (2014), figure 4. Right: more of "
             "the first unit; up: more of the second. Layers below the plane are set to their means.")  # fmt: skip

st.header("From one digit to another", anchor=False)
st.write("The straight line in h₁ from the mean of q(h₁|x) of the digit in hand to that of a test image, decoded.")
images = cache.test_images(view.dataset)
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

report_button(view)
