"""What both models make of the same images, picture by picture and over the test set."""

import streamlit as st

from pages.common import cache
from pages.common.number_field import whole_number
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar
from pages.reconstructions import rows
from pages.reconstructions.rows import NAMES, ORDERS, ROWS

view = sidebar("Reconstructions")
st.title("Reconstructions", anchor=False)
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
left, right = st.columns([4, 3], gap="medium")  # the table needs 400 px
with left:
    st.subheader("Over the test set", anchor=False)
    rows.table(view, pair)
with right:
    st.subheader("Image by image", anchor=False)
    rows.scatter(view, pair, picture, labels.tolist())

st.subheader("The images", anchor=False)
one, two, three = st.columns(3, vertical_alignment="bottom")
order = one.selectbox("First", ORDERS, key="order", bind="query-params", help="By the difference of the losses.")
wanted = two.selectbox("Class", ["all", *sorted(set(labels.tolist()) - {"–"})], key="class", bind="query-params")
numbers = rows.chosen(pair, picture, order, labels, wanted)
pages = max(1, -(-len(numbers) // ROWS))
page = whole_number(f"Page, 1 to {pages:,}", 1, pages, 1, key="recon_page", place=three)
one, two, _ = st.columns(3)
grey = one.toggle("Grey input", key="grey", bind="query-params", help="As scanned, before binarization.")
errors = two.toggle(
    "Error maps", key="errors", bind="query-params", help="|x − p| of each pixel, from 0, black, to 1, white, for all."
)
here = numbers[(page - 1) * ROWS : page * ROWS]
rows.digit_in_hand(view, grey=grey, errors=errors)
rows.page_of_images(view, pair, here, labels, grey=grey, errors=errors)

with st.expander("The formulas"):
    st.latex(r"\text{one draw: } -\mathbb{E}_{q(h|x)}[\log p(x|h)]")
    st.latex(r"\text{plain average: } \bar p = \tfrac1S \sum_i p(x|h_i)")
    st.latex(r"\text{weighted average: } \sum_i \tilde w_i\, p(x|h_i), \qquad \tilde w_i = w_i / \sum_j w_j")

report_button(view)
