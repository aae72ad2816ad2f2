"""Cached calls into the engine. A file is known by its path and the time it was written, so a new one is read anew."""

from pathlib import Path

import numpy as np
import streamlit as st
import torch
from torch import Tensor

import iwae.plane
import iwae.posterior
from iwae import checkpoints, datasets, digits, prior
from iwae.catalog import Entry
from iwae.model import Model
from iwae.plane import Plane
from iwae.posterior import Posterior, Reconstructions

# One digit needs no second thread (5,000 draws: 0.05 s), and beside a training run a second one waits, tens of times
# longer, for a core that is taken.
torch.set_num_threads(1)
REFERENCE = 100  # test images whose reconstructions say how far from the training images a new picture lies


def model(entry: Entry, device: str) -> Model:
    """The entry's model on the device."""
    return _model(str(entry.path), _written(entry), device)


def posterior(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> tuple[Posterior, Reconstructions]:
    """Draws from q(h|x) of one binary image x [784] under the entry's model, and its reconstructions."""
    return _posterior(str(entry.path), _written(entry), device, x.byte().numpy().tobytes(), samples, seed)


def curve(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """L_k of ``posterior(…)`` at up to 60 values of k, evenly spread over its logarithm: (k, nats)."""
    return _curve(str(entry.path), _written(entry), device, x.byte().numpy().tobytes(), samples, seed)


@st.cache_resource(max_entries=3, show_spinner="Loading the data …")
def dataset(name: str) -> datasets.Dataset:
    """The test images of a data set that is already on this machine, without the others."""
    return datasets.load(name, download=False, only_test=True)


@st.cache_resource(max_entries=3, show_spinner=False)  # as it is: a copy of 31 MB for each run of a page takes 0.05 s
def test_images(name: str) -> Tensor:
    """The binary test images of a data set, [n, 784], drawn once from the documented seed; not to be written to."""
    return dataset(name).binary("test")


@st.cache_resource(max_entries=8, show_spinner=False)
def digit(content: bytes, name: str, invert: bool | None) -> digits.Digit:
    """The picture in a file of this name, prepared; raises PictureError."""
    return digits.prepare(content, invert=invert, name=name)


@st.cache_resource(max_entries=8, show_spinner="Loading the model …")
def _model(path: str, written: int, device: str) -> Model:
    return checkpoints.load(Path(path), device)[0]


@st.cache_resource(max_entries=32, show_spinner="Sampling the posterior …")
def _posterior(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int):
    x = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).float()
    drawn = iwae.posterior.posterior(_model(path, written, device), x, samples=samples, seed=seed)
    return drawn, iwae.posterior.reconstruct(_model(path, written, device), drawn)


@st.cache_resource(max_entries=32, show_spinner=False)
def _curve(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int):
    ks = np.unique(np.geomspace(1, samples, 60).round().astype(int))
    drawn, _ = _posterior(path, written, device, pixels, samples, seed)
    return ks, drawn.curve(ks)


def plane(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> Plane:
    """The exact posterior behind ``posterior(…)``; raises ValueError where the latent space is no plane."""
    return _plane(str(entry.path), _written(entry), device, x.byte().numpy().tobytes(), samples, seed)


@st.cache_resource(max_entries=8, show_spinner="Computing the exact posterior …")
def _plane(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int) -> Plane:
    return iwae.plane.plane(_model(path, written, device), _posterior(path, written, device, pixels, samples, seed)[0])


@st.cache_resource(max_entries=2, show_spinner="Loading the training images …")
def training_data(name: str) -> datasets.Dataset:
    """All of a data set that is already on this machine."""
    return datasets.load(name, download=False)


def usual_distance(entry: Entry, device: str) -> float:
    """The median distance from a reconstructed test image to its nearest training image, of the first REFERENCE."""
    return _usual_distance(entry.config.dataset, str(entry.path), _written(entry), device)


@st.cache_resource(max_entries=16, show_spinner="Comparing with the training images …")
def _usual_distance(name: str, path: str, written: int, device: str) -> float:
    data = training_data(name)
    pictures = prior.reconstructions(_model(path, written, device), data.binary("test")[:REFERENCE])
    return prior.nearest(pictures, data.train.images).distance.median().item()


def _written(entry: Entry) -> int:
    return entry.path.stat().st_mtime_ns
