"""What a place on the maps decodes to, while the pointer moves over them (live_map.js)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae.analysis import latent
from pages.common import cache
from pages.common.canvas import source
from pages.common.live import address, network, pictures, to_text
from pages.latent.controls import Images, MapSide, of_digit

_KEY = "live-map"
_panel = st.components.v2.component(
    "live_map",
    html=source("latent/live_map.html"),
    css=source("latent/live_map.css"),
    js=source("common/forward.js", "common/pictures.js", "latent/places.js", "latent/live_map.js"),
)


@st.fragment
def live_map(
    both: Sequence[MapSide], images: Images, x: Tensor, limits: tuple[Sequence[float], Sequence[float]]
) -> None:
    """Both models' pictures of a place on the maps, whose axes have these ``limits``; at first of x [pixels] itself."""
    own = [of_digit(side, x).mean[0] for side in both]
    axes = [side.projection and side.projection.axes.tolist() for side in both]
    shown = repr((images.dataset, [side.entry.key for side in both], axes))
    asked = (st.session_state.get(_KEY) or {}).get("place")  # where the page cannot decode by itself
    st.markdown("**At the pointer**", help=_help(both))
    _panel(
        key=_KEY,
        data={
            "map": shown,
            "x": list(limits[0]),
            "y": list(limits[1]),
            "start": _at(both[0], own[0]).tolist(),
            "place": asked,
            "models": [_model(side, mean, asked) for side, mean in zip(both, own, strict=True)],
        },
        on_place_change=lambda: None,
    )


def code_at(side: MapSide, place: Sequence[float], own: np.ndarray) -> np.ndarray:
    """The code [latent] that lies at ``place`` [2] of a map: on a plane ``own``, moved within it; on UMAP, which has
    no formula, a blend of those of the nearest images."""
    place = np.asarray(place, dtype=float)
    if side.projection is not None:
        return side.projection.lift(place, own)
    return latent.place_on_map(place[None], side.places, side.encoded.mean)[0]


def _at(side: MapSide, own: np.ndarray) -> np.ndarray:
    if side.projection is not None:
        return side.projection.project(own)
    return latent.place_on_map(own[None], side.encoded.mean, side.places)[0]


def _model(side: MapSide, own: np.ndarray, asked: Sequence[float] | None) -> dict[str, Any]:
    data = network(side.name, side.entry, side.device)
    model = cache.model(side.entry, side.device)
    wanted = [own] if asked is None else [own, code_at(side, asked, own)]
    shown = [pictures(model, torch.from_numpy(code)[None].float()) for code in wanted]
    data |= {"own": shown[0], "there": shown[-1], "plane": None, "codes": None}
    if side.projection is not None:
        axes, point = (to_text(torch.from_numpy(part).float()) for part in (side.projection.axes, own))
        data["plane"] = {"axes": axes, "point": point, "at": _at(side, own).tolist()}
    elif data["weights"]:
        data["codes"] = address(packed(side.places, side.encoded.mean), f"codes-{side.name}")
    return data


def packed(places: np.ndarray, codes: np.ndarray) -> bytes:
    """For places.js: n as uint32; places [n, 2] and codes [n, latent] as float32."""
    return np.uint32(len(places)).tobytes() + places.astype("<f4").tobytes() + codes.astype("<f4").tobytes()


def _help(both: Sequence[MapSide]) -> str:
    if both[0].projection is None:
        how = f"UMAP has no way back: a blend of the codes of the {latent.NEIGHBOURS} nearest images on each map."
    elif all(side.encoded.size == 2 for side in both):
        how = "The plane is the whole latent space."
    else:
        how = "The code of the digit in hand, moved within the plane of each map; what lies off the plane stays."
    return f"What both models decode the place under the pointer to. {how}"
