"""Home: the default pair of models at work on one digit."""

import streamlit as st

from iwae.export.report import SampledImage
from pages.common import cache, image_rows
from pages.common.canvas import draw_digit, drawn
from pages.common.digit_input import on_paper, random_image
from pages.common.evidence import Evidence
from pages.common.live import live
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar

view = sidebar("Home")

st.title("Latent-space explorer", anchor=False)
st.write(
    "A variational autoencoder (VAE) learns to describe each image by a few numbers, its latent code, and does so with "
    "an uncertainty: a whole distribution of codes, q(h|x). An importance weighted autoencoder (IWAE) is the same "
    "network trained on a tighter bound, which lets q be wrong as long as some of its samples are good. Here both meet "
    "the same digit: see what each one thinks it could be."
)

if view.training_overlap:
    st.caption(view.training_overlap)
digit = on_paper(view.dataset)
evidence = Evidence(view, digit.x, 1000, 0) if digit else None
before = drawn("canvas")
if draw_digit("canvas", live=live(view, evidence)) != before:
    st.rerun()  # the browser had a drawing that this session did not know
random_image(view.dataset)
if evidence is None:
    st.info("Draw one digit with the mouse, a pen or a finger.")
    st.stop()
if digit.note:
    (st.warning if digit.doubtful else st.caption)(digit.note)
for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
    with column:
        image_rows.heading(name, entry)
        found, seen = evidence.drawn[name], evidence.pictured[name]
        image_rows.reconstructions(digit.x.numpy(), seen)
        st.markdown(f"**The heaviest of {found.samples:,} samples from q(h|x)**, with their share of the weight")
        image_rows.weighted_samples(cache.model(entry, view.device), found, count=10, heaviest=True)
        evidence.headline(name)
evidence.numbers()

st.divider()
st.page_link("pages/1_Posterior.py", label="Try a digit of your own: upload, draw or pick one", icon=":material/draw:")
st.caption("Or train a small model in the sidebar, and choose it as A or B.")
report_button(view, SampledImage(digit.x, 1000, 0))
