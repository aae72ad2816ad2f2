"""One digit under two models: samples of its posterior, reconstructions, weights and bounds."""

import streamlit as st

import pages.common  # noqa: F401 - before torch: see server_memory.py
from iwae.export.report import SampledImage
from pages.common import image_rows
from pages.common.evidence import SAMPLES, SEED, Evidence
from pages.common.input.digit_input import choose_digit
from pages.common.number_field import whole_number
from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.sidebar import sidebar
from pages.common.surprise import show_doubts
from pages.frame.navigation import begin
from pages.posterior.left_open import left_open
from pages.posterior.occluded import occluded
from pages.posterior.samples import bound_against_k, samples_of_both
from pages.posterior.true_posterior import resampled, what_q_misses

view = sidebar(begin("Posterior", "The posterior of one digit"))
st.write("Give both models the same digit, and see which digits they think it could have come from.")

choose_digit(view.dataset)
digit = view.digit
with st.expander("What the models see, step by step", expanded=digit.index is None):
    names, images = zip(*digit.stages, strict=True)
    image_rows.image_row(images, names, names, width=112)
    with st.popover("What each step does", type="tertiary"):
        st.markdown(digit.explanation)
doubts = st.container()
with st.expander("Sampling", icon=":material/tune:"):
    one, two, three, four = st.columns(4)
    samples = whole_number("Samples per model", 100, 50_000, SAMPLES, 100, key="samples", place=one)
    seed = whole_number("Seed", 0, 10**6, SEED, key="seed", place=two)
    count = whole_number("Digits shown", 1, 60, 20, key="shown", place=three)
    which = four.selectbox("Which", ["a random handful", "the heaviest"], key="which", bind="query-params")

evidence = Evidence(view, digit.x, samples, seed)
with doubts:
    show_doubts(view, evidence.drawn)
sections({
    "Samples": lambda: samples_of_both(view, evidence, count, which),
    "What q misses": lambda: what_q_misses(view, evidence),
    "What stays open": lambda: left_open(view, evidence),
    "Resampled draws": lambda: resampled(view, evidence),
    "Hide a part": lambda: occluded(view, digit.x, samples, seed),
    "Bound against k": lambda: bound_against_k(view, digit.x, samples, seed),
})  # fmt: skip
report_button(view, SampledImage(digit.x, samples, seed))
