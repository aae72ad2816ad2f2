"""Figures of training: the curves of many runs together, and one run at one moment."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from iwae.figures.base import COLOURS, GREY, LAYOUT, SYMBOLS

DASHES = {"iwae": "solid", "vae": "dash"}  # of the curves of runs, each of which has a colour of its own
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
HEIGHT = 280
CLASSES = (  # of a map; each class also has its own glyph. Contrast of at least 3:1 on both themes
    *("#1878B8", "#CC7A00", "#0F8A6A", "#B5559A", "#8A7A10", "#7B61C9", "#D1495B", "#0B8FA5", "#8C6D5A", "#6B7C8C"),
)
HUES = {  # of runs: those of the classes that are near to their kind's colour
    "vae": tuple(CLASSES[i] for i in (1, 6, 4, 3, 8)),
    "iwae": tuple(CLASSES[i] for i in (0, 2, 5, 7, 9)),
}


@dataclass(frozen=True)
class Curve:
    """A run's measure over its training."""

    name: str
    kind: str  # "vae" or "iwae"
    x: Sequence[float]
    y: Sequence[float]
    colour: str


def run_colours(kinds: Mapping[str, str]) -> dict[str, str]:
    """A colour for each run of these names, of the warm ones for a VAE and of the cold ones for an IWAE.

    It follows from the names, which begin with their time: a later run never changes the colour of an earlier one, and
    no two of five in a row, of one kind, share theirs.
    """
    colours: dict[str, dict[str, str]] = {kind: {} for kind in HUES}
    for name in sorted(kinds):
        hues, own = HUES[kinds[name]], colours[kinds[name]]
        lately = list(own.values())[1 - len(hues) :]
        first = zlib.crc32(name.encode())
        order = [hues[(first + step) % len(hues)] for step in range(len(hues))]
        own[name] = next(colour for colour in order if colour not in lately)
    return {name: colour for own in colours.values() for name, colour in own.items()}


def run_curves(
    curves: Sequence[Curve], x_title: str, y_title: str, form: str = ".2f", *, late: bool = False
) -> go.Figure:
    """A measure of several runs, from zero; with ``late`` the range leaves out the first steep points, which would
    flatten all that follows."""
    traces = [
        {
            "type": "scatter",
            "x": list(curve.x),
            "y": list(curve.y),
            "name": curve.name,
            "mode": "lines+markers" if len(curve.x) < 40 else "lines",
            "line": {"color": curve.colour, "dash": DASHES[curve.kind], "width": 2},
            "marker": {"symbol": SYMBOLS[curve.kind], "size": 6},
            "hovertemplate": f"%{{y:{form}}}",
        }
        for curve in curves
    ]
    axes = {
        "xaxis": {"title": x_title, "rangemode": "tozero"},
        "yaxis": {"title": y_title}
        | ({"range": _late_range([c.y for c in curves])} if late else {"rangemode": "tozero"}),
    }
    return go.Figure(traces, LAYOUT | axes | {"height": HEIGHT, "showlegend": True})


def _late_range(lines: Sequence[Sequence[float]]) -> list[float] | None:
    """A range that holds nine tenths of every long line."""
    if not any(len(line) >= 8 for line in lines):
        return None
    low = min(np.quantile(line, 0.1) if len(line) >= 8 else min(line) for line in lines if len(line))
    high = max(max(line) for line in lines if len(line))
    room = 0.08 * (high - low) or 1.0
    return [float(low - room), float(high + room)]


def activity_bars(variances: Sequence[Sequence[float]], threshold: float, kind: str) -> go.Figure:
    """Var_x(E_q[h_u|x]) of the units of every layer, largest first, on a logarithmic scale, and the threshold."""
    traces, most = [], max(len(layer) for layer in variances)
    for place, layer in enumerate(variances):
        ordered = np.sort(np.maximum(np.asarray(layer, dtype=float), 1e-8))[::-1]  # zero has no logarithm
        traces.append(
            {
                "type": "scatter",
                "x": list(range(1, len(ordered) + 1)),
                "y": ordered.tolist(),
                "name": f"layer {place + 1}",
                "mode": "markers",
                "marker": {
                    "color": COLOURS[kind],
                    "symbol": [MARKERS[place] + ("" if value > threshold else "-open") for value in ordered],
                    "size": 8,
                    "line": {"width": 1},
                },
                "hovertemplate": "%{y:.2g}",
            }
        )
    line = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": threshold, "y1": threshold}
    axes = {
        "xaxis": {"title": "unit, by variance", "range": [0, most + 1]},
        "yaxis": {"title": "variance of E<sub>q</sub>[h<sub>u</sub>|x]", "type": "log", "dtick": 1, "range": [-5, 1.5]},
    }
    shapes = [line | {"line": {"color": GREY, "dash": "dot", "width": 1.5}}]
    more = {"shapes": shapes, "hovermode": "closest", "showlegend": len(variances) > 1}
    return go.Figure(traces, LAYOUT | axes | more)


def latent_map(
    points: np.ndarray, labels: Sequence[int] | None, names: Sequence[str], titles: tuple[str, str], reach: float
) -> go.Figure:
    """Points [n, 2] in a square of half side ``reach``: each the name of its class, in its colour; dots without."""
    common = {"type": "scatter", "hovertemplate": "%{x:.2f}, %{y:.2f}"}
    if labels is None:
        marker = {"color": CLASSES[0], "size": 5, "opacity": 0.7}
        traces = [
            common | {"x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "mode": "markers", "marker": marker}
        ]
    else:
        chosen = np.asarray(labels)
        traces = [
            common
            | {
                "x": points[chosen == label, 0].tolist(),
                "y": points[chosen == label, 1].tolist(),
                "name": names[label] if names else str(label),
                "mode": "text",
                "text": [names[label][:2] if names else str(label)] * int((chosen == label).sum()),
                "textfont": {"color": CLASSES[label % len(CLASSES)], "size": 11},
            }
            for label in np.unique(chosen).tolist()
        ]
    span = [-reach, reach]
    axes = {
        "xaxis": {"title": titles[0], "range": span, "zeroline": True},
        "yaxis": {"title": titles[1], "range": span, "scaleanchor": "x"},
    }
    return go.Figure(traces, LAYOUT | axes | {"height": 420, "hovermode": "closest", "showlegend": False})
