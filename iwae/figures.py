"""Arrays → plotly figures, in variants of the colour-blind-safe Okabe–Ito colours.

VAE is orange and IWAE blue everywhere; a second model of the same kind is dashed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

COLOURS = {"vae": "#CC7A00", "iwae": "#1878B8"}  # as in .streamlit/config.toml: ≥ 3:1 on both backgrounds
LAYOUT = {
    "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
    "height": 340,
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "hovermode": "x unified",
}


@dataclass(frozen=True)
class Line:
    """A named curve in the colour of its kind."""

    name: str
    kind: str  # "vae" or "iwae"
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    dashed: bool = False


def bound_curves(lines: Sequence[Line]) -> go.Figure:
    """L_k against k (logarithmic), nats; each curve ends at log p̂(x), marked by a dotted line."""
    figure = go.Figure()
    for line in lines:
        _add(figure, line, "%{y:.2f} nats")
        figure.add_hline(y=float(line.y[-1]), line={"color": COLOURS[line.kind], "dash": "dot", "width": 1})
    figure.update_xaxes(type="log", title="number of samples k", tickvals=[1, 10, 100, 1000, 5000])
    figure.update_yaxes(title="L<sub>k</sub>, nats", tickformat=".1f")
    return figure.update_layout(LAYOUT)


def training_curve(name: str, kind: str, passes: Sequence[float], bound: Sequence[float], valid: Line) -> go.Figure:
    """The bound on training and validation images against passes over the data, nats per image."""
    figure = go.Figure()
    _add(figure, Line(name, kind, passes, bound), "%{y:.2f} nats")
    _add(figure, valid, "%{y:.2f} nats")
    figure.update_yaxes(tickformat=".0f", range=_sensible(bound))
    # not axis titles: in a collapsed sidebar plotly cannot place those, and says so in the browser's console
    note = {"xref": "paper", "yref": "paper", "showarrow": False}
    figure.add_annotation(note, text="passes over the data", x=0.5, y=-0.3)
    figure.add_annotation(note, text="bound, nats per image", x=0, y=1.2, xanchor="left")
    legend = {"x": 1, "y": 0, "xanchor": "right", "yanchor": "bottom"}
    margin = LAYOUT["margin"] | {"b": 45}
    return figure.update_layout(height=240, margin=margin, legend=legend, hovermode="closest")


def _add(figure: go.Figure, line: Line, hover: str) -> None:
    dash = "dash" if line.dashed else "solid"
    figure.add_scatter(
        x=list(line.x),
        y=list(line.y),
        name=line.name,
        mode="lines+markers" if len(line.x) < 3 else "lines",
        line={"color": COLOURS[line.kind], "dash": dash},
        hovertemplate=hover,
    )


def _sensible(bound: Sequence[float]) -> list[float] | None:
    """A range without the first steep points, which would flatten all that follows."""
    if len(bound) < 8:
        return None
    low, high = np.quantile(bound, 0.1), max(bound)
    return [low - 0.1 * (high - low), high + 0.15 * (high - low)]


def tile(image: np.ndarray, side: int = 112) -> np.ndarray:
    """A picture in [0, 1], [h, w], [h, w, 3] or 784 values, as a square of uint8 pixels of about ``side``; it is
    filled up in the colour of its corners, and enlarged, if small, by a whole factor without smoothing."""
    values = np.asarray(image, dtype=np.float32)
    values = values.reshape(28, 28) if values.size == 784 else values
    height, width = values.shape[:2]
    largest = max(height, width)
    square = np.empty((largest, largest, *values.shape[2:]), dtype=np.float32)
    square[:] = np.median(values[:: max(height - 1, 1), :: max(width - 1, 1)], axis=(0, 1))
    top, left = (largest - height) // 2, (largest - width) // 2
    square[top : top + height, left : left + width] = values
    zoom = max(1, side // largest)
    return (255 * square.clip(0, 1)).round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
