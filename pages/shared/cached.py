"""Cached calls into the engine. A file is known by its path and the time it was written, so a new one is read anew."""

from pathlib import Path

import streamlit as st
import torch
from torch import Tensor

import iwae.posterior
from iwae import checkpoints, datasets
from iwae.catalog import Entry
from iwae.model import Model
from iwae.posterior import Posterior, Reconstructions

# One digit needs no second thread (5,000 draws: 0.05 s), and beside a training run a second one waits, tens of times
# longer, for a core that is taken.
torch.set_num_threads(1)


def model(entry: Entry, device: str) -> Model:
    """The entry's model on the device."""
    return _model(str(entry.path), _written(entry), device)


def posterior(entry: Entry, device: str, x: Tensor, samples: int, seed: int) -> tuple[Posterior, Reconstructions]:
    """Draws from q(h|x) of one binary image x [784] under the entry's model, and its reconstructions."""
    return _posterior(str(entry.path), _written(entry), device, x.byte().numpy().tobytes(), samples, seed)


@st.cache_resource(max_entries=3, show_spinner="Loading the data …")
def dataset(name: str) -> datasets.Dataset:
    """A data set that is already on this machine."""
    return datasets.load(name, download=False)


@st.cache_data(max_entries=3, show_spinner=False)
def test_images(name: str) -> Tensor:
    """The binary test images of a data set, [n, 784], drawn once from the documented seed."""
    return dataset(name).binary("test")


@st.cache_resource(max_entries=8, show_spinner="Loading the model …")
def _model(path: str, written: int, device: str) -> Model:
    return checkpoints.load(Path(path), device)[0]


@st.cache_resource(max_entries=32, show_spinner="Sampling the posterior …")
def _posterior(path: str, written: int, device: str, pixels: bytes, samples: int, seed: int):
    x = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).float()
    drawn = iwae.posterior.posterior(_model(path, written, device), x, samples=samples, seed=seed)
    return drawn, iwae.posterior.reconstruct(_model(path, written, device), drawn)


def _written(entry: Entry) -> int:
    return entry.path.stat().st_mtime_ns
