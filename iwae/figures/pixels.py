"""Heat maps of numbers at each pixel, and bars of the classes that pictures fall into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from iwae.figures.base import COLOURS, LAYOUT

PATTERNS = ("", "/")  # of the first and the second bar of a model


@dataclass(frozen=True)
class Shares:
    """How much falls into each class, in the colour of its model's kind."""

    name: str
    kind: str  # "vae" or "iwae"
    share: np.ndarray  # [classes]
    se: np.ndarray  # [classes]
    hatched: bool = False


def pixel_maps(maps: Mapping[str, np.ndarray], top: float, title: str) -> go.Figure:
    """A number at each pixel, [h, w], of one or more named pictures side by side, on one scale from 0 to ``top``."""
    figure, width = [], 1 / len(maps)
    layout = {"height": 230, "margin": {"l": 10, "r": 10, "t": 30, "b": 10}, "annotations": []}
    layout["coloraxis"] = {"colorscale": "Cividis", "cmin": 0, "cmax": top}
    layout["coloraxis"]["colorbar"] = {"title": {"text": title, "side": "right"}, "thickness": 10, "tickformat": ".2f"}
    for place, (name, values) in enumerate(maps.items()):
        number = place + 1 if place else ""
        figure.append({
            "type": "heatmap", "z": np.asarray(values, dtype=np.float32), "coloraxis": "coloraxis",
            "xaxis": f"x{number}", "yaxis": f"y{number}", "name": name,
            "hovertemplate": f"row %{{y}}, column %{{x}}: %{{z:.3f}}<extra>{name}</extra>",
        })  # fmt: skip
        hidden = {"visible": False, "constrain": "domain"}
        layout[f"xaxis{number}"] = hidden | {"domain": [(place + 0.02) * width, (place + 0.98) * width]}
        layout[f"yaxis{number}"] = hidden | {
            "anchor": f"x{number}",
            "scaleanchor": f"x{number}",
            "autorange": "reversed",
        }
        label = {
            "text": name,
            "x": (place + 0.5) * width,
            "y": 1,
            "xref": "paper",
            "yref": "paper",
            "yanchor": "bottom",
        }
        layout["annotations"].append(label | {"showarrow": False})
    return go.Figure(figure, layout)


def class_shares(parts: Sequence[Shares], names: Sequence[str]) -> go.Figure:
    """The share of each class, ± s.e., a bar for each part. Where there are more than ten classes, those of
    less than 1% in every part are left out."""
    shown = np.flatnonzero(np.max([part.share for part in parts], axis=0) >= (0.01 if len(names) > 10 else 0))
    bars = [
        {
            "type": "bar", "name": part.name, "x": [names[code] for code in shown.tolist()], "y": part.share[shown],
            "error_y": {"array": part.se[shown], "thickness": 1.5}, "hovertemplate": "%{x}: %{y:.1%}",
            "marker": {"color": COLOURS[part.kind], "pattern": {"shape": PATTERNS[part.hatched]}},
        }
        for part in parts
    ]  # fmt: skip
    axes = {"xaxis": {"type": "category", "title": "class"}, "yaxis": {"title": "share", "tickformat": ".0%"}}
    return go.Figure(bars, LAYOUT | axes | {"hovermode": "closest", "showlegend": True})
