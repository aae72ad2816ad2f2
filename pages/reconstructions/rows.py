"""Both models' pictures of the same images: losses over the test set, and a page of images in a chosen order."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import streamlit as st
import torch
from torch import Tensor

from iwae.analysis import costs, reconstruction
from iwae.analysis.reconstruction import PICTURES, ReconstructionResult
from iwae.evaluation import stats
from iwae.figures.base import scatter_of_losses
from pages.common import figure_card, image_rows, reading
from pages.common.input.digit import hold_image
from pages.common.number_field import whole_number
from pages.common.sections import beside
from pages.common.server import cache
from pages.common.server.bounded import bounded
from pages.common.sidebar import View
from pages.frame.links import kept

SAMPLES = 50
ROWS = 3  # images on a page
NAMES = {
    "draw": "one draw",
    "mean": "mean of q",
    "average": "plain average",
    "weighted": "weighted average",
}
ORDERS = ["where A is better", "where B is better", "test set"]


@dataclass(frozen=True)
class ReconstructionPair:
    """What both models make of the first n test images."""

    a: ReconstructionResult
    b: ReconstructionResult

    def difference(self, picture: str) -> Tensor:
        """Loss of A minus loss of B of each image, nats, [n]."""
        return self.a.losses[picture] - self.b.losses[picture]


def both(view: View, images: int) -> ReconstructionPair:
    """Both models on the first ``images`` test images."""
    found = []
    for _, entry in view.pair:
        cost = costs.draws(entry.card.model, images, SAMPLES, pictures=1)
        cache.check_cost(entry, cost, f"reconstructions of {images:,} images")
        with cache.stop_on_model_error(entry):
            found.append(_measure(*entry.identity, view.device, view.dataset, images))
    return ReconstructionPair(*found)


@bounded(megabytes=130)
@st.cache_resource(max_entries=4, show_spinner="Encoding and decoding the test images …")  # 31 MB for 10,000
def _measure(path: str, written: int, device: str, dataset: str, images: int) -> ReconstructionResult:
    model = cache.model_at(path, written, device)
    x = cache.test_images(dataset, model.likelihood.binary)[:images].to(device)
    return reconstruction.reconstructions(model, x, samples=SAMPLES)


def table(view: View, pair: ReconstructionPair) -> None:
    """Mean losses of both models with standard errors, and their paired difference."""
    rows = []
    for name in PICTURES:
        values = (pair.a.losses[name], pair.b.losses[name], pair.difference(name))
        cells = [reading.plus_minus(*stats.mean_se(value), sign=place == 2) for place, value in enumerate(values)]
        rows.append({"picture": NAMES[name], **dict(zip(("A", "B", "A − B, paired"), cells, strict=True))})
    st.table(rows, hide_index=True)
    st.caption(
        reading.without_errors("Reconstruction loss in nats per image ± standard error")
        + f" over the first {len(pair.a.losses['draw']):,} test images of {view.dataset}; "
        f"{SAMPLES} draws from q(h|x) each, seed 0; lower is better."
    )


def scatter(view: View, pair: ReconstructionPair, picture: str, labels: list[str]) -> None:
    """The loss of every image under A and under B."""
    a, b = pair.a.losses[picture], pair.b.losses[picture]
    titles = [f"{name} · {entry.short}: loss, nats" for name, entry in view.pair]
    worse = int((a > b).sum())
    takeaway = f"Judged by {NAMES[picture]}, B reconstructs {worse:,} of {len(a):,} images better than A."
    caption = f"Reconstruction loss ({NAMES[picture]}) of each image under both models. Above the line A is better."
    numbers = {"image": range(len(a)), "class": labels, "A": a.tolist(), "B": b.tolist()}
    figure: go.Figure = scatter_of_losses(a.numpy(), b.numpy(), titles, labels)
    figure_card.figure(figure, "reconstructions.losses", caption, numbers, takeaway)


def chosen(pair: ReconstructionPair, picture: str, order: str, labels: np.ndarray, wanted: str) -> np.ndarray:
    """Numbers of the images of a class (or "all") in an order."""
    difference = pair.difference(picture).numpy()
    found = np.arange(len(difference)) if wanted == "all" else np.flatnonzero(labels == wanted)
    if order == "test set":
        return found
    sign = 1 if order == "where A is better" else -1
    return found[np.argsort(sign * difference[found], kind="stable")]


def over_the_test_set(view: View, pair: ReconstructionPair, picture: str, labels: list[str]) -> None:
    """Mean losses in a table, and every image in a figure."""
    left, right = beside()
    with left:
        table(view, pair)
    with right:
        scatter(view, pair, picture, labels)
    reading.glossary("nats", "standard error")
    reading.formulas(
        "The formulas",
        r"\text{one draw: } -\mathbb{E}_{q(h|x)}[\log p(x|h)]",
        r"\text{plain average: } \bar p = \tfrac1S \sum_i p(x|h_i)",
        r"\text{weighted average: } \sum_i \tilde w_i\, p(x|h_i), \qquad \tilde w_i = w_i / \sum_j w_j",
    )


def image_by_image(view: View, pair: ReconstructionPair, picture: str, labels: np.ndarray) -> None:
    """The digit in hand, and a page of images in the order of the controls."""
    one, two, three = st.columns(3, vertical_alignment="bottom")
    order = one.selectbox("First", ORDERS, key="order", bind="query-params", help="By the difference of the losses.")
    wanted = two.selectbox("Class", ["all", *sorted(set(labels.tolist()) - {"–"})], key="class", bind="query-params")
    numbers = chosen(pair, picture, order, labels, wanted)
    pages = max(1, -(-len(numbers) // ROWS))
    page = whole_number(f"Page, 1 to {pages:,}", 1, pages, 1, key="recon_page", place=three)
    with st.container(horizontal=True):
        grey = st.toggle("Grey input", key="grey", bind="query-params", help="As scanned, before binarization.")
        errors = st.toggle("Error maps", key="errors", bind="query-params", help="Where each picture misses the input.")
    if errors:
        st.caption(
            "Below each picture its error map: |x − p|, the distance of each pixel's probability from the input. "
            "Black is right, white is wholly wrong, and grey is undecided, as the edges of strokes are."
        )
    digit_in_hand(view, grey=grey, errors=errors)
    here = numbers[(page - 1) * ROWS : page * ROWS]
    page_of_images(view, pair, here, labels, grey=grey, errors=errors)


def page_of_images(
    view: View, pair: ReconstructionPair, numbers: np.ndarray, labels: np.ndarray, *, grey: bool, errors: bool
) -> None:
    """The images of these numbers, a row for each: both models' pictures with their losses under them."""
    data, x = cache.dataset(view.dataset), cache.test_images(view.dataset, view.binary)
    for number in numbers:
        seen = data.test.images[number].numpy() / 255 if grey else x[number].numpy()
        with st.container(border=True):
            title, link = st.columns([4, 1], vertical_alignment="center")
            title.markdown(f"**Image {number:,}** · {labels[number]}")
            if link.button("Open", key=f"open.{number}", width="stretch", help="See its posterior under both models"):
                hold_image(int(number))
                st.switch_page("pages/1_Posterior.py", query_params=kept({"image": str(number)}))
            _under_both(view, pair, number, seen, x[number].numpy(), errors)


