"""Arrays → plotly figures, in variants of the colour-blind-safe Okabe–Ito colours.

VAE is orange and IWAE blue everywhere; a second model of the same kind is dashed. A figure is made in one call: each
``update`` or ``add`` would cost 2 ms, more than all of it.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

COLOURS = {"vae": "#CC7A00", "iwae": "#1878B8"}  # as in .streamlit/config.toml: ≥ 3:1 on both backgrounds
SYMBOLS = {"vae": "square", "iwae": "circle"}
GREY = "#7D848C"  # of everything but models: likewise
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


@dataclass(frozen=True)
class Points:
    """Named points in the colour of their kind, one label each; hollow where they have no error."""

    name: str
    kind: str  # "vae" or "iwae"
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str]
    error: Sequence[float] | None = None


def without_webgl(figure: go.Figure) -> go.Figure:
    """The same figure of lines and points that an SVG file has as such; those of WebGL are a picture inside it."""
    content = figure.to_plotly_json()
    traces = [trace | {"type": trace["type"].removesuffix("gl")} for trace in content["data"]]
    return go.Figure(traces, content["layout"])


def bound_curves(lines: Sequence[Line]) -> go.Figure:
    """L_k against k (logarithmic), nats; each curve ends at log p̂(x), marked by a dotted line."""
    axes = {
        "xaxis": {"type": "log", "title": "number of samples k", "tickvals": [1, 10, 100, 1000, 5000]},
        "yaxis": {"title": "L<sub>k</sub>, nats", "tickformat": ".1f"},
    }
    ends = [_level(float(line.y[-1]), {"color": COLOURS[line.kind], "dash": "dot", "width": 1}) for line in lines]
    return go.Figure([_trace(line, "%{y:.2f} nats") for line in lines], LAYOUT | axes | {"shapes": ends})


@dataclass(frozen=True)
class SampleCloud:
    """Draws in two units of a latent space: from q, and resampled from the true posterior."""

    kind: str  # "vae" or "iwae"
    proposed: np.ndarray  # [n, 2], from q
    mean: np.ndarray  # [2], of q
    std: np.ndarray  # [2], of q
    resampled: np.ndarray  # [m, 2], each once
    times: np.ndarray  # [m], how often each was drawn


def posterior_cloud(cloud: SampleCloud, titles: tuple[str, str]) -> go.Figure:
    """q as hollow grey dots and its two-sigma ellipse; the resampled draws on top, larger the more often they came."""
    angle = np.linspace(0, 2 * np.pi, 100)
    ellipse = cloud.mean + 2 * cloud.std * np.stack([np.cos(angle), np.sin(angle)], 1)
    colour = COLOURS[cloud.kind]
    size = np.clip(4 + 2 * np.sqrt(cloud.times), 0, 30)

    def trace(name: str, points: np.ndarray, **more: Any) -> dict[str, Any]:
        x, y = points.T  # with an array plotly needs half the time and half the bytes that a list takes
        return {"type": "scatter", "name": name, "x": x, "y": y, "hovertemplate": "%{x:.2f}, %{y:.2f}"} | more

    hollow = {"color": GREY, "symbol": "circle-open", "size": 4, "opacity": 0.6}
    filled = {"color": colour, "size": size, "opacity": 0.75, "line": {"width": 0}}
    traces = [
        trace("q(h|x)", cloud.proposed, mode="markers", marker=hollow),
        trace("q at 2 σ", ellipse, mode="lines", line={"color": GREY, "dash": "dot"}, hoverinfo="skip"),
        trace(
            "true posterior, resampled",
            cloud.resampled,
            mode="markers",
            marker=filled,
            customdata=cloud.times.tolist(),
            hovertemplate="%{x:.2f}, %{y:.2f}: drawn %{customdata} times",
        ),
    ]
    axes = {"xaxis": {"title": titles[0]}, "yaxis": {"title": titles[1], "scaleanchor": "x"}}
    return go.Figure(traces, LAYOUT | axes | {"height": 400, "hovermode": "closest"})


def points_against_k(points: Sequence[Points], title: str) -> go.Figure:
    """A measure in nats per image, ± s.e. where it is known, against the number of samples k in training."""
    figure = go.Figure()
    for part in points:
        hollow = part.error is None
        figure.add_scatter(
            x=list(part.x),
            y=list(part.y),
            name=part.name,
            mode="markers",
            marker={
                "color": COLOURS[part.kind],
                "symbol": SYMBOLS[part.kind] + ("-open" if hollow else ""),
                "size": 12 if hollow else 9,
                "line": {"width": 2 if hollow else 0},
            },
            error_y=None if part.error is None else {"array": list(part.error), "thickness": 1.5},
            text=list(part.labels),
            hovertemplate="%{text}: %{y:.2f} nats, k = %{x}",
        )
    ticks = sorted({k for part in points for k in part.x})
    figure.update_xaxes(type="log", title="k, draws in training", tickvals=ticks, ticktext=[str(k) for k in ticks])
    figure.update_yaxes(title=title, tickformat=".1f")
    return figure.update_layout(
        LAYOUT, hovermode="closest", showlegend=True
    )  # plotly shows no legend for a single trace by default


def scatter_of_losses(a: np.ndarray, b: np.ndarray, titles: Sequence[str], labels: Sequence[str]) -> go.Figure:
    """A loss of each image under one model against that under another, nats, and the line where both are equal."""
    least, most = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    text = [f"image {number}, class {label}" for number, label in enumerate(labels)]
    points = go.Scattergl(
        x=a,
        y=b,
        mode="markers",
        marker={"size": 4, "color": "#7B61C9", "opacity": 0.6},
        text=text,
        hovertemplate="%{text}: %{x:.1f} and %{y:.1f} nats<extra></extra>",
    )
    equal = {"color": GREY, "dash": "dot", "width": 1.5}  # plotly's default is black, also in dark mode
    diagonal = {"type": "line", "x0": least, "y0": least, "x1": most, "y1": most, "line": equal}
    axes = {"xaxis": {"title": titles[0]}, "yaxis": {"title": titles[1]}, "shapes": [diagonal]}
    return go.Figure([points], LAYOUT | axes | {"hovermode": "closest", "showlegend": False})


def training_curve(name: str, kind: str, epochs: Sequence[float], bound: Sequence[float], valid: Line) -> go.Figure:
    """The bound on training and validation images against epochs, nats per image."""
    # not axis titles: in a collapsed sidebar plotly cannot place those, and says so in the browser's console
    note = {"xref": "paper", "yref": "paper", "showarrow": False}
    layout = {
        "annotations": [
            note | {"text": "epochs", "x": 0.5, "y": -0.3},
            note | {"text": "bound, nats per image", "x": 0, "y": 1.2, "xanchor": "left"},
        ],
        "yaxis": {"tickformat": ".0f", "range": _late_range(bound)},
        "legend": {"x": 1, "y": 0, "xanchor": "right", "yanchor": "bottom"},
        "margin": LAYOUT["margin"] | {"b": 45},
        "height": 240,
        "hovermode": "closest",
    }
    return go.Figure([_trace(line, "%{y:.2f} nats") for line in (Line(name, kind, epochs, bound), valid)], layout)


def _trace(line: Line, hover: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": list(line.x),
        "y": list(line.y),
        "name": line.name,
        "mode": "lines+markers" if len(line.x) < 3 else "lines",
        "line": {"color": COLOURS[line.kind], "dash": "dash" if line.dashed else "solid"},
        "hovertemplate": hover,
    }


def _level(y: float, line: dict[str, Any]) -> dict[str, Any]:
    """A horizontal line across the whole figure."""
    return {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": y, "y1": y, "line": line}


def _late_range(bound: Sequence[float]) -> list[float] | None:
    """A range that leaves out the first steep points, which would flatten the rest of the curve."""
    if len(bound) < 8:
        return None
    low, high = np.quantile(bound, 0.1), max(bound)
    return [low - 0.1 * (high - low), high + 0.15 * (high - low)]


def tile(image: np.ndarray, side: int = 112) -> np.ndarray:
    """A picture in [0, 1], [h, w] or [h, w, 3], as a square of uint8 pixels of about ``side``; it is filled up in the
    colour of its corners, and enlarged, if small, by a whole factor without smoothing."""
    values = np.asarray(image, dtype=np.float32)
    height, width = values.shape[:2]
    largest = max(height, width)
    if height != width:
        square = np.empty((largest, largest, *values.shape[2:]), dtype=np.float32)
        square[:] = np.median(values[:: max(height - 1, 1), :: max(width - 1, 1)], axis=(0, 1))
        top, left = (largest - height) // 2, (largest - width) // 2
        square[top : top + height, left : left + width] = values
        values = square
    zoom = max(1, side // largest)
    return (255 * values.clip(0, 1)).round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)


def image_grid(images: np.ndarray, columns: int, gap: int = 2, zoom: int = 2) -> np.ndarray:
    """Pictures in [0, 1], [n, h, w], row by row in one: uint8, each pixel ``zoom`` wide, ``gap`` pixels of grey between
    the pictures. What the last row lacks is grey too."""
    values = np.asarray(images, dtype=np.float32)
    count, height, width = values.shape
    rows, down, across = -(-count // columns), height + gap, width + gap
    cells = np.full((rows * columns, down, across), 0.5, dtype=np.float32)
    cells[:count, :height, :width] = values.clip(0, 1)
    whole = cells.reshape(rows, columns, down, across).swapaxes(1, 2).reshape(rows * down, -1)
    pixels = (255 * whole[: len(whole) - gap, : whole.shape[1] - gap]).round().astype(np.uint8)
    return pixels.repeat(zoom, 0).repeat(zoom, 1)


def data_uri(pixels: np.ndarray, width: int) -> str:
    """A data URI (RFC 2397) with a PNG of these uint8 pixels, averaged down to ``width`` if wider.

    The picture is part of the page, so dozens of small pictures need no requests of their own.
    """
    picture = Image.fromarray(pixels)
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.BOX)
    return f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}"


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of these uint8 pixels."""
    return _png(Image.fromarray(pixels))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
