"""Which latent units of both models are used, what each is for, and what is lost without it."""

import streamlit as st

from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.server import cache
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.units import pruning

THRESHOLDS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]

view = sidebar(begin("Active units", "Active units"))
st.write(
    "A model is free to ignore latent units: it then leaves them at the prior, whatever the image. Units that carry "
    "something are called active. An IWAE usually keeps more of them than a VAE of the same size."
)

one, two, three = st.columns(3)
threshold = one.select_slider(
    "Threshold of the variance",
    THRESHOLDS,
    1e-2,
    format_func=lambda value: f"{value:g}",
    key="threshold",
    bind="query-params",
    help="A unit is active when the variance over images of E_q[h_u|x] lies above it; the papers take 0.01.",
)
cache.need_images(view.dataset, 2, "Active units")
total = cache.count_images(view.dataset)
sizes = [size for size in (100, 300, 1000, 3000) if size < total] + [total]
images = two.selectbox(
    "Test images",
    sizes,
    min(len(sizes) - 1, 2),
    format_func=lambda size: f"{size:,}" + (" (all)" if size == total else ""),
    key="unit_images",
    bind="query-params",
    help=f"The first of {total:,}.",
)
models = pruning.measure(view, images)
depth = max(len(model.halves) for model in models)
layer = (
    three.selectbox("Layer", range(1, depth + 1), key="layer", bind="query-params", help="Counted from the pixels.") - 1
    if depth > 1
    else 0
)

sections({
    "Which are active": lambda: pruning.which_are_active(view, models, layer, threshold, images),
    "How sure is the count": lambda: pruning.eigenvalues_and_bands(models, layer, threshold),
    "One unit at a time": lambda: pruning.one_at_a_time(view, models, layer, threshold, images),
})  # fmt: skip
report_button(view)
