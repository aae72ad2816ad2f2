"""One image: its log-weights, every bound on it, one step of training, and in the plane its exact posterior."""

import inspect

import streamlit as st

from iwae.bounds import OBJECTIVES
from iwae.export.report import SampledImage
from pages.bounds.sections import all_bounds, exact_posteriors, one_step, pick_bounds, weights_figure
from pages.common import cache, image_rows
from pages.common.evidence import SAMPLES, SEED
from pages.common.figure_card import escape_markdown
from pages.common.number_field import whole_number
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar

view = sidebar("Bounds")
st.title("Bounds", anchor=False)
st.write("Everything a model is trained on comes from the log-weights of a few draws. Here they are, for one digit.")

digit = view.digit
left, *rest = st.columns([1, 2, 2, 2], vertical_alignment="center")
with left:
    image_rows.image_row([digit.x.numpy()], ["the digit"], ["the digit, binarized"])
samples = whole_number("Samples per model", 100, 50_000, SAMPLES, 100, key="samples", place=rest[0])
seed = whole_number("Seed", 0, 10**6, SEED, key="seed", place=rest[1])
k = whole_number(
    "Draws in a bound, k", 1, 100, 50, key="k", place=rest[2],
    help="Every bound below is a function of k draws. It is averaged over disjoint groups of k of the samples.",
)  # fmt: skip
drawn = [cache.posterior(entry, view.device, digit.x, samples, seed)[0] for _, entry in view.pair]

st.header("Log-weights", anchor=False)
st.write("A weight says how well a draw from q explains the digit, against how likely q was to draw it.")
weights_figure(view, drawn)
with st.expander("The formula"):
    st.latex(r"\log w = \log p(x, h) - \log q(h\,|\,x),\qquad h \sim q(h\,|\,x)")
    st.write("If q were the true posterior, every weight would be p(x): the histogram would be a single bar.")

st.header("Every bound at once", anchor=False)
st.write("Each bound turns k log-weights into one number for log p(x). They differ in how they treat unequal weights.")
bounds = pick_bounds(k)
all_bounds(view, drawn, bounds, k)
name = st.selectbox(
    "Bound", list(bounds), list(bounds).index("iwae"), format_func=lambda name: OBJECTIVES[name].title, key="objective",
    bind="query-params", help="Its source is shown here, and the step below follows it.",
)  # fmt: skip
row = OBJECTIVES[name]
st.latex(row.formula + r"\;")  # the space: KaTeX lets the last letter hang over, which would be a region to scroll
st.caption(f"{escape_markdown(row.source)}. The function that computed it:")
st.code(inspect.getsource(row.function), language="python", wrap_lines=True)

st.header("One step of training", anchor=False)
st.write(f"{k} draws of this digit, weighed by {bounds[name].title}: those with the most weight pull the model most.")
number = whole_number("Step", 1, samples // k, 1, key="step", help="Each takes the next k draws.")
for column, (slot, entry), part in zip(st.columns(2, gap="large"), view.pair, drawn, strict=True):
    with column:
        image_rows.heading(slot, entry)
        one_step(slot, cache.model(entry, view.device), part, bounds[name], k, number - 1)
with st.expander("The formula"):
    st.latex(
        r"\nabla \mathcal L = \sum_{i=1}^k \frac{\partial \mathcal L}{\partial \log w_i}\,\nabla \log w_i,\qquad"
        r"\text{for IWAE } \frac{\partial L_k}{\partial \log w_i} = \tilde w_i = \frac{w_i}{\sum_j w_j}"
    )
    st.write("Burda, Grosse & Salakhutdinov (2016), equations 13 and 14; for the VAE every draw has the weight 1/k.")

st.header("The exact posterior", anchor=False)
st.write("With two latent units nothing has to be estimated: Bayes' rule on a grid of the plane.")
exact_posteriors(view, drawn)
report_button(view, SampledImage(digit.x, samples, seed))
