"""One image: its log-weights, every bound on it, one step of training, and in the plane its exact posterior."""

import streamlit as st

import pages.common  # noqa: F401 - before torch: see server_memory.py
from iwae.export.report import SampledImage
from pages.bounds.sections import every_bound, exact_posteriors, training_step, weights_figure
from pages.common import image_rows
from pages.common.evidence import SAMPLES, SEED
from pages.common.number_field import whole_number
from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.server import cache
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin

view = sidebar(begin("Bounds", "Bounds"))
st.write("Everything a model is trained on comes from the log-weights of a few draws. Here they are, for one digit.")

digit = view.digit
left, *rest = st.columns([3, 4, 4, 4], vertical_alignment="center")
with left:
    image_rows.image_row([digit.x.numpy()], ["the digit"], ["the digit as the models see it"])
samples = whole_number("Samples per model", 100, 50_000, SAMPLES, 100, key="samples", place=rest[0])
seed = whole_number("Seed", 0, 10**6, SEED, key="seed", place=rest[1])
k = whole_number(
    "Draws in a bound, k", 1, 100, 50, key="k", place=rest[2],
    help="Every bound below is a function of k draws. It is averaged over disjoint groups of k of the samples.",
)  # fmt: skip
drawn = [cache.posterior(entry, view.device, digit.x, samples, seed)[0] for _, entry in view.pair]

sections({
    "Log-weights": lambda: weights_figure(view, drawn),
    "Every bound": lambda: every_bound(view, drawn, k),
    "One step of training": lambda: training_step(view, drawn, k),
    "The exact posterior": lambda: exact_posteriors(view, drawn),
})  # fmt: skip
report_button(view, SampledImage(digit.x, samples, seed))
