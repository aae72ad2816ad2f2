"""Where two models put the same images in latent space, and how far each posterior spreads there."""

import streamlit as st

from pages.common import reading
from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.latent import controls, download, maps, spread

view = sidebar(begin("Latent space", "Latent space"))
st.write(
    "Each point is a test image, placed by the mean of its posterior q(h|x): first as model A sees it, then as B does, "
    "on the same axes. Images that a model considers similar lie close together."
)

one, two, three = st.columns([1, 2, 2])
with one:
    images = controls.pick_images(view.dataset)
with two:
    kind = controls.pick_map()
with three:
    by = controls.pick_colour(images)
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    whose = controls.pick_spread(images)
    classes, layers = controls.pick_classes(images), controls.pick_layers(view)
    chains = controls.true_posterior(view)

both = controls.sides(view, images, kind, layers)
if both is None:  # UMAP is not there, or not yet
    st.info("Until then: PCA.")
    kind = "PCA"
    both = controls.sides(view, images, kind, layers)


def both_maps() -> None:
    """The maps, and what is selected on them."""
    maps.show_maps(both, images, by, whose, view.digit, chains, classes)
    maps.show_selection(images, both)
    download.download_latents(both, images, kind)
    reading.glossary("NLL", "ESS", "D_KL", "tr Σ")


def all_posteriors() -> None:
    """The aggregated posterior against the prior."""
    st.write(
        "The mixture of all q(h|x), the aggregated posterior, is what the decoder has learned to read; the prior is "
        "where new samples come from. Where the prior has mass and the mixture has none, samples look like nothing."
    )
    spread.show_aggregated(both, images)


for note in spread.incomparable(both, images):
    st.info(note)
sections({
    "Maps": both_maps,
    "Images that moved most": lambda: maps.show_moved(images, both),
    "Does B spread more?": lambda: spread.show_spread(both, images),
    "All posteriors together": all_posteriors,
})  # fmt: skip
reading.formulas(
    "The formulas",
    r"q(h_1|x) = \mathcal{N}(\mu(x), \operatorname{diag} \sigma^2(x)), \qquad \text{on a plane } W: \quad "
    r"\mathcal{N}\!\left(W(\mu - c),\; W \operatorname{diag}(\sigma^2)\, W^\top\right)",
    r"C = \mathbb{E}_x[\operatorname{diag} \sigma^2(x)] + \operatorname{Cov}_x[\mu(x)], \qquad "
    r"H[q] = \sum_u \log \sigma_u + \tfrac{d}{2} \log 2\pi e",
    r"D_{KL}(q \,\|\, \mathcal{N}(0, I)) = \tfrac12 \sum_u \left(\sigma_u^2 + \mu_u^2 - 1 - \log \sigma_u^2\right)",
    r"\text{trustworthiness} = 1 - \frac{2}{n k (2n - 3k - 1)} \sum_i \sum_{j \in U_k(i)} (r(i, j) - k)",
)
report_button(view)
