"""Cached calls into the package. A file is known by path and modification time, so a rewritten file is read again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import streamlit as st
import torch
from PIL import Image
from torch import Tensor

import iwae.inference.posterior
from iwae import catalog, checkpoints
from iwae.adapters import AdapterError
from iwae.analysis import costs, timeline
from iwae.analysis.costs import Cost, CostError
from iwae.analysis.timeline import ModelState
from iwae.catalog import Entry
from iwae.checkpoints import CheckpointError
from iwae.data import datasets
from iwae.data.datasets import DataError
from iwae.images import digits, plain
from iwae.images.edits import Edit
from iwae.images.uploads import read_picture
from iwae.inference import occlusion
from iwae.inference.occlusion import Occluded
from iwae.inference.posterior import Posterior, Reconstructions
from iwae.kernels.finite import NonFiniteError
from iwae.model import Model
from pages.common.figure_card import escape_markdown
from pages.common.server.bounded import bounded
from pages.common.server.polling import end_page

# One digit needs no second thread (5,000 draws: 0.05 s), and beside a training run a second one waits, tens of times
# longer, for a core that is taken.
torch.set_num_threads(1)


def model(entry: Entry, device: str) -> Model:
    """The entry's model on the device."""
    with stop_on_model_error(entry):
        return model_at(*entry.identity, device)


@contextmanager
def stop_on_model_error(entry: Entry) -> Iterator[None]:
    """Stop the page with an error if the entry's file is damaged or missing, or its numbers are not finite."""
    try:
        yield
    except (AdapterError, CheckpointError, NonFiniteError, OSError) as error:
        st.error(escape_markdown(f"{entry.short} cannot be used: {error}."))
        end_page()


def check_cost(entry: Entry, cost: Cost, what: str) -> None:
    """Stop the page with an error if the entry's model is too large for ``what`` this page computes."""
    try:
        costs.check(entry.card.model, cost, f"{what} on the page {st.session_state.get('title', 'here')}")
    except CostError as error:
        st.error(
            escape_markdown(
                f"{entry.short}: {error}. Choose another model in the sidebar, or a smaller number on this page."
            )
        )
        end_page()


