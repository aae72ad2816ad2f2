"""Figures of one image's log-weights, its bounds, and its exact posterior in the plane."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from iwae.figures.base import COLOURS, GREY, LAYOUT, SYMBOLS, Line

SHARES = (0.5, 0.9, 0.99)  # of the mass, that the regions of a density hold
OPACITY = (0.5, 0.35, 0.2)  # of each region, painted over those that hold more


@dataclass(frozen=True)
class BoundEstimates:
    """Values with standard errors, one for each row of a chart."""

    name: str
    kind: str  # "vae" or "iwae"
    values: Sequence[float]
    errors: Sequence[float | None]
    log_p: float  # log p̂(x)
    hollow: bool = False  # the second of one kind


def weight_histograms(draws: Sequence[Line], weights: Sequence[Line], levels: Sequence[float]) -> go.Figure:
    """Shares of the draws (filled steps) and of their importance weight (lines) against log w, in nats; a dotted line
    at the level, log p̂(x), of each model."""
    figure = go.Figure()
    for line in draws:
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            name=f"{line.name}: draws",
            line={"color": COLOURS[line.kind], "dash": "dash" if line.dashed else "solid", "shape": "hvh", "width": 1},
            fill="tozeroy",
            fillcolor=_faint(COLOURS[line.kind], 0.3),
            hovertemplate="%{y:.1%}",
        )
    for line in weights:
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            name=f"{line.name}: weight",
            line={"color": COLOURS[line.kind], "dash": "dash" if line.dashed else "solid", "width": 2.5},
            hovertemplate="%{y:.1%}",
        )
    for line, level in zip(draws, levels, strict=True):
        figure.add_vline(level, line={"color": COLOURS[line.kind], "dash": "dot", "width": 1})
    figure.update_xaxes(title="log w, nats", tickformat=".4~g")
    figure.update_yaxes(title="share", tickformat=".0%", rangemode="tozero")
    return figure.update_layout(LAYOUT)


def bounds_with_errors(names: Sequence[str], marks: Sequence[BoundEstimates]) -> go.Figure:
    """Bounds of one image, a row each, in nats ± s.e.; a dotted line at log p̂(x) of each model."""
    figure = go.Figure()
    rows = np.arange(len(names))
    for place, part in enumerate(marks):
        figure.add_scatter(
            x=list(part.values),
            y=list(rows + (0.14 if place else -0.14)),
            name=part.name,
            mode="markers",
            marker={
                "color": COLOURS[part.kind],
                "size": 9,
                "symbol": SYMBOLS[part.kind] + ("-open" if part.hollow else ""),
            },
            error_x={"array": [error or 0.0 for error in part.errors], "thickness": 1.5},
            text=list(names),
            hovertemplate="%{text}: %{x:.2f} nats",
        )
        figure.add_vline(part.log_p, line={"color": COLOURS[part.kind], "dash": "dot", "width": 1})
    figure.update_yaxes(tickvals=list(rows), ticktext=list(names), autorange="reversed", automargin=True)
    figure.update_xaxes(title="nats", tickformat=".4~g")
    return figure.update_layout(LAYOUT, hovermode="closest", showlegend=True)


@dataclass(frozen=True)
class PosteriorRegions:
    """A posterior in the plane: its grid, q, and draws resampled by weight."""

    first: np.ndarray  # [columns], the first unit
    second: np.ndarray  # [rows], the second unit
    held: np.ndarray  # [rows, columns], the mass of the smallest region that has the point on its border
    mean: np.ndarray  # [2], of q
    std: np.ndarray  # [2], of q
    radii: Sequence[float]  # of q's ellipses that hold SHARES, in standard deviations
    points: np.ndarray  # [n, 2], distinct resampled draws
    counts: np.ndarray  # [n], how often each was drawn


def posterior_plane(regions: PosteriorRegions, kind: str, window: tuple[np.ndarray, float]) -> go.Figure:
    """The exact posterior, q and the resampled draws one below the other on the same axes, in the window of this
    (centre [2], half width). Shades: the smallest regions that hold 50%, 90% and 99%; the grey line is the region
    that holds 90% of the exact posterior."""
    titles = ("exact posterior p(h|x)", "q(h|x)", "draws of q, resampled by weight (SIR)")
    figure = make_subplots(3, 1, shared_xaxes=True, vertical_spacing=0.05, subplot_titles=titles)
    steps = len(SHARES)
    depth = np.interp(regions.held, [0, *SHARES, 1], range(steps + 1, -1, -1)).astype(np.float32)  # 1 at the outermost
    grid = {"x": regions.first, "y": regions.second, "showscale": False, "hoverinfo": "skip"}
    shades = [_faint(COLOURS[kind], part) for part in (0.0, *OPACITY[::-1])]
    figure.add_contour(
        z=depth,
        **grid | {"hoverinfo": "all"},
        customdata=regions.held.astype(np.float32),
        hovertemplate="h = (%{x:.2f}, %{y:.2f}): on the border of the region that holds %{customdata:.1%}"
        "<extra></extra>",
        contours={"start": 1, "end": steps, "size": 1},
        zmin=0.5,
        zmax=steps + 0.5,
        colorscale=[[place / steps, shade] for place, shade in enumerate(shades)],
        line={"width": 0},
        row=1,
        col=1,
    )
    for radius, shade in zip(regions.radii[::-1], shades[1:], strict=True):
        around = np.linspace(0, 2 * np.pi, 91)
        figure.add_scatter(
            x=regions.mean[0] + radius * regions.std[0] * np.cos(around),
            y=regions.mean[1] + radius * regions.std[1] * np.sin(around),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=shade,
            hoverinfo="skip",
            row=2,
            col=1,
        )
    figure.add_scatter(
        x=regions.points[:, 0],
        y=regions.points[:, 1],
        mode="markers",
        marker={
            "color": COLOURS[kind],
            "opacity": 0.5,
            "size": np.clip(3 * np.sqrt(regions.counts), 3, 18),
            "line": {"width": 0},
        },
        customdata=regions.counts.tolist(),
        hovertemplate="h = (%{x:.2f}, %{y:.2f}), drawn %{customdata} times<extra></extra>",
        row=3,
        col=1,
    )
    for row in (2, 3):
        outline = {"start": 2, "end": 2, "size": 1, "coloring": "none"}
        figure.add_contour(z=depth, **grid, contours=outline, line={"color": GREY, "width": 1.5}, row=row, col=1)
    centre, half = window
    figure.update_xaxes(range=[centre[0] - half, centre[0] + half], tickformat=".3~g")
    figure.update_yaxes(range=[centre[1] - half, centre[1] + half], tickformat=".3~g", title="second unit")
    figure.update_xaxes(title="first unit", row=3, col=1)
    return figure.update_layout(LAYOUT | {"height": 960, "hovermode": "closest"}, showlegend=False)


def _faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
