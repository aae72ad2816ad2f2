"""What the drawing surface needs for pictures that follow the strokes (live.js): weights, noise, and exact pictures.

The page encodes and decodes with each model's weights in half precision, which it fetches once after its first paint,
and with the very thresholds and normal draws of the server. So its pictures are those of the server up to rounding, and
the server's, which come with every run, replace them.
"""

import base64
from typing import Any

import numpy as np
import streamlit as st
import torch
from streamlit import runtime
from torch import Tensor

from iwae.catalog import Entry
from iwae.data import datasets
from iwae.export import browser
from iwae.inference.posterior import standard_noise
from iwae.model import Model
from pages.common.evidence import Evidence
from pages.common.input.digit import BINARIZED_BY
from pages.common.server import cache
from pages.common.sidebar import View

DRAWS = 5  # pictures of draws from q(h|x)


def live(view: View, evidence: Evidence | None) -> dict[str, Any]:
    """The data of ``draw_digit(live=…)``: both models, and their pictures of the digit of ``evidence``, if any."""
    generator = torch.Generator().manual_seed(BINARIZED_BY)
    pixels = torch.empty(view.a.card.model.pixels, dtype=torch.uint8)
    return {
        "thresholds": to_text(datasets.thresholds(pixels, generator)),
        "like_mnist": datasets.like_mnist(view.dataset),
        "seen": evidence and to_text(_grey(evidence.x)),
        "draws": DRAWS,
        "models": [_model(name, entry, view.device, evidence) for name, entry in view.pair],
    }


def _model(name: str, entry: Entry, device: str, evidence: Evidence | None) -> dict[str, Any]:
    data, model = network(name, entry, device) | {"noise": None}, cache.model(entry, device)
    if data["weights"]:
        drawn = standard_noise(model, DRAWS, evidence.seed if evidence else 0)[0][:, 0].cpu()
        data["noise"] = to_text(torch.cat([torch.zeros_like(drawn[:1]), drawn]))  # no noise: the mean itself
    if evidence:
        drawn = evidence.drawn[name]
        data["pictures"] = pictures(model, torch.cat([drawn.mean[None], drawn.h[0][:DRAWS]]))
    return data


def network(name: str, entry: Entry, device: str) -> dict[str, Any]:
    """How a model is called, and where the page finds its weights; or none, and a note that says why."""
    with cache.stop_on_model_error(entry):
        content, reason = _weights(*entry.identity, device)
    data = {"title": f"{name} · {entry.short}", "kind": entry.kind}
    if content is None:
        note = f"The page cannot decode it by itself, so its pictures come a moment later: {reason}."
        return data | {"weights": None, "note": note}
    return data | {"weights": address(content, f"weights-{name}"), "note": ""}


def address(content: bytes, name: str) -> str:
    """Where the page can fetch it; the address holds a hash of the content. ``name`` tells it from others here."""
    found = runtime.get_instance().media_file_mgr.add(content, "application/octet-stream", name)
    return f"{st.get_option('server.baseUrlPath').rstrip('/')}/{found.lstrip('/')}"


@torch.no_grad()
def pictures(model: Model, h1: Tensor) -> str:
    """Grey levels of what h₁ [n, latent] decodes to."""
    return to_text(_grey(model.decode(h1.to(model.device)).cpu()))


@st.cache_resource(max_entries=8, show_spinner=False)
def _weights(path: str, written: int, device: str) -> tuple[bytes | None, str]:
    """The file for the page; or None, and why the page cannot run the model."""
    try:
        return browser.package(cache.model_at(path, written, device)), ""
    except browser.BrowserError as error:
        return None, str(error)


def _grey(probabilities: Tensor) -> Tensor:
    return (255 * probabilities).round().byte()


def to_text(values: Tensor) -> str:
    """The bytes of an array, for a component's data."""
    return base64.b64encode(np.ascontiguousarray(values.numpy())).decode()
