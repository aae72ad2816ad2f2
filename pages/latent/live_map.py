"""What a place on the maps decodes to, while the pointer moves over them, and the digit's own units (live_map.js)."""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
import torch
from PIL import Image
from torch import Tensor

from iwae.analysis import latent, units
from iwae.figures import base
from pages.common.input.canvas import source
from pages.common.input.live import address, network, pictures, to_text
from pages.common.input.received import number, received, show_refusal
from pages.common.server import cache
from pages.latent.controls import Images, MapSide, of_digit

TOP = 5  # units with a slider
SHADES = 16  # of the thumbnails, 0.25 MB for 2,000 of 28×28 pixels
COLUMNS = 100  # of their sheet
FARTHEST = 1e6  # of a place on a map, and of a unit's value

_KEY = "live-map"
_panel = st.components.v2.component(
    "live_map",
    html=source("latent/live_map.html"),
    css=source("latent/live_map.css"),
    js=source(
        "common/input/forward.js",
        "common/input/pictures.js",
        "latent/places.js",
        "latent/maps.js",
        "latent/live_map.js",
    ),
)


@st.fragment
def live_map(
    both: Sequence[MapSide], images: Images, x: Tensor, limits: tuple[Sequence[float], Sequence[float]]
) -> None:
    """Both models' pictures of a place on the maps, whose axes have these ``limits``; at first of x [pixels] itself."""
    own = [of_digit(side, x).mean[0] for side in both]
    axes = [side.projection and side.projection.axes.tolist() for side in both]
    shown = repr((images.dataset, len(images.numbers), [(side.entry.key, side.layer) for side in both], axes))
    sizes = [side.encoded.size for side in both]
    spot = received(_KEY, "spot", partial(_spot, shown, sizes))  # what the page cannot decode by itself
    st.markdown("**At the pointer**", help=_help(both))
    show_refusal(_KEY)
    _panel(
        key=_KEY,
        data={
            "map": shown,
            "x": list(limits[0]),
            "y": list(limits[1]),
            "start": _at(both[0], own[0]).tolist(),
            "spot": spot,
            "shape": both[0].entry.card.model.shape,
            "images": address(_thumbnails(images.dataset, len(images.numbers)), "thumbnails"),
            "models": [
                _model(side, mean, x, spot and code_of(side, mean, spot["parts"], spot["moved"][place]))
                for place, (side, mean) in enumerate(zip(both, own, strict=True))
            ],
        },
        on_spot_change=lambda: None,
    )


def _spot(shown: str, sizes: Sequence[int], sent: Any) -> dict[str, Any] | None:
    """The parts and moved units of a spot by live_map.js, for codes of these sizes; None if it is on another map.
    Raises ValueError for anything else."""
    match sent:
        case {"map": str(name), "parts": list(parts), "moved": [dict(), dict()] as moved}:
            if name != shown:
                return None
        case _:
            raise ValueError("a spot has a map, its parts, and the units moved of both models")
    for part in parts:
        if not isinstance(part, list) or len(part) != 3 or len(parts) > 2:
            raise ValueError(f"a spot has at most two parts [x, y, weight], not {parts!r:.60}")
        for value in part:
            number(value, FARTHEST)
    for values, size in zip(moved, sizes, strict=True):
        for unit, value in values.items():
            if unit not in map(str, range(size)):
                raise ValueError(f"there is no unit {unit!r:.20}; they are 0 to {size - 1}")
            number(value, FARTHEST)
    return {"parts": parts, "moved": moved}


def code_of(side: MapSide, own: np.ndarray, parts: Sequence[Sequence[float]], moved: Mapping[str, float]) -> np.ndarray:
    """The code [latent] of a spot: that of its ``parts``, places [x, y, weight] on a map, mixed by weight; or, without
    any, the digit's ``own``; with the units in ``moved`` set to these values."""
    code = own.copy()
    if parts:
        code = np.sum([weight * code_at(side, (x, y), own) for x, y, weight in parts], axis=0)
    for unit, value in moved.items():
        code[int(unit)] = value
    return code


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


def _model(side: MapSide, own: np.ndarray, x: Tensor, there: np.ndarray | None) -> dict[str, Any]:
    data = network(side.name, side.entry, side.device)
    model = cache.model(side.entry, side.device)
    codes = [torch.from_numpy(code)[None].float().to(model.device) for code in (own, there) if code is not None]
    shown = [pictures(model, latent.first_layer(model, code, side.layer)) for code in codes]
    nats = units.unit_kl(model, x[None].to(model.device))[side.layer - 1][0]
    data |= {
        "layer": side.layer,
        "own": shown[0], "there": shown[-1], "code": to_text(torch.from_numpy(own).float()),
        "plane": None, "codes": None,
        "units": [
            {"unit": unit, "nats": f"{nats[unit]:.1f}", "value": round(float(own[unit]), 2)}
            for unit in nats.argsort(descending=True)[:TOP].tolist()
        ],
    }  # fmt: skip
    if side.projection is not None:
        axes = to_text(torch.from_numpy(side.projection.axes).float())
        data["plane"] = {"axes": axes, "at": _at(side, own).tolist()}
    elif data["weights"]:
        data["codes"] = address(packed(side.places, side.encoded.mean), f"codes-{side.name}")
    return data


@st.cache_resource(max_entries=4, show_spinner=False)
def _thumbnails(dataset: str, count: int) -> bytes:
    """For maps.js: how many images as uint32, their numbers, and a PNG sheet of all of them, row by row."""
    data = cache.dataset(dataset)
    numbers = latent.subset(len(data.test), count)
    grey = data.test.images[numbers].view(-1, *data.shape).numpy() / 255
    sheet = Image.fromarray(base.image_grid(grey, COLUMNS, gap=0, zoom=1))
    content = io.BytesIO()
    sheet.convert("L").quantize(SHADES).save(content, "PNG", bits=4, optimize=True)
    return np.uint32(len(numbers)).tobytes() + numbers.astype("<u4").tobytes() + content.getvalue()


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
    if any(side.layer > 1 for side in both):
        how += " From a layer above the first, the layers below are set to their means."
    return f"What both models decode the place under the pointer to. {how}"
