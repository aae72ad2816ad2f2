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
from pages.common import cache
from pages.common.canvas import PIXELS
from pages.common.digit_input import BINARIZED_BY
from pages.common.evidence import Evidence
from pages.common.figure_card import escape_markdown
from pages.common.sidebar import View

DRAWS = 5  # pictures of draws from q(h|x)


def live(view: View, evidence: Evidence | None) -> dict[str, Any]:
    """The data of ``draw_digit(live=…)``: both models, and their pictures of the digit of ``evidence``, if any."""
    generator = torch.Generator().manual_seed(BINARIZED_BY)
    return {
        "thresholds": _base64(datasets.thresholds(torch.empty(PIXELS, dtype=torch.uint8), generator)),
        "seen": evidence and _base64(_grey(evidence.x)),
        "draws": DRAWS,
        "models": [_model(name, entry, view.device, evidence) for name, entry in view.pair],
    }


def _model(name: str, entry: Entry, device: str, evidence: Evidence | None) -> dict[str, Any]:
    told = {"title": f"{name} · {entry.short}", "kind": entry.kind, "note": "", "weights": None, "noise": None}
    content, reason = _weights(*cache.identity(entry), device)
    model = cache.model(entry, device)
    if content is None:
        told["note"] = escape_markdown(f"Its pictures follow when you lift the pen: {reason}.")
    else:
        drawn = standard_noise(model, DRAWS, evidence.seed if evidence else 0)[0][:, 0].cpu()
        told["noise"] = _base64(torch.cat([torch.zeros_like(drawn[:1]), drawn]))  # no noise: the mean itself
        told["weights"] = _address(content, name)
    if evidence:
        drawn = evidence.drawn[name]
        with torch.no_grad():
            pictures = model.decode(torch.cat([drawn.mean[None], drawn.h[0][:DRAWS]]).to(device)).cpu()
        told["pictures"] = _base64(_grey(pictures))
    return told


@st.cache_resource(max_entries=8, show_spinner=False)
def _weights(path: str, written: int, device: str) -> tuple[bytes | None, str]:
    """The file for the page; or None, and why the page cannot run the model."""
    try:
        return browser.package(cache.model_at(path, written, device)), ""
    except browser.BrowserError as error:
        return None, str(error)


def _address(content: bytes, name: str) -> str:
    """Where the page can fetch it; the address holds the hash of the content."""
    address = runtime.get_instance().media_file_mgr.add(content, "application/octet-stream", f"weights-{name}")
    return f"{st.get_option('server.baseUrlPath').rstrip('/')}/{address.lstrip('/')}"


def _grey(probabilities: Tensor) -> Tensor:
    return (255 * probabilities).round().byte()


def _base64(values: Tensor) -> str:
    return base64.b64encode(np.ascontiguousarray(values.numpy())).decode()
