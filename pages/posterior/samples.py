"""Sections of the page of one posterior: samples and reconstructions of both models, and the bound against k."""

import streamlit as st
from torch import Tensor

from iwae.evaluation.stats import decimal
from iwae.figures.base import Line, bound_curves
from pages.common import figure_card, image_rows, reading
from pages.common.evidence import Evidence
from pages.common.server import cache
from pages.common.sidebar import View


def samples_of_both(view: View, evidence: Evidence, count: int, which: str) -> None:
    """The headline of each model, its reconstructions, and ``count`` decoded draws of its q."""
    for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
        with column:
            image_rows.heading(name, entry)
            evidence.headline(name)
            st.markdown(
                "**Reconstructions**",
                help="From the mean of q; the plain average of all decoded draws; and their average by weight.",
            )
            image_rows.reconstructions(evidence.x.numpy(), evidence.pictured[name])
            st.markdown(
                f"**Samples from q(h|x)**: {which}, ordered by weight",
                help="Decoded to pixel probabilities; below each its share of the importance weight of all draws.",
            )
            model, heaviest = cache.model(entry, view.device), which == "the heaviest"
            image_rows.weighted_samples(model, evidence.drawn[name], count, heaviest)
    evidence.verdict()
    reading.glossary("nats", "ESS", "importance weight", "standard error")
    evidence.numbers()


def bound_against_k(view: View, x: Tensor, samples: int, seed: int) -> None:
    """L_k of both models for k from 1 to all samples."""
    st.write(
        "L_1 is the ELBO; with more samples the bound climbs towards log p(x). The gap that is left at k = 1 is the "
        "divergence of q from the true posterior, so a curve that still climbs is one whose q misses much."
    )
    lines, numbers = [], []
    for name, entry in view.pair:
        dashed = name == "B" and view.a.kind == view.b.kind
        ks, bounds = cache.curve(entry, view.device, x, samples, seed)
        lines.append(Line(f"{name} · {entry.short}", entry.kind, ks, bounds, dashed))
        numbers += [{"model": name, "k": k, "L_k": bound} for k, bound in zip(ks, bounds, strict=True)]
    a, b = (line.y[-1] - line.y[0] for line in lines)
    takeaway = (
        f"From k = 1 to {samples:,} the bound climbs by {decimal(a, 1)} nats under A, and by {decimal(b, 1)} under B."
    )
    ends = " and ".join(f"{line.name} from {decimal(line.y[0], 1)} to {decimal(line.y[-1], 1)}" for line in lines)
    caption = f"L_k in nats for this digit, for k from 1 to {samples:,}: {ends}. Dotted: log p̂(x)."
    figure_card.figure(bound_curves(lines), "curve", caption, numbers, takeaway)
    reading.glossary("nats", "L_k", "ELBO", "D_KL")
    reading.formulas(
        "The formula",
        (
            r"L_k = \mathbb{E}_{h_1,\dots,h_k \sim q(h|x)}\left[\log \frac{1}{k}\sum_{i=1}^k w_i\right],"
            r"\qquad w_i = \frac{p(x, h_i)}{q(h_i|x)}"
        ),
    )
