"""The content of a page as a ZIP: settings, figures, the numbers behind them, and the commands that reproduce them.

README.md, view.json          what this is, how to reproduce it, every setting, seed and version
figures.html                  the figures, to open in any browser without a network
NAME.csv, NAME.png            the numbers behind each figure and table of the page, and its large pictures
A/card.json, B/card.json      the models
image.csv                     where the page is about one image: the pixels that both models were given, and beside
                              each card: posterior.csv (draw, log-densities, weight); coordinates.csv (h of each draw);
                              curve.csv (L_k, nats); summary.json; reconstructions.png
"""

import html
import io
import json
import math
import platform
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from iwae import checkpoints
from iwae.catalog import Entry
from iwae.figures.base import Line, bound_curves, png, tile
from iwae.inference import pareto
from iwae.inference.posterior import Posterior, posterior, reconstruct
from iwae.training import commands

STAMP = (2020, 1, 1, 0, 0, 0)  # of every file inside, so that the same view gives the same bytes
CURVE_POINTS = 60
SIDE = 112  # pixels of a reconstruction


class PageItem(NamedTuple):
    """A figure, a table or a picture of a page."""

    caption: str  # what it shows
    figure: go.Figure | None = None
    csv: Callable[[], str] | None = None  # its numbers
    picture: Callable[[], bytes] | None = None  # as a PNG file


class SampledImage(NamedTuple):
    """The image that a page is about, and the number and seed of its posterior samples."""

    x: Tensor  # [pixels]
    samples: int
    seed: int


def build(
    pair: Sequence[tuple[str, Entry]],
    view: Mapping[str, Any],
    shown: Mapping[str, PageItem],
    draws: SampledImage | None = None,
) -> bytes:
    """The ZIP of a page under each named model, with what is ``shown`` on it by name.

    ``view``: the page, its address and settings, stored in view.json.
    Raises CheckpointError for a model that cannot be read, ValueError for an image of another shape.
    """
    files: dict[str, str | bytes] = {f"{name}.csv": one.csv() for name, one in shown.items() if one.csv}
    files |= {f"{name}.png": one.picture() for name, one in shown.items() if one.picture}
    figures = {name: (one.figure, one.caption) for name, one in shown.items() if one.figure is not None}
    everything = dict(view) | {"models": {name: entry.key for name, entry in pair}, "versions": _versions()}
    for name, entry in pair:
        files[f"{name}/card.json"] = _json(vars(entry.card))
    if draws:
        more, curves = _of_one_image(pair, draws)
        files |= more
        figures = {"bounds on this image": (curves, "L_k in nats against k. Dotted: log p̂(x).")} | figures
        everything |= {"samples": draws.samples, "seed": draws.seed}
    if figures:
        files["figures.html"] = _html(figures)
    files["view.json"] = _json(everything)
    files["README.md"] = _readme(pair, draws)
    return _zip(files)


def _of_one_image(pair: Sequence[tuple[str, Entry]], draws: SampledImage) -> tuple[dict[str, str | bytes], go.Figure]:
    """Files of the draws for one image, and the curves of its bounds."""
    x, samples, seed = draws
    files: dict[str, str | bytes] = {"image.csv": _csv(["pixel", "value"], enumerate(x.int().tolist()))}
    lines = []
    for name, entry in pair:
        model, _ = checkpoints.load(entry.path)
        drawn = posterior(model, x, samples=samples, seed=seed)
        ks = np.unique(np.geomspace(1, samples, CURVE_POINTS).round().astype(int))
        curve = drawn.curve(ks)
        lines.append(Line(f"{name} · {entry.short}", entry.kind, ks, curve, dashed=name == "B"))
        pictures = reconstruct(model, drawn)
        row = [x, pictures.from_mean, pictures.average, pictures.weighted]
        files |= {
            f"{name}/posterior.csv": _csv(["draw", "log_px", "log_w", "weight"], _weight_rows(drawn)),
            f"{name}/coordinates.csv": _coordinates(drawn),
            f"{name}/curve.csv": _csv(["k", "L_k in nats"], zip(ks.tolist(), curve.tolist(), strict=True)),
            f"{name}/summary.json": _json(_summary(drawn)),
            f"{name}/reconstructions.png": png(np.hstack([tile(part.numpy(), SIDE) for part in row])),
        }
    return files, bound_curves(lines)


