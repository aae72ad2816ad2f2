"""Figures of latent units: the information each carries, and how their number depends on the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from iwae.figures.base import COLOURS, GREY, LAYOUT, SYMBOLS

FLOOR = 1e-6  # of a logarithmic axis: what is smaller, or negative by noise, is drawn here


@dataclass(frozen=True)
class Band:
    """Number of active units when only ``images`` images are measured: over random sets of that size."""

    images: int
    mean: float
    low: float  # 2.5 % of the sets lie below
    high: float  # 2.5 % above


@dataclass(frozen=True)
class Units:
    """A measure of every unit of one layer, in the colour of its model's kind."""

    name: str
    kind: str  # "vae" or "iwae"
    values: np.ndarray  # [latent]
    labels: Sequence[str]  # of each unit
    dashed: bool = False


def sorted_units(models: Sequence[Units], title: str, threshold: float | None = None, what: str = "unit") -> go.Figure:
    """The units of each model, or directions if ``what`` says so, greatest first, on a logarithmic axis, and a line at
    the threshold."""
    figure = go.Figure()
    for part in models:
        order = np.argsort(-part.values)
        figure.add_scatter(
            x=list(range(1, len(order) + 1)),
            y=np.maximum(part.values[order], FLOOR).tolist(),
            name=part.name,
            mode="lines+markers",
            line={"color": COLOURS[part.kind], "dash": "dash" if part.dashed else "solid"},
            marker={"symbol": SYMBOLS[part.kind], "size": 6},
            text=[part.labels[unit] for unit in order],
            hovertemplate="%{text}: %{y:.3g}",
        )
    if threshold is not None:
        line = {"color": GREY, "dash": "dot", "width": 1.5}
        figure.add_hline(threshold, line=line)
        place = {"x": 1, "xref": "x domain", "xanchor": "right", "y": np.log10(threshold), "yanchor": "bottom"}
        figure.add_annotation(place, text=f"threshold {threshold:g}", showarrow=False)  # on a log axis: log10
    figure.update_xaxes(title=f"{what}s, greatest first")
    figure.update_yaxes(type="log", title=title, exponentformat="power", dtick=1)
    return figure.update_layout(LAYOUT, hovermode="closest", showlegend=True)


def counts_against_images(models: Sequence[tuple[Units, Sequence[Band]]]) -> go.Figure:
    """The number of active units against the number of images behind it, with the band of 95 % of the image sets."""
    figure = go.Figure()
    for part, bands in models:
        x = [band.images for band in bands]
        high, low = [band.high for band in bands], [band.low for band in bands]
        colour = COLOURS[part.kind]
        figure.add_scatter(
            x=x + x[::-1],
            y=high + low[::-1],
            fill="toself",
            mode="lines",
            line={"width": 0, "color": colour},
            opacity=0.3,
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=[band.mean for band in bands],
            name=part.name,
            mode="lines+markers",
            line={"color": colour, "dash": "dash" if part.dashed else "solid"},
            marker={"symbol": SYMBOLS[part.kind], "size": 7},
            hovertemplate="%{y:.1f} units",
        )
    figure.update_xaxes(
        type="log", title="images measured", tickvals=sorted({b.images for _, bs in models for b in bs})
    )
    figure.update_yaxes(title="active units")
    return figure.update_layout(LAYOUT, showlegend=True)
