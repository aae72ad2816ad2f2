"""One digit under two models: samples of its posterior, reconstructions, weights and bounds."""

import streamlit as st

from iwae.evaluation.stats import decimal
from iwae.export.report import SampledImage
from iwae.figures.base import Line, bound_curves
from pages.common import cache, figure_card, image_rows
from pages.common.digit_input import choose_digit
from pages.common.evidence import SAMPLES, SEED, Evidence
from pages.common.number_field import whole_number
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar
from pages.posterior.occluded import occluded
from pages.posterior.true_posterior import by_weight, choose_units, true_posterior

view = sidebar("Posterior")
st.title("The posterior of one digit", anchor=False)
st.write("Give both models the same digit, and see which digits they think it could have come from.")

choose_digit(view.dataset)
digit = view.digit

with st.expander("What the models see, step by step", expanded=True):
    names, images = zip(*digit.stages, strict=True)
    image_rows.image_row(images, names, names, width=112)
    with st.popover("What each step does", type="tertiary"):
        st.markdown(digit.explanation)
    if digit.note:
        (st.warning if digit.doubtful else st.caption)(digit.note)

with st.expander("Sampling", icon=":material/tune:"):
    one, two, three, four = st.columns(4)
    samples = whole_number("Samples per model", 100, 50_000, SAMPLES, 100, key="samples", place=one)
    seed = whole_number("Seed", 0, 10**6, SEED, key="seed", place=two)
    count = whole_number("Digits shown", 1, 60, 20, key="shown", place=three)
    which = four.selectbox("Which", ["a random handful", "the heaviest"], key="which", bind="query-params")

lines, numbers, units = [], [], choose_units(view.pair)
evidence = Evidence(view, digit.x, samples, seed)
for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
    with column:
        image_rows.heading(name, entry)
        drawn, seen = evidence.drawn[name], evidence.pictured[name]
        evidence.headline(name)
        st.markdown(
            "**Reconstructions**",
            help="From the mean of q; the plain average of all decoded draws; and their average by weight.",
        )
        image_rows.reconstructions(digit.x.numpy(), seen)
        st.markdown(
            f"**Samples from q(h|x)**: {which}, ordered by weight",
            help="Decoded to pixel probabilities; below each its share of the importance weight of all draws.",
        )
        image_rows.weighted_samples(cache.model(entry, view.device), drawn, count, heaviest=which == "the heaviest")
        dashed = name == "B" and view.a.kind == view.b.kind
        ks, bounds = cache.curve(entry, view.device, digit.x, samples, seed)
        lines.append(Line(f"{name} · {entry.short}", entry.kind, ks, bounds, dashed))
        numbers += [{"model": name, "k": k, "L_k": bound} for k, bound in zip(ks, bounds, strict=True)]
        by_weight(cache.model(entry, view.device), drawn)
        evidence.end_states(name, cache.model(entry, view.device))
        true_posterior(name, entry, cache.model(entry, view.device), drawn, units[name])

evidence.verdict()
evidence.numbers()
occluded(view, digit.x, samples, seed)
st.subheader("How the bound grows with the number of samples", anchor=False)
st.write(
    "L_1 is the ELBO; with more samples the bound climbs towards log p(x). The gap that is left at k = 1 is the "
    "divergence of q from the true posterior, so a curve that still climbs is one whose q misses much."
)
ends = " and ".join(f"{line.name} from {decimal(line.y[0], 1)} to {decimal(line.y[-1], 1)}" for line in lines)
caption = f"L_k in nats for this digit, for k from 1 to {samples:,}: {ends}. Dotted: log p̂(x)."
figure_card.figure(bound_curves(lines), "curve", caption, numbers)
with st.expander("The formula"):
    st.latex(
        r"L_k = \mathbb{E}_{h_1,\dots,h_k \sim q(h|x)}\left[\log \frac{1}{k}\sum_{i=1}^k w_i\right],"
        r"\qquad w_i = \frac{p(x, h_i)}{q(h_i|x)}"
    )
report_button(view, SampledImage(digit.x, samples, seed))
