"""What the two models make up: images from the prior, their nearest training images, the plane, and interpolation."""

import streamlit as st

from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.samples.grids import from_prior, interpolation, plane
from pages.samples.neighbours import both

view = sidebar(begin("Samples", "Samples"), images=False)
models = both(view)
st.write("What each model generates, and how its latent space connects one digit to another.")

sections({
    "From the prior": lambda: from_prior(view, models),
    "The plane of two units": lambda: plane(models),
    "From one digit to another": lambda: interpolation(view, models),
})  # fmt: skip
report_button(view)