def digit_in_hand(view: View, *, grey: bool, errors: bool) -> None:
    """The digit in hand in a row of its own."""
    digit = view.digit
    found = []
    for _, entry in view.pair:
        one = costs.draws(entry.card.model, 1, SAMPLES, pictures=1)
        cache.check_cost(entry, one, "the reconstructions of the digit in hand")
        with cache.stop_on_model_error(entry):
            found.append(_measure_digit(*entry.identity, view.device, cache.image_key(digit.x)))
    with st.container(border=True):
        st.markdown(f"**The digit in hand** · {figure_card.escape_markdown(digit.source)}")
        x = digit.x.numpy()
        _under_both(view, ReconstructionPair(*found), 0, digit.thumbnail if grey else x, x, errors)


@st.cache_resource(max_entries=16, show_spinner=False)
def _measure_digit(path: str, written: int, device: str, pixels: bytes) -> ReconstructionResult:
    x = cache.image_of(pixels)[None].to(device)
    return reconstruction.reconstructions(cache.model_at(path, written, device), x, samples=SAMPLES)


def _under_both(
    view: View, pair: ReconstructionPair, number: int, seen: np.ndarray, x: np.ndarray, errors: bool
) -> None:
    for column, (name, entry), found in zip(st.columns(2, gap="large"), view.pair, (pair.a, pair.b), strict=True):
        with column:
            _row(figure_card.escape_markdown(f"{name} · {entry.short}"), found, number, seen, x, errors)


def _row(
    model: str, found: ReconstructionResult, number: int, seen: np.ndarray, x: np.ndarray, errors: bool
) -> None:  # fmt: skip
    """The input and four pictures of it in one strip, with their losses; below them their error maps."""
    made = [found.pictures[name][number].numpy() / 255 for name in PICTURES]
    shown = [np.ravel(seen), *made]
    if errors:
        shown += [np.zeros_like(x), *(np.abs(x - picture) for picture in made)]
    losses = [f"{NAMES[name]} {stats.decimal(found.losses[name][number].item(), 1)}" for name in PICTURES]
    said = "; ".join(["input", *losses]) + " nats"
    alt = f"{said}; below their error maps" if errors else said
    image_rows.image_strip(shown, 1 + len(made), f"{model}: {said}", alt)


def labels_of(view: View, images: int) -> np.ndarray:
    """The class of each test image as text, [n]; ``–`` where the data set has none."""
    data = cache.dataset(view.dataset)
    if data.test.labels is None:
        return np.full(images, "–")
    return np.array([data.label_names[int(label)] for label in torch.as_tensor(data.test.labels)[:images]])