def posterior(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> tuple[Posterior, Reconstructions]:
    """Draws from q(h|x) of one image x [pixels] under the entry's model, and its reconstructions."""
    check_cost(entry, costs.posterior(entry.card.model, samples), f"{samples:,} draws from its posterior")
    with stop_on_model_error(entry):
        return _posterior(*entry.identity, device, image_key(x), samples, seed)


def occluded(
    entry: Entry, device: str, x: Tensor, pixel_mask: Tensor, samples: int, seed: int
) -> tuple[Occluded, Reconstructions]:
    """The posterior given those pixels of an image x [pixels] where ``pixel_mask`` [pixels] is true, and its
    reconstructions."""
    check_cost(entry, costs.occlusion(entry.card.model, samples), "the posterior of an occluded digit")
    with stop_on_model_error(entry):
        return _occluded(*entry.identity, device, image_key(x), pixel_mask.numpy().tobytes(), samples, seed)


def curve(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """L_k of ``posterior(…)`` at up to 60 values of k, evenly spread over its logarithm: (k, nats)."""
    with stop_on_model_error(entry):
        return _curve(*entry.identity, device, image_key(x), samples, seed)


def model_state(path: Path, dataset: str, shown: tuple[int, ...]) -> ModelState:
    """Posterior means and unit activity of a saved model on the first test images, and reconstructions of ``shown``."""
    config = checkpoints.read_card(path).model
    costs.check(config, costs.units(config, timeline.IMAGES), f"the timeline of {timeline.IMAGES} images")
    return _model_state(str(path), path.stat().st_mtime_ns, dataset, shown)


def dataset(name: str) -> datasets.Dataset:
    """The test images of a data set that is already on this machine, without the others. Stops the page with an error
    where its files are damaged."""
    try:
        return _loaded(name)
    except DataError as error:
        st.error(escape_markdown(f"{error}."))
        end_page()


@st.cache_resource(max_entries=3, show_spinner="Loading the data …")
def _loaded(name: str) -> datasets.Dataset:
    return datasets.load(name, download=False, only_test=True)


@st.cache_resource(max_entries=2, show_spinner="Loading the training images …")
def whole_dataset(name: str) -> datasets.Dataset:
    """All of a data set that is already on this machine, with its training images."""
    return datasets.load(name, download=False)


@st.cache_resource(max_entries=3, show_spinner=False)
def test_images(name: str, binary: bool) -> datasets.DrawnImages:
    """The test images of a data set, [n, pixels], drawn once from the documented seed, or not ``binary``, as grey
    levels."""
    return dataset(name).x("test", binary)


def count_images(name: str) -> int:
    """How many test images a data set has."""
    return len(dataset(name).test)


def need_images(name: str, fewest: int, what: str) -> None:
    """Stop the page with a sentence if a data set has too few test images for what it shows."""
    if (count := count_images(name)) < fewest:
        st.info(f"{what} need at least {fewest} test images; {datasets.label(name)} has {count}.")
        end_page()


@st.cache_resource(max_entries=8, show_spinner=False)
def picture(content: bytes, name: str) -> Image.Image:
    """The picture in a file of this name, decoded; raises PictureError."""
    return read_picture(content, name=name)


@st.cache_resource(max_entries=16, show_spinner=False)
def digit(content: bytes, name: str, edit: Edit, dataset: str) -> digits.Digit:
    """The picture in a file of this name, prepared after an edit for models of a data set; raises PictureError."""
    if datasets.like_mnist(dataset):
        return digits.prepare(picture(content, name), edit=edit)
    return plain.fitted(picture(content, name), datasets.shape(dataset), edit)


@st.cache_resource(max_entries=8, show_spinner="Loading the model …")
def model_at(path: str, written: int, device: str) -> Model:
    """The model of ``entry.identity``, for functions with caches of their own."""
    return catalog.load_model(path, device)


@bounded(megabytes=200)  # 1 MB for 5,000 draws of 50 units; 30 MB for the 50,000 that can be asked of two layers
@st.cache_resource(max_entries=32, show_spinner="Sampling the posterior …")
def _posterior(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int):
    model = model_at(path, written, device)
    drawn = iwae.inference.posterior.posterior(model, image_of(pixels), samples=samples, seed=seed)
    return drawn, iwae.inference.posterior.reconstruct(model, drawn)


@bounded(megabytes=100)
@st.cache_resource(max_entries=32, show_spinner="Sampling the posterior given the visible pixels …")
def _occluded(path: str, written: int, device: str, pixels: bytes, visible: bytes, samples: int, seed: int):
    model, pixel_mask = model_at(path, written, device), torch.frombuffer(bytearray(visible), dtype=torch.bool)
    found = occlusion.occluded(model, image_of(pixels), pixel_mask, samples=samples, seed=seed)
    return found, iwae.inference.posterior.reconstruct(model, found.drawn)


def image_key(x: Tensor) -> bytes:
    """An image x [pixels], zeros and ones or grey levels, as the key of a cache; ``image_of`` gives it back."""
    return (255 * x).round().byte().numpy().tobytes()


def image_of(pixels: bytes) -> Tensor:
    """The image [pixels] of ``image_key``."""
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).float() / 255


@st.cache_resource(max_entries=32, show_spinner=False)
def _curve(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int):
    ks = np.unique(np.geomspace(1, samples, 60).round().astype(int))
    drawn, _ = _posterior(path, written, device, pixels, samples, seed)  # as posterior() asks: the same entry
    return ks, drawn.curve(ks)


@bounded(megabytes=30)
@st.cache_resource(max_entries=64, show_spinner="Evaluating the snapshot …")
def _model_state(path: str, written: int, dataset: str, shown: tuple[int, ...]) -> ModelState:
    model = model_at(path, written, "cpu")
    images = test_images(dataset, model.likelihood.binary)
    return timeline.describe_model(model, images[: timeline.IMAGES], images[list(shown)])
