"""Home: the default pair of models applied to one digit."""

# ruff: noqa: E402 - the heading is there while the rest is imported, which takes seconds when the server has just started
import streamlit as st

from pages.frame.navigation import begin

navigation = begin("Home", "Latent-space explorer")

import pages.common  # noqa: F401 - before torch: see server_memory.py
from iwae.export.report import SampledImage
from pages.common import image_rows, reading
from pages.common.evidence import Evidence, draws_in_use
from pages.common.input.digit_input import BLANK, change_button, draw, is_blank, random_button
from pages.common.input.live import live
from pages.common.report_button import report_button
from pages.common.server import cache
from pages.common.server.polling import end_page
from pages.common.sidebar import sidebar
from pages.common.surprise import show_doubts
from pages.home.claims import show_claims
from pages.home.tour import tour

view = sidebar(navigation)
st.write(
    "A variational autoencoder (VAE) describes an image by a distribution of codes, q(h|x). An importance weighted "
    "autoencoder (IWAE) is the same network trained on a tighter bound, which lets q be wrong as long as some of its "
    "samples are good. Draw a digit, and see what both think it could be."
)
tour()

if view.training_overlap:
    st.caption(view.training_overlap)
digit = view.digit
samples, seed = draws_in_use()
evidence = None if is_blank() else Evidence(view, digit.x, samples, seed)
draw(digit, view.dataset, live=live(view, evidence))
with st.container(horizontal=True):
    change_button(view.dataset, "home.", "Upload, photograph or pick")
    random_button(view.dataset, "home.")
if evidence is None:
    st.info(BLANK)
    end_page()
show_doubts(view, evidence.drawn)
show_claims(view, evidence.drawn)
for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
    with column:
        st.subheader(image_rows.in_its_colour(name, entry), anchor=False)
        found = evidence.drawn[name]
        st.markdown(f"**The heaviest of {found.samples:,} draws of q**")
        image_rows.weighted_samples(cache.model(entry, view.device), found, count=5, heaviest=True)
        evidence.headline(name)
evidence.verdict()
reading.glossary("nats", "ESS", "NLL", "D_KL", "tr Σ", "active unit")
report_button(view, SampledImage(digit.x, samples, seed))
