"""Maps of a latent space as plotly figures: arrays in, figures out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from iwae.figures.base import COLOURS, GREY

# Ten colours that readers with any colour vision tell apart, each visible on both backgrounds (Petroff 2021,
# arXiv:2107.02270); digit d has the d-th everywhere.
DIGITS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up")  # of the second ten classes and so on
MARGIN = {"l": 10, "r": 10, "t": 10, "b": 10}
INK, PAPER = "#1F2328", "rgba(255,255,255,0.8)"  # of labels that lie on the points


@dataclass(frozen=True)
class Classes:
    """A colour for each class of the points."""

    codes: np.ndarray  # [n] of int; −1: of no class
    names: Sequence[str]  # by code
    title: str = ""  # of a legend above the map; without it there is none


@dataclass(frozen=True)
class Values:
    """A colour scale for a number at each point."""

    values: np.ndarray  # [n]; NaN: none
    title: str
    limits: tuple[float, float]  # shared by the maps that are to be compared


@dataclass(frozen=True)
class PosteriorOverlay:
    """A posterior on the map: the curve that holds most of it, or draws from it."""

    points: np.ndarray  # [·, 2]
    curve: bool
    name: str


@dataclass(frozen=True)
class MapAxes:
    """What maps that are to be compared share."""

    x: tuple[float, float]
    y: tuple[float, float]
    titles: tuple[str, str]


def latent_map(
    places: np.ndarray,
    images: np.ndarray,
    axes: MapAxes,
    *,
    kind: str,
    colour: Classes | Values | None = None,
    selected: np.ndarray | None = None,
    shown: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
    cloud: PosteriorOverlay | None = None,
    truth: PosteriorOverlay | None = None,
) -> go.Figure:
    """Images at ``places`` [n, 2]. Each point carries the number of its image, [n], as ``customdata``.

    kind       "vae" or "iwae", whose colour the points without another, the chosen image and its posterior have
    selected   [n] of bool: the others are dimmed; None: none is
    shown      [n] of bool: the others are left out, the axes stay; None: all are there
    chosen     where the digit in hand lies, [2]
    truth      draws from the true posterior, beside those of q
    """
    shown = np.ones(len(places), dtype=bool) if shown is None else shown
    groups = _groups(np.flatnonzero(shown), len(places), colour, kind)
    traces = [_points(places, images, members, look, selected) for members, look in groups]
    line = {"color": COLOURS[kind], "width": 3}
    if cloud is not None:
        look = {"mode": "lines", "line": line} if cloud.curve else {"mode": "markers", "marker": _draws(kind)}
        traces.append(_scatter(cloud.points, name=cloud.name, hoverinfo="name", **look))
    if truth is not None:
        mark = {"symbol": "x", "size": 8, "color": INK, "line": {"width": 1, "color": PAPER}}
        traces.append(_scatter(truth.points, mode="markers", marker=mark, hoverinfo="name", name=truth.name))
    if chosen is not None:
        ring = {"symbol": "circle-open", "size": 15, "color": INK, "line": {"width": 6, "color": PAPER}}
        traces.append(_scatter(chosen[None], mode="markers", marker=ring, hoverinfo="skip"))
        cross = {"symbol": "circle-cross-open", "size": 15, "color": COLOURS[kind], "line": {"width": 3}}
        traces.append(_scatter(chosen[None], mode="markers", marker=cross, hoverinfo="name", name="the digit in hand"))
    layout = _layout(axes)
    if isinstance(colour, Classes):
        if not colour.title:
            layout["annotations"] = _labels(places, colour, shown)
        else:
            legend = {"title": {"text": colour.title}, "orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0}
            legend |= {"itemsizing": "constant", "itemclick": False, "itemdoubleclick": False, "maxheight": 75}
            layout |= {"showlegend": True, "legend": legend, "margin": MARGIN | {"t": 40}}
            traces = [trace | {"showlegend": "legendgroup" in trace} for trace in traces]
    return go.Figure(traces, layout)


def aggregated(
    posterior: np.ndarray,
    axes: MapAxes,
    *,
    kind: str,
    prior: np.ndarray | None = None,
    circles: Sequence[np.ndarray] = (),
) -> go.Figure:
    """Draws from the aggregated posterior [n, 2] with the prior: as draws [m, 2], or, where it is a Gaussian, as the
    curves [·, 2] that hold parts of it."""
    traces = [
        {"type": "scattergl", "name": name, **_xy(cloud), "mode": "markers", "marker": marker, "hoverinfo": "name"}
        for name, cloud, marker in (
            ("prior p(h₁)", prior, {"color": GREY, "symbol": "x", "size": 4}),
            ("aggregated posterior", posterior, _draws(kind) | {"size": 3, "opacity": 0.6}),
        )
        if cloud is not None
    ]
    for number, circle in enumerate(circles):
        line = {"color": GREY, "width": 2, "dash": "dash" if number else "solid"}
        traces.append(_scatter(circle, mode="lines", line=line, name="prior p(h₁)", showlegend=not number))
    legend = {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0}
    return go.Figure(traces, _layout(axes) | {"showlegend": True, "legend": legend, "margin": MARGIN | {"t": 40}})


def _groups(
    shown: np.ndarray, count: int, colour: Classes | Values | None, kind: str
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """(indices of the points, how they look) of each trace, of those ``shown`` of ``count``."""
    size = 6 if count <= 500 else 4 if count <= 3000 else 3
    if isinstance(colour, Classes):
        looks = []
        for code, name in enumerate(colour.names):
            marker = {"size": size, "color": DIGITS[code % 10], "symbol": SYMBOLS[code // 10 % len(SYMBOLS)]}
            hover = f"image %{{customdata}}<br>{name}<extra></extra>"
            members = shown[colour.codes[shown] == code]
            looks.append((members, {"marker": marker, "name": name, "legendgroup": name, "hovertemplate": hover}))
        looks.insert(0, (shown[colour.codes[shown] < 0], _without_a_value(size)))
        return [look for look in looks if len(look[0])]
    marker, hover = {"size": size, "color": COLOURS[kind]}, "image %{customdata}<extra></extra>"
    looks = []
    if colour is not None:
        known = np.isfinite(colour.values[shown])
        looks = [(shown[~known], _without_a_value(size))] if not known.all() else []
        shown = shown[known]
        low, high = colour.limits
        bar = {"title": {"text": colour.title, "side": "top"}, "thickness": 8, "outlinewidth": 0}
        bar |= {"orientation": "h", "y": 1, "yanchor": "bottom", "len": 0.9}  # above: beside it would narrow the map
        marker |= {"color": colour.values[shown], "colorscale": "Cividis", "cmin": low, "cmax": high, "colorbar": bar}
        hover = f"image %{{customdata}}<br>{colour.title} %{{marker.color:.2f}}<extra></extra>"
    return [*looks, (shown, {"marker": marker, "hovertemplate": hover})]


def _without_a_value(size: int) -> dict[str, Any]:
    """How points look that have no class or number; they lie below the others."""
    hover = "image %{customdata}<br>no value<extra></extra>"
    return {"marker": {"size": size, "color": GREY, "opacity": 0.5}, "name": "no value", "legendgroup": "no value",
            "hovertemplate": hover}  # fmt: skip


def _points(places, images, members, look, selected) -> dict[str, Any]:
    trace = {"type": "scattergl", "mode": "markers", **_xy(places[members]), **look}
    trace["customdata"] = images[members].tolist()  # plain numbers: Streamlit does not return an array as one
    if selected is not None:
        trace["selectedpoints"] = np.flatnonzero(selected[members]).tolist()
    faint = {"marker": {"opacity": 0.12}}
    return trace | {"selected": {"marker": {"opacity": 1}}, "unselected": faint}


def _labels(places: np.ndarray, colour: Classes, shown: np.ndarray) -> list[dict[str, Any]]:
    """The name of each class at the median of its points: which distinguishes classes without colour."""
    if len(colour.names) > 10:
        return []
    notes = []
    for code, name in enumerate(colour.names):
        members = places[(colour.codes == code) & shown]
        if len(members):
            x, y = np.median(members, 0)
            look = {"font": {"color": INK, "size": 13}, "bgcolor": PAPER, "bordercolor": DIGITS[code], "borderpad": 1}
            notes.append({"x": x, "y": y, "text": f"<b>{name}</b>", "showarrow": False} | look)
    return notes


def _draws(kind: str) -> dict[str, Any]:
    return {"color": COLOURS[kind], "size": 4, "symbol": "circle"}


def _xy(points: np.ndarray) -> dict[str, np.ndarray]:
    points = points.astype(np.float32)  # half the bytes to send
    return {"x": points[:, 0], "y": points[:, 1]}


def _scatter(points: np.ndarray, **look: Any) -> dict[str, Any]:
    return {"type": "scattergl", **_xy(points), **look}  # an SVG trace would lie below the points


def _layout(axes: MapAxes) -> dict[str, Any]:
    x, y = (
        {"range": list(limits), "title": title, "zeroline": False}
        for limits, title in zip((axes.x, axes.y), axes.titles, strict=True)
    )
    return {
        "xaxis": x | {"constrain": "domain"},
        "yaxis": y | {"scaleanchor": "x", "constrain": "domain"},  # circles stay round
        "margin": MARGIN,
        "height": 400,
        "showlegend": False,
        "hovermode": "closest",
    }