def _html(figures: Mapping[str, tuple[go.Figure, str]]) -> str:
    """One HTML page of all figures, with plotly's code once."""
    parts = ['<!doctype html><html lang="en"><meta charset="utf-8"><title>Figures of the IWAE explorer</title>']
    for number, (name, (figure, caption)) in enumerate(figures.items()):
        drawing = figure.to_html(full_html=False, include_plotlyjs=number == 0, default_height=500)
        parts.append(f"<h2>{html.escape(name)}</h2>{drawing}<p>{html.escape(caption)}</p>")
    return "\n".join(parts)


def _weight_rows(drawn: Posterior) -> list[tuple[Any, ...]]:
    columns = (drawn.log_px.tolist(), drawn.log_w.tolist(), drawn.weights.tolist())
    return list(zip(range(drawn.samples), *columns, strict=True))


def _coordinates(drawn: Posterior) -> str:
    names = [f"h{layer}_{unit}" for layer, h in enumerate(drawn.h, 1) for unit in range(h.shape[1])]
    return _csv(["draw", *names], ((i, *row.tolist()) for i, row in enumerate(torch.cat(drawn.h, 1))))


def _summary(drawn: Posterior) -> dict[str, Any]:
    return {
        "log_p_nats": drawn.log_p,
        "log_p_se_nats": drawn.log_p_se,  # null: a lower bound, whose weights may have no variance
        "pareto_k": drawn.k_hat if drawn.samples >= pareto.FEWEST_SAMPLES else None,
        "elbo_nats": drawn.elbo,
        "effective_samples": drawn.ess,
        "draws_that_carry_90_percent": drawn.carrying(0.9),
        "posterior_mean": drawn.mean.tolist(),
        "posterior_std": drawn.std.tolist(),
    }


def _readme(pair: Sequence[tuple[str, Entry]], draws: SampledImage | None) -> str:
    shell = "\n".join(commands.train(entry.config, f"{name}.safetensors") for name, entry in pair)
    text = f"""# A view of the IWAE explorer

What one page showed of two models: its figures in `figures.html`, the numbers behind each in a file of its own, the
settings in `view.json`, each model's card in `A` and `B`. Everything is in nats per image unless a column says
otherwise. The page itself again: `streamlit run app.py`, then the address in `view.json`, with these models.

The models again (the same weights on the same machine, versions and threads):

```sh
{shell}
```
"""
    return text if draws is None else text + _readme_of_one_image(draws)


def _readme_of_one_image(draws: SampledImage) -> str:
    return f"""
The page is about one image, `image.csv`: {draws.samples:,} draws from q(h|x) under each model, seed {draws.seed}. `A`
and `B` hold the draws, importance weights, bounds and pictures (reconstructions: input, from the mean of q, plain
average of the draws, average by importance weight). These numbers again:

```python
import json, numpy as np, torch
from iwae import checkpoints
from iwae.inference.posterior import posterior

x = torch.from_numpy(np.loadtxt("image.csv", delimiter=",", skiprows=1)[:, 1]).float()
for name in "AB":
    model, card = checkpoints.load(f"{{name}}.safetensors")
    drawn = posterior(model, x, samples={draws.samples}, seed={draws.seed})
    print(name, drawn.log_p, json.load(open(f"{{name}}/summary.json"))["log_p_nats"])
```
"""


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "numpy")}


def _csv(names: Sequence[str], rows: Any) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in ([*names], *rows))


def _json(values: Any) -> str:
    return json.dumps(_without_nan(values), indent=2, ensure_ascii=False, default=str) + "\n"


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return packed.getvalue()
