"""Parts of the page of samples: the training images near to one, and the plane of a two-dimensional latent space."""

import streamlit as st
from torch import Tensor

from iwae.analysis import costs, generation
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.model import Model
from pages.common import image_rows
from pages.common.figure_card import escape_markdown
from pages.common.models.model_picker import CHOOSE_PLANE, offer_plane
from pages.common.server import cache
from pages.common.sidebar import View

MOST = 200  # images from the prior
NEAR = 9  # training images shown beside a sample
REFERENCE = 100  # test images whose reconstructions say how far from the training images a new picture lies


def both(view: View) -> list[tuple[str, Entry, Model]]:
    """Both models with the names they go by, unless one is too large for this page."""
    for _, entry in view.pair:
        cache.check_cost(entry, costs.generation(entry.card.model, MOST), f"{MOST} samples")
    return [(name, entry, cache.model(entry, view.device)) for name, entry in view.pair]


def neighbours(name: str, entry: Entry, picture: Tensor, device: str) -> None:
    """A sample [pixels] of a model, beside the nearest of the images it was trained on."""
    image_rows.heading(name, entry)
    dataset = entry.dataset
    if not dataset:
        st.info(f"What model {name} was trained on is not known here, so there are no training images to compare with.")
        return
    if not datasets.available(dataset):
        st.info(
            f"Model {name} was trained on {escape_markdown(dataset)}, which is not on this machine: "
            f"{datasets.how_to_get(dataset)}, or choose a model trained on data that are here."
        )
        return
    try:
        data = cache.whole_dataset(dataset)
        near = _near(dataset, picture.numpy().tobytes(), _picture=picture)
        with cache.stop_on_model_error(entry):
            usual = _usual(dataset, *entry.identity, device)
    except datasets.DataError as error:
        st.error(escape_markdown(error))
        return
    index, distances = near.index[0].tolist(), near.distance[0].tolist()
    images = [picture.numpy(), *(data.train.images[index].float() / 255).numpy()]
    captions = ["the sample", *(f"{distance:.2f}" for distance in distances)]
    alts = [
        f"sample of model {name}",
        *(f"training image {place}, at {d:.2f}" for place, d in zip(index, distances, strict=True)),
    ]
    image_rows.image_row(images, captions, alts)
    st.caption(
        f"Nearest of {len(data.train):,} training images, with their Euclidean distances. The median of {REFERENCE} "
        f"reconstructed test images lies at {usual:.2f} from its nearest."
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _near(dataset: str, pixels: bytes, _picture: Tensor) -> generation.Neighbours:
    return generation.nearest(
        _picture[None], cache.whole_dataset(dataset).train.images, NEAR
    )  # pixels only say which picture it is


@st.cache_resource(max_entries=16, show_spinner="Comparing with the training images …")
def _usual(dataset: str, path: str, written: int, device: str) -> float:
    """The median distance from a reconstructed test image to its nearest training image."""
    data, model = cache.whole_dataset(dataset), cache.model_at(path, written, device)
    reconstructed = generation.reconstructions(model, data.x("test", model.likelihood.binary)[:REFERENCE])
    return generation.nearest(reconstructed, data.train.images).distance.median().item()


def plane_grid(name: str, entry: Entry, model: Model, side: int) -> None:
    """The plane of a model whose top layer has two units; of any other, which one to choose."""
    image_rows.heading(name, entry)
    if model.config.latent[-1] == 2:
        alt = f"{side} by {side} pictures decoded from the plane of model {name}"
        image_rows.image_grid(generation.manifold(model, side), side, f"samples.plane.{name}", alt, gap=0)
        return
    st.info(f"The top layer of model {name} has {model.config.latent[-1]} units, and a plane needs 2. {CHOOSE_PLANE}")
    offer_plane(name, entry, "samples")
