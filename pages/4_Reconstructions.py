"""What both models make of the same images, picture by picture and over the test set."""

import streamlit as st

from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.server import cache
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.reconstructions import rows
from pages.reconstructions.rows import NAMES

view = sidebar(begin("Reconstructions", "Reconstructions"))
st.write(
    "An image is encoded and decoded again: how much of it comes back? An IWAE looks worse here than a VAE when a "
    "single draw is judged, since its q may miss as long as some of its draws are good; weigh the draws, and most of "
    "that is gone."
)

one, two = st.columns(2)
total = cache.count_images(view.dataset)
sizes = [size for size in (300, 1000, 3000) if size < total] + [total]
images = one.selectbox(
    "Test images",
    sizes,
    min(1, len(sizes) - 1),
    format_func=lambda size: f"{size:,}" + (" (all)" if size == total else ""),
    key="recon_images",
    bind="query-params",
    help=f"The first of {total:,}. All of MNIST's 10,000 take some 5 s.",
)
picture = two.selectbox(
    "Judge by",
    list(NAMES),
    format_func=NAMES.get,
    key="judge",
    bind="query-params",
    help="One draw: −log p(x|h), averaged over the draws, the poster's reconstruction loss. The others are pictures, "
    "judged by their cross-entropy to the binary image.",
)
pair = rows.both(view, images)
labels = rows.labels_of(view, images)
sections({
    "Image by image": lambda: rows.image_by_image(view, pair, picture, labels),
    "Over the test set": lambda: rows.over_the_test_set(view, pair, picture, labels.tolist()),
})  # fmt: skip
report_button(view)
